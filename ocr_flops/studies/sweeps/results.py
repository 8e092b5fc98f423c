"""Tables of a sweep -> files. A writer takes the results and writes into their folder; none holds more than a part of a table in memory.

A further format (a chart, a report) is a function of `Results` and a line in `WRITERS`.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ocr_flops.errors import SpecError

if TYPE_CHECKING:
    import polars as pl

    from ocr_flops.charts import Chart
    from ocr_flops.charts.sweep.summary import Shown
    from ocr_flops.studies.sweeps.plan import Sweep

STAGES = "stages"
DATABASE = "sweep.sqlite"
TARGETS = {"ttft": 0.5, "tpot": 0.02}  # seconds
CHARTS = "charts"  # the folder of SVG and PNG


@dataclass(frozen=True)
class Table:
    """Rows of one kind, in Parquet files or in memory.

    Args:
        name: also of its files.
        key: columns that no two rows share.
        parts: Parquet files in order, or one frame.
        indexes: columns (or groups of them) that are looked up; those that a table lacks are left out.
        parent: the table that its rows add to; "" for none.
        parent_key: the key of that table, which this one has too.
        progress: whether reading several parts draws a bar on stderr.
    """

    name: str
    key: tuple[str, ...]
    parts: tuple[Path, ...] | pl.DataFrame
    indexes: tuple[tuple[str, ...], ...] = ()
    parent: str = ""
    parent_key: tuple[str, ...] = ()
    progress: bool = False

    @property
    def is_one(self) -> bool:
        """Whether one frame holds all of it."""
        return not isinstance(self.parts, tuple) or len(self.parts) == 1

    def frames(self) -> Iterator[pl.DataFrame]:
        """Its rows, a part at a time."""
        import polars as pl

        if isinstance(self.parts, tuple):
            from tqdm import tqdm

            for part in tqdm(self.parts, unit=" parts", delay=1, disable=not self.progress, desc="writing"):
                yield pl.read_parquet(part, memory_map=False)
        else:
            yield self.parts

    def frame(self) -> pl.DataFrame:
        """All rows; for tables that fit in memory."""
        import polars as pl

        return pl.concat(list(self.frames()))


@dataclass(frozen=True)
class Results:
    """What writers write.

    Args:
        folder: where to; it appears under its own name only when every writer is done.
        sweep: what was computed.
        tables: by name; "stages" always, "measured" where the real model ran too.
        formats: all that are written.
        targets: seconds by "ttft" and "tpot", for the rates that reports say are required.
    """

    folder: Path
    sweep: Sweep
    tables: dict[str, Table]
    formats: tuple[str, ...] = ()
    targets: Mapping[str, float] = field(default_factory=lambda: dict(TARGETS))

    @cached_property
    def shown(self) -> Shown:
        """What charts and reports show of it."""
        from ocr_flops.charts.sweep import points, reading

        return reading.shown(self.tables[STAGES].frames, points.cases_of(self.sweep), self.sweep.points_per_case)

    @cached_property
    def charts(self) -> dict[str, Chart]:
        """By file name."""
        from ocr_flops.charts.sweep import charts

        return charts(self.shown, self.targets)


def write_parquet(results: Results) -> None:
    """NAME.parquet; a table of several parts stays the folder NAME of Parquet files that it was computed as."""
    for table in results.tables.values():
        path = results.folder / f"{table.name}.parquet"
        if not isinstance(table.parts, tuple):
            with path.open("wb") as file:
                table.parts.write_parquet(file, compression="zstd", compression_level=1)
        elif table.is_one:
            shutil.copyfile(table.parts[0], path)


def write_csv(results: Results) -> None:
    """NAME.csv, one header."""
    for table in results.tables.values():
        with (results.folder / f"{table.name}.csv").open("wb") as file:
            for number, frame in enumerate(table.frames()):
                file.write(frame.write_csv(include_header=number == 0).encode())


def write_json(results: Results) -> None:
    """NAME.json: an array of objects, a row a line."""
    for table in results.tables.values():
        with (results.folder / f"{table.name}.json").open("w", encoding="utf-8") as file:
            separator = "[\n"
            for frame in table.frames():
                file.write(separator + frame.write_ndjson().rstrip("\n").replace("\n", ",\n"))
                separator = ",\n"
            file.write("\n]\n")


def write_sqlite(results: Results) -> None:
    """sweep.sqlite: a table each, typed, with its primary key, indexes, and a foreign key to the table it adds to."""
    path = results.folder / DATABASE
    try:
        with sqlite3.connect(path) as database:
            database.execute("PRAGMA journal_mode = OFF")  # a folder is finished whole or begun anew
            database.execute("PRAGMA synchronous = OFF")
            for table in results.tables.values():
                fill(database, table)
        database.close()
    except sqlite3.Error as problem:
        raise SpecError(f"cannot write {path}: {problem}") from None


def fill(database: sqlite3.Connection, table: Table) -> None:
    """Adds a table to a database."""
    for number, frame in enumerate(table.frames()):
        if number == 0:
            columns = frame.columns
            database.execute(_create(table, frame))
            places = ", ".join("?" * len(columns))
        database.executemany(f'INSERT INTO "{table.name}" VALUES ({places})', frame.iter_rows())
    for index in table.indexes:
        if set(index) <= set(columns):
            listed = ", ".join(f'"{column}"' for column in index)
            database.execute(f'CREATE INDEX "{table.name}_{"_".join(index)}" ON "{table.name}" ({listed})')


def _create(table: Table, frame: pl.DataFrame) -> str:
    def quoted(names: Sequence[str]) -> str:
        return ", ".join(f'"{name}"' for name in names)

    columns = [
        f'"{name}" {_type(dtype)}{" NOT NULL" if name in table.key or (not frame[name].null_count() and dtype.is_integer()) else ""}'
        for name, dtype in frame.schema.items()
    ]
    parent = [f'FOREIGN KEY ({quoted(table.parent_key)}) REFERENCES "{table.parent}" ({quoted(table.parent_key)})'] if table.parent else []
    return f'CREATE TABLE "{table.name}" ({", ".join([*columns, f"PRIMARY KEY ({quoted(table.key)})", *parent])})'


def _type(dtype: pl.DataType) -> str:
    import polars as pl

    return "INTEGER" if dtype.is_integer() or dtype == pl.Boolean else "REAL" if dtype.is_float() else "TEXT"


def read(folder: str | Path, table: str = STAGES) -> pl.LazyFrame:
    """A table of a finished sweep that has Parquet files.

    Args:
        folder: of the run.
        table: its name.

    Raises:
        SpecError: there are no such files.
    """
    import polars as pl

    one, several = Path(folder) / f"{table}.parquet", Path(folder) / table
    if one.is_file():
        return pl.scan_parquet(one)
    if several.is_dir():
        return pl.scan_parquet(several / "*.parquet")
    raise SpecError(f"{folder}: has no {table}.parquet; run the sweep with --format parquet")


def write_svg(results: Results) -> None:
    """charts/NAME.svg."""
    _images(results, "svg")


def write_png(results: Results) -> None:
    """charts/NAME.png."""
    _images(results, "png")


def _images(results: Results, kind: str) -> None:
    from ocr_flops.reports.images import chart_images

    (results.folder / CHARTS).mkdir(exist_ok=True)
    for name, content in chart_images(results.charts, kind, in_child=False).items():
        (results.folder / CHARTS / f"{name}.{kind}").write_bytes(content)


def write_markdown(results: Results) -> None:
    """report.md; it shows the charts where they are written too."""
    from ocr_flops.reports.sweep_report import markdown

    kinds = tuple(kind for kind in ("svg", "png") if kind in results.formats)
    (results.folder / "report.md").write_text(markdown(results, kinds), encoding="utf-8")


def write_html(results: Results) -> None:
    """report.html, which needs no network."""
    from ocr_flops.reports.sweep_report import html

    (results.folder / "report.html").write_text(html(results), encoding="utf-8")


DATA = ("parquet", "csv", "json", "sqlite")
WRITERS: dict[str, Callable[[Results], None]] = {
    "parquet": write_parquet,
    "csv": write_csv,
    "json": write_json,
    "sqlite": write_sqlite,
    "svg": write_svg,
    "png": write_png,
    "md": write_markdown,
    "html": write_html,
}
