"""A sweep -> what is shown of it: read twice, a part at a time, each reduced at once, so that one of any length fits in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ocr_flops.charts.sweep.points import SERIES, Names, measures, points_of
from ocr_flops.charts.sweep.summary import AXES, Shown

EXACT = 4_096  # points of a sweep up to which further numbers are held at one value; of more, all values but of the batch are put together
MOST_PLACES = 120  # along an axis; more are put together
MOST_SERIES, MOST_BARS = 6, 48  # of lines; of bars, where nothing runs along an axis
FEW = 4  # values of a further number that become series
KEPT = 20_000  # points kept one by one; of more, medians and tables are of some, spread evenly
SPREAD, RANGE = 2_654_435_761, 2**32  # point * SPREAD % RANGE is even over any regular stretch of points: Knuth's multiplicative hash
Read = Callable[[], Iterable[pl.DataFrame]]


def shown(read: Read, cases: pl.DataFrame, per_case: int) -> Shown:
    """What charts and reports show of a sweep.

    Args:
        read: gives the "stages" table, a part at a time; called twice.
        cases: of `results.cases_frame`.
        per_case: points of each.
    """
    return _reduced(read, cases, per_case, _layout(read))


@dataclass(frozen=True)
class _Layout:
    """What runs where: fields as of `Shown`, and the values of the axis in order."""

    axis: str | None
    series: Names
    held: dict[str, Any]
    total: int
    stages: Names
    places: Sequence[float]
    names: dict[float, str]

    @property
    def binned(self) -> bool:
        return len(self.places) > MOST_PLACES

    @property
    def x(self) -> pl.Expr:
        """The place of a point: its number, or the middle of its neighbourhood."""
        if self.axis is None:
            return pl.lit(0.0)
        if self.names:
            return pl.col(self.axis).replace_strict({value: float(place) for place, value in enumerate(self.places)})
        if not self.binned:
            return pl.col(self.axis).cast(pl.Float64)
        first, width = self.places[0], (self.places[-1] - self.places[0]) / MOST_PLACES
        return first + (((pl.col(self.axis) - first) / width).floor().clip(0, MOST_PLACES - 1) + 0.5) * width


def _layout(read: Read) -> _Layout:
    """The first reading: what varies."""
    values: dict[str, pl.Series] = {}
    kinds: dict[Names, None] = {}
    modes: set[tuple[str, int]] = set()
    total, stages, told = 0, (), []
    for part in read():
        stages = tuple(part["stage"].cast(pl.String).unique(maintain_order=True))
        part = part.filter(pl.col("stage") == stages[0])
        labels = [name for name in part.columns if "." in name]
        numbers = [*AXES, *(name for name in labels if part[name].dtype.is_numeric())]
        told = [name for name in (*SERIES, *labels) if name in part.columns and name not in numbers]
        values = {name: pl.concat([values[name], part[name]] if name in values else [part[name]]).unique() for name in numbers}
        kinds |= dict.fromkeys(part.select(pl.col(told).cast(pl.String)).unique(maintain_order=True).rows())
        modes |= set(part.select(pl.col("mode").cast(pl.String), "image_tokens").unique().rows())
        total += part.height
    varying = {name: sorted(known.drop_nulls().to_list()) for name, known in values.items() if known.n_unique() > 1}
    axis = next(iter(varying), None)
    table = pl.DataFrame(list(kinds), schema=dict.fromkeys(told, pl.String), orient="row")
    series = [name for name in told if table[name].n_unique() > 1]
    names: dict[float, str] = {}
    if axis == "image_tokens" and len(modes) == len({mode for mode, _ in modes}) == len(varying[axis]):
        series = [name for name in series if name != "mode"]  # each mode is a place on the axis
        names = {float(place): mode for place, (mode, _) in enumerate(sorted(modes, key=lambda one: one[1]))}
    width = table.select(series).n_unique() if series else 1
    held = {}
    for name, known in varying.items():
        if name == axis:
            continue
        if len(known) <= FEW and width * len(known) <= MOST_SERIES:  # a line each
            series.append(name)
            width *= len(known)
        elif total <= EXACT or name == "batch_size":
            positive = [value for value in known if value > 0] or known
            held[name] = positive[(len(positive) - 1) // 2]
    return _Layout(axis, tuple(series), held, total, stages, varying.get(axis, []), names)


def _reduced(read: Read, cases: pl.DataFrame, per_case: int, layout: _Layout) -> Shown:
    """The second reading."""
    every = -(-layout.total // KEPT)
    keys = [f"series {name}" for name in layout.series]
    most = MOST_SERIES if layout.axis else MOST_BARS
    even = (pl.col("point") % per_case).cast(pl.UInt64) % RANGE * SPREAD % RANGE  # alike for a point under two attention modes
    kinds: dict[Names, None] = {}
    kept: list[pl.DataFrame] = []
    ends: list[pl.DataFrame] = []  # one of all parts so far
    extremes: list[pl.DataFrame] = []  # likewise
    supported = too_large = 0
    for part in read():
        rows = points_of(part, cases, per_case).filter(*(pl.col(name) == value for name, value in layout.held.items()))
        rows = rows.with_columns(layout.x.alias("x"), *(pl.col(name).cast(pl.String).alias(f"series {name}") for name in layout.series))
        kinds |= dict.fromkeys(rows.select(keys).unique(maintain_order=True).rows() if keys else [()])
        if keys:
            first = pl.DataFrame(list(kinds)[:most], schema=dict.fromkeys(keys, pl.String), orient="row")
            rows = rows.join(first, on=keys, how="semi", nulls_equal=True, maintain_order="left")
        if rows.is_empty():
            continue
        names = [name for name in rows.columns if name in measures(layout.stages)]
        ends = [_merged(pl.concat([*ends, _ends(rows, keys, names)]), keys, names)]
        extremes = [_extremes(pl.concat([*extremes, _extremes(rows, names)]), names)]
        kept.append(rows.filter(even < RANGE // every))
        supported += int(rows["vendor_supported"].sum())
        too_large += int((rows["needed_bytes"] > rows["memory_bytes"]).sum() or 0)
    points = pl.concat(kept)
    medians = points.group_by(*keys, "x").agg(pl.col(name).median() for name in names)
    lines = ends[0].join(medians, on=[*keys, "x"], how="left", nulls_equal=True).sort("x")
    if every > 1:  # a place of which no point was kept
        lines = lines.with_columns(pl.col(name).fill_null((pl.col(f"{name}<") + pl.col(f"{name}>")) / 2) for name in names)
    return Shown(
        axis=layout.axis,
        series=layout.series,
        kinds=tuple(list(kinds)[:most]),
        held=layout.held,
        total=layout.total,
        stages=layout.stages,
        left_out=max(0, len(kinds) - most),
        every=every,
        binned=layout.binned,
        names=layout.names,
        points=points,
        lines=lines,
        extremes=extremes[0],
        vendor_points=supported,
        too_large=too_large,
    )


def _ends(rows: pl.DataFrame, keys: Sequence[str], names: Sequence[str]) -> pl.DataFrame:
    """A row a series and place: how many points, whether all are grids of the vendor, and the smallest and largest of each measure."""
    smallest, largest = (
        [getattr(pl.col(name), end)().alias(f"{name}{sign}") for name in names] for end, sign in (("min", "<"), ("max", ">"))
    )
    return rows.group_by(*keys, "x").agg(pl.len().alias("n"), pl.col("vendor_supported").all().alias("vendor"), *smallest, *largest)


def _merged(ends: pl.DataFrame, keys: Sequence[str], names: Sequence[str]) -> pl.DataFrame:
    """`_ends` of several parts as of one."""
    smallest, largest = [pl.col(f"{name}<").min() for name in names], [pl.col(f"{name}>").max() for name in names]
    return ends.group_by(*keys, "x").agg(pl.col("n").sum(), pl.col("vendor").all(), *smallest, *largest)


def _extremes(rows: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """The first rows with the smallest and with the largest of each measure, and the ends of the axis."""
    found = {int(place) for name in (*names, "x") for place in (rows[name].arg_min(), rows[name].arg_max()) if place is not None}
    return rows[sorted(found)]
