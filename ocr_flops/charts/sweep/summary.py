"""What charts and reports show of a sweep: its points along one axis, in a few series, the rest held at one value or summed up."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from ocr_flops.charts.sweep.points import SERIES, Names, Row
from ocr_flops.units import si

LONG = 1e6  # numbers are short from here on
AXES = {  # columns that may run along a chart, the first that varies is taken
    "image_tokens": "image tokens",
    "batch_size": "pages in a batch",
    "output_tokens": "output tokens",
    "prompt_tokens": "prompt tokens",
}


@dataclass(frozen=True, eq=False)
class Shown:
    """What is shown of a sweep.

    Args:
        axis: the column that runs along charts; None where no number varies.
        series: columns that tell lines apart.
        kinds: the values of those columns that are shown.
        held: numbers that vary besides, and the one value that is shown.
        total, stages: of the whole sweep, points and stages.
        left_out: series that are not shown.
        every: medians and `points` are of one point in so many; smallest and largest are always of all.
        binned: whether neighbours on the axis are put together.
        names: of places on the axis, where each is a resolution mode; none otherwise.
        points: a row a point.
        lines: a row a series and place on the axis: `x`, `n` (points), `vendor` (whether all are grids of the vendor), and for each measure
            its median under its own name, with "<" and ">" its smallest and largest.
        extremes: rows of `points`, those with the smallest and largest of each measure.
        vendor_points: of all that are shown, on grids of the vendor's code.
        too_large: of all that are shown, that do not fit their device.
    """

    axis: str | None
    series: Names
    kinds: tuple[Names, ...]
    held: dict[str, Any]
    total: int
    stages: Names
    left_out: int
    every: int
    binned: bool
    names: dict[float, str]
    points: pl.DataFrame
    lines: pl.DataFrame
    extremes: pl.DataFrame
    vendor_points: int
    too_large: int

    @cached_property
    def count(self) -> int:
        """Points that are shown."""
        return int(self.lines["n"].sum())

    @cached_property
    def spread(self) -> bool:
        """Whether a place on a line stands for several points that differ."""
        return self.binned or bool(self.lines.select((pl.col("total_flops>") > pl.col("total_flops<")).any()).item())

    @property
    def axis_name(self) -> str:
        """What runs along charts, in words."""
        if self.names:
            return "resolution mode"
        return AXES.get(self.axis, self.axis.removeprefix("workload.").replace("_", " ")) if self.axis else ""

    def place(self, row: Row) -> str:
        """Where a point is on the axis, in words: "493 image tokens"; "" where nothing runs along it."""
        if not self.axis:
            return ""
        return self.names.get(row["x"]) or f"{row[self.axis]:,} {self.axis_name}"

    def least(self, measure: str) -> Row:
        """The point with the smallest of a measure."""
        return self.extremes.sort(measure, nulls_last=True).row(0, named=True)

    def most(self, measure: str) -> Row:
        """The point with the largest of a measure."""
        return self.extremes.sort(measure, descending=True, nulls_last=True).row(0, named=True)

    def has(self, measure: str) -> bool:
        """Whether any point shown has a measure."""
        return measure in self.points.columns and self.extremes[measure].null_count() < self.extremes.height

    def called(self, *kinds: Names) -> str:
        """What sets series apart from the others shown: "eager", "sdpa = flash on h200"; "" for all together."""
        if set(kinds) == set(self.kinds):
            return ""
        sets = [list(dict.fromkeys(kind[place] for kind in kinds)) for place in range(len(self.series))]
        whole = [set(values) == {kind[place] for kind in self.kinds} for place, values in enumerate(sets)]
        product = 1
        for values in sets:
            product *= len(values)
        if product != len(kinds):
            return "; ".join(", ".join(_value(*pair) for pair in zip(self.series, kind, strict=True)) for kind in kinds)
        told = zip(self.series, sets, whole, strict=True)
        return ", ".join(" = ".join(_value(name, value) for value in values) for name, values, all_of in told if not all_of)

    def called_row(self, row: Row) -> str:
        """What sets the series of a point apart."""
        return self.called(tuple(row[f"series {name}"] for name in self.series))

    @property
    def part(self) -> list[str]:
        """What is held or left out, in sentences; none where nothing is."""
        held = ", ".join(f"{_spoken(name)} {value:,}" for name, value in self.held.items())
        return [
            *([f"Held at {held}, one of the values of the sweep"] if held else []),
            *([f"{self.left_out:,} more series are in the data files"] if self.left_out else []),
        ]

    @property
    def pooled(self) -> list[str]:
        """What a place on a line stands for, in sentences; none where it is one point."""
        where = "neighbours on the axis put together; " if self.binned else ""
        return [
            *([f"{where}line: median of the points at a place, band: smallest to largest".capitalize()] if self.spread else []),
            *([f"Medians are of about one point in {self.every:,}"] if self.every > 1 else []),
        ]


def _spoken(name: str) -> str:
    return name.rpartition(".")[2].removesuffix("_bytes").replace("_", " ") if not name.startswith("attention.") else name


def _value(name: str, value: str) -> str:
    """A value of a column that tells series apart, so that it is understood alone."""
    if name == "cache":
        return f"{value} cache"
    if name == "prefill_logits":
        return {"all": "logits of all positions", "last": "logits of the last position"}[value]
    if name in SERIES:
        return value
    try:
        number = float(value)
    except ValueError:
        return f"{_spoken(name)} {value}"
    return f"{_spoken(name)} {si(number) if abs(number) >= LONG else f'{number:,.6g}'}"
