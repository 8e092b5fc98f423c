"""Writes a sweep's tables, charts and reports as files; none of the writers of tables holds more than a part of one in memory.

A further format is a method of `SweepWriter` and a line in `WRITERS`.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ocr_flops.errors import SpecError, one_of
from ocr_flops.reports.images import chart_images
from ocr_flops.studies.sweeps.plan import Sweep
from ocr_flops.studies.sweeps.results import MEASURED, MODULES, POINTS, STAGES, Results, link_file
from ocr_flops.studies.sweeps.runner import PART_POINTS, run_sweep

if TYPE_CHECKING:
    from ocr_flops.reports.sweep_report import SweepReport

KEYS = {  # that no two rows share
    STAGES: ("point", "stage"),
    POINTS: ("point",),
    MODULES: ("point", "stage", "module"),
    MEASURED: ("point", "stage", "module", "column"),
    "shapes": ("tiles",),
}
PARENTS = {MEASURED: STAGES, MODULES: STAGES}  # the table whose rows a table adds to, by that table's key
INDEXES = {  # columns that are looked up, where a table has them
    STAGES: (("stage", "attention"), ("columns", "rows"), ("tiles",), ("context_tokens",), ("batch_size",), ("hardware",), ("image",)),
    MEASURED: (("difference",),),
    "shapes": (("columns", "rows"), ("image_tokens",), ("vendor_supported",)),
}


def write_sweep(sweep: Sweep, out: str | Path, formats: Sequence[str] = (), **options: Any) -> dict[str, Any]:
    """Computes a sweep into a folder and returns its manifest; sweep, folder, `options` and errors are those of `run_sweep`.

    Args:
        formats: of `WRITERS`; by default all data formats, and Parquet alone for a sweep of more than one part.
    """
    for name in formats:
        one_of("--format", name, WRITERS)
    default = DATA if sweep.points <= PART_POINTS else DATA[:1]

    def write(results: Results, formats: Iterable[str]) -> None:
        writer = SweepWriter(results)
        for name in formats:
            WRITERS[name](writer)

    return run_sweep(sweep, out, tuple(dict.fromkeys(formats or default)), write, **options)


@dataclass(frozen=True, eq=False)
class SweepWriter:
    """Writes the results of a sweep into their folder; what charts and reports show of it is summarised once."""

    results: Results

    @cached_property
    def report(self) -> SweepReport:
        """What charts and reports show."""
        from ocr_flops.reports.sweep_report import SweepReport

        return SweepReport(self.results)

    def write_parquet(self) -> None:
        """NAME.parquet; a table of several parts is a folder NAME of Parquet files."""
        for table in self.results.tables.values():
            parts = table.parts if isinstance(table.parts, tuple) else ()
            paths, folder = [self.results.folder / f"{table.name}.parquet"], self.results.folder / table.name
            if len(parts) > 1:
                folder.mkdir()
                paths = [folder / part.name for part in parts]
            if parts and not table.change:
                for part, path in zip(parts, paths, strict=True):
                    link_file(part, path)
                continue
            for frame, path in zip(table.frames(), paths, strict=True):
                frame.write_parquet(path, compression="zstd", compression_level=1)

    def write_csv(self) -> None:
        """NAME.csv, one header."""
        for table in self.results.tables.values():
            with (self.results.folder / f"{table.name}.csv").open("wb") as file:
                for number, frame in enumerate(table.frames()):
                    frame.write_csv(file, include_header=number == 0)

    def write_json(self) -> None:
        """NAME.json: an array of objects, a row a line."""
        for table in self.results.tables.values():
            with (self.results.folder / f"{table.name}.json").open("w", encoding="utf-8") as file:
                separator = "[\n"
                for frame in table.frames():
                    file.write(separator + frame.write_ndjson().rstrip("\n").replace("\n", ",\n"))
                    separator = ",\n"
                file.write("\n]\n")

    def write_sqlite(self) -> None:
        """sweep.sqlite: every table with its key, indexes, and a foreign key to the table it adds to."""
        path = self.results.folder / "sweep.sqlite"
        try:
            with contextlib.closing(sqlite3.connect(path)) as database, database:
                database.execute("PRAGMA journal_mode = OFF")  # a folder is finished whole or begun anew
                database.execute("PRAGMA synchronous = OFF")
                for table in self.results.tables.values():
                    fill_database(database, table.name, table.frames())
        except sqlite3.Error as problem:
            raise SpecError(f"cannot write {path}: {problem}") from None

    def write_images(self, kind: str) -> None:
        """charts/NAME.svg or .png."""
        folder = self.results.folder / "charts"
        folder.mkdir(exist_ok=True)
        for name, content in chart_images(self.report.charts, kind, in_child=False, progress=self.results.progress).items():
            (folder / f"{name}.{kind}").write_bytes(content)

    def write_markdown(self) -> None:
        """report.md; it shows the charts where the folder has them."""
        kind = next((kind for kind in ("svg", "png") if kind in self.results.formats), None)
        (self.results.folder / "report.md").write_text(self.report.markdown(kind), encoding="utf-8")

    def write_html(self) -> None:
        """report.html, which needs no network."""
        (self.results.folder / "report.html").write_text(self.report.html(), encoding="utf-8")


DATA = ("parquet", "csv", "json", "sqlite")
WRITERS: dict[str, Callable[[SweepWriter], None]] = {
    "parquet": SweepWriter.write_parquet,
    "csv": SweepWriter.write_csv,
    "json": SweepWriter.write_json,
    "sqlite": SweepWriter.write_sqlite,
    "svg": lambda writer: writer.write_images("svg"),
    "png": lambda writer: writer.write_images("png"),
    "md": SweepWriter.write_markdown,
    "html": SweepWriter.write_html,
}


def fill_database(database: sqlite3.Connection, name: str, frames: Iterable[pl.DataFrame]) -> None:
    """Adds a table, of a name in `KEYS` and rows in parts, with its keys and indexes to a database."""
    frames = iter(frames)
    first = next(frames)
    database.execute(_create_statement(name, first))
    for frame in chain([first], frames):
        database.executemany(f'INSERT INTO "{name}" VALUES ({", ".join("?" * first.width)})', frame.iter_rows())
    for index in INDEXES.get(name, ()):
        if set(index) <= set(first.columns):
            database.execute(f'CREATE INDEX "{name}_{"_".join(index)}" ON "{name}" ({_quote(index)})')


def _create_statement(name: str, frame: pl.DataFrame) -> str:
    key, parts = KEYS.get(name, ()), []
    for column, dtype in frame.schema.items():
        kind = "INTEGER" if dtype.is_integer() or dtype == pl.Boolean else "REAL" if dtype.is_float() else "TEXT"
        filled = column in key or (dtype.is_integer() and not frame[column].null_count())
        parts.append(f'"{column}" {kind}{" NOT NULL" if filled else ""}')
    parts += [f"PRIMARY KEY ({_quote(key)})"] if key else []
    if parent := PARENTS.get(name):
        parts.append(f'FOREIGN KEY ({_quote(KEYS[parent])}) REFERENCES "{parent}" ({_quote(KEYS[parent])})')
    return f'CREATE TABLE "{name}" ({", ".join(parts)})'


def _quote(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
