"""Where records lie, and how they get there whole: one file each under a name of its own, so that writers need not know of each other."""

import contextlib
import json
import os
import secrets
import stat
import tempfile
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from ocr_flops.errors import SpecError
from ocr_flops.evidence.records.schema import SCHEMA, Record
from ocr_flops.files import user_data_dir, write_whole

VARIABLE = "OCR_FLOPS_RECORDS"
OPTION = "--records"
RESTORE = "restore it from a copy, or move it away"
SOURCES = USER, SHIPPED = ("user", "shipped")
Kind = TypeVar("Kind")
PACKAGE = Path(__file__).resolve().parents[2]


class Stored(NamedTuple):
    """A record that was read: "user" or "shipped", its file, and what it says."""

    source: str
    path: Path
    record: Record


class Problem(NamedTuple):
    """A file that is no record that can be read: its path, why, and what to do. It stays where it is."""

    path: Path
    reason: str


class Unwritten(SpecError):
    """A record that could not be written where it belongs; the message says why, and where it is instead.

    Attributes:
        rescued: the file it was written to instead; None where there was no room anywhere.
    """

    def __init__(self, message: str, record: dict[str, Any], rescued: Path | None):
        super().__init__(message)
        self.record, self.rescued = record, rescued


class _Version(msgspec.Struct):
    schema: int


_VERSION, _RECORD = msgspec.json.Decoder(_Version), msgspec.json.Decoder(Record)  # made before there are threads: see program_file


def records_folder(given: str | os.PathLike[str] | None = None) -> Path:
    """Return the user's folder of records: the one given, else that of OCR_FLOPS_RECORDS, else `records` in the user's data."""
    if named := given or os.environ.get(VARIABLE):
        return Path(named).expanduser().absolute()
    return user_data_dir() / "records"


def shipped_folder() -> Path:
    """Return the folder of the records that come with the package, which are only read; it need not be there."""
    return Path(__file__).resolve().parent / "shipped"


def check_not_installed(path: Path, option: str) -> None:
    """Raises SpecError where a path, given as this option, is in an installed package, whose next update would delete what is written."""
    if path.resolve().is_relative_to(PACKAGE) and not (PACKAGE.parent / "pyproject.toml").is_file():
        raise SpecError(f"{option}: {path} is in an installed package, which keeps nothing; work in a checkout of ocr-flops")


def check_folder(where: Path) -> Path:
    """Make sure that records can be written to a folder, before anything is measured; returns it.

    Raises:
        SpecError: they cannot; the message says why and what to do.
    """
    check_not_installed(where, OPTION)
    if where.exists() and not where.is_dir():
        raise SpecError(f"{OPTION}: {str(where)!r} is not a folder; name one, or move that file away")
    trial = where / f".{os.getpid()}.{secrets.token_hex(4)}.trial"
    try:
        write_whole(trial, "records go here\n", OPTION)
    finally:
        with contextlib.suppress(OSError):  # the message is about writing
            trial.unlink(missing_ok=True)
    return where


def write_record(record: dict[str, Any], where: Path | None = None) -> Path:
    """Write a record under its id; an older file is never touched.

    Args:
        record: of `make_record`.
        where: the folder, made where it is missing; `records_folder()` where None.

    Returns:
        its path.

    Raises:
        Unwritten: it could not be written there; it may have been rescued into the folder for temporary files.
        SpecError: a record of that id is there already.
    """
    where = records_folder() if where is None else where
    check_not_installed(where, OPTION)
    try:
        return _write(record, where)
    except SpecError as problem:
        if (where / f"{record['record_id']}.json").exists():
            raise
        rescue, why = Path(tempfile.gettempdir()) / "ocr_flops_records", str(problem)
    try:
        rescued = _write(record, rescue)
    except SpecError:
        raise Unwritten(f"{why}. The record could not be kept anywhere; take it from what is printed", record, None) from None
    raise Unwritten(f"{why}. The record is in {rescued}: move it into {where} when there is room", record, rescued)


def _write(record: dict[str, Any], where: Path) -> Path:
    path = where / f"{record['record_id']}.json"
    if path.exists():
        raise SpecError(f"{OPTION}: {path} is there already; records are never changed")
    return write_whole(path, json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n", OPTION)


def read_json(path: Path, decoder: msgspec.json.Decoder[Kind]) -> Kind:
    """Read a record of a decoder's kind; a SpecError says why it cannot be read (damaged, or of a newer schema), and what to do."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # to open a pipe would wait for a writer
            raise SpecError("cannot be read (not a file); move it away")
        content = path.read_bytes()
    except OSError as problem:
        raise SpecError(_unreadable(problem)) from None
    try:
        version = _VERSION.decode(content).schema
    except msgspec.ValidationError:
        raise SpecError("damaged: no record, it has no schema; move it away") from None
    except (msgspec.DecodeError, RecursionError) as problem:
        raise SpecError(f"damaged: not JSON ({problem}); {RESTORE}") from None
    if version > SCHEMA:
        raise SpecError(f"schema {version} is newer than this version reads (up to {SCHEMA}); update ocr-flops")
    try:
        return decoder.decode(content)
    except (ValueError, RecursionError) as problem:
        raise SpecError(f"damaged: {problem}; {RESTORE}") from None


def read_records(where: Path | None = None, shipped: Path | None = None) -> tuple[list[Stored], list[Problem]]:
    """Read all records, those of the package first, each folder's by time, with which their names begin.

    Returns those that can be read, and the files that cannot. Folders are by default `records_folder()`, which need not be there, and
    `shipped_folder()`.
    """
    found, problems = [], []
    for source, place in ((SHIPPED, shipped or shipped_folder()), (USER, records_folder() if where is None else where)):
        try:
            paths = sorted(path for path in place.iterdir() if path.suffix == ".json" and not path.name.startswith("."))
        except FileNotFoundError:
            continue
        except OSError as problem:
            problems.append(Problem(place, _unreadable(problem)))
            continue
        for path in paths:
            try:
                found.append(Stored(source, path, read_json(path, _RECORD)))
            except SpecError as problem:
                problems.append(Problem(path, str(problem)))
    return found, problems


def _unreadable(problem: OSError) -> str:
    return f"cannot be read ({problem.strerror}); look at what it is, and at its permissions"
