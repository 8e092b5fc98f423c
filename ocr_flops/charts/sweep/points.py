"""A row per point of a sweep: what it is, and the cost of every stage, of all stages, and of the first and a mean output token."""

from __future__ import annotations

from typing import Any

import polars as pl

from ocr_flops.studies.sweeps.results import STAGES, Results, cases_frame

Row = dict[str, Any]
Names = tuple[str, ...]
CHOICES = ("model", "engine", "mode", "attention", "dtype", "cache", "prefill_logits", "hardware")  # columns of a case
SHAPE = ("mode", "global_px", "tile_px", "columns", "rows", "image_tokens", "prompt_tokens", "output_tokens", "batch_size")
ADDED = ("total_flops", "tensor_flops", "vector_flops", "io_bytes", "roofline_seconds", "bound_seconds")  # costs that add up over stages
LARGEST = ("kv_cache_bytes", "peak_activation_bytes")  # costs of which the largest stage counts
COSTS = (*ADDED, *LARGEST, "arithmetic_intensity", "weight_bytes")
PHASES = {"ttft": ("vision", "prefill"), "tpot": ("decode",)}


def scan_points(results: Results, *conditions: pl.Expr) -> pl.LazyFrame:
    """The points of a sweep, not read yet.

    Columns: what a point is; "stage.cost" for every stage and cost; costs of all stages; "ttft.cost" of the first and "tpot.cost" of a mean
    output token; those of `cases_frame`; needed_bytes (weights, KV cache and peak activation memory).

    Args:
        results: of the sweep.
        conditions: on rows of the table "stages"; they hold for all stages of a point or for none.
    """
    rows, stages = results.tables[STAGES].lazy().filter(*conditions), results.sweep.stages
    columns = rows.collect_schema().names()
    costs = [cost for cost in COSTS if cost in columns]
    identity = {"point": None, **dict.fromkeys((*CHOICES, *SHAPE, "image", "page", "tiles", "vendor_supported", "context_tokens"))}
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
    return points.with_columns(needed_bytes=pl.col("weights") + pl.col("kv_cache_bytes") + pl.col("peak_activation_bytes"))


def list_measures(columns: list[str]) -> list[str]:
    """Those columns of `scan_points` that charts may measure."""
    costs = {*COSTS, "weights", "needed_bytes"}
    return [name for name in columns if name in costs or ("." in name and name.partition(".")[2] in COSTS)]


def name_views(row: Row) -> str:
    """The views of a point: "2 × 3", "1024 px view"."""
    return f"{row['columns']} × {row['rows']}" if row["tiles"] else f"{row['global_px']} px view"
