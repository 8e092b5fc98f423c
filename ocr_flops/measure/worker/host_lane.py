"""Times the host's lane: what one CPU thread takes to issue the operators of the real class, whose widths are so small that its kernels
take next to nothing.

The time is the processor's for this thread, so that neighbours who hold the processor do not count; the clock's is kept beside it. Whole
passes are timed first, with nothing around them. Then each module, by marks where it begins and ends; what the marks take, each as much as
the others, is taken off. Last, operators are counted by a trace, and calls of modules by hooks.

A stage of a result is that of one pass (vision of a view, prefill, a decode step): "passes" (timed), "seconds" (a tenth of the passes took
less: those that others on the machine disturbed least), "median_seconds", "spread_seconds" (interquartile range) and "wall_seconds" (median
of the clock's); "operators", "module_calls" (of modules with parameters of their own); and "modules" {module: {"seconds", "operators",
"module_calls"}}, which add up to the stage. Counts of decode are means over its steps.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from statistics import median, quantiles
from time import perf_counter, thread_time
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from ocr_flops.measure.events import Result
from ocr_flops.measure.worker.counting import Tracing
from ocr_flops.measure.worker.machine import now
from ocr_flops.measure.worker.probes import HostClock, ModuleTimes, StageTimes, time_modules, time_stages
from ocr_flops.measure.worker.progress import Announcer, Send
from ocr_flops.measure.worker.session import Observer, Session, Tensors

THREAD_CLOCK = HostClock(thread_time)  # the processor's time of this thread
BOTH_CLOCKS = HostClock(lambda: (thread_time(), perf_counter()), lambda after, before: (after[0] - before[0], after[1] - before[1]))


class ModuleCalls(Observer):
    """Counts the calls of modules that have parameters of their own, as {stage: {module: calls in all passes}}."""

    def __init__(self, session: Session):
        self._engine, self._model = session.engine, session.model
        self.calls: dict[str, Counter] = {stage: Counter() for stage in session.stages}

    @contextlib.contextmanager
    def watch(self, stage: str, held: Tensors, cache: Any) -> Iterator[None]:
        """Counts the calls of a pass."""
        names = {module: name for name, module in self._model.named_modules()}

        def count(module: torch.nn.Module, args: Any) -> None:
            if next(module.parameters(recurse=False), None) is not None:
                self.calls[stage][self._engine.labels(names[module])] += 1

        with register_module_forward_pre_hook(count):
            yield


def time_host(session: Session, progress: Announcer, send: Send) -> None:
    """Times the host at every point of a session on the CPU and sends its result."""
    request, threads = session.request, torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for number, point in enumerate(request.workloads):
            ran = session.facts() | {"runs": request.runs, "warmup": request.warmup, "threads": 1, "load": [_load()], "started": now()}
            whole = time_stages(session, point, BOTH_CLOCKS, progress.begin)
            progress.begin("modules, in as many runs of their own")
            marked = time_modules(session, point, THREAD_CLOCK)
            progress.begin("operators and calls, counted")
            tracing, calls = Tracing(session), ModuleCalls(session)
            session.run_stages(point, tracing)
            session.run_stages(point, calls)
            progress.leave(number)
            stages = {stage: _stage(stage, whole, marked, tracing, calls) for stage in session.stages}
            send(Result(number, point, ran | {"finished": now(), "load": [*ran["load"], _load()]}, stages))
    finally:
        torch.set_num_threads(threads)


def _load() -> float | None:
    """Processes that wanted a processor, on average over the last minute; None where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _stage(stage: str, whole: list[StageTimes], marked: list[ModuleTimes], tracing: Tracing, calls: ModuleCalls) -> dict[str, Any]:
    """A stage of the result."""
    passes = [times for run in whole for times in run.seconds[stage]]
    seen, called, seconds, marks = tracing.stages[stage], calls.calls[stage], [processor for processor, _ in passes], marked[0].marks[stage]
    steps, counted = seen["steps"], {module: row["operators"] for module, row in seen["trace"].items()}
    lowest, raw = _cuts(seconds, 10)[0], {name: _cuts([run.seconds[stage][name] for run in marked], 10)[0] / steps for name in marks}
    overhead, all_marks = max(0.0, sum(raw.values()) - lowest), marks.total()
    free = {name: max(0.0, taken - overhead * marks[name] / all_marks) for name, taken in raw.items()}
    scale, quartiles = lowest / sum(free.values()), _cuts(seconds, 4)
    return {
        "passes": len(seconds),
        "seconds": lowest,
        "median_seconds": median(seconds),
        "spread_seconds": quartiles[2] - quartiles[0],
        "wall_seconds": median(wall for _, wall in passes),
        "operators": sum(counted.values()) / steps,
        "module_calls": called.total() / steps,
        "modules": {
            name: {
                "seconds": free.get(name, 0.0) * scale,
                "operators": counted.get(name, 0) / steps,
                "module_calls": called[name] / steps,
            }
            for name in dict.fromkeys((*free, *counted))
        },
    }


def _cuts(values: list[float], parts: int) -> list[float]:
    """Where values, at least one of them, are cut into so many equal parts."""
    return quantiles([*values, *values], n=parts, method="inclusive")
