"""The records that a server's pages show: read when they are first asked for, and again when a folder has changed."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ocr_flops.evidence.records.store import Problem, folder, shipped_folder

if TYPE_CHECKING:
    import polars as pl

Seen = tuple[tuple[str, int, int], ...]


class Shelf(NamedTuple):
    """All records as they were at one moment.

    Args:
        number: how often folders had changed until then.
        stages, modules: of `records.frame` at either level.
        problems: files that could not be read.
    """

    number: int
    stages: pl.DataFrame
    modules: pl.DataFrame
    problems: tuple[Problem, ...]


class Library:
    """Records of a folder and of the package; every method may be called from any thread.

    Args:
        where: the user's folder; `records.folder()` where None, looked up at every call.
        shipped: the package's; `records.shipped_folder()` where None.
    """

    def __init__(self, where: Path | None = None, shipped: Path | None = None):
        self._where, self._shipped = where, shipped
        self._lock = threading.Lock()
        self._seen: Seen | None = None
        self._shelf: Shelf | None = None

    def shelf(self) -> Shelf:
        """All records. Folders whose files' names, sizes and times are as before are not read again."""
        from ocr_flops.evidence.records.frame import frame

        where, shipped = self._where or folder(), self._shipped or shipped_folder()
        with self._lock:
            seen = (*_files(shipped), *_files(where))
            if self._shelf is None or seen != self._seen:
                stages, problems = frame(where, shipped=shipped)
                number = 1 + (self._shelf.number if self._shelf else 0)
                self._shelf = Shelf(number, stages, frame(where, level="module", shipped=shipped)[0], tuple(problems))
                self._seen = seen
            return self._shelf


def _files(place: Path) -> Seen:
    """Name, size and time of every file; nothing of a folder that cannot be read, which `frame` tells of."""
    try:
        with os.scandir(place) as entries:
            return tuple(sorted((entry.path, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in entries))
    except OSError:
        return ((str(place), -1, -1),)


LIBRARY = Library()  # of this server
