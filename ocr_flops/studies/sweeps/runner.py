"""Runs a sweep into a folder: in parts that are computed while the one before is written, each kept whole if the process dies."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocr_flops.errors import SpecError, one_of
from ocr_flops.studies.sweeps import folder, manifest, real_model
from ocr_flops.studies.sweeps.manifest import File
from ocr_flops.studies.sweeps.plan import Sweep
from ocr_flops.studies.sweeps.results import DATA, STAGES, TARGETS, WRITERS, Results, Table

if TYPE_CHECKING:
    import polars as pl

PART_POINTS = 65_536  # one part takes about 150 MB while it is computed
KEY = ("point", "stage")
INDEXES = (("stage", "attention"), ("columns", "rows"), ("tiles",), ("context_tokens",), ("batch_size",), ("hardware",), ("image",))
SPARE = 1.05  # disk asked for, over what is expected
SAMPLE = 2_000  # rows
DATABASE_SHARE = 1.6  # of a CSV's bytes: keys and indexes besides


def run(
    sweep: Sweep,
    out: str | Path,
    formats: Sequence[str] | None = None,
    *,
    overwrite: bool = False,
    targets: Mapping[str, float] = TARGETS,
    command: Sequence[str] = (),
    tell: Callable[[str], None] = lambda text: None,
    progress: bool = False,
) -> dict[str, Any]:
    """Computes a sweep into a folder, which appears when all of it is there.

    The same call after an interruption goes on from the parts that were finished.

    Args:
        sweep: from `load_sweep`.
        out: the folder.
        formats: of `WRITERS`; by default all data formats, and Parquet alone for a sweep of more than one part.
        targets: seconds by "ttft" and "tpot", for the rates that reports say are required.
        overwrite: whether a finished sweep there is replaced, and an interrupted one of something else discarded.
        command: the command line, for the record.
        tell: called with lines for people.
        progress: whether to draw a bar on stderr once it takes more than a second.

    Returns:
        the manifest.

    Raises:
        SpecError: a folder that holds something else, too little disk, or a path that cannot be written; what was finished stays.
    """
    out = Path(os.path.abspath(out))
    numbers = range(-(-sweep.points // PART_POINTS))
    chosen = tuple(dict.fromkeys(formats or (DATA if len(numbers) == 1 else DATA[:1])))
    for name in chosen:
        one_of("--format", name, WRITERS)
    identity = manifest.identity(sweep, PART_POINTS)
    with folder.writing(out):
        finished = folder.check_place(out, identity, chosen, overwrite)
        if finished is not None:
            tell(f"{out}: finished already, with these settings; --overwrite computes it again")
            return finished
        partial = folder.partial_of(out)
        with folder.locked(partial):
            note = folder.begin(partial, identity, overwrite)
            try:
                if not folder.is_complete(partial, chosen):
                    _build(sweep, partial, numbers, chosen, targets, note, command, tell, progress)
            except SpecError:
                if not folder.has_results(partial):
                    shutil.rmtree(partial)
                raise
            found = manifest.read_manifest(partial)
            _tidy(partial, keep_parts="parquet" in found["formats"] and len(numbers) > 1)
            folder.publish(partial, out)
    return found


def _build(
    sweep: Sweep,
    partial: Path,
    numbers: range,
    formats: tuple[str, ...],
    targets: Mapping[str, float],
    note: dict[str, Any],
    command: Sequence[str],
    tell: Callable[[str], None],
    progress: bool,
) -> None:
    """Everything in the folder, the manifest last."""
    begun = time.monotonic()
    folder.clear(partial, keep=(folder.RUN, folder.PARTS, folder.REAL_MODEL))
    parts = [partial / folder.PARTS / f"part-{number:06d}.parquet" for number in numbers]
    parts[0].parent.mkdir(exist_ok=True)
    for leftover in set(parts[0].parent.iterdir()) - set(parts):
        leftover.unlink()  # half a part
    missing = [number for number in numbers if not _is_whole(parts[number], _height(sweep, number))]
    if len(missing) < len(numbers):
        tell(f"going on from {len(numbers) - len(missing)} of {len(numbers)} parts that are there")
    tables = {}
    if sweep.measure is not None:
        tables["measured"] = real_model.table(sweep, partial / folder.REAL_MODEL, progress)
    digests = _parts(sweep, parts, missing, formats, tables.get("measured"), progress)
    tables = {STAGES: Table(STAGES, KEY, tuple(parts), INDEXES, progress=progress), **tables}
    results = Results(partial, sweep, tables, formats, targets)
    for name in formats:
        WRITERS[name](results)
    folder.sync_files(partial)
    unlisted = () if "parquet" in formats and len(parts) > 1 else (folder.PARTS,)
    record = {
        "schema": manifest.SCHEMA,
        "sweep": sweep.name,
        "label": sweep.label,
        "command": list(command),
        "started": note["started"],
        "finished": folder.now(),
        "seconds": round(time.monotonic() - begun, 3),
        "points": sweep.points,
        "rows": sweep.rows,
        "parts": len(parts),
        "parts_kept": len(numbers) - len(missing),
        "stages": list(sweep.stages),
        "formats": list(formats),
        "skipped": [{"path": path, "reason": reason} for path, reason in sweep.skipped],
        "identity": note["identity"],
        "versions": manifest.versions(),
        "files": manifest.files(partial, digests, but=(folder.RUN, folder.REAL_MODEL, *unlisted)),
    }
    folder.write_whole(partial / manifest.NAME, json.dumps(record, indent=1) + "\n")


def _tidy(partial: Path, keep_parts: bool) -> None:
    """Removes what only the making needed."""
    for name in (folder.REAL_MODEL, *(() if keep_parts else (folder.PARTS,))):
        shutil.rmtree(partial / name, ignore_errors=True)
    (partial / folder.RUN).unlink(missing_ok=True)


def _height(sweep: Sweep, number: int) -> int:
    """Rows of a part."""
    return (min((number + 1) * PART_POINTS, sweep.points) - number * PART_POINTS) * len(sweep.stages)


def _is_whole(part: Path, height: int) -> bool:
    """Whether a part is there with all its rows; it has its name only once all of it is on the disk."""
    import polars as pl
    from polars.exceptions import PolarsError

    try:
        return part.is_file() and pl.scan_parquet(part).select(pl.len()).collect().item() == height
    except (PolarsError, OSError):
        return False


def _parts(
    sweep: Sweep, parts: Sequence[Path], missing: Sequence[int], formats: Sequence[str], seen: Table | None, progress: bool
) -> dict[Path, File]:
    """Computes the missing parts, each while the one before is written."""
    from tqdm import tqdm

    digests: dict[Path, File] = {}

    def done(number: int, writing: Future) -> None:
        digests[parts[number]] = writing.result()
        bar.update(_height(sweep, number))

    kept = sweep.rows - sum(_height(sweep, number) for number in missing)
    bar = tqdm(total=sweep.rows, initial=kept, unit=" rows", unit_scale=True, delay=1, disable=not progress, desc=f"sweep {sweep.name}")
    with bar, ThreadPoolExecutor(1) as writer:
        pending: list[tuple[int, Future]] = []
        for number in missing:
            frame = sweep.frame(number * PART_POINTS, min((number + 1) * PART_POINTS, sweep.points))
            if seen is not None:
                frame = real_model.joined(frame, seen.frame())
            if number == missing[0]:
                _check_disk(parts[number].parent, frame, sum(_height(sweep, other) for other in missing), sweep.rows, formats)
            if pending:
                done(*pending.pop())
            pending.append((number, writer.submit(_write_part, parts[number], frame)))
        for last in pending:
            done(*last)
    return digests


def _write_part(path: Path, frame: pl.DataFrame) -> File:
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", compression_level=1)
    content = buffer.getvalue()
    folder.write_whole(path, content)
    return File(len(content), hashlib.sha256(content).hexdigest())


def _check_disk(where: Path, frame: pl.DataFrame, rows: int, all_rows: int, formats: Sequence[str]) -> None:
    """Refuses a sweep for whose files there is no room, by what a first part of its rows takes.

    Args:
        where: a folder on the disk.
        frame: a part.
        rows: rows that are still to be computed.
        all_rows: rows of the whole sweep.
        formats: to be written.

    Raises:
        SpecError: what is needed and what is free.
    """
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", compression_level=1)
    sample = frame.head(SAMPLE)
    text = len(sample.write_csv().encode()) / sample.height
    per_row = {"csv": text, "json": len(sample.write_ndjson().encode()) / sample.height, "sqlite": text * DATABASE_SHARE}
    needed = buffer.tell() / frame.height * rows + sum(per_row.get(name, 0) for name in formats) * all_rows
    free = shutil.disk_usage(where).free
    if needed * SPARE > free:
        raise SpecError(
            f"--out: {where} has {free / 1e9:.3g} GB free and this sweep's {all_rows:,} rows need about {needed * SPARE / 1e9:.3g} GB; "
            "free some space, choose a folder on another disk, or fewer values"
        )
