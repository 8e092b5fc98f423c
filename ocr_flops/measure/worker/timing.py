"""Times the real model: whole runs free of hooks and counters first, then modules, memory, FLOPs and traffic in passes of their own.

A run is vision, prefill with an empty cache, and every decode step, each waited for before the next begins, as `generate` waits for each
token. On CUDA the time is that between two events on the stream, elsewhere that of the host's clock.

A stage of a result: "seconds" [of each run], "steps" (passes of the stage in a run; decode: its tokens), "step_seconds" [[of each step] of
each run]; "module_seconds" {module: [of each run]} and "hooked_seconds" [the whole stage, in those runs]; "memory" {"idle_bytes" (allocated
while nothing runs: weights, and the workspaces that libraries have taken by then), "held_bytes" (when the stage began), "allocated_bytes",
"reserved_bytes" (at most)}; "flops", "modules" {module: FLOPs}, "operators" and "not_counted" (in words); "kv_cache_bytes" [of each layer];
"traced" (as a stage of kind "trace"). What was not asked for, or cannot be had there, is null; a pass that failed is told in the result's
"ran" as "not_observed" {pass: why}.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

from ocr_flops.measure import failures
from ocr_flops.measure.events import Event, PointFailed, Ran, Result
from ocr_flops.measure.protocol import PROBES, Point, Request
from ocr_flops.measure.worker.kernels import countable, exchanged
from ocr_flops.measure.worker.machine import clocks, machine, now
from ocr_flops.measure.worker.probes import Memory, Modules, Stages, clock_of, observing
from ocr_flops.measure.worker.session import Session

Found = dict[str, dict[str, Any]]  # by stage


def time_points(request: Request, session: Session, ran: dict[str, Any], progress: Any, send: Callable[[Event], None]) -> None:
    """Times every point and sends its result; a point that cannot be run is told, and those after it are still run.

    Args:
        request: what was asked.
        session: with the model.
        ran: what a result says of what ran.
        progress: announces the steps.
        send: takes an event.

    Raises:
        Exception: a point's, after which the device can no longer be used by this process.
    """
    ran = ran | machine(session.device) | {"runs": request.runs, "warmup": request.warmup, "passes": list(request.probes)}
    send(Ran(ran))
    for number, point in enumerate(request.workloads):
        noted: dict[str, Any] = {"started": now(), "clocks_before": clocks(session.device)}
        stages, failure = {}, None
        try:
            stages = _timed(request, session, point, ran, noted, progress.begin)
        except Exception as problem:
            failure = failures.of_exception(problem)
            if not _usable(session.device):
                raise
        progress.leave(number)
        here = ran | noted | {"finished": now(), "seconds": progress.seconds(number)}
        if failure is None:
            send(Result(number, point, here, stages))
        else:
            send(PointFailed(number, point, here, failure.message, failure.advice))
        _forget(session.device)


def _timed(
    request: Request, session: Session, point: Point, ran: dict[str, Any], noted: dict[str, Any], begin: Callable[[str], None]
) -> Found:
    """The timed runs of a point, then the passes; one that fails leaves its figures null and says why in `noted`."""
    results = _runs(request, session, point, begin)
    noted |= {"clocks_after": clocks(session.device), "not_observed": {}}  # before they fall again
    for name in PROBES:
        if name not in request.probes:
            continue
        begin(f"{name}, apart")
        try:
            for stage, seen in OBSERVED[name](request, session, point, ran).items():
                results[stage] |= seen
        except Exception as problem:
            if not _usable(session.device):
                raise
            failure = failures.of_exception(problem)
            noted["not_observed"][name] = f"{failure.message} ({failure.advice})"
        _forget(session.device)
    return results


def _runs(request: Request, session: Session, point: Point, begin: Callable[[str], None]) -> Found:
    """Warm-up, then the runs that count; both alike."""
    timed: defaultdict[str, list[list[float]]] = defaultdict(list)
    found: Found = {}
    for number in range(-request.warmup, request.runs):
        is_warm = number >= 0
        begin(f"timed run {number + 1} of {request.runs}" if is_warm else f"warm-up {number + request.warmup + 1} of {request.warmup}")
        with observing(session, Stages(clock_of(session.device))) as stages:
            found = session.run(point)
        for stage in found if is_warm else ():
            timed[stage].append(stages.seconds[stage])
    return {
        stage: {
            "seconds": [sum(steps) for steps in runs],
            "steps": len(runs[0]),
            "step_seconds": runs,
            "kv_cache_bytes": found[stage].get("kv_cache_bytes"),
            **dict.fromkeys(("module_seconds", "hooked_seconds", "memory", "flops", "modules", "operators", "not_counted", "traced")),
        }
        for stage, runs in timed.items()
    }


def _by_module(request: Request, session: Session, point: Point, ran: dict[str, Any]) -> Found:
    """Seconds of each module, in as many runs as were timed."""
    runs = []
    for _ in range(request.runs):
        with Modules(session, clock_of(session.device)) as modules, observing(session, modules):
            runs.append({stage: modules.seconds[stage] for stage in session.run(point)})
    return {
        stage: {
            "module_seconds": {module: [run[stage][module] for run in runs] for module in runs[0][stage]},
            "hooked_seconds": [sum(run[stage].values()) for run in runs],
        }
        for stage in runs[0]
    }


def _memory(request: Request, session: Session, point: Point, ran: dict[str, Any]) -> Found:
    """The allocator's peaks; nothing where there is no such allocator."""
    if session.device != "cuda":
        return {}
    with observing(session, Memory()) as memory:
        stages = session.run(point)
    return {stage: {"memory": memory.peaks[stage]} for stage in stages if stage in memory.peaks}  # decode of no steps ran nothing


def _flops(request: Request, session: Session, point: Point, ran: dict[str, Any]) -> Found:
    """FLOPs as torch's counter sees them."""
    with countable(session.model, ran["engine"], request.attention, ran["experts"]):
        counted = _of_kind(request, session, "count").run(point)
    return {
        stage: {
            **{name: seen[name] for name in ("flops", "modules", "operators")},
            "not_counted": [*exchanged(stage, request.attention, ran["experts"], session.device), *seen["missed"]],
        }
        for stage, seen in counted.items()
    }


def _traffic(request: Request, session: Session, point: Point, ran: dict[str, Any]) -> Found:
    """Bytes and live memory, by a trace of every operator."""
    return {stage: {"traced": seen} for stage, seen in _of_kind(request, session, "trace").run(point).items()}


OBSERVED = dict(zip(PROBES, (_by_module, _memory, _flops, _traffic), strict=True))


def _of_kind(request: Request, session: Session, kind: str) -> Session:
    """The same model, observed in another way."""
    return Session(
        session.model,
        session.towers,
        dtype=request.dtype,
        device=session.device,
        prefill_logits=request.prefill_logits,
        image=session.image,
        stages=session.stages,
        kind=kind,
        engine=request.engine,
    )


def _usable(device: str) -> bool:
    """Whether more can be run: after some errors of a kernel CUDA refuses everything for as long as the process lives."""
    if device != "cuda":
        return True
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


def _forget(device: str) -> None:
    """Frees what a run left."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
