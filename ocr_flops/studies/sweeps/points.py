"""What a sweep says of whole points, and of all pages of a folder: sums over the stages of its table "stages"."""

from collections.abc import Mapping

import polars as pl

from ocr_flops.cost.frames import WORKLOAD_COLUMNS
from ocr_flops.units import SECONDS_PER_HOUR

PHASES = {"ttft": ("vision", "prefill"), "tpot": ("decode",)}
WORK = ("total_flops", "tensor_flops", "vector_flops", "io_bytes")
CHOICES = ("model", "attention", "engine", "dtype", "cache", "prefill_logits", "hardware", "host", "mode")
PAGE = ("image", "page", "vendor_supported", "needed_bytes", "fits")
SPEEDS = {"": "", "_low": "_high", "_high": "_low"}  # the end of a range of seconds: that of a range of pages a second
Prices = float | Mapping[str, float] | None


def points_frame(stages: pl.DataFrame, prices: Prices = None) -> pl.DataFrame:
    """A row per point of whole parts of the table "stages".

    Columns: point, what it is, the work of all stages, needed_bytes (memory of the whole run) and fits; with a device ttft_seconds,
    tpot_seconds and pages_per_second (roofline), the expected ones with their ranges, gpu_hours_per_1000_pages and, with a price,
    cost_per_1000_pages; null where a stage that they need was not wanted, pages a second and cost also where the point does not fit.

    Args:
        stages: rows of the table, those of a point together.
        prices: of a device hour, of all devices or by their names.
    """
    identity = [name for name in stages.columns if name in (*CHOICES, *WORKLOAD_COLUMNS, *PAGE) or "." in name]
    stage, have = pl.col("stage").cast(pl.String), set(stages["stage"].unique())
    sums = [pl.col(name).sum() for name in WORK]
    times = [name for name in stages.columns if name in ("roofline_seconds", *(f"expected{end}_seconds" for end in SPEEDS))]
    for name in times:
        for phase, needed in {**PHASES, "all": ("vision", "prefill", "decode")}.items():
            found = pl.col(name).filter(stage.is_in(needed)).sum() if have >= set(needed) else pl.lit(None, pl.Float64)
            sums.append(found.alias(f"{phase}.{name}"))
    points = stages.group_by("point", maintain_order=True).agg(*(pl.col(name).first() for name in identity), *sums)
    if not times:
        return points
    tokens = pl.when(pl.col("output_tokens") > 0).then(pl.col("output_tokens"))
    figures = {"ttft_seconds": pl.col("ttft.roofline_seconds"), "tpot_seconds": pl.col("tpot.roofline_seconds") / tokens}
    pages = pl.col("batch_size") * pl.col("pages")
    figures["pages_per_second"] = pages / pl.col("all.roofline_seconds")
    for end, slow in SPEEDS.items():
        figures[f"expected_ttft{end}_seconds"] = pl.col(f"ttft.expected{end}_seconds")
        figures[f"expected_tpot{end}_seconds"] = pl.col(f"tpot.expected{end}_seconds") / tokens
        figures[f"expected_pages_per_second{end}"] = pages / pl.col(f"all.expected{slow}_seconds")
    figures = {name: pl.when(pl.col("fits")).then(one) if "pages" in name else one for name, one in figures.items()}
    points = points.select("point", *identity, *WORK, **figures)
    speeds = {end: pl.col(f"expected_pages_per_second{fast}") for end, fast in SPEEDS.items()}
    hours = {f"gpu_hours_per_1000_pages{end}": 1000 / speed / SECONDS_PER_HOUR for end, speed in speeds.items()}
    return points.with_columns(**hours).with_columns(**_costs(prices, "gpu_hours_per_1000_pages", "cost_per_1000_pages"))


def _costs(prices: Prices, hours: str, cost: str) -> dict[str, pl.Expr]:
    """Columns of money for columns of device hours."""
    if prices is None:
        return {}
    base = pl.col("hardware").cast(pl.String).str.split(" (").list.first()  # without what was changed
    price = base.replace_strict(dict(prices), default=None, return_dtype=pl.Float64) if isinstance(prices, Mapping) else pl.lit(prices)
    return {f"{cost}{end}": pl.col(f"{hours}{end}") * price for end in SPEEDS}


def totals_frame(points: pl.LazyFrame, prices: Prices = None) -> pl.DataFrame:
    """A row per choice of a sweep over files: all their pages together.

    Columns: what was chosen; pages, fitting (pages that fit the device; null without one), needed_bytes (the most that one needs),
    image_tokens, output_tokens and the work of all; with a device gpu_hours, expected, of the pages that fit, with their range, and
    with a price cost.

    Args:
        points: of `points_frame`.
        prices: as there.
    """
    names = points.collect_schema().names()
    keys = [name for name in names if name in (*CHOICES, "prompt_tokens", "batch_size") or "." in name]
    fitting = pl.when(pl.col("fits").count() > 0).then(pl.col("fits").sum())
    sums = [pl.len().alias("pages"), fitting.alias("fitting"), pl.col("needed_bytes").max()]
    work = pl.col(WORK).cast(pl.Float64) / pl.col("batch_size")  # a page's part; of many pages more than an int64 holds
    sums += [pl.col("image_tokens", "output_tokens").sum(), work.sum()]
    hours = [f"gpu_hours_per_1000_pages{end}" for end in SPEEDS if "expected_ttft_seconds" in names]
    sums += [(pl.col(name).sum() / 1000).alias(name.replace("_per_1000_pages", "")) for name in hours]
    totals = points.group_by(keys, maintain_order=True).agg(sums).collect()
    return totals.with_columns(**_costs(prices, "gpu_hours", "cost")) if hours else totals
