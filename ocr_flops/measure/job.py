"""A job of the queue: the record it keeps, and what readers see of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from ocr_flops.measure.client import Worker
from ocr_flops.measure.failures import Failure
from ocr_flops.measure.protocol import Request, Step

WAITING, RUNNING, DONE, FAILED, CANCELLED = STATES = ("waiting", "running", "done", "failed", "cancelled")
Message = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """One stage of a job.

    Args:
        name, point: as in `protocol.Step`: a stage of set-up, or of a point.
        state: "waiting", "running" or "done"; "cancelled" or "failed" where the job ended in it.
        done, total: steps that lie behind it, and all.
        seconds: since it began, or that it took; 0 before.
    """

    name: str
    point: int | None
    state: str
    done: int
    total: int
    seconds: float


@dataclass(frozen=True)
class Job:
    """What a job was like when it was asked for; it does not change.

    Args:
        id: names it in the queue.
        label: what is run, for people.
        owner: who asked for it.
        state: one of `STATES`.
        position: its place among those that wait, 1 is next; 0 where it does not wait.
        done, total: steps that lie behind it, and all.
        text: the step being run.
        stages: every stage, in order.
        waited_seconds, running_seconds: so far, or in all.
        results: the worker's "result" and "audit" messages so far (shared: not to be changed).
        failure: why it was not finished; None where it was, or may be.
    """

    id: int
    label: str
    owner: str
    state: str
    position: int
    done: int
    total: int
    text: str
    stages: tuple[Stage, ...]
    waited_seconds: float
    running_seconds: float
    results: tuple[Message, ...]
    failure: Failure | None

    @property
    def is_live(self) -> bool:
        """Whether it waits or runs."""
        return self.state in (WAITING, RUNNING)


@dataclass(eq=False)
class Entry:
    """A job as the queue keeps it; every field is read and written under the queue's lock. Times are of `monotonic`."""

    id: int
    label: str
    owner: str
    request: Request
    on_result: Callable[[Message], None]
    asked: float  # when its page last asked for it
    submitted: float
    steps: list[Step]
    state: str = WAITING
    began: list[float] = field(default_factory=list)  # when each step began, as far as it came
    text: str = ""
    results: list[Message] = field(default_factory=list)
    failure: Failure | None = None
    started: float | None = None
    ended: float | None = None
    worker: Worker | None = None

    @property
    def is_live(self) -> bool:
        """Whether it waits or runs."""
        return self.state in (WAITING, RUNNING)

    @property
    def total(self) -> int:
        """Steps in all."""
        return len(self.steps)

    def step_begins(self, number: int, text: str, now: float) -> None:
        """Progress never goes back; steps that were not announced took no time."""
        self.began += [now] * (min(number + 1, self.total) - len(self.began))
        self.text = text

    def snapshot(self, position: int, now: float) -> Job:
        """The job as it is.

        Args:
            position: as in `Job`.
            now: the time, of `monotonic`.
        """
        end = now if self.ended is None else self.ended
        started = end if self.started is None else self.started
        return Job(
            id=self.id,
            label=self.label,
            owner=self.owner,
            state=self.state,
            position=position,
            done=self.total if self.state == DONE else max(0, len(self.began) - 1),
            total=self.total,
            text=self.text,
            stages=tuple(self._stages(end)),
            waited_seconds=started - self.submitted,
            running_seconds=end - started,
            results=tuple(self.results),
            failure=self.failure,
        )

    def _stages(self, end: float) -> list[Stage]:
        found, first, begun = [], 0, len(self.began)
        for step, members in groupby(self.steps):
            total = len(list(members))
            after = first + total
            times = [*self.began[first : after + 1], end]  # of its steps, and of the one after it
            if begun <= first:
                state, done, seconds = WAITING, 0, 0.0
            elif begun > after or self.state == DONE:
                state, done, seconds = DONE, total, times[min(total, len(times) - 1)] - times[0]
            else:
                state, done, seconds = self.state, begun - first - 1, end - times[0]
            found.append(Stage(step.stage, step.point, state, done, total, seconds))
            first = after
        return found
