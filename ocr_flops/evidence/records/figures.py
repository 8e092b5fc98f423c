"""Figures that follow from a worker's result: middle and spread of the times, use of the device's peaks, memory at its most."""

from collections.abc import Mapping, Sequence
from statistics import median, quantiles
from typing import Any

from ocr_flops.cost.tape import TRAFFIC
from ocr_flops.measure.events import Result
from ocr_flops.measure.plan import Plan
from ocr_flops.spec.specs import DTYPE_BYTES, HardwareSpec
from ocr_flops.spec.workload import Workload
from ocr_flops.timing.estimate import estimate_run

EXPERTS = "decoder.routed_experts"
Figures = dict[str, Any]


def derive_figures(plan: Plan, workload: Workload, result: Result, device: HardwareSpec | None) -> dict[str, Figures]:
    """Derive the figures of each stage of a result, and of its modules.

    They are runs, median_seconds, spread_seconds (interquartile range), min_seconds; torch_flops_counted and, beside it,
    analytic_torch_flops (of what was counted); io_bytes and its source ("traced" or "analytic"); mfu: FLOPs counted / (median seconds x
    matrix peak of the dtype); bandwidth_use: bytes / (median seconds x bandwidth). Peaks, of stages: all that was allocated, weights and
    cache included, and reserved; peak_source "allocator", or "traced": weights, cache at the stage's end and the largest live sum; and
    experts_hit, summed over layers and passes, where FLOPs were counted.
    """
    numbers = estimate_run(plan.run, workload)
    found = {}
    for stage, seen in result.stages.items():
        is_traced = "trace" in (seen["traced"] or {})  # decode of no steps ran nothing
        moved, source = (_traced_bytes(plan, seen["traced"]), "traced") if is_traced else ({}, "analytic")
        figures = {}
        for module, seconds in {None: seen["seconds"], **(seen["module_seconds"] or {})}.items():  # None: the whole stage
            ours = numbers.stage_numbers[stage] if module is None else numbers.module_numbers.get((stage, module), {})
            flops = seen["flops"] if module is None or seen["flops"] is None else seen["modules"].get(module, 0)
            size = moved.get(module, 0) if moved else ours.get("io_bytes", 0)
            figures[module] = _figures(seconds, flops, size, plan.run.dtype, device)
            figures[module] |= {"io_bytes_source": source, "analytic_torch_flops": ours.get("torch_flops", 0)}
        found[stage] = figures.pop(None) | _peaks(seen, result.ran) | {"experts_hit": seen.get("experts_hit"), "modules": figures}
    return found


def _figures(seconds: Sequence[float], flops: int | None, io_bytes: int, dtype: str, device: HardwareSpec | None) -> Figures:
    middle = median(seconds)
    quartiles = quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else [middle] * 3
    peak = device.matrix_peak(dtype) if device and dtype in device.dtypes else None
    bandwidth = None if device is None else device.memory_bandwidth_bytes_per_second
    return {
        "runs": len(seconds),
        "median_seconds": middle,
        "spread_seconds": quartiles[2] - quartiles[0],
        "min_seconds": min(seconds),
        "torch_flops_counted": flops,
        "io_bytes": io_bytes,
        "mfu": flops / (middle * peak) if flops is not None and peak and middle else None,
        "bandwidth_use": io_bytes / (middle * bandwidth) if bandwidth and middle else None,
    }


def _peaks(seen: Mapping[str, Any], ran: Mapping[str, Any]) -> Figures:
    """A stage's peaks of memory, in bytes."""
    allocated, reserved, source = None, None, None
    if memory := seen["memory"]:
        allocated, reserved, source = memory["allocated_bytes"], memory["reserved_bytes"], "allocator"
    elif "peak" in (seen["traced"] or {}):
        weights, cache = ran["parameters"] * DTYPE_BYTES[ran["dtype"]], sum(seen["kv_cache_bytes"] or ())
        allocated, source = weights + cache + seen["traced"]["peak"]["bytes"], "traced"
    return {"peak_allocated_bytes": allocated, "peak_reserved_bytes": reserved, "peak_source": source}


def _traced_bytes(plan: Plan, traced: Mapping[str, Any]) -> dict[str | None, int]:
    """Bytes that a trace saw moved, by module (None: the whole stage). A grouped product, which is handed all experts, is charged for those
    that the router picked; each has three matrices of width x expert_width."""
    moved = {module: sum(row[name] for name in TRAFFIC) for module, row in traced["trace"].items()}
    experts = traced["experts"]
    if experts["handed_bytes"]:
        decoder = plan.run.model.tower("decoder")
        each = 3 * decoder.width * decoder.expert_width * DTYPE_BYTES[plan.run.dtype]
        moved[EXPERTS] += experts["hit"] * each - experts["handed_bytes"]
    return {**moved, None: sum(moved.values())}
