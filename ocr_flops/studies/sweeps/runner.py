"""Runs a sweep into a folder: in parts that are computed while the one before is written, each kept if the process dies."""

import io
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from ocr_flops.errors import SpecError
from ocr_flops.files import Progress, explain_os_errors, no_progress, write_whole
from ocr_flops.studies.sweeps import folder, real_model
from ocr_flops.studies.sweeps.folder import WorkFolder
from ocr_flops.studies.sweeps.plan import Sweep
from ocr_flops.studies.sweeps.points import points_frame, totals_frame
from ocr_flops.studies.sweeps.results import MEASURED, MODULES, POINTS, STAGES, TARGETS, TOTALS, Results, Table, find_files, link_file

PART_POINTS = 65_536  # one part takes about 150 MB while it is computed
SPARE = 1.5  # disk required, over what is expected of the stages alone: points besides
SAMPLE = 2_000  # rows
DATABASE_SHARE = 1.6  # of a CSV's bytes: keys and indexes besides
Write = Callable[[Results, Sequence[str]], None]


def run_sweep(
    sweep: Sweep,
    out: str | Path,
    formats: Sequence[str],
    write: Write,
    *,
    overwrite: bool = False,
    targets: Mapping[str, float] = TARGETS,
    command: Sequence[str] = (),
    tell: Callable[[str], None] = lambda text: None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Computes a sweep into a folder, which appears when all of it is there.

    The same call after an interruption goes on from finished parts. A call for further formats of a finished sweep adds them to its folder;
    where that has Parquet files, no point is computed again.

    Args:
        sweep: from `load_sweep`.
        out: the folder.
        formats: names of what the folder is to have.
        write: called with results and the names of those formats that are missing; writes them into the results' folder.
        targets: seconds by "ttft" and "tpot", for the rates that reports say are required.
        overwrite: whether a finished sweep there is replaced, and an interrupted one of something else discarded.
        command: the command line, for the record.
        tell: called with lines for people.
        progress: called while the real model runs, parts are computed, and formats are written.

    Returns:
        the manifest.

    Raises:
        SpecError: a folder that holds something else, too little disk, or a path that cannot be written; what was finished stays.
    """
    out = Path(out).resolve()
    identity = folder.sweep_identity(sweep, PART_POINTS)
    with explain_os_errors(out):
        if (whole := WorkFolder(out)).is_whole:  # its process died before it was published
            with whole.locked():
                whole.publish()
        finished, work = folder.find_finished(out, identity, overwrite), WorkFolder(out)
        known = finished or {"formats": [], "files": []}
        missing = [name for name in formats if name not in known["formats"]]
        if finished and not missing:
            tell(f"{out}: finished already, with these settings; --overwrite computes it again")
            if work.path.exists():  # a process died after it was published
                with work.locked():
                    work.discard()
            return finished
        with work.locked():
            started, begun = work.begin(identity, overwrite), time.monotonic()
            tables, kept = _compute_tables(sweep, work, out if finished else None, missing, tell, progress)
            results = Results(work.files, sweep, tables, (*known["formats"], *missing), targets, progress)
            write(results, missing)
            record = {
                "sweep": sweep.name,
                "label": sweep.label,
                "command": list(command),
                "started": started,
                "finished": folder.utc_now(),
                "seconds": round(time.monotonic() - begun, 3),
                "points": sweep.points,
                "rows": sweep.rows,
                "parts": len(tables[STAGES].parts),
                "parts_kept": kept,
                "stages": list(sweep.stages),
                "formats": list(results.formats),
                "skipped": [{"path": path, "reason": reason} for path, reason in sweep.skipped],
                "identity": identity,
            }
            manifest = folder.write_manifest(work.files, record, known["files"])
            work.publish()
    return manifest


def _compute_tables(
    sweep: Sweep, work: WorkFolder, published: Path | None, formats: Sequence[str], tell: Callable[[str], None], progress: Progress
) -> tuple[dict[str, Table], int]:
    """The tables of a sweep, and how many parts were there already: of an interrupted run, or in the folder of the finished sweep.

    Each of the missing parts is computed while the one before is written.
    """
    parts = [work.parts / f"part-{number:06d}.parquet" for number in range(-(-sweep.points // PART_POINTS))]
    for known, part in zip(find_files(published, STAGES), parts, strict=False):
        if not part.exists():
            link_file(known, part)
    missing = [number for number, part in enumerate(parts) if not part.exists()]
    kept = len(parts) - len(missing)
    if kept:
        tell(f"going on from {kept} of {len(parts)} parts that are there")
    tables = {STAGES: Table(STAGES, tuple(parts), progress)}
    tables[POINTS] = Table(POINTS, tuple(parts), progress, partial(points_frame, prices=sweep.prices))
    if sweep.config["sweep"]["level"] == "module":
        tables[MODULES] = Table(
            *(MODULES, tuple(parts), progress, lambda rows: sweep.rows_frame(rows["point"][0], rows["point"][-1] + 1, "module"))
        )
    if sweep.measure is not None:
        found = tuple(find_files(published, MEASURED)) or real_model.compare_points(sweep, work.real_model, progress)
        tables[MEASURED] = Table(MEASURED, found, progress)
    with ThreadPoolExecutor(1) as writer:
        writing: Future | None = None
        for done, number in enumerate(missing, kept):
            progress(f"sweep {sweep.name}", done, len(parts))
            frame = sweep.stages_frame(number * PART_POINTS, min((number + 1) * PART_POINTS, sweep.points))
            if MEASURED in tables:
                frame = real_model.join_measured(frame, tables[MEASURED].frame())
            if number == missing[0]:
                _check_disk(work.parts, frame, len(missing) / len(parts) * sweep.rows, sweep.rows, formats)
            if writing is not None:
                writing.result()
            writing = writer.submit(_write_part, parts[number], frame)
        if writing is not None:
            writing.result()
    progress(f"sweep {sweep.name}", len(parts), len(parts))
    if sweep.pages and sweep.pages.images:
        tables[TOTALS] = Table(TOTALS, totals_frame(tables[POINTS].lazy(), sweep.prices))
    return tables, kept


def _write_part(path: Path, frame: pl.DataFrame) -> None:
    write_whole(path, _as_parquet(frame))


def _as_parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", compression_level=1)
    return buffer.getvalue()


def _check_disk(where: Path, part: pl.DataFrame, rows: float, all_rows: int, formats: Sequence[str]) -> None:
    """Raises SpecError where the disk has no room for parts of so many rows and formats of all rows, by what a first part takes."""
    sample = part.head(SAMPLE)
    text = len(sample.write_csv().encode()) / sample.height
    per_row = {"csv": text, "json": len(sample.write_ndjson().encode()) / sample.height, "sqlite": text * DATABASE_SHARE}
    needed = SPARE * (len(_as_parquet(part)) / part.height * rows + sum(per_row.get(name, 0) for name in formats) * all_rows)
    free = shutil.disk_usage(where).free
    if needed > free:
        raise SpecError(
            f"--out: {where} has {free / 1e9:.3g} GB free and this sweep's {all_rows:,} rows need about {needed / 1e9:.3g} GB; "
            "free some space, choose a folder on another disk, or fewer values"
        )
