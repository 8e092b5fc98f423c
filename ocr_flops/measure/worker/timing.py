"""Times the real model: whole runs free of hooks and counters first, then modules, memory, FLOPs and traffic in runs of their own.

A run is vision, prefill with an empty cache, and every decode step, each waited for before the next begins, as `generate` waits for each
token. On CUDA the time is that between two events on the stream, elsewhere that of the host's clock.

A stage of a result: "seconds" [of each run], "steps" (passes of the stage in a run; decode: its tokens), "step_seconds" [[of each step] of
each run]; "module_seconds" {module: [of each run]} and "hooked_seconds" [the whole stage, in those runs]; "memory" {"idle_bytes" (allocated
while nothing runs: weights, and the workspaces that libraries have taken by then), "held_bytes" (when the stage began), "allocated_bytes",
"reserved_bytes" (at most)}; "flops", "modules" {module: FLOPs}, "operators", "not_counted" (in words) and "experts_hit"
(different experts that routers picked, summed over layers and passes, in the run that counts FLOPs; its inputs are those of the timed
runs); "kv_cache_bytes" [of each layer];
"traced" (as a stage of kind "trace"). What was not requested, or cannot be had there, is null; the result's "ran" names a probe that
failed in "not_observed" {probe: why}.
"""

import gc
from collections.abc import Callable
from typing import Any

import torch

from ocr_flops.measure import failures
from ocr_flops.measure.events import PointFailed, Ran, Result
from ocr_flops.measure.protocol import PROBES, Point
from ocr_flops.measure.worker.counting import Counting, Tracing
from ocr_flops.measure.worker.machine import clocks, machine, now
from ocr_flops.measure.worker.probes import MemoryPeaks, clock_of, time_modules, time_stages
from ocr_flops.measure.worker.progress import Announcer, Send
from ocr_flops.measure.worker.session import Session

Stages = dict[str, dict[str, Any]]
OF_PROBES = ("module_seconds", "hooked_seconds", "memory", "flops", "modules", "operators", "not_counted", "experts_hit", "traced")


def time_points(session: Session, progress: Announcer, send: Send) -> None:
    """Times every point and sends its result; a point that cannot be run ends in `PointFailed`, and those after it are still run, but for
    an exception after which the device can no longer be used by this process: it is raised."""
    request = session.request
    settings = {"runs": request.runs, "warmup": request.warmup, "passes": list(request.probes)}
    ran = session.facts() | machine(session.device) | settings
    send(Ran(ran))
    for number, point in enumerate(request.workloads):
        noted: dict[str, Any] = {"started": now(), "clocks_before": clocks(session.device)}
        stages, failure = {}, None
        try:
            stages = _time_runs(session, point, progress.begin)
            noted |= {"clocks_after": clocks(session.device), "not_observed": {}}  # before they fall again
            _add_probes(session, point, stages, noted["not_observed"], progress.begin)
        except Exception as problem:
            failure = failures.of_exception(problem)
            if not _is_usable(session.device):
                raise
        progress.leave(number)
        here = ran | noted | {"finished": now(), "seconds": progress.seconds(number)}
        send(Result(number, point, here, stages) if failure is None else PointFailed(number, point, here, failure.message, failure.advice))
        _free(session.device)


def _time_runs(session: Session, point: Point, begin: Callable[[str], None]) -> Stages:
    """What the runs took, without anything that watches them."""
    timed = time_stages(session, point, clock_of(session.device), begin)
    return {
        stage: {
            "seconds": [sum(run.seconds[stage]) for run in timed],
            "steps": len(timed[0].seconds[stage]),
            "step_seconds": [run.seconds[stage] for run in timed],
            "kv_cache_bytes": timed[-1].kv_cache_bytes[stage],
            **dict.fromkeys(OF_PROBES),
        }
        for stage in session.stages
    }


def _add_probes(session: Session, point: Point, stages: Stages, not_observed: dict[str, str], begin: Callable[[str], None]) -> None:
    """Adds what the probes see to the stages; one that fails leaves its figures null and says why in `not_observed`."""
    for name in PROBES:
        if name not in session.request.probes:
            continue
        begin(f"{name}, in a run of their own")
        try:
            for stage, seen in OBSERVED[name](session, point).items():
                stages[stage] |= seen
        except Exception as problem:
            if not _is_usable(session.device):
                raise
            not_observed[name] = str(failures.of_exception(problem))
        _free(session.device)


def _observe_modules(session: Session, point: Point) -> Stages:
    """Seconds of each module, in as many runs as were timed."""
    runs = [run.seconds for run in time_modules(session, point, clock_of(session.device))]
    return {
        stage: {
            "module_seconds": {module: [run[stage][module] for run in runs] for module in runs[0][stage]},
            "hooked_seconds": [sum(run[stage].values()) for run in runs],
        }
        for stage in session.stages
    }


def _observe_memory(session: Session, point: Point) -> Stages:
    """The allocator's peaks; nothing where there is no such allocator."""
    if session.device != "cuda":
        return {}
    memory = MemoryPeaks()
    session.run_stages(point, memory)
    return {stage: {"memory": peaks} for stage, peaks in memory.peaks.items()}


def _observe_flops(session: Session, point: Point) -> Stages:
    """FLOPs as torch's counter sees them, and the experts hit."""
    counting = Counting(session)
    with session.engine.countable_kernels():
        session.run_stages(point, counting)
    return {
        stage: {name: seen[name] for name in ("flops", "modules", "operators")}
        | {"not_counted": session.engine.uncounted_kernels(stage), "experts_hit": seen.get("experts", {}).get("hit")}
        for stage, seen in counting.stages.items()
    }


def _observe_traffic(session: Session, point: Point) -> Stages:
    """Bytes and live memory, by a trace of every operator."""
    tracing = Tracing(session)
    session.run_stages(point, tracing)
    return {stage: {"traced": seen} for stage, seen in tracing.stages.items()}


OBSERVED = dict(zip(PROBES, (_observe_modules, _observe_memory, _observe_flops, _observe_traffic), strict=True))


def _is_usable(device: str) -> bool:
    """Whether more can be run: after some errors of a kernel CUDA refuses everything for as long as the process lives."""
    if device != "cuda":
        return True
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


def _free(device: str) -> None:
    """Frees what a run left."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
