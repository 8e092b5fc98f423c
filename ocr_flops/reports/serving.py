"""What a serving engine delivers, in sentences and as a table for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ocr_flops.timing.serving.steady import PARTS, Serving
from ocr_flops.units import count, interval, seconds, si

if TYPE_CHECKING:
    import polars as pl

WHAT = {  # names of limits in words
    "cache": "the cache",
    "sequences": "max_num_seqs",
    "token budget": "max_num_batched_tokens",
    "preprocessing": "cutting pages on the CPU",
    "vision": "vision",
    "prefill": "prefill",
    "bandwidth": "memory bandwidth (weights and cache are read for every token)",
    "matrix": "the matrix units",
    "host": "the host (Python between steps)",
}


def count_interval(row: Any) -> str:
    """Three numbers of pages: 103,000 (78,700 to 126,000)."""
    return f"{count(row[0])} ({count(row[1])} to {count(row[2])})"


def name_devices(serving: Serving) -> str:
    """The devices in words: one NVIDIA L4 (24 GB), or 8 of them."""
    return f"one {serving.hardware.label}" if serving.replicas == 1 else f"{serving.replicas} x {serving.hardware.label}"


def describe_serving(serving: Serving) -> str:
    """One concurrency or rate in a few sentences: pages a day, waiting times, what limits, what was clipped."""
    devices, limit = name_devices(serving), WHAT[serving.limited_by]
    if not serving.is_stable:
        most = f"{count_interval(serving.capacity_per_second)} requests/s, which is {count_interval(serving.pages_per_day)} pages a day"
        return f"Unstable: the queue grows. {si(serving.rate)} requests/s arrive; {devices} can serve {most}. Limited by {limit}."
    load = f"{serving.concurrency} requests in flight" if serving.rate is None else f"{si(serving.rate)} requests/s"
    load += " on each" if serving.replicas > 1 and serving.rate is None else ""
    said = (
        f"{devices[:1].upper()}{devices[1:]} with {load}: {count_interval(serving.pages_per_day)} pages a day. "
        f"The first token comes after {interval(serving.ttft_seconds)} on average, each later one after {interval(serving.tpot_seconds)}."
    )
    if serving.asked_concurrency and serving.asked_concurrency > serving.concurrency:
        said += f" {serving.asked_concurrency} were asked for; {serving.concurrency} run at once, so this is shown: the others wait."
    if serving.rate is not None:
        return f"{said} At most {count_interval(serving.capacity_per_second)} requests/s, by {limit}."
    return f"{said} Limited by {limit}."


def describe_step(serving: Serving) -> str:
    """Where the time of a step goes, and what the cache holds."""
    parts = ", ".join(f"{name} {seconds(float(part))}" for name, part in zip(PARTS, serving.step_parts, strict=True))
    return (
        f"A step takes {seconds(serving.step_seconds.value)}: {parts}. "
        f"The device is busy {100 * serving.device_busy_share:.0f} % of the time. "
        f"The cache holds {serving.kv_capacity_tokens:,} tokens, of which {100 * serving.kv_use_share:.0f} % are in use; "
        f"{serving.max_concurrency} such requests run at once."
    )


def serving_table(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame of one or several servings as a table for people, every time and rate with its range."""

    def spread(row: dict[str, Any], stem: str, unit: str = "") -> tuple[Any, ...]:
        return tuple(row[f"{stem}{part}{unit}"] for part in ("", "_low", "_high"))

    rows = []
    for row in frame.iter_rows(named=True):
        load = {"in flight": str(row["concurrency"])} if row["rate"] is None else {"requests/s": f"{row['rate']:.3g}"}
        first = interval(spread(row, "ttft", "_seconds")) if row["is_stable"] else "the queue grows"
        rows.append(
            {"hardware": row["hardware"], **load}
            | {"pages a day": count_interval(spread(row, "pages_per_day")), "first token": first}
            | {"a token": interval(spread(row, "tpot", "_seconds")), "busy": f"{100 * row['device_busy_share']:.0f} %"}
            | {"most at once": str(row["max_concurrency"]), "limited by": row["limited_by"]}
        )
    import polars as pl

    return pl.DataFrame(rows)
