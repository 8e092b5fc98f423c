"""The records that a server's pages show: read when they are first needed, and again when a folder has changed."""

import contextlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ocr_flops.evidence.records.frame import build_frame
from ocr_flops.evidence.records.store import Problem, read_records, records_folder, shipped_folder

_Seen = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """All records as they were at one moment; two are equal where they are the same object, so that what they say can be cached.

    Args:
        stages, modules: of `records_frame` at either level.
        problems: files that could not be read.
    """

    stages: pl.DataFrame
    modules: pl.DataFrame
    problems: tuple[Problem, ...]


class RecordCache:
    """Records of the user's folder (looked up at every call where None) and of the package; every method may be called from any thread."""

    def __init__(self, where: Path | None = None, shipped: Path | None = None):
        self._where, self._shipped = where, shipped
        self._lock = threading.Lock()
        self._seen: _Seen | None = None
        self._snapshot: Snapshot | None = None

    def snapshot(self) -> Snapshot:
        """Return all records. Folders whose files' names, sizes and times are as before are not read again."""
        where, shipped = self._where or records_folder(), self._shipped or shipped_folder()
        with self._lock:
            seen = (*_list_files(shipped), *_list_files(where))
            if self._snapshot is None or seen != self._seen:
                found, problems = read_records(where, shipped)
                self._snapshot = Snapshot(build_frame(found, "stage"), build_frame(found, "module"), tuple(problems))
                self._seen = seen
            return self._snapshot


def _list_files(place: Path) -> _Seen:
    """Name, size and time of every file; nothing of a folder that cannot be read, of which `read_records` tells."""
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        found = [(entry.path, entry.stat(follow_symlinks=False)) for entry in entries]
        return tuple(sorted((path, stat.st_size, stat.st_mtime_ns) for path, stat in found))
    return ((str(place), -1, -1),)


RECORDS = RecordCache()  # of this server
