"""What observes a stage of the real model without counting or tracing it: the clock, hooks at modules, CUDA's allocator.

An observer stands in for a session's own (`Session.observe`): it is entered when a stage's inputs are there, and left when it is done.
"""

from __future__ import annotations

import contextlib
import gc
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from time import perf_counter
from typing import Any

import torch

from ocr_flops.measure.worker.session import Session

NOTHING = {"flops": 0, "missed": [], "modules": {}, "layers": {}, "operators": {}, "steps": 1}  # what a stage has that nothing counts


@contextlib.contextmanager
def observing(session: Session, observer: Any) -> Iterator[Any]:
    """Puts an observer in place of the session's own."""
    usual, session.observe = session.observe, observer
    try:
        yield observer
    finally:
        session.observe = usual


class HostClock:
    """The host's clock, for devices that finish an operator before the next."""

    @staticmethod
    def mark() -> float:
        return perf_counter()

    @staticmethod
    def between(marks: list[float]) -> list[float]:
        """Seconds from each mark to the next."""
        return [after - before for before, after in pairwise(marks)]


class CudaClock:
    """Events on the stream: the time is the device's, from the moment that it begins to wait for the stage's first kernel."""

    @staticmethod
    def mark() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @staticmethod
    def between(marks: list[torch.cuda.Event]) -> list[float]:
        """Seconds from each mark to the next; waits for the last, before which the others were recorded on the same stream."""
        marks[-1].synchronize()
        return [before.elapsed_time(after) / 1000 for before, after in pairwise(marks)]


Clock = type[HostClock] | type[CudaClock]


def clock_of(device: str) -> Clock:
    """The clock that tells a device's time."""
    return CudaClock if device == "cuda" else HostClock


class Stages:
    """Observes stages by the clock alone.

    Attributes:
        seconds: {stage: [of each of its passes]}.
    """

    def __init__(self, clock: Clock):
        self._clock = clock
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)

    @contextlib.contextmanager
    def __call__(self, session: Session, found: dict[str, Any], stage: str, held: Any, cache: Any = None) -> Iterator[None]:
        before = self._clock.mark()
        yield
        self.seconds[stage] += self._clock.between([before, self._clock.mark()])
        found[stage] = dict(NOTHING)


class Modules(contextlib.AbstractContextManager):
    """Observes stages by hooks where one module of our frames ends and another begins; the hooks are on the model while it is entered.

    What a layer of the vision towers does by itself, between its parts, counts as its attention (transformers), residuals included: hooks
    see modules, not operators.

    Attributes:
        seconds: of each module, summed over the passes of a stage: {stage: {module: seconds}}.
    """

    def __init__(self, session: Session, clock: Clock):
        self._clock, self._label, self._model = clock, session.engine.labels, session.model
        self.seconds: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._marks: list[tuple[str, Any]] = []  # from then on, this module runs
        self._running: list[str] = []
        self._handles: list[Any] = []

    def __enter__(self) -> Modules:
        for name, module in self._model.named_modules():
            inside = self._label(name)
            if name and inside != self._label(name.rpartition(".")[0]):
                self._handles += [
                    module.register_forward_pre_hook(self._entering(inside)),
                    module.register_forward_hook(self._leaving),
                ]
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _entering(self, label: str) -> Callable[..., None]:
        def enter(module: Any, args: Any) -> None:
            self._running.append(label)
            self._marks.append((label, self._clock.mark()))

        return enter

    def _leaving(self, module: Any, args: Any, output: Any) -> None:
        self._running.pop()
        self._marks.append((self._running[-1], self._clock.mark()))

    @contextlib.contextmanager
    def __call__(self, session: Session, found: dict[str, Any], stage: str, held: Any, cache: Any = None) -> Iterator[None]:
        outside = "merge" if stage == "vision" else self._label("")
        self._running, self._marks = [outside], [(outside, self._clock.mark())]
        yield
        times = self._clock.between([*(mark for _, mark in self._marks), self._clock.mark()])
        for (label, _), seconds in zip(self._marks, times, strict=True):
            self.seconds[stage][label] += seconds
        found[stage] = dict(NOTHING)


class Memory:
    """Observes what CUDA's allocator peaks at in a stage, which begins without what it keeps in reserve. To be made before a run.

    Attributes:
        peaks: {stage: {"idle_bytes", "held_bytes", "allocated_bytes", "reserved_bytes"}}, as `timing` says.
    """

    def __init__(self) -> None:
        gc.collect()
        torch.cuda.synchronize()
        self._idle_bytes = torch.cuda.memory_allocated()
        self.peaks: dict[str, dict[str, int]] = {}

    @contextlib.contextmanager
    def __call__(self, session: Session, found: dict[str, Any], stage: str, held: Any, cache: Any = None) -> Iterator[None]:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = {"idle_bytes": self._idle_bytes, "held_bytes": torch.cuda.memory_allocated()}
        yield
        torch.cuda.synchronize()
        most = {"allocated_bytes": torch.cuda.max_memory_allocated(), "reserved_bytes": torch.cuda.max_memory_reserved()}
        first = self.peaks.setdefault(stage, before | most)
        self.peaks[stage] = first | {name: max(size, first[name]) for name, size in most.items()}
        found[stage] = dict(NOTHING)
