"""Where records lie, and how they get there whole: one file each under a name of its own, so that writers need not know of each other."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ocr_flops.errors import SpecError
from ocr_flops.evidence.records.record import DONE, FAILED, SCHEMA, Record
from ocr_flops.files import user_data_dir, write_whole

VARIABLE = "OCR_FLOPS_RECORDS"
OPTION = "--records"
RESTORE = "restore it from a copy, or move it away"
SOURCES = USER, SHIPPED = ("user", "shipped")
FIELDS = {  # that every record has, with their kinds
    "record_id": str,
    "state": str,
    "finished": str,
    "host": str,
    "asked": dict,
    "model": dict,
    "workload": dict,
    "stages": dict,
    "derived": dict,
}


class Problem(NamedTuple):
    """A file that is no record that can be read: its path, why, and what to do. It stays where it is."""

    path: Path
    reason: str


class Unwritten(SpecError):
    """A record that could not be written where it belongs; the message says why, and where it is instead.

    Attributes:
        record: the record.
        rescued: the file it was written to instead; None where there was no room anywhere.
    """

    def __init__(self, message: str, record: Record, rescued: Path | None):
        super().__init__(message)
        self.record, self.rescued = record, rescued


def folder(given: str | os.PathLike[str] | None = None) -> Path:
    """The user's records: the folder given, else that of OCR_FLOPS_RECORDS, else `records` in the folder of the user's data."""
    if named := given or os.environ.get(VARIABLE):
        return Path(named).expanduser().absolute()
    return user_data_dir() / "records"


def shipped_folder() -> Path:
    """The records that come with the package, which are only read; the folder need not be there."""
    return Path(__file__).resolve().parent / "shipped"


def check(where: Path) -> Path:
    """Makes sure that records can be written to a folder, before anything is measured.

    Raises:
        SpecError: they cannot; the message says why and what to do.
    """
    if where.exists() and not where.is_dir():
        raise SpecError(f"{OPTION}: {str(where)!r} is not a folder; name one, or move that file away")
    trial = where / f".{os.getpid()}.{secrets.token_hex(4)}.trial"
    try:
        write_whole(trial, "records go here\n", OPTION)
    finally:
        with contextlib.suppress(OSError):  # the message is about writing
            trial.unlink(missing_ok=True)
    return where


def write(record: Record, where: Path | None = None) -> Path:
    """Writes a record under its id; an older file is never touched.

    Args:
        record: from `make`.
        where: the folder, made where it is missing; `folder()` where None.

    Returns:
        its path.

    Raises:
        Unwritten: it could not be written there; it may have been rescued into the folder for temporary files.
        SpecError: a record of that id is there already.
    """
    where = folder() if where is None else where
    try:
        return _written(record, where)
    except SpecError as problem:
        if (where / f"{record['record_id']}.json").exists():
            raise
        rescue, why = Path(tempfile.gettempdir()) / "ocr_flops_records", str(problem)
    try:
        rescued = _written(record, rescue)
    except SpecError:
        raise Unwritten(f"{why}. The record could not be kept anywhere; take it from what is printed", record, None) from None
    raise Unwritten(f"{why}. The record is in {rescued}: move it into {where} when there is room", record, rescued)


def _written(record: Record, where: Path) -> Path:
    path = where / f"{record['record_id']}.json"
    if path.exists():
        raise SpecError(f"{OPTION}: {path} is there already; records are never changed")
    return write_whole(path, json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n", OPTION)


def read(path: Path) -> Record:
    """Reads a record.

    Raises:
        SpecError: it is damaged, or of a newer schema; the message says what to do.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise SpecError(_unreadable(problem)) from None
    except (ValueError, RecursionError) as problem:
        raise SpecError(f"damaged: not JSON ({problem}); {RESTORE}") from None
    if not isinstance(record, dict) or type(schema := record.get("schema")) is not int:
        raise SpecError("damaged: no record, it has no schema; move it away")
    if schema > SCHEMA:
        raise SpecError(f"schema {schema} is newer than this version reads (up to {SCHEMA}); update ocr-flops")
    for name, kind in FIELDS.items():
        if not isinstance(record.get(name), kind):
            raise SpecError(f"damaged: {name} is missing or not {kind.__name__}; {RESTORE}")
    if record["state"] not in (DONE, FAILED):
        raise SpecError(f"damaged: state {record['state']!r} is not one of {DONE}, {FAILED}; {RESTORE}")
    return record


def read_all(where: Path | None = None, shipped: Path | None = None) -> tuple[list[tuple[str, Path, Record]], list[Problem]]:
    """All records, those of the package first, each folder's by time.

    Args:
        where: the user's folder; `folder()` where None. It need not be there.
        shipped: the package's; `shipped_folder()` where None.

    Returns:
        (source, path, record) of those that can be read, source one of `SOURCES`, and the files that cannot.
    """
    found, problems = [], []
    for source, place in ((SHIPPED, shipped or shipped_folder()), (USER, folder() if where is None else where)):
        try:
            paths = list(_files(place))
        except OSError as problem:
            problems.append(Problem(place, _unreadable(problem)))
            continue
        for path in paths:
            try:
                found.append((source, path, read(path)))
            except SpecError as problem:
                problems.append(Problem(path, str(problem)))
    return found, problems


def _files(place: Path) -> Iterator[Path]:
    """The records of a folder, by name, which begins with the time; none where there is no such folder."""
    with contextlib.suppress(FileNotFoundError):
        yield from sorted(path for path in place.iterdir() if path.suffix == ".json" and not path.name.startswith("."))


def _unreadable(problem: OSError) -> str:
    return f"cannot be read ({problem.strerror}); look at what it is, and at its permissions"
