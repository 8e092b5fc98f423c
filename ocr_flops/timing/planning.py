"""Questions asked backwards: what a target requires, what fits, which devices do, and what a thousand pages cost."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ocr_flops.errors import SpecError
from ocr_flops.spec.host import EfficiencySpec, HostSpec
from ocr_flops.spec.specs import HardwareSpec
from ocr_flops.spec.tiling import square_grids
from ocr_flops.spec.workload import LIMITS, MAX_CONTEXT_TOKENS, Workload
from ocr_flops.timing.estimate import Estimate
from ocr_flops.timing.timing import EXPECTED_FIGURES, Timing
from ocr_flops.units import si

if TYPE_CHECKING:
    import polars as pl

SECONDS_PER_HOUR = 3600
TIMES = ("device_busy_share", "ttft_seconds", "tpot_seconds", "binding_ceiling", "pages_per_second", "host", "efficiency")


class RequiredRates(NamedTuple):
    """Sustained rates that a target, "ttft" or "tpot", needs: its work and DRAM traffic over its seconds; none alone is enough."""

    target: str
    seconds: float
    matrix_flops_per_second: float
    vector_flops_per_second: float
    bytes_per_second: float


def required_rates(estimate: Estimate, *, ttft_seconds: float | None = None, tpot_seconds: float | None = None) -> list[RequiredRates]:
    """The rates a device must sustain for a time to first token, and for a mean time per output token.

    Args:
        estimate: one point.
        ttft_seconds, tpot_seconds: targets; None for none.

    Raises:
        SpecError: a target that is not positive, of a stage that is not in the estimate, or a tpot target without output tokens.
    """
    tokens, found = estimate.workload.output_tokens, []
    targets = (("ttft", ttft_seconds, ("vision", "prefill"), 1), ("tpot", tpot_seconds, ("decode",), tokens))
    for target, seconds, stages, times in targets:
        if seconds is None:
            continue
        _check_positive(f"{target}_seconds", seconds)
        for stage in stages:
            if stage not in estimate.chosen_stages:
                raise SpecError(f"{target}_seconds: needs the stage {stage}, and stages = {', '.join(estimate.chosen_stages)}")
        if not times:
            raise SpecError("tpot_seconds: a time per output token needs workload.output_tokens of at least 1")
        rows = [estimate.stage_numbers[stage] for stage in stages]
        rates = (sum(row[column] for row in rows) / times / seconds for column in ("tensor_flops", "vector_flops", "io_bytes"))
        found.append(RequiredRates(target, seconds, *rates))
    return found


def _check_positive(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise SpecError(f"{name}: {value!r} is not a positive number")


def largest_batch(estimate: Estimate, memory_bytes: float) -> int:
    """The largest batch size whose weights, cache and activations fit; 0 if not even one page does."""
    return _largest(estimate, memory_bytes, *LIMITS["batch_size"], lambda value: replace(estimate.workload, batch_size=value))


def largest_context(estimate: Estimate, memory_bytes: float) -> int:
    """The longest context in tokens, image tokens included, that fits with this workload's views, outputs and batch; 0 if none does."""
    image, (least, most) = estimate.workload.image_tokens, LIMITS["prompt_tokens"]
    most = min(most, MAX_CONTEXT_TOKENS - image)
    prompt = _largest(estimate, memory_bytes, least, most, lambda value: replace(estimate.workload, prompt_tokens=value))
    return image + prompt if prompt >= least else 0


def _largest(estimate: Estimate, memory_bytes: float, least: int, most: int, workload: Callable[[int], Workload]) -> int:
    """The largest value whose workload fits, least - 1 if none does; memory never falls when a size grows."""
    _check_positive("memory_bytes", memory_bytes)

    def exceeds(value: int) -> bool:
        try:
            return replace(estimate, workload=workload(value)).footprint.total_bytes > memory_bytes
        except SpecError:  # beyond 2^62
            return True

    return least + bisect_left(range(least, most + 1), True, key=exceeds) - 1


def largest_grid(estimate: Estimate, memory_bytes: float, most: int = 1000) -> tuple[int, int] | None:
    """The grid (columns, rows) of most tiles that fits, among the most square grid of every tile count; None if not even two tiles do.

    Raises:
        SpecError: a mode without tiles.
    """
    _check_positive("memory_bytes", memory_bytes)
    columns, rows = np.array(square_grids(most), np.int64).T
    grids = replace(estimate.workload, columns=columns, rows=rows, image_width_px=0, image_height_px=0)
    fitting = np.flatnonzero(replace(estimate, workload=grids).footprint.total_bytes <= memory_bytes)
    return (int(columns[fitting[-1]]), int(rows[fitting[-1]])) if len(fitting) else None


def compare_devices(
    estimate: Estimate,
    hardware: Iterable[HardwareSpec],
    *,
    ttft_seconds: float | None = None,
    tpot_seconds: float | None = None,
    price_per_hour: float | None = None,
    host: str | HostSpec | None = None,
    efficiency: str | EfficiencySpec | None = None,
    on: Callable[[HardwareSpec], Timing] | None = None,
) -> pl.DataFrame:
    """What is expected of each device: one row per device, those that run it first, fastest first.

    Args:
        estimate: one point; its batch size is the one that is meant.
        hardware: the devices.
        ttft_seconds, tpot_seconds: targets; None for none.
        price_per_hour: of one device, in any currency.
        host, efficiency: as in `Estimate.on`.
        on: times the estimate on a device, where that is not the same host and efficiency on all.

    Returns:
        columns hardware, label, memory_bytes, fits; expected_ttft_seconds, expected_tpot_seconds and expected_pages_per_second, each with
        its range (..._low..., ..._high...), and device_busy_share; of the roofline ttft_seconds, tpot_seconds, binding_ceiling (of the
        stage that takes longest) and pages_per_second; host and efficiency (names of what expected times rest on); from expected
        times meets_target (null without a target), gpu_hours_per_1000_pages and, with a price, cost_per_1000_pages; and reason: why a
        device does not run it, null where it does. One without a figure for the dtype or a kernel has no times (null).
    """
    import polars as pl

    for name, value in (("ttft_seconds", ttft_seconds), ("tpot_seconds", tpot_seconds), ("price_per_hour", price_per_hour)):
        if value is not None:
            _check_positive(name, value)
    rows = []
    needed, has_target = estimate.footprint.total_bytes, ttft_seconds is not None or tpot_seconds is not None
    for device in hardware:
        fits, reason = bool(needed <= device.memory_bytes), estimate.config.obstacle(device)
        try:
            timing = on(device) if on else estimate.on(device, host=host, efficiency=efficiency)
            slowest = max(zip(timing.stages["roofline_seconds"], timing.stages["binding_ceiling"], strict=True))[1]
            rooflines = timing.ttft_seconds, timing.tpot_seconds, slowest, timing.pages_per_second
            basis = timing.host.name, timing.efficiency.name
            times = timing.expected_figures() | dict(zip(TIMES, (timing.device_busy_share, *rooflines, *basis), strict=True))
        except SpecError as problem:
            times, reason = dict.fromkeys((*EXPECTED_FIGURES, *TIMES)), reason or str(problem)
        reason = reason or (None if fits else f"does not fit: needs {si(needed, 'B')}")
        reached = ((times["expected_ttft_seconds"], ttft_seconds), (times["expected_tpot_seconds"], tpot_seconds))
        meets = reason is None and all(target is None or (seconds is not None and seconds <= target) for seconds, target in reached)
        pages = times["expected_pages_per_second"]
        hours = 1000 / pages / SECONDS_PER_HOUR if pages else None
        row = {"hardware": device.title, "label": device.label, "memory_bytes": int(device.memory_bytes), "fits": fits, **times}
        row |= {"meets_target": meets if has_target else None, "gpu_hours_per_1000_pages": hours}
        if price_per_hour is not None:
            row["cost_per_1000_pages"] = None if hours is None else hours * price_per_hour
        rows.append(row | {"reason": reason})
    frame = pl.DataFrame(rows, schema_overrides={"meets_target": pl.Boolean, "reason": pl.String}, infer_schema_length=None)
    return frame.sort(pl.col("reason").is_null(), "expected_pages_per_second", descending=True, nulls_last=True)
