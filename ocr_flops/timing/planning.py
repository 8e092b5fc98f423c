"""Questions asked backwards: what a target requires, what fits, which devices do, and what a thousand pages cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import ceil
from typing import NamedTuple

import numpy as np
import polars as pl

from ocr_flops.errors import SpecError, one_of
from ocr_flops.spec.catalog import load_hardware
from ocr_flops.spec.host import EfficiencySpec, HostSpec
from ocr_flops.spec.reading import names
from ocr_flops.spec.specs import HardwareSpec
from ocr_flops.spec.tiling import square_grids
from ocr_flops.spec.workload import LIMITS, MAX_CONTEXT_TOKENS
from ocr_flops.timing.estimate import Estimate
from ocr_flops.timing.timing import EXPECTED_FIGURES, Timing
from ocr_flops.units import SECONDS_PER_HOUR, si

COLUMN = 40  # values that are tried together, in the search for the largest that fits
LEAST, MOST = 1e-12, 1e24  # of any number that is asked for: rates stay finite
TIMES = ("device_busy_share", "ttft_seconds", "tpot_seconds", "binding_ceiling", "pages_per_second", "host", "efficiency")
NO_TARGET = {"meets_target": None, "target_outlook": None}


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


def _check_positive(name: str, value: float, least: float = LEAST) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= MOST:
        raise SpecError(f"{name}: {value!r} is not a number from {least:g} to {MOST:g}")


def largest_batch(estimate: Estimate, memory_bytes: float) -> int:
    """The largest batch size whose weights, cache and activations fit; 0 if not even one page does."""
    return _largest(estimate, [memory_bytes], "batch_size", *LIMITS["batch_size"])[0]


def largest_context(estimate: Estimate, memory_bytes: float) -> int:
    """The longest context in tokens, image tokens included, that fits with this workload's views, outputs and batch; 0 if none does."""
    image, (least, most) = estimate.workload.image_tokens, LIMITS["prompt_tokens"]
    prompt = _largest(estimate, [memory_bytes], "prompt_tokens", least, min(most, MAX_CONTEXT_TOKENS - image))[0]
    return image + prompt if prompt >= least else 0


def _largest(estimate: Estimate, limits: Sequence[float], field: str, least: int, most: int) -> list[int]:
    """Of each limit in bytes the largest value of a field whose workload fits, least - 1 if none does; memory never falls when it grows.

    Searched for all limits together, in a few columns of values.
    """
    for limit in limits:
        _check_positive("memory_bytes", limit)

    def total_bytes(values: np.ndarray) -> np.ndarray:
        try:
            return replace(estimate, workload=replace(estimate.workload, **{field: values})).footprint.total_bytes
        except SpecError:  # beyond 2^62 somewhere
            return np.concatenate([total_bytes(half) for half in np.array_split(values, 2)]) if len(values) > 1 else np.array([np.inf])

    fitting, exceeding = np.full(len(limits), least - 1), np.full(len(limits), most + 1)
    while np.any(exceeding - fitting > 1):
        values = np.unique(np.linspace(fitting + 1, exceeding - 1, COLUMN).astype(np.int64))
        totals = total_bytes(values)
        for place, limit in enumerate(limits):
            here = slice(*np.searchsorted(values, (fitting[place] + 1, exceeding[place])))
            fits = int(np.searchsorted(totals[here], limit, side="right"))
            inside = values[here]
            fitting[place] = inside[fits - 1] if fits else fitting[place]
            exceeding[place] = inside[fits] if fits < len(inside) else exceeding[place]
    return fitting.tolist()


def largest_grid(estimate: Estimate, memory_bytes: float, most: int = 1000) -> tuple[int, int] | None:
    """The grid (columns, rows) of most tiles that fits, among the most square grid of every tile count; None if not even two tiles do, or
    where no grid can be chosen: in a mode without tiles, and of a model with a page rule of its own."""
    _check_positive("memory_bytes", memory_bytes)
    if not estimate.workload.tile_px or estimate.workload.page_rule:
        return None
    columns, rows = np.array(square_grids(most), np.int64).T
    grids = replace(estimate.workload, columns=columns, rows=rows, image_width_px=0, image_height_px=0)
    fitting = np.flatnonzero(replace(estimate, workload=grids).footprint.total_bytes <= memory_bytes)
    return (int(columns[fitting[-1]]), int(rows[fitting[-1]])) if len(fitting) else None


def compare_devices(
    estimate: Estimate,
    hardware: str | HardwareSpec | Iterable[str | HardwareSpec] | None = None,
    *,
    ttft_seconds: float | None = None,
    tpot_seconds: float | None = None,
    price_per_hour: float | Mapping[str, float] | None = None,
    memory_bytes: float | None = None,
    best_batch: bool = False,
    pages: float | None = None,
    gpus: int = 1,
    host: str | HostSpec | None = None,
    efficiency: str | EfficiencySpec | None = None,
    on: Callable[[HardwareSpec], Timing] | None = None,
) -> pl.DataFrame:
    """What is expected of each device: one row per device, those that run it first, fastest first.

    Args:
        estimate: one point; its batch size is the one that is meant.
        hardware: the devices, or their names, or one; all by default.
        ttft_seconds, tpot_seconds: targets; None for none.
        price_per_hour: of one device, in any currency; or of devices by name.
        memory_bytes: what may be taken of a device's memory; all of it by default.
        best_batch: take of each device the batch with most expected pages a second that fits and meets the targets, where one does.
        pages, gpus: how many pages are to be done, by how many devices of a kind; adds hours and cost.
        host, efficiency: as in `Estimate.on`.
        on: times the estimate on a device, where that is not the same host and efficiency on all.

    Returns:
        columns hardware, label, memory_bytes, fits, batch_size, headroom_bytes (memory left; below 0 what lacks) and largest_batch;
        expected_ttft_seconds, expected_tpot_seconds and expected_pages_per_second, each with its range (..._low..., ..._high...), and
        device_busy_share; of the roofline ttft_seconds, tpot_seconds, binding_ceiling (of the stage that takes longest) and
        pages_per_second; host and efficiency (names of what expected times rest on); from expected times meets_target (null without a
        target) and target_outlook ("yes" where all of the range meets it, "likely" where the expected value does, "unlikely" where only
        the fast end does, "no"); gpu_hours_per_1000_pages, with a price cost_per_1000_pages, with pages hours and, with a price, cost,
        each with its range (..._low, ..._high); and reason: why a device does not run it, null where it does. One without a figure for
        the dtype or a kernel has no times (null); one that it does not fit no pages a second, hours or cost.
    """
    if not isinstance(estimate, Estimate) or not estimate.workload.is_single:
        raise SpecError(f"estimate: {estimate!r} is no Estimate of one point; make it as in ocr_flops.estimate(model, workload)")
    hardware = names("hardware") if hardware is None else [hardware] if isinstance(hardware, str | HardwareSpec) else hardware
    devices = [load_hardware(one) if isinstance(one, str) else one for one in hardware]
    prices = price_per_hour if isinstance(price_per_hour, Mapping) else {}
    for name in prices:
        one_of("price_per_hour", name, tuple(dict.fromkeys((*names("hardware"), *(device.name for device in devices)))))
    numbers = {"ttft_seconds": ttft_seconds, "tpot_seconds": tpot_seconds, "memory_bytes": memory_bytes, "pages": pages, "gpus": gpus}
    numbers |= {f"price_per_hour.{name}": one for name, one in prices.items()} or {"price_per_hour": price_per_hour}
    for name, value in numbers.items():
        if value is not None:
            _check_positive(name, value, 1 if name in ("pages", "gpus") else LEAST)
    targets, rows = {"ttft": ttft_seconds, "tpot": tpot_seconds}, []
    limits = [min(device.memory_bytes, memory_bytes or device.memory_bytes) for device in devices]
    different = sorted({*limits})  # many devices have the same memory
    found = dict(zip(different, _largest(estimate, different, "batch_size", *LIMITS["batch_size"]), strict=True))
    for device, limit in zip(devices, limits, strict=True):
        largest, point, reason = found[limit], estimate, estimate.config.obstacle(device)
        try:
            timing = on(device) if on else estimate.on(device, host=host, efficiency=efficiency)
            if best_batch and largest:
                point = with_best_batch(timing, largest, targets)
                timing = replace(timing, estimate=point)
            rooflines = timing.ttft_seconds, timing.tpot_seconds, timing.binding_ceiling, timing.pages_per_second
            basis = timing.host.name, timing.efficiency.name
            times = timing.expected_figures() | dict(zip(TIMES, (timing.device_busy_share, *rooflines, *basis), strict=True))
        except SpecError as problem:
            times, reason = dict.fromkeys((*EXPECTED_FIGURES, *TIMES)), reason or str(problem)
        headroom = int(limit - point.footprint.total_bytes)
        if headroom < 0:
            times |= {name: None for name in times if "pages_per_second" in name}
            reason = reason or f"does not fit: needs {si(point.footprint.total_bytes, 'B')}"
        outlook = "no" if reason and any(targets.values()) else _judge(times, targets)
        row = {"hardware": device.title, "label": device.label, "memory_bytes": int(device.memory_bytes), "fits": headroom >= 0}
        row |= {"batch_size": point.workload.batch_size, "headroom_bytes": headroom, "largest_batch": largest} | times
        row |= {"meets_target": outlook in ("yes", "likely"), "target_outlook": outlook} if outlook else NO_TARGET
        price, batch = prices.get(device.name) if prices else price_per_hour, point.workload.batch_size * point.workload.pages
        row |= _hours_and_cost(times, price, pages, gpus, batch)
        rows.append(row | {"reason": reason})
    texts = dict.fromkeys(("reason", "target_outlook"), pl.String)
    floats = {name: pl.Float64 for name in rows[0] if name.startswith(("gpu_hours", "cost", "hours", "expected"))} if rows else {}
    frame = pl.DataFrame(rows, schema_overrides={"meets_target": pl.Boolean, **texts, **floats}, infer_schema_length=None)
    frame = frame.select(name for name in frame.columns if "cost" not in name or price_per_hour is not None)
    return frame.sort(pl.col("reason").is_null(), "expected_pages_per_second", descending=True, nulls_last=True)


def with_best_batch(timing: Timing, largest: int, targets: Mapping[str, float | None], group: int = 1) -> Estimate:
    """The estimate at the batch size with most expected pages a second, of those that meet the targets where some do.

    Tried are, as multiples of a group, the powers of two, what is half-way between them, and the largest that fits.
    """
    sizes = group * np.unique([size for power in range(17) for size in (2**power, 3 * 2**power // 2)] + [largest // group])
    sizes = sizes[(sizes >= 1) & (sizes <= largest)]
    found = replace(timing, estimate=timing.estimate.with_workload(batch_size=sizes)).expected_figures()
    pages = found["expected_pages_per_second"]
    if pages is None:
        return timing.estimate
    meets = np.all([found[f"expected_{name}_seconds"] <= target for name, target in targets.items() if target], axis=0)
    best = np.argmax(np.where(meets, pages, pages / pages.max() - 1))  # of those that miss a target the one that misses with most pages
    return timing.estimate.with_workload(batch_size=int(sizes[best]))


def _judge(times: Mapping[str, float | None], targets: Mapping[str, float | None]) -> str:
    """Whether expected times meet the targets, in a word of `compare_devices`; "" without a target."""
    words = ["yes", "likely", "unlikely", "no"]
    found = []
    for name, target in targets.items():
        if target is not None:
            ends = (times[f"expected_{name}{end}_seconds"] for end in ("_high", "", "_low"))
            found.append(next((place for place, end in enumerate(ends) if end is not None and end <= target), len(words) - 1))
    return words[max(found)] if found else ""


def _hours_and_cost(
    times: Mapping[str, float | None], price: float | None, pages: float | None, gpus: int, batch: int
) -> dict[str, float | None]:
    """Hours and money for a thousand pages and for those wanted, in whole batches, each with its range: fewest pages a second take most."""
    found: dict[str, float | None] = {}
    for end, rate in (("", ""), ("_low", "_high"), ("_high", "_low")):
        speed = times[f"expected_pages_per_second{rate}"]
        hours = 1000 / speed / SECONDS_PER_HOUR if speed else None
        found[f"gpu_hours_per_1000_pages{end}"] = hours
        found[f"cost_per_1000_pages{end}"] = None if hours is None or price is None else hours * price
        if pages is not None:
            batches, each = ceil(pages / batch), hours and hours * batch / 1000
            found[f"hours{end}"] = each and ceil(batches / gpus) * each
            found[f"cost{end}"] = None if each is None or price is None else batches * each * price
    return found
