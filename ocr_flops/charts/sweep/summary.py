"""What charts and reports show of a sweep: its points along one axis, in a few series, the rest held at one value or summed up.

The table is read by polars' streaming engine, so that a sweep of any length fits in memory.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from ocr_flops.studies.sweeps.points import PHASES
from ocr_flops.studies.sweeps.results import STAGES, Results, cases_frame

AXES = {  # columns that may run along a chart, in words; the first that varies is taken
    "image_tokens": "image tokens",
    "batch_size": "pages in a batch",
    "output_tokens": "output tokens",
    "prompt_tokens": "prompt tokens",
}
EXACT = 4_096  # points of a sweep up to which further numbers are held at one value; of more, all values but of the batch are put together
MAX_PLACES = 120  # along an axis; more are put together
MAX_SERIES, MAX_BARS = 6, 48  # of lines; of bars, where nothing runs along an axis
FEW = 4  # values of a further number that become series
KEPT = 20_000  # points kept one by one; of more, medians and tables are of some, spread evenly
SPREAD, RANGE = 2_654_435_761, 2**32  # point * SPREAD % RANGE is even over any regular selection of points: Knuth's multiplicative hash
Row = dict[str, Any]
Names = tuple[str, ...]
CHOICES = ("model", "engine", "mode", "attention", "dtype", "cache", "prefill_logits", "hardware", "host")  # columns of a case
SHAPE = ("mode", "global_px", "tile_px", "columns", "rows", "image_tokens", "prompt_tokens", "output_tokens", "batch_size")
TIMES = ("roofline_seconds", "bound_seconds", "expected_seconds", "expected_low_seconds", "expected_high_seconds")
ADDED = ("total_flops", "tensor_flops", "vector_flops", "io_bytes", *TIMES)  # costs that add up over stages
LARGEST = ("kv_cache_bytes", "peak_activation_bytes")  # costs of which the largest stage counts
COSTS = (*ADDED, *LARGEST, "arithmetic_intensity", "weight_bytes")


@dataclass(frozen=True)
class Layout:
    """What runs along charts, what separates their lines, and what is held.

    Args:
        axis: the column that runs along charts; None where no number varies.
        places: values of the axis.
        resolutions: names by their place on the axis, where each place is a resolution; empty otherwise.
        columns: those whose values separate series.
        held: numbers that vary besides, and those of their values that are shown: the ends and the middle as series, or one.
    """

    axis: str | None
    places: tuple[float, ...]
    resolutions: dict[float, str]
    columns: Names
    held: dict[str, tuple[Any, ...]]

    @property
    def binned(self) -> bool:
        """Whether neighbours on the axis are put together."""
        return len(self.places) > MAX_PLACES

    @property
    def x(self) -> pl.Expr:
        """Where a point is on the axis: its number, or the middle of its neighbourhood."""
        if self.axis is None:
            return pl.lit(0.0)
        if self.resolutions:
            return pl.col(self.axis).replace_strict(self.places, list(self.resolutions), return_dtype=pl.Float64)
        number = pl.col(self.axis).cast(pl.Float64)
        if not self.binned:
            return number
        first, width = self.places[0], (self.places[-1] - self.places[0]) / MAX_PLACES
        return first + (((number - first) / width).floor().clip(0, MAX_PLACES - 1) + 0.5) * width


@dataclass(frozen=True, eq=False)
class SweepSummary:
    """What is shown of a sweep.

    Args:
        layout: what is where.
        stages: of the sweep.
        total: points of the whole sweep.
        count, published, too_large: points shown, those of them on grids of the published code, and those that do not fit their device.
        series: the values of the layout's columns that are shown.
        left_out: how many series are not shown.
        every: medians and `points` are of one point in so many; smallest and largest are always of all.
        points: a row per point.
        lines: a row per series and place on the axis: `x`, `n` (points), `published` (how many are on grids of the published code),
            `too_large` (how many do not fit their device), and for each measure its median under its own name, its smallest under the name
            with "<" and its largest under the name with ">".
        extremes: rows of points, those with the smallest and largest of each measure.
    """

    layout: Layout
    stages: Names
    total: int
    count: int
    published: int
    too_large: int
    series: tuple[Names, ...]
    left_out: int
    every: int
    points: pl.DataFrame
    lines: pl.DataFrame
    extremes: pl.DataFrame

    @cached_property
    def has_ranges(self) -> bool:
        """Whether a place on a line stands for several points that differ."""
        return self.layout.binned or bool((self.lines["total_flops>"] > self.lines["total_flops<"]).any())

    def series_of(self, row: Row) -> Names:
        """The series of one of `points`, `lines` or `extremes`."""
        return tuple(row[f"series {name}"] for name in self.layout.columns)

    def has(self, measure: str) -> bool:
        """Whether any point shown has a measure."""
        return measure in self.extremes.columns and self.extremes[measure].null_count() < self.extremes.height

    def least(self, measure: str) -> Row:
        """The first point with the smallest of a measure."""
        return self.extremes.sort(measure, "point", nulls_last=True).row(0, named=True)

    def most(self, measure: str) -> Row:
        """The first point with the largest of a measure."""
        return self.extremes.sort(measure, "point", descending=[True, False], nulls_last=True).row(0, named=True)


def summarize_sweep(results: Results) -> SweepSummary:
    """Reads what charts and reports show of a sweep, from its table "stages"."""
    sweep, layout = results.sweep, _lay_out(results)
    every = -(-sweep.points // KEPT)
    keys = [f"series {name}" for name in layout.columns]
    held = [pl.col(name).is_in(values) for name, values in layout.held.items()]
    kinds = _list_series(results, layout.columns, held)
    shown = kinds.head(MAX_SERIES if layout.axis else MAX_BARS)
    found = scan_points(results, *held).with_columns(
        layout.x.alias("x"), *(pl.col(name).cast(pl.String).alias(key) for name, key in zip(layout.columns, keys, strict=True))
    )
    if len(shown) < len(kinds):
        found = found.join(shown.lazy(), on=keys, how="semi", nulls_equal=True, maintain_order="left")
    names, costs = found.collect_schema().names(), {*COSTS, "weights", "needed_bytes"}
    measures = [name for name in names if name in costs or name.partition(".")[2] in COSTS]  # what charts may measure
    evenly = (pl.col("point") % sweep.points_per_case).cast(pl.UInt64) % RANGE * SPREAD % RANGE  # alike for a point under two kernels
    ranges = found.group_by(*keys, "x").agg(
        n=pl.len(),
        published=pl.col("vendor_supported").sum(),
        too_large=(pl.col("needed_bytes") > pl.col("memory_bytes")).sum(),
        **{f"{name}<": pl.col(name).min() for name in measures},
        **{f"{name}>": pl.col(name).max() for name in measures},
    )
    lines, points = pl.collect_all([ranges, found.filter(evenly < RANGE // every)], engine="streaming")
    medians = points.group_by(*keys, "x").agg(pl.col(name).median() for name in measures)
    lines = lines.join(medians, on=[*keys, "x"], how="left", nulls_equal=True).sort("x", *keys)
    if every > 1:  # a place of which no point was kept
        lines = lines.with_columns(pl.col(name).fill_null((pl.col(f"{name}<") + pl.col(f"{name}>")) / 2) for name in measures)
    counts = (int(lines[name].sum()) for name in ("n", "published", "too_large"))
    series, left_out = tuple(shown.rows()) if keys else ((),), len(kinds) - len(shown)
    found = points.sort("point"), lines, _find_extremes(found, lines, measures)
    return SweepSummary(layout, sweep.stages, sweep.points, *counts, series, left_out, every, *found)


def _lay_out(results: Results) -> Layout:
    """Finds what varies, and what of it runs along the axis, separates series, or is held at one value."""
    rows = results.tables[STAGES].lazy().filter(pl.col("stage") == results.sweep.stages[0])
    schema = rows.collect_schema()
    labels = [name for name in schema if "." in name]
    numbers = [*AXES, *(name for name in labels if schema[name].is_numeric())]
    texts = [name for name in (*CHOICES, *labels) if name in schema and name not in numbers]
    values, kinds, modes = pl.collect_all(
        [
            rows.select(pl.col(name).unique().implode() for name in numbers),
            rows.select(pl.col(texts).cast(pl.String)).unique(),
            rows.select(pl.col("mode").cast(pl.String), "image_tokens").unique().sort("image_tokens"),
        ],
        engine="streaming",
    )
    varying = {name: sorted(known) for name in numbers if len(known := values[name].item().drop_nulls()) > 1}
    columns = [name for name in texts if kinds[name].n_unique() > 1]
    axis = next(iter(varying), None)
    places = tuple(varying.pop(axis, ()))
    named = axis == "image_tokens" and modes.height == modes["mode"].n_unique() == len(places)
    if named:
        columns.remove("mode")
    width, held = kinds.select(columns).n_unique() if columns else 1, {}
    for name, known in varying.items():
        some = tuple(known) if len(known) <= FEW else (known[0], known[len(known) // 2], known[-1])
        if width * len(some) <= MAX_SERIES and (len(known) <= FEW or results.sweep.points <= EXACT or name == "batch_size"):
            columns.append(name)  # a line for each value, or for some
            width *= len(some)
            if len(some) < len(known):
                held[name] = some
        elif results.sweep.points <= EXACT or name == "batch_size":
            positive = [value for value in known if value > 0] or known
            held[name] = (positive[(len(positive) - 1) // 2],)
    resolutions = {float(place): mode for place, mode in enumerate(modes["mode"])} if named else {}
    return Layout(axis, places, resolutions, tuple(columns), held)


def _list_series(results: Results, columns: Names, held: list[pl.Expr]) -> pl.DataFrame:
    """The series of a sweep in the order of their first points, a row each; one row where nothing separates them."""
    if not columns:
        return pl.DataFrame({"": [""]})
    rows = results.tables[STAGES].lazy().filter(pl.col("stage") == results.sweep.stages[0], *held)
    keys = [pl.col(name).cast(pl.String).alias(f"series {name}") for name in columns]
    found = rows.select(*keys, "point").group_by(pl.exclude("point")).agg(pl.col("point").min())
    return found.collect(engine="streaming").sort("point").drop("point")


def _find_extremes(points: pl.LazyFrame, lines: pl.DataFrame, measures: list[str]) -> pl.DataFrame:
    """The first points with the smallest and with the largest of each measure, and at the ends of the axis."""
    ends = {"x": (lines["x"].min(), lines["x"].max())}
    ends |= {name: (lines[f"{name}<"].min(), lines[f"{name}>"].max()) for name in measures}
    first = [
        pl.col("point").filter(pl.col(name) == end).min().alias(f"{name} {number}")
        for name, both in ends.items()
        for number, end in enumerate(both)
        if end is not None
    ]
    numbers = set(points.select(first).collect(engine="streaming").row(0))
    return points.filter(pl.col("point").is_in(sorted(numbers))).collect(engine="streaming").sort("point")


def scan_points(results: Results, *conditions: pl.Expr) -> pl.LazyFrame:
    """The points of a sweep whose rows of the table "stages" meet conditions (which hold for all stages of a point or none), not read yet.

    Columns: what a point is; "stage.cost" for every stage and cost; costs of all stages; "ttft.cost" of the first and "tpot.cost" of a mean
    output token; those of `cases_frame`; needed_bytes (weights, KV cache, peak activations).
    """
    rows, stages = results.tables[STAGES].lazy().filter(*conditions), results.sweep.stages
    columns = rows.collect_schema().names()
    costs = [cost for cost in COSTS if cost in columns]
    more = ("image", "page", "tiles", "vendor_supported", "context_tokens", "needed_bytes")
    identity = {"point": None, **dict.fromkeys((*CHOICES, *SHAPE, *more))}
    identity = [name for name in columns if name in identity or "." in name]
    by_stage = [rows.filter(pl.col("stage") == stage).select(pl.col(cost).alias(f"{stage}.{cost}") for cost in costs) for stage in stages]
    points = pl.concat([rows.filter(pl.col("stage") == stages[0]).select(identity), *by_stage], how="horizontal")
    sums = [pl.sum_horizontal(f"{stage}.{cost}" for stage in stages).alias(cost) for cost in ADDED if cost in costs]
    sums += [pl.max_horizontal(f"{stage}.{cost}" for stage in stages).alias(cost) for cost in LARGEST]
    tokens = {"ttft": pl.lit(1), "tpot": pl.when(pl.col("output_tokens") > 0).then(pl.col("output_tokens"))}
    for phase, needed in PHASES.items():
        if set(needed) <= set(stages):
            phase_sums = {cost: pl.sum_horizontal(f"{stage}.{cost}" for stage in needed) for cost in ADDED if cost in costs}
            sums += [(total / tokens[phase]).alias(f"{phase}.{cost}") for cost, total in phase_sums.items()]
    cases = cases_frame(results.sweep).lazy()
    points = points.with_columns(*sums, case=pl.col("point") // results.sweep.points_per_case)
    points = points.join(cases, on="case", how="left", maintain_order="left")
    peak = pl.col("needed_bytes") - pl.col("weights") - pl.col("kv_cache_bytes")  # of vision and prefill as one call
    return points.with_columns(peak_activation_bytes=peak)


def name_views(row: Row) -> str:
    """The views of a point: "2 × 3", "1024 px view", "whole page"."""
    if not row["global_px"]:
        return "whole page"
    return f"{row['columns']} × {row['rows']}" if row["tiles"] else f"{row['global_px']} px view"
