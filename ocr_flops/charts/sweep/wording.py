"""Words about the points that are shown: from where to where a measure goes, which point one is, two of a pair."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import polars as pl

from ocr_flops.charts.sweep.points import SHAPE, Names, Row, grid
from ocr_flops.charts.sweep.summary import Shown
from ocr_flops.units import share, si

BEST = ("flash", "sdpa")  # the leanest attention modes, the leanest first


def bytes_(value: float) -> str:
    """A number of bytes."""
    return si(value, "B")


def span(shown: Shown, measure: str, words: Callable[[float], str], scale: float = 1.0) -> str:
    """ "5.13 ms to 77.5 ms", or one number where all are the same."""
    low, high = (words(scale * found(measure)[measure]) for found in (shown.least, shown.most))
    return low if low == high else f"{low} to {high}"


def where(shown: Shown, row: Row, measure: str, without: str = "") -> str:
    """Which point it is: its place on the axis, and what sets its series apart from those there with another value of the measure.

    Args:
        shown: what it is one of.
        row: of `shown.points` or `shown.extremes`.
        measure: a column of it.
        without: a column of the series that is not told.
    """
    kinds = [
        tuple(other[f"series {name}"] for name in shown.series)
        for other in shown.lines.filter(pl.col("x") == row["x"]).to_dicts()
        if row[measure] in (other[f"{measure}<"], other[f"{measure}>"])
    ]
    told = [place for place, name in enumerate(shown.series) if name != without]
    part = replace(shown, series=tuple(shown.series[place] for place in told), kinds=_part(shown.kinds, told))
    place, series = shown.place(row), part.called(*_part(kinds, told))
    return f"{place} ({series})" if place and series else place or series


def _part(kinds: Iterable[Names], places: Sequence[int]) -> tuple[Names, ...]:
    return tuple(dict.fromkeys(tuple(kind[place] for place in places) for kind in kinds))


def at(shown: Shown, row: Row, measure: str, without: str = "") -> str:
    """Likewise, behind a number; "" where there is one point."""
    place = where(shown, row, measure, without)
    return f" at {place}" if shown.axis else f" with {place}" if place else ""


def of(value: float, whole: float, name: str) -> str:
    """A part of a whole, or how many times the whole."""
    return (
        f"{share(value, whole)} of {name}".replace(" %", "\N{NO-BREAK SPACE}%")
        if value <= 2 * whole
        else f"{value / whole:,.3g} times {name}"
    )


def pair(shown: Shown) -> tuple[Row, Row] | None:
    """The same point under eager and under the leanest other mode there is, the one with most FLOPs; None without such a pair."""
    names = {name: name in shown.points.columns for name in ("hardware", "model", "engine", "dtype", "cache", "prefill_logits")}
    labels = [name for name in shown.points.columns if name.split(".")[0] in ("model", "engine", "hardware", "workload") and "." in name]
    keys = list(dict.fromkeys([*SHAPE, *(name for name, there in names.items() if there), *labels]))
    rows = shown.points.with_columns(pl.col("attention").cast(pl.String))
    eager = rows.filter(pl.col("attention") == "eager")
    for mode in BEST:
        other = rows.filter(pl.col("attention") == mode)
        both = eager.join(other.select(*keys, pl.col("point").alias("other")), on=keys, how="inner", nulls_equal=True)
        if both.height:
            row = both.sort("total_flops", "point", descending=[True, False]).row(0, named=True)
            return row, other.filter(pl.col("point") == row["other"]).row(0, named=True)
    return None


def balances(shown: Shown) -> dict[tuple[str, str], float]:
    """FLOPs per byte at which a device's matrix units and memory take the same time, by its name in configs and for people."""
    if not shown.has("matrix_flops_per_second"):
        return {}
    columns = ("hardware", "device", "matrix_flops_per_second", "bandwidth_bytes_per_second")
    rows = shown.points.select(pl.col("hardware").cast(pl.String), *columns[1:]).unique(maintain_order=True).drop_nulls().rows()
    return {(name, device): peak / bandwidth for name, device, peak, bandwidth in rows}


def parts(row: Row) -> str:
    """What a point's memory is made of."""
    found = {"weights": row["weights"], "KV cache": row["kv_cache_bytes"], "live activations": row["peak_activation_bytes"]}
    return ", ".join(f"{name} {bytes_(value)}" for name, value in found.items())


def named(shown: Shown, row: Row, measure: str) -> str:
    """A point by its grid, place and series."""
    return ", ".join(part for part in (grid(row), where(shown, row, measure)) if part)
