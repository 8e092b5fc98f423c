"""Questions asked backwards: what a target requires, what fits, which devices do, and what a thousand pages cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ocr_flops.errors import SpecError
from ocr_flops.spec.workload import LIMITS, MAX_CONTEXT_TOKENS, Workload
from ocr_flops.timing.estimate import Estimate

if TYPE_CHECKING:
    import polars as pl

    from ocr_flops.spec.specs import HardwareSpec

SECONDS_PER_HOUR = 3600


class Required(NamedTuple):
    """Sustained rates that a target needs; neither alone is enough.

    Args:
        target: "ttft" or "tpot".
        seconds: the target.
        matrix_flops_per_second: matrix FLOPs over the target.
        vector_flops_per_second: vector FLOPs over the target.
        bytes_per_second: bytes moved over the target.
    """

    target: str
    seconds: float
    matrix_flops_per_second: float
    vector_flops_per_second: float
    bytes_per_second: float


def required(estimate: Estimate, *, ttft_seconds: float | None = None, tpot_seconds: float | None = None) -> list[Required]:
    """The rates a device must sustain for a time to first token, and for a mean time per output token.

    Args:
        estimate: one point.
        ttft_seconds, tpot_seconds: targets; None for none.

    Raises:
        SpecError: a target that is not positive, of a stage that was not asked for, or a tpot target without output tokens.
    """
    found = []
    for target, seconds, stages in (("ttft", ttft_seconds, ("vision", "prefill")), ("tpot", tpot_seconds, ("decode",))):
        if seconds is None:
            continue
        _positive(f"{target}_seconds", seconds)
        missing = [stage for stage in stages if stage not in estimate.chosen_stages]
        if missing:
            raise SpecError(f"{target}_seconds: needs the stage {missing[0]}, and stages = {', '.join(estimate.chosen_stages)}")
        times = estimate.workload.output_tokens if target == "tpot" else 1
        if not times:
            raise SpecError("tpot_seconds: a time per output token needs workload.output_tokens of at least 1")
        rows = [estimate.stage_numbers[stage] for stage in stages]
        rates = (sum(row[column] for row in rows) / times / seconds for column in ("tensor_flops", "vector_flops", "io_bytes"))
        found.append(Required(target, seconds, *rates))
    return found


def _positive(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise SpecError(f"{name}: {value!r} is not a positive number")


def largest_batch(estimate: Estimate, memory_bytes: float) -> int:
    """The largest batch size whose weights, cache and activations fit; 0 if not even one page does."""
    return _largest(lambda value: replace(estimate.workload, batch_size=value), estimate, memory_bytes, 1, LIMITS["batch_size"][1])


def largest_context(estimate: Estimate, memory_bytes: float) -> int:
    """The longest context in tokens, image tokens included, that fits with this workload's views, outputs and batch; 0 if none does."""
    image = estimate.workload.image_tokens
    most = min(LIMITS["prompt_tokens"][1], MAX_CONTEXT_TOKENS - image)
    prompt = _largest(lambda value: replace(estimate.workload, prompt_tokens=value), estimate, memory_bytes, 0, most, none=-1)
    return 0 if prompt < 0 else image + prompt


def _largest(workload: Callable[[int], Workload], estimate: Estimate, memory_bytes: float, least: int, most: int, none: int = 0) -> int:
    """Bisects for the largest value that fits: memory never falls when a size grows."""
    _positive("memory_bytes", memory_bytes)

    def fits(value: int) -> bool:
        try:
            return replace(estimate, workload=workload(value)).footprint.total_bytes <= memory_bytes
        except SpecError:  # beyond 2^62
            return False

    if not fits(least):
        return none
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if fits(middle) else (least, middle - 1)
    return least


def square_grids(most: int = 1000) -> list[tuple[int, int]]:
    """For every tile count from 2 to most, its most square grid (columns, rows), columns <= rows."""
    narrow = ((tiles, max(side for side in range(1, math.isqrt(tiles) + 1) if tiles % side == 0)) for tiles in range(2, most + 1))
    return [(columns, tiles // columns) for tiles, columns in narrow]


def largest_grid(estimate: Estimate, memory_bytes: float, most: int = 1000) -> tuple[int, int] | None:
    """The grid (columns, rows) of most tiles that fits, among the most square grid of every tile count; None if not even two tiles do.

    Raises:
        SpecError: a mode without tiles.
    """
    _positive("memory_bytes", memory_bytes)
    columns, rows = (np.array(values, np.int64) for values in zip(*square_grids(most), strict=True))
    grids = replace(estimate.workload, columns=columns, rows=rows, image_width_px=0, image_height_px=0)
    fitting = np.flatnonzero(replace(estimate, workload=grids).footprint.total_bytes <= memory_bytes)
    if not len(fitting):
        return None
    return int(columns[fitting[-1]]), int(rows[fitting[-1]])


def devices(
    estimate: Estimate,
    hardware: Iterable[HardwareSpec],
    *,
    ttft_seconds: float | None = None,
    tpot_seconds: float | None = None,
    price_per_hour: float | None = None,
) -> pl.DataFrame:
    """What each device would do at best: one row per device, fastest first.

    Args:
        estimate: one point; its batch size is the one asked about.
        hardware: the devices.
        ttft_seconds, tpot_seconds: targets; None for none.
        price_per_hour: of one device, in any currency.

    Returns:
        columns hardware, label, memory_bytes, fits, ttft_seconds, tpot_seconds, binding_ceiling (of the stage that takes longest),
        pages_per_second, meets_target, gpu_hours_per_1000_pages and, with a price, cost_per_1000_pages. A device without a figure for the
        dtype is left out of the times (null).
    """
    import polars as pl

    for name, value in (("ttft_seconds", ttft_seconds), ("tpot_seconds", tpot_seconds), ("price_per_hour", price_per_hour)):
        if value is not None:
            _positive(name, value)
    rows = []
    for device in hardware:
        row = {
            "hardware": device.name,
            "label": device.label,
            "memory_bytes": int(device.memory_bytes),
            "fits": bool(estimate.footprint.total_bytes <= device.memory_bytes),
        }
        try:
            timing = estimate.on(device)
            slowest = max(zip(timing.stages["roofline_seconds"], timing.stages["binding_ceiling"], strict=True))[1]
            ttft, tpot, pages = timing.ttft_seconds, timing.tpot_seconds, timing.pages_per_second
        except SpecError:
            slowest = ttft = tpot = pages = None
        targets = ((ttft, ttft_seconds), (tpot, tpot_seconds))
        meets = row["fits"] and slowest is not None and all(most is None or (real is not None and real <= most) for real, most in targets)
        hours = gpu_hours(pages) if pages else None
        row |= {
            "ttft_seconds": ttft,
            "tpot_seconds": tpot,
            "binding_ceiling": slowest,
            "pages_per_second": pages,
            "meets_target": meets,
            "gpu_hours_per_1000_pages": hours,
        }
        if price_per_hour is not None:
            row["cost_per_1000_pages"] = None if hours is None else hours * price_per_hour
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None).sort("pages_per_second", descending=True, nulls_last=True)


def gpu_hours(pages_per_second: float, pages: int = 1000) -> float:
    """Device hours for a number of pages."""
    return pages / pages_per_second / SECONDS_PER_HOUR
