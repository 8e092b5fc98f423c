"""A row a point of a sweep: what it is, and every cost of every stage, of the stages together, and of a first and an output token."""

from __future__ import annotations

from typing import Any

import polars as pl

Row = dict[str, Any]
Names = tuple[str, ...]
SERIES = ("model", "engine", "mode", "attention", "dtype", "cache", "prefill_logits", "hardware")  # told apart where they vary
SHAPE = ("mode", "global_px", "tile_px", "columns", "rows", "image_tokens", "prompt_tokens", "output_tokens", "batch_size")
COSTS = ("total_flops", "tensor_flops", "vector_flops", "io_bytes", "arithmetic_intensity", "weight_bytes", "kv_cache_bytes")
COSTS += ("peak_activation_bytes", "roofline_seconds", "bound_seconds")
TOGETHER = ("total_flops", "tensor_flops", "vector_flops", "io_bytes", "roofline_seconds", "bound_seconds")  # sums over stages
LARGEST = ("kv_cache_bytes", "peak_activation_bytes")
PHASES = {"ttft": ("vision", "prefill"), "tpot": ("decode",)}


def grid(row: Row) -> str:
    """The views of a point: "2 × 3", "1024 px view"."""
    return f"{row['columns']} × {row['rows']}" if row["tiles"] else f"{row['global_px']} px view"


def measures(stages: Names) -> set[str]:
    """The columns of `points_of` that are measured along an axis."""
    by_stage = {f"{stage}.{cost}" for stage in stages for cost in COSTS}
    by_phase = {f"{phase}.{cost}" for phase in PHASES for cost in TOGETHER}
    return by_stage | by_phase | set(TOGETHER) | set(LARGEST) | {"weights", "needed_bytes"}


def points_of(part: pl.DataFrame, cases: pl.DataFrame, per_case: int) -> pl.DataFrame:
    """A row a point: what it is, "stage.cost" for every stage and cost, sums, what the first and an output token take, and what is needed.

    Args:
        part: rows of the "stages" table, all stages of every point in it.
        cases: of `cases_frame`.
        per_case: points of each.
    """
    stages = tuple(part["stage"].cast(pl.String).unique(maintain_order=True))
    costs = [cost for cost in COSTS if cost in part.columns]
    known = [name for name in (*SERIES, *SHAPE, "image", "page", "tiles", "vendor_supported", "context_tokens") if name in part.columns]
    known += [name for name in part.columns if "." in name]
    rows = part.filter(pl.col("stage") == stages[0]).select("point", *dict.fromkeys(known))
    for stage in stages:
        one = part.filter(pl.col("stage") == stage).select("point", *(pl.col(cost).alias(f"{stage}.{cost}") for cost in costs))
        rows = rows.join(one, on="point", how="left", maintain_order="left")
    sums = [pl.sum_horizontal(f"{stage}.{cost}" for stage in stages).alias(cost) for cost in TOGETHER if cost in costs]
    sums += [pl.max_horizontal(f"{stage}.{cost}" for stage in stages).alias(cost) for cost in LARGEST]
    steps = pl.when(pl.col("output_tokens") > 0).then(pl.col("output_tokens"))
    for phase, wanted in PHASES.items():
        if set(wanted) <= set(stages):
            by = steps if phase == "tpot" else 1
            sums += [
                (pl.sum_horizontal(f"{stage}.{cost}" for stage in wanted) / by).alias(f"{phase}.{cost}")
                for cost in TOGETHER
                if cost in costs
            ]
    rows = rows.with_columns(*sums, (pl.col("point") // per_case).alias("case")).join(cases, on="case", how="left", maintain_order="left")
    return rows.with_columns((pl.col("weights") + pl.col("kv_cache_bytes") + pl.col("peak_activation_bytes")).alias("needed_bytes"))
