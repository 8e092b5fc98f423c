"""The folder of a run: built beside its place under a hidden name, and renamed when it is whole.

`.NAME.partial` holds a run in progress and survives its death; `.NAME.old` a finished folder while another takes its place.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ocr_flops.errors import SpecError
from ocr_flops.files import ADVICE, write_whole
from ocr_flops.studies.sweeps import manifest

RUN = "run.json"
PARTS, REAL_MODEL = "stages", "real_model"  # folders of what is kept when a run is interrupted


def partial_of(out: Path) -> Path:
    """Where the run of a folder is built."""
    return out.with_name(f".{out.name}.partial")


def old_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.old")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a full disk or a folder that cannot be written to into one line.

    Raises:
        SpecError: naming the path and what to do.
    """
    try:
        yield
    except OSError as problem:
        advice = ADVICE.get(problem.errno, "choose a folder you can write to")
        raise SpecError(f"--out: cannot write {problem.filename or path}: {problem.strerror}; {advice}") from None


@contextlib.contextmanager
def locked(partial: Path) -> Iterator[None]:
    """Makes the folder and holds it for this process alone; the hold ends with the process, however it ends.

    Raises:
        SpecError: another process holds it.
    """
    partial.mkdir(parents=True, exist_ok=True)
    handle = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SpecError(f"--out: another sweep is writing {partial}; wait for it, or choose another folder") from None
        yield
    finally:
        os.close(handle)


def check_place(out: Path, identity: dict[str, Any], formats: tuple[str, ...], overwrite: bool) -> dict[str, Any] | None:
    """The manifest of the very same run where it is there already; None where there is something to do.

    Raises:
        SpecError: the folder holds another run and is not to be overwritten, or something that is no run.
    """
    if old_of(out).exists():  # a process died while one folder took another's place
        if out.exists():
            shutil.rmtree(old_of(out))
        elif not (partial_of(out) / manifest.NAME).exists():
            old_of(out).rename(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        found = manifest.read_manifest(out)
        there = found["identity"]
    except (SpecError, KeyError, TypeError):
        raise SpecError(f"--out: {out} holds something else than a sweep; choose a new folder") from None
    if overwrite:
        return None
    different = manifest.differing(there, identity)
    if not different and set(formats) <= set(found["formats"]):
        return found
    why = different or f"formats {','.join(found['formats'])} there, {','.join(formats)} here"
    raise SpecError(f"--out: {out} holds a finished sweep ({why}); choose another folder, or --overwrite to replace it")


def begin(partial: Path, identity: dict[str, Any], overwrite: bool) -> dict[str, Any]:
    """The note of the run that the folder holds, begun now or earlier.

    Raises:
        SpecError: an interrupted run of something else is there.
    """
    note = _note(partial / RUN) or _note(partial / manifest.NAME)  # with a manifest it only has to be given its name
    different = "" if note is None else manifest.differing(note["identity"], identity)
    if different and not overwrite and has_results(partial):
        raise SpecError(f"--out: an interrupted sweep is in {partial} ({different}); run that one again, or discard it with --overwrite")
    if note is None or different:
        clear(partial, keep=())
        note = {"identity": identity, "started": now()}
        write_whole(partial / RUN, json.dumps(note))
    return note


def _note(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def has_results(partial: Path) -> bool:
    """Whether anything was computed yet."""
    return any(path.is_file() for name in (PARTS, REAL_MODEL) for path in (partial / name).glob("*"))


def is_complete(partial: Path, formats: tuple[str, ...]) -> bool:
    """Whether everything is written and only the name is missing."""
    found = _note(partial / manifest.NAME)
    return found is not None and set(formats) <= set(found["formats"])


def clear(partial: Path, keep: tuple[str, ...]) -> None:
    """Removes everything in the folder but what is named."""
    for path in partial.iterdir():
        if path.name in keep:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def publish(partial: Path, out: Path) -> None:
    """Gives a whole folder its name; a folder that had it goes when the new one is in place."""
    sync(partial)
    old = old_of(out)
    if out.exists() and any(out.iterdir()):
        out.rename(old)
    partial.rename(out)
    sync(out.parent)
    shutil.rmtree(old, ignore_errors=True)


def sync(folder: Path) -> None:
    """Waits until a folder's entries are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_files(folder: Path, but: tuple[str, ...] = ()) -> None:
    """Waits until what is in a folder's files is on the disk."""
    for path in folder.iterdir():
        if path.is_file() and path.name not in but:
            sync(path)


def now() -> str:
    """The time in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
