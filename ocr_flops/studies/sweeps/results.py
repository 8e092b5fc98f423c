"""The tables of a sweep: rows of one kind, in Parquet files or in memory."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from ocr_flops.files import Progress, no_progress
from ocr_flops.studies.sweeps.plan import Sweep
from ocr_flops.timing.estimate import estimate_run

STAGES, MEASURED = "stages", "measured"  # tables: a row per point and stage, and one per number of the real model
POINTS, MODULES, TOTALS = "points", "modules", "totals"  # a row per point; per point, stage and module; per choice, over a folder's pages
TARGETS = {"ttft": 0.5, "tpot": 0.02}  # seconds


@dataclass(frozen=True)
class Table:
    """Rows of one kind, of files of its name.

    Args:
        parts: Parquet files in order, or one frame.
        change: makes this table's rows of those of a part, where the parts are another table's.
    """

    name: str
    parts: tuple[Path, ...] | pl.DataFrame
    progress: Progress = no_progress
    change: Callable[[pl.DataFrame], pl.DataFrame] | None = None

    def frames(self) -> Iterator[pl.DataFrame]:
        """Its rows, a part at a time."""
        if not isinstance(self.parts, tuple):
            yield self.parts
            return
        for number, part in enumerate(self.parts):
            frame = pl.read_parquet(part, memory_map=False)
            yield self.change(frame) if self.change else frame
            self.progress(f"writing {self.name}", number + 1, len(self.parts))

    def lazy(self) -> pl.LazyFrame:
        """Its rows, not read yet."""
        if self.change:
            return pl.concat(self.frames()).lazy()
        return pl.scan_parquet(list(self.parts)) if isinstance(self.parts, tuple) else self.parts.lazy()

    def frame(self) -> pl.DataFrame:
        """All rows; for tables that fit in memory."""
        return self.lazy().collect()


@dataclass(frozen=True)
class Results:
    """What writers write.

    Args:
        folder: where to; it is published when every writer is done.
        tables: by name; "stages" and "points" always, "modules" on request, "totals" of pages from files, "measured" where the real model
            ran too.
        formats: all that the published folder will have.
        targets: seconds by "ttft" and "tpot", for the rates that reports say are required.
    """

    folder: Path
    sweep: Sweep
    tables: dict[str, Table]
    formats: tuple[str, ...] = ()
    targets: Mapping[str, float] = field(default_factory=lambda: dict(TARGETS))
    progress: Progress = no_progress


def find_files(folder: Path | None, table: str) -> list[Path]:
    """The Parquet files of a table in a finished folder, in order; none where there is no folder or no such file."""
    if folder is None:
        return []
    one = folder / f"{table}.parquet"
    return [one] if one.is_file() else sorted((folder / table).glob("*.parquet"))


def link_file(path: Path, copy: Path) -> None:
    """Gives a file, which nobody changes any more, a second name; where the file system has no hard links, a copy."""
    try:
        os.link(path, copy)
    except OSError:
        shutil.copyfile(path, copy)


def cases_frame(sweep: Sweep) -> pl.DataFrame:
    """A row per case of a sweep.

    Columns: case (its number), weights (bytes of every parameter), and of its device, null without one: device (its name for people),
    memory_bytes, matrix_flops_per_second (dense, at the case's precision; null where it has none), bandwidth_bytes_per_second.
    """
    weights: dict[tuple, int] = {}
    rows = []
    for number, case in enumerate(sweep.cases):
        run, device = case.run, case.run.hardware
        key = (run.model, run.engine, run.dtype)
        if key not in weights:
            weights[key] = estimate_run(run, case.keys.workload()).footprint.weight_bytes
        row = {"case": number, "weights": weights[key]}
        if device is not None:
            row |= {"device": device.label, "memory_bytes": device.memory_bytes}
            row |= {"matrix_flops_per_second": dict(device.matrix_flops_per_second).get(run.dtype)}
            row |= {"bandwidth_bytes_per_second": device.memory_bandwidth_bytes_per_second}
        rows.append(row)
    floats = dict.fromkeys(("memory_bytes", "matrix_flops_per_second", "bandwidth_bytes_per_second"), pl.Float64)
    return pl.DataFrame(rows, {"case": pl.Int64, "weights": pl.Int64, "device": pl.String, **floats})
