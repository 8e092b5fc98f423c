"""Words about the points shown of a sweep: the range of a measure, which point or series a number is of, what is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod

import polars as pl

from ocr_flops.charts.sweep.points import CHOICES, SHAPE, Names, Row, name_views
from ocr_flops.charts.sweep.summary import AXES, SweepSummary
from ocr_flops.units import share, si

LONG = 1e6  # numbers are short from here on
LEANEST = ("flash", "sdpa")  # kernels with least traffic, the leanest first
LOGITS = {"all": "logits of all positions", "last": "logits of the last position"}
Format = Callable[[float], str]


def format_bytes(value: float) -> str:
    """A number of bytes."""
    return si(value, "B")


def format_flops(value: float) -> str:
    """A number of FLOPs."""
    return si(value, "FLOPs")


def format_range(summary: SweepSummary, measure: str, form: Format, scale: float = 1.0) -> str:
    """The smallest and largest of a measure, "5.13 ms to 77.5 ms", or one number where all are the same."""
    low, high = (form(scale * row[measure]) for row in (summary.least(measure), summary.most(measure)))
    return low if low == high else f"{low} to {high}"


def format_part(value: float, whole: float, name: str) -> str:
    """A part of a whole, or how many times the whole it is."""
    if value > 2 * whole:
        return f"{value / whole:,.3g} times {name}"
    return f"{share(value, whole)} of {name}".replace(" %", "\N{NO-BREAK SPACE}%")


def name_axis(summary: SweepSummary) -> str:
    """What runs along charts; "" where nothing does."""
    if summary.layout.resolutions:
        return "resolution"
    axis = summary.layout.axis or ""
    return AXES.get(axis, axis.removeprefix("workload.").replace("_", " "))


def name_place(summary: SweepSummary, row: Row) -> str:
    """Where a point is on the axis: "493 image tokens", "gundam"; "" where nothing runs along it."""
    if not summary.layout.axis:
        return ""
    return summary.layout.resolutions.get(row["x"]) or f"{row[summary.layout.axis]:,} {name_axis(summary)}"


def name_series(summary: SweepSummary, series: Iterable[Names], without: str = "") -> str:
    """What separates series from the others shown: "eager", "sdpa = flash, h200"; "" for all together.

    Args:
        summary: of the sweep.
        series: some of those shown.
        without: a column whose values are not said.
    """
    where = [number for number, name in enumerate(summary.layout.columns) if name != without]
    columns = [summary.layout.columns[number] for number in where]
    all_series, some = (list(dict.fromkeys(tuple(one[number] for number in where) for one in kind)) for kind in (summary.series, series))
    if set(some) == set(all_series):
        return ""
    values = [list(dict.fromkeys(column)) for column in zip(*some, strict=True)]
    if prod(map(len, values)) != len(some):  # not every combination of the values
        return "; ".join(", ".join(map(_name_value, columns, one)) for one in some)
    varying = [set(known) != set(column) for known, column in zip(values, zip(*all_series, strict=True), strict=True)]
    names = zip(columns, values, varying, strict=True)
    return ", ".join(" = ".join(_name_value(name, value) for value in known) for name, known, varies in names if varies)


def name_row_series(summary: SweepSummary, row: Row) -> str:
    """What separates the series of a point from the others shown."""
    return name_series(summary, [tuple(row[f"series {name}"] for name in summary.layout.columns)])


def _name_value(column: str, value: str) -> str:
    """A value of a column so that it is understood alone."""
    if column == "cache":
        return f"{value} cache"
    if column == "prefill_logits":
        return LOGITS[value]
    if column in CHOICES:
        return value
    try:
        number = float(value)
    except ValueError:
        return f"{_name_column(column)} {value}"
    return f"{_name_column(column)} {si(number) if abs(number) >= LONG else f'{number:,.6g}'}"


def _name_column(column: str) -> str:
    return column if column.startswith("attention.") else column.rpartition(".")[2].removesuffix("_bytes").replace("_", " ")


def name_point(summary: SweepSummary, row: Row, measure: str, without: str = "") -> str:
    """Which point it is: its place on the axis, and what separates its series from those there with another value of the measure.

    Args:
        summary: what it is a point of.
        row: of `summary.points` or `summary.extremes`.
        measure: a column of it.
        without: a column of the series that is not said.
    """
    alike = [
        tuple(line[f"series {name}"] for name in summary.layout.columns)
        for line in summary.lines.filter(pl.col("x") == row["x"]).to_dicts()
        if row[measure] in (line[f"{measure}<"], line[f"{measure}>"])
    ]
    alike.sort(key=summary.series.index)
    place, series = name_place(summary, row), name_series(summary, alike, without)
    return f"{place} ({series})" if place and series else place or series


def at_point(summary: SweepSummary, row: Row, measure: str, without: str = "") -> str:
    """`name_point` behind a number; "" where there is one point."""
    name = name_point(summary, row, measure, without)
    return f" at {name}" if summary.layout.axis else f" with {name}" if name else ""


def name_views_and_point(summary: SweepSummary, row: Row, measure: str) -> str:
    """A point by its views, place and series."""
    return ", ".join(part for part in (name_views(row), name_point(summary, row, measure)) if part)


def name_memory(row: Row) -> str:
    """What a point's memory is made of."""
    found = {"weights": row["weights"], "KV cache": row["kv_cache_bytes"], "peak activations": row["peak_activation_bytes"]}
    return ", ".join(f"{name} {format_bytes(value)}" for name, value in found.items())


def list_omissions(summary: SweepSummary) -> list[str]:
    """What is held at one value or left out, in sentences."""
    held = ", ".join(f"{_name_column(name)} {value:,}" for name, value in summary.layout.held.items())
    return [
        *([f"Held at {held}, one of the values of the sweep"] if held else []),
        *([f"{summary.left_out:,} more series are in the data files"] if summary.left_out else []),
    ]


def explain_lines(summary: SweepSummary) -> list[str]:
    """What a place on a line stands for, in sentences; none where it is one point."""
    where = "Neighbours on the axis put together; line" if summary.layout.binned else "Line"
    return [
        *([f"{where}: median of the points at a place, band: smallest to largest"] if summary.has_ranges else []),
        *([f"Medians are of about one point in {summary.every:,}"] if summary.every > 1 else []),
    ]


def pair_kernels(summary: SweepSummary) -> tuple[Row, Row] | None:
    """The same point under eager and under the leanest other attention there is, of those the one with most FLOPs; None without any."""
    labels = [name for name in summary.points.columns if name.split(".")[0] in ("model", "engine", "hardware", "workload") and "." in name]
    choices = [name for name in CHOICES if name in summary.points.columns and name != "attention"]
    keys = list(dict.fromkeys([*SHAPE, *choices, *labels]))
    rows = summary.points.with_columns(pl.col("attention").cast(pl.String))
    eager = rows.filter(pl.col("attention") == "eager")
    for attention in LEANEST:
        lean = rows.filter(pl.col("attention") == attention)
        both = eager.join(lean.select(*keys, pl.col("point").alias("lean")), on=keys, how="inner", nulls_equal=True)
        if both.height:
            row = both.sort("total_flops", "point", descending=[True, False]).row(0, named=True)
            return row, lean.filter(pl.col("point") == row["lean"]).row(0, named=True)
    return None


def find_ridge_points(summary: SweepSummary) -> dict[tuple[str, str], float]:
    """FLOPs per byte at which matrix units and memory take the same time, by a device's name in configs and its name for people."""
    if not summary.has("matrix_flops_per_second"):
        return {}
    columns = ("device", "matrix_flops_per_second", "bandwidth_bytes_per_second")
    rows = summary.points.select(pl.col("hardware").cast(pl.String), *columns).unique(maintain_order=True).drop_nulls().rows()
    return {(name, device): peak / bandwidth for name, device, peak, bandwidth in rows}
