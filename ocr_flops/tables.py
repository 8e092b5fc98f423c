"""Frames as tables for people: readable names, units in the headers."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

UNITS = {"GFLOPs": 1e9, "MB": 1e6, "GB": 1e9}
MODULES = {  # column: header, and the unit it is shown in
    "tensor_flops": ("tensor GFLOPs", "GFLOPs"),
    "vector_flops": ("vector GFLOPs", "GFLOPs"),
    "torch_flops": ("torch GFLOPs", "GFLOPs"),
    "operators": ("operators", None),
    "weight_bytes": ("weights (MB)", "MB"),
    "kv_cache_bytes": ("KV cache (MB)", "MB"),
}
COUNTS = {"difference": "difference", "counted_flops": "counted FLOPs", "analytic_flops": "analytic FLOPs"}


def modules_table(modules: pl.DataFrame) -> pl.DataFrame:
    """A module frame with a number a cell in the unit of its header; `attention` only where there are several."""
    labels = ["stage", "module", *(["attention"] if modules["attention"].n_unique() > 1 else [])]
    numbers = [(pl.col(name) / UNITS[unit] if unit else pl.col(name)).alias(header) for name, (header, unit) in MODULES.items()]
    share = (100 * pl.col("total_flops") / pl.col("total_flops").sum().over("attention")).alias("share of FLOPs (%)")
    return modules.select(*(pl.col(name).cast(pl.String) for name in labels), share, *numbers, pl.col("evidence").cast(pl.String))


def formats(table: pl.DataFrame) -> dict[str, Callable[[float], str]]:
    """How to print each numeric column: thousands apart, three decimals where it is not a whole number."""
    return {name: "{:,.0f}".format if kind.is_integer() else "{:,.3f}".format for name, kind in table.schema.items() if kind.is_numeric()}


def measured_table(measured: pl.DataFrame) -> pl.DataFrame:
    """Counted against analytic FLOPs of every measured module, as exact integers."""
    steps = pl.when(pl.col("stage") == "decode").then(pl.format("decode, {} steps", "steps")).otherwise(pl.col("stage")).alias("stage")
    numbers = (pl.col(name).alias(header) for name, header in COUNTS.items())
    return measured.select("point", steps, "module", *numbers, "ran", pl.col("prefill_logits").alias("logits"), "dtype")
