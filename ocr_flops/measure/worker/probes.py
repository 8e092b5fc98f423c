"""What observes the stages of the real model without counting or tracing: the clock, hooks at modules, CUDA's allocator."""

import contextlib
import functools
import gc
import operator
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from time import perf_counter
from typing import Any

import torch

from ocr_flops.measure.protocol import Point
from ocr_flops.measure.worker.session import Observer, Session, Tensors


class HostClock:
    """A clock of the host, for devices that finish an operator before the next.

    Args:
        mark: reads it.
        passed: what passed until a second mark since a first.

    Attributes:
        start: a first mark, when the device has nothing left to do.
        mark: a later one.
    """

    def __init__(self, mark: Callable[[], Any] = perf_counter, passed: Callable[[Any, Any], Any] = operator.sub):
        self.start = self.mark = mark
        self._passed = passed

    def between(self, marks: list[Any]) -> list[Any]:
        """Seconds, or whatever is read, from each mark to the next."""
        return [self._passed(after, before) for before, after in pairwise(marks)]


class CudaClock:
    """Events on the stream: the time is the device's, from the moment that it begins to wait for the stage's first kernel."""

    def start(self) -> torch.cuda.Event:
        """A first mark, when the device has nothing left to do."""
        torch.cuda.synchronize()
        return self.mark()

    @staticmethod
    def mark() -> torch.cuda.Event:
        """A mark on the stream."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @staticmethod
    def between(marks: list[torch.cuda.Event]) -> list[float]:
        """Seconds from each mark to the next; waits for the last, before which the others were recorded on the same stream."""
        marks[-1].synchronize()
        return [before.elapsed_time(after) / 1000 for before, after in pairwise(marks)]


Clock = HostClock | CudaClock


def clock_of(device: str) -> Clock:
    """The clock that tells a device's time."""
    return CudaClock() if device == "cuda" else HostClock()


class StageTimes(Observer):
    """Observes stages by the clock alone.

    Attributes:
        seconds: {stage: [of each pass]}.
        kv_cache_bytes: {stage: [of each layer]} after its last pass; None for vision.
    """

    def __init__(self, session: Session, clock: Clock):
        self._session, self._clock = session, clock
        self.seconds: dict[str, list[float]] = {stage: [] for stage in session.stages}
        self.kv_cache_bytes: dict[str, list[int] | None] = dict.fromkeys(session.stages)

    @contextlib.contextmanager
    def watch(self, stage: str, held: Tensors, cache: Any) -> Iterator[None]:
        """Times a pass of a stage."""
        before = self._clock.start()
        yield
        self.seconds[stage] += self._clock.between([before, self._clock.mark()])
        if cache is not None:
            self.kv_cache_bytes[stage] = self._session.cached_bytes(cache)


class ModuleTimes(contextlib.ExitStack, Observer):
    """Observes where one module of our frames ends and another begins, by wrapping `forward` of the modules that begin one until it is
    left: the published code's CLIP blocks call `forward` of their parts, so that hooks of these would not run.

    What a layer of the vision towers does by itself, between its parts, counts as its attention, residuals included: this sees modules,
    not operators.

    Attributes:
        seconds: of each module, summed over the passes of a stage: {stage: {module: seconds}}.
        marks: {stage: {module: how often it began, or went on}}.
    """

    def __init__(self, session: Session, clock: Clock):
        super().__init__()
        self._clock, self._label = clock, session.engine.labels
        self.seconds: dict[str, defaultdict[str, float]] = {stage: defaultdict(float) for stage in session.stages}
        self.marks: dict[str, Counter[str]] = {stage: Counter() for stage in session.stages}
        self._marks: list[tuple[str, Any]] = []  # from then on, this module runs
        self._running = [""]
        for name, module in session.model.named_modules():
            inside = self._label(name)
            if name and inside != self._label(name.rpartition(".")[0]):
                module.forward = self._timed(module.forward, inside)
                self.callback(delattr, module, "forward")

    def _timed(self, forward: Callable[..., Any], label: str) -> Callable[..., Any]:
        @functools.wraps(forward)  # transformers reads signatures
        def timed(*args: Any, **rest: Any) -> Any:
            self._running.append(label)
            self._marks.append((label, self._clock.mark()))
            output = forward(*args, **rest)
            self._running.pop()
            self._marks.append((self._running[-1], self._clock.mark()))
            return output

        return timed

    @contextlib.contextmanager
    def watch(self, stage: str, held: Tensors, cache: Any) -> Iterator[None]:
        """Times the modules of a pass of a stage."""
        outside = "merge" if stage == "vision" else self._label("")
        self._running, self._marks = [outside], [(outside, self._clock.start())]
        yield
        times = self._clock.between([*(mark for _, mark in self._marks), self._clock.mark()])
        for (label, _), seconds in zip(self._marks, times, strict=True):
            self.seconds[stage][label] += seconds
            self.marks[stage][label] += 1


def time_stages(session: Session, point: Point, clock: Clock, begin: Callable[[str], None]) -> list[StageTimes]:
    """What each timed run of a request takes by a clock, after runs to warm up that are alike; `begin` is called before each."""
    request, runs = session.request, []
    steps = [("warm-up", number, request.warmup) for number in range(request.warmup)]
    for text, number, total in steps + [("timed run", number, request.runs) for number in range(request.runs)]:
        begin(f"{text} {number + 1} of {total}")
        runs.append(StageTimes(session, clock))
        session.run_stages(point, runs[-1])
    return runs[request.warmup :]


def time_modules(session: Session, point: Point, clock: Clock) -> list[ModuleTimes]:
    """What modules take by a clock, in as many runs of their own as are timed."""
    runs = []
    for _ in range(session.request.runs):
        with ModuleTimes(session, clock) as modules:
            session.run_stages(point, modules)
        runs.append(modules)
    return runs


class MemoryPeaks(Observer):
    """Observes what CUDA's allocator peaks at in a stage, which begins without what it keeps in reserve. To be made before stages run.

    Attributes:
        peaks: {stage: {"idle_bytes", "held_bytes", "allocated_bytes", "reserved_bytes"}}, as `timing` says.
    """

    def __init__(self) -> None:
        gc.collect()
        torch.cuda.synchronize()
        self._idle_bytes = torch.cuda.memory_allocated()
        self.peaks: dict[str, dict[str, int]] = {}

    @contextlib.contextmanager
    def watch(self, stage: str, held: Tensors, cache: Any) -> Iterator[None]:
        """Reads the peaks of a pass of a stage."""
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = {"idle_bytes": self._idle_bytes, "held_bytes": torch.cuda.memory_allocated()}
        yield
        torch.cuda.synchronize()
        most = {"allocated_bytes": torch.cuda.max_memory_allocated(), "reserved_bytes": torch.cuda.max_memory_reserved()}
        first = self.peaks.setdefault(stage, before | most)
        self.peaks[stage] = first | {name: max(size, first[name]) for name, size in most.items()}
