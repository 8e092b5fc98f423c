"""Words about the points shown of a sweep: the range of a measure, which point or series a number is of, what is left out."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from math import prod

import polars as pl

from ocr_flops.charts.sweep.summary import AXES, CHOICES, SHAPE, Names, Row, SweepSummary, name_views
from ocr_flops.charts.theme import in_bytes
from ocr_flops.units import share, si

LONG = 1e6  # numbers are short from here on
LEANEST = ("flash", "sdpa")  # kernels with least traffic, the leanest first
LOGITS = {"all": "logits of all positions", "last": "logits of the last position"}
Format = Callable[[float], str]


def format_number(value: float) -> str:
    """A number in full, short where it is long."""
    return si(value) if abs(value) >= LONG else f"{value:,.6g}"


def name_memory(row: Row) -> str:
    """What a point's memory is made of."""
    found = {"weights": row["weights"], "KV cache": row["kv_cache_bytes"], "peak activations": row["peak_activation_bytes"]}
    return ", ".join(f"{name} {in_bytes(value)}" for name, value in found.items())


@dataclass(frozen=True, eq=False)
class Wording:
    """Names of what a summary shows."""

    summary: SweepSummary

    @property
    def axis(self) -> str:
        """What runs along charts; "" where nothing does."""
        axis = self.summary.layout.axis or ""
        return "resolution" if self.summary.layout.resolutions else AXES.get(axis, axis.removeprefix("workload.").replace("_", " "))

    def format_range(self, measure: str, form: Format, scale: float = 1.0) -> str:
        """The smallest and largest of a measure, "5.13 ms to 77.5 ms", or one number where all are the same."""
        low, high = (form(scale * row[measure]) for row in (self.summary.least(measure), self.summary.most(measure)))
        return low if low == high else f"{low} to {high}"

    def name_place(self, row: Row) -> str:
        """Where a point is on the axis: "493 image tokens", "1 page in a batch", "gundam"; "" where nothing runs along it."""
        layout = self.summary.layout
        if not layout.axis or row["x"] in layout.resolutions:
            return layout.resolutions.get(row["x"], "")
        axis = re.sub(r"(page|token)s\b", r"\1", self.axis) if row[layout.axis] == 1 else self.axis
        return f"{row[layout.axis]:,} {axis}"

    def name_series(self, series: Iterable[Names], without: str = "") -> str:
        """What separates some series from the others shown, but for a column: "eager", "sdpa = flash, h200"; "" for all together."""
        columns = [name for name in self.summary.layout.columns if name != without]
        where = [self.summary.layout.columns.index(name) for name in columns]
        every, some = (list(dict.fromkeys(tuple(one[place] for place in where) for one in kind)) for kind in (self.summary.series, series))
        if set(some) == set(every):
            return ""
        values = [list(dict.fromkeys(column)) for column in zip(*some, strict=True)]
        if prod(map(len, values)) != len(some):  # not every combination of the values
            return "; ".join(", ".join(map(_name_value, columns, one)) for one in some)
        names = zip(columns, values, map(set, zip(*every, strict=True)), strict=True)
        return ", ".join(" = ".join(_name_value(name, value) for value in known) for name, known, all_ in names if set(known) != all_)

    def name_row_series(self, row: Row) -> str:
        """What separates the series of a point from the others shown."""
        return self.name_series([self.summary.series_of(row)])

    def name_point(self, row: Row, measure: str, without: str = "") -> str:
        """Which point it is: its place on the axis, and what separates its series from those there with another value of the measure."""
        alike = [
            self.summary.series_of(line)
            for line in self.summary.lines.filter(pl.col("x") == row["x"]).to_dicts()
            if row[measure] in (line[f"{measure}<"], line[f"{measure}>"])
        ]
        place, series = self.name_place(row), self.name_series(sorted(alike, key=self.summary.series.index), without)
        return f"{place} ({series})" if place and series else place or series

    def at_point(self, row: Row, measure: str, without: str = "") -> str:
        """`name_point` behind a number; "" where there is one point."""
        name = self.name_point(row, measure, without)
        return f" at {name}" if self.summary.layout.axis else f" with {name}" if name else ""

    def name_views_and_point(self, row: Row, measure: str) -> str:
        """A point by its views, place and series."""
        return ", ".join(part for part in (name_views(row), self.name_point(row, measure)) if part)

    def find_top_stage(self, cost: str) -> tuple[str, str, Row]:
        """The stage with most of a cost at the point with most of it, its part in percent, and the point."""
        row = self.summary.most(cost)
        stage = max(self.summary.stages, key=lambda stage: row[f"{stage}.{cost}"])
        return stage, share(row[f"{stage}.{cost}"], row[cost]), row

    @cached_property
    def kernels(self) -> tuple[Row, Row] | None:
        """The point with most FLOPs under eager, and the same point under the leanest other attention there is; None without any."""
        points = self.summary.points.with_columns(pl.col("attention").cast(pl.String))
        choices = [name for name in CHOICES if name in points.columns and name != "attention"]
        labels = [name for name in points.columns if name.startswith(("model.", "engine.", "hardware.", "workload."))]
        keys = list(dict.fromkeys([*SHAPE, *choices, *labels]))
        for attention in LEANEST:
            lean = points.filter(pl.col("attention") == attention)
            eager = points.filter(pl.col("attention") == "eager")
            both = eager.join(lean.select(*keys, pl.col("point").alias("lean")), on=keys, how="inner", nulls_equal=True)
            if both.height:
                row = both.sort("total_flops", "point", descending=[True, False]).row(0, named=True)
                return row, lean.filter(pl.col("point") == row["lean"]).row(0, named=True)
        return None

    @cached_property
    def ridge_points(self) -> dict[tuple[str, str], float]:
        """FLOPs per byte at which matrix units and memory take the same time, by a device's name in configs and its name for people."""
        if not self.summary.has("matrix_flops_per_second"):
            return {}
        columns = ("device", "matrix_flops_per_second", "bandwidth_bytes_per_second")
        rows = self.summary.points.select(pl.col("hardware").cast(pl.String), *columns).unique(maintain_order=True).drop_nulls().rows()
        return {(name, device): peak / bandwidth for name, device, peak, bandwidth in rows}

    @property
    def omissions(self) -> list[str]:
        """What is held at one value or left out, in sentences."""
        shown = {name: ", ".join(f"{value:,}" for value in values) for name, values in self.summary.layout.held.items()}
        held = ", ".join(f"{_name_column(name)} {values}" for name, values in shown.items())
        found = [f"{'Shown' if ',' in held else 'Held'} at {held}, of the values of the sweep"] if held else []
        return [*found, f"{self.summary.left_out:,} more series are in the data files"] if self.summary.left_out else found

    @property
    def ranges(self) -> list[str]:
        """What a place on a line stands for, in sentences; none where it is one point."""
        where = "Neighbours on the axis put together; line" if self.summary.layout.binned else "Line"
        found = [f"{where}: median of the points at a place, band: smallest to largest"] if self.summary.has_ranges else []
        return [*found, f"Medians are of about one point in {self.summary.every:,}"] if self.summary.every > 1 else found


def _name_value(column: str, value: str) -> str:
    """A value of a column so that it is understood alone."""
    if column in CHOICES:
        return f"{value} cache" if column == "cache" else LOGITS[value] if column == "prefill_logits" else value
    try:
        number = float(value)
    except ValueError:
        return f"{_name_column(column)} {value}"
    return f"{_name_column(column)} {format_number(number)}"


def _name_column(column: str) -> str:
    return column if column.startswith("attention.") else column.rpartition(".")[2].removesuffix("_bytes").replace("_", " ")
