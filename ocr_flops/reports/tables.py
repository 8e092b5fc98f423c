"""What tables show: columns in their order, headings with units, and how numbers are printed; Markdown, HTML and the app render them."""

from collections.abc import Callable
from functools import partial
from math import floor, log10
from typing import Any

import polars as pl

from ocr_flops.units import ENDS, duration, per_day, seconds

HEADINGS = {  # column: heading, in which {} is an SI prefix; what matters most is seen without scrolling
    "tensor_flops": "tensor {}FLOPs",
    "io_bytes": "DRAM traffic ({}B)",
    "peak_activation_bytes": "peak activations ({}B)",
    "vector_flops": "vector {}FLOPs",
    "weight_bytes": "weights ({}B)",
    "kv_cache_bytes": "KV cache ({}B)",
    "operators": "kernel launches",
    "torch_flops": "torch {}FLOPs",
}
_FIGURES = (("ttft", "TTFT", "_seconds"), ("tpot", "TPOT", "_seconds"), ("pages_per_second", "pages a day", ""))
TITLES = {name: heading.format("") for name, heading in HEADINGS.items()} | {  # of columns that are not scaled
    "total_flops": "FLOPs",
    "torch_flops_counted": "torch FLOPs",
    "arithmetic_intensity": "FLOPs/byte",
    "expected_seconds": "expected",
    "expected_low_seconds": "low",
    "expected_high_seconds": "high",
    "device_busy_share": "device busy",
    "roofline_seconds": "roofline",
    "bound_seconds": "bound",
    "binding_ceiling": "bound by",
    "total_bytes": "memory needed (B)",
    "expected_ttft": "expected TTFT",
    "expected_tpot": "expected TPOT",
    **{f"expected_{name}{part}{unit}": f"{title}{part.replace('_', ' ')}" for name, title, unit in _FIGURES for part in ENDS},
    **{f"{name}{unit}": f"{title}, roofline" for name, title, unit in _FIGURES},
    "gpu_hours_per_1000_pages": "GPU hours/1000 pages",
    "target_outlook": "meets target",
    "headroom_bytes": "memory left",
    "batch_size": "batch",
    "cost_per_1000_pages": "cost/1000 pages",
}
PREFIXES = {"G": {"G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}, "M": {"M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}}
BOUND = {"matrix": "matrix", "vector": "vector", "bandwidth": "memory", "launch": "launch"}  # ceiling: the word before "-bound"
DIGITS = 4  # of numbers that are not whole, before and after the point
NONE = "–"


def modules_table(modules: pl.DataFrame) -> pl.DataFrame:
    """The modules of an estimate, every column in the unit of its largest number; `attention` and `evidence` where there are several."""
    labels = ["stage", "module", *(["attention"] if modules["attention"].n_unique() > 1 else [])]
    share = (100 * pl.col("total_flops") / pl.col("total_flops").sum().over("attention")).alias("% of FLOPs")
    scaled = [_scale(modules[name], heading) for name, heading in HEADINGS.items()]
    evidence = [pl.col("evidence").cast(pl.String)] if modules["evidence"].n_unique() > 1 else []
    return modules.select(pl.col(labels).cast(pl.String), share, *scaled, *evidence)


def _scale(column: pl.Series, heading: str) -> pl.Series:
    """A column in the smallest unit in which its largest number has at most four digits before the point."""
    if "{}" not in heading:
        return column.alias(heading)
    units = PREFIXES["G" if "FLOPs" in heading else "M"]
    most = column.max() or 0
    prefix = next((prefix for prefix, factor in units.items() if most < 10**DIGITS * factor), "E")
    return (column / units[prefix]).alias(heading.format(prefix))


def number_formats(table: pl.DataFrame) -> dict[str, Callable[[float | None], str]]:
    """How to print each numeric column: whole numbers exactly, others with four digits, with thousands separators; a dash for null."""
    numeric = [name for name, kind in table.schema.items() if kind.is_numeric()]
    whole = {name for name in numeric if table[name].dtype.is_integer() or (table[name].drop_nulls() % 1 == 0).all()}
    return {name: partial(_print_number, whole=name in whole) for name in numeric}


def _print_number(value: float | None, whole: bool) -> str:
    if value is None:
        return NONE
    if whole or not value:
        return f"{int(value):,}"
    if abs(value) < 0.5 * 10**-DIGITS:
        return f"<{10**-DIGITS:.{DIGITS}f}"
    return f"{value:,.{min(DIGITS, max(0, DIGITS - 1 - floor(log10(abs(value)))))}f}"


COMPARED = {  # what a result of the real model is compared in: its columns, measured and analytic
    "FLOPs": ("counted_flops", "analytic_flops"),
    "bytes moved": ("measured_io_bytes", "analytic_io_bytes"),
    "peak bytes": ("measured_peak_bytes", "analytic_peak_bytes"),
}


def measured_table(measured: pl.DataFrame) -> pl.DataFrame:
    """FLOPs, bytes moved and peaks of every measured module, each after its difference from the analytic value, as exact integers."""
    steps = pl.when(pl.col("stage") == "decode").then(pl.format("decode, {} steps", "steps")).otherwise(pl.col("stage")).alias("stage")
    minute = pl.col("measured_at").str.slice(0, 16).str.replace("T", " ").alias("measured (UTC)")
    logits = pl.format("{}, logits of {}", "dtype", "prefill_logits").alias("precision")
    numbers = []
    for name, (seen, ours) in COMPARED.items():
        numbers += [(pl.col(seen) - pl.col(ours)).alias(f"{name}, difference"), pl.col(seen).alias(f"measured {name}")]
    return measured.select(steps, "module", *numbers, "device", minute, "point", "versions", "ran", logits)


def models_table(models: pl.DataFrame, currency: str = "") -> pl.DataFrame:
    """The rows of `studies.models.compare_models` in TFLOPs, gigabytes and seconds, what there is of them; a dash where there is none.

    Args:
        models: the frame.
        currency: of the price; "" where none is known.
    """
    columns = {
        "label": pl.col("label").alias("model"),
        "image_tokens": pl.col("image_tokens").alias("image tokens"),
        "output_tokens": pl.col("output_tokens").alias("output tokens"),
        "batch_size": pl.col("batch_size").alias("batch"),
        "total_flops": (pl.col("total_flops") / 1e12).alias("TFLOPs a page"),
        "memory_bytes": (pl.col("memory_bytes") / 1e9).alias("memory (GB)"),
        "expected_page_seconds": pl.col("expected_page_seconds").alias("s a page"),
        "expected_pages_per_second": pl.struct(f"expected_pages_per_second{end}" for end in ENDS)
        .map_elements(lambda row: _ranged([*row.values()], per_day, ""), pl.String)
        .alias("pages a day"),
        "cost_per_1000_pages": _with_range("cost{}_per_1000_pages").alias(f"{currency or 'cost'} for 1000 pages"),
        "reason": pl.col("reason").cast(pl.String).fill_null(NONE).alias("note"),
    }
    there = {name for name in models.columns if models[name].null_count() < models.height}
    return models.select(expression for name, expression in columns.items() if name in there)


def _with_range(column: str) -> pl.Expr:
    """Three columns as "0.15 (0.108 to 0.21)"; a dash where there is none."""
    figures = [pl.col(column.format(end)).round_sig_figs(3) for end in ENDS]
    return pl.when(figures[0].is_null()).then(None).otherwise(pl.format("{} ({} to {})", *figures)).fill_null(NONE)


def devices_table(devices: pl.DataFrame, currency: str = "") -> pl.DataFrame:
    """The rows of `planning.compare_devices` for people: figures with their ranges; a dash where a device has none. The currency of prices
    may be unknown ("")."""
    figures: dict[str, tuple[str, str, Callable[[float], str]]] = {
        "pages a day": ("expected_pages_per_second{}", "", per_day),
        "time": ("hours{}", "", duration),
        "cost": ("cost{}", currency, lambda value: f"{value:,.0f}" if value >= 100 else f"{value:.3g}"),
        "first token": ("expected_ttft{}_seconds", "", seconds),
        "a token": ("expected_tpot{}_seconds", "", seconds),
    }
    found = {name: one for name, one in figures.items() if one[0].format("") in devices.columns}
    rows = []
    for row in devices.iter_rows(named=True):
        none = f"{row['batch_size']:,} does not fit; {row['largest_batch'] or 'none'} does"
        batch = none if not row["fits"] and row["expected_ttft_seconds"] else row["reason"] or f"{row['batch_size']:,}"
        named = {"device": row["label"], "meets targets": row["target_outlook"] or NONE, "batch": batch}
        for name, (column, unit, words) in found.items():
            named[name] = _ranged([row[column.format(end)] for end in ENDS], words, unit)
        rows.append(named)
    table = pl.DataFrame(rows)
    return table.drop(name for name in ("meets targets", "cost") if name in table.columns and (table[name] == NONE).all())


def _ranged(figure: list[float | None], words: Callable[[float], str], unit: str) -> str:
    """A figure and its range: 3.4 days (2.9 days to 4 days)."""
    if figure[0] is None:
        return NONE
    value, low, high = map(words, figure)
    return f"{value} {unit}".strip() + ("" if low == high else f" ({low} to {high})")


def settings_table(record: dict[str, Any]) -> pl.DataFrame:
    """The settings that this version was compared in before its release, and the points that they were compared at."""
    columns = ("attention", "dtype", "cache", "prefill_logits", "numbers", "different", "points", "grids")
    ranges = ("batch_size", "prompt_tokens", "output_tokens")
    rows = [
        {name: row[name] for name in columns}
        | {"up to": "{} x {}".format(*row["largest_grid"]), **{name: ", ".join(map(str, row[name])) for name in ranges}}
        for row in record["settings"]
    ]
    return pl.DataFrame(rows).rename({"prefill_logits": "logits", "batch_size": "batch"})


def verification_table(record: dict[str, Any]) -> pl.DataFrame:
    """What this version was compared with before its release: a row per level, stage, module and column."""
    against = {"count": "torch's counter", "trace": "operator trace"}
    kind = pl.col("kind").replace_strict(against, return_dtype=pl.String)
    return pl.DataFrame(record["rows"]).select(
        "stage",
        "module",
        pl.col("column").alias("number"),
        pl.col("largest_difference").alias("largest difference"),
        pl.col("points").alias("compared"),
        pl.format("{}, {}", kind, "attention").alias("against"),
        "level",
    )


def audit_table(audited: pl.DataFrame) -> pl.DataFrame:
    """The demonstrations of what PyTorch's counter sees (rows of `counter_audit.audit_frame`)."""
    return audited.select(
        pl.col("call").alias("what ran"),
        "device",
        "verdict",
        (100 * pl.col("hidden_share")).alias("hidden (%)"),
        (100 * pl.col("share")).alias("like it (%)"),
        pl.col("counted_flops").alias("counted"),
        pl.col("tensor_flops").alias("matrix FLOPs"),
        pl.col("vector_flops").alias("vector FLOPs"),
        "why",
        "remedy",
    )
