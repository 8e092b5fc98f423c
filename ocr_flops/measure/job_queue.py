"""Jobs for the worker, one at a time, in the order they were submitted, whoever submits: one queue for all sessions of a server."""

import atexit
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count, groupby
from time import monotonic
from typing import Any

from ocr_flops.errors import SpecError
from ocr_flops.measure import failures
from ocr_flops.measure.client import Conversation, converse
from ocr_flops.measure.events import Audit, Done, Event, PointFailed, Progress, Result, Waiting
from ocr_flops.measure.failures import Failure
from ocr_flops.measure.protocol import ProgressStep, Request, progress_steps

WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"
OnResult = Callable[[Result | PointFailed], object]


@dataclass(frozen=True)
class Stage:
    """One stage of a job.

    Args:
        name, point: as in `ProgressStep`: a stage of set-up, or of a point.
        state: "waiting", "running" or "done"; "cancelled" or "failed" where the job ended in it.
        seconds: since it began, or that it took; 0 before.
    """

    name: str
    point: int | None
    state: str
    seconds: float


@dataclass(frozen=True)
class Job:
    """What a job was like at one moment; it does not change.

    Args:
        label: what is run, for people.
        state: "waiting", "running", "done", "failed" or "cancelled".
        position: its place among those that wait, 1 is next; 0 where it does not wait.
        done, total: steps that lie behind it, and all.
        running_seconds: so far, or in all.
        results: the worker's results so far (shared: not to be changed).
        failure: why it was not finished; None where it was, or may be.
    """

    id: int
    label: str
    owner: str
    state: str = WAITING
    position: int = 0
    done: int = 0
    total: int = 0
    text: str = ""
    stages: tuple[Stage, ...] = ()
    running_seconds: float = 0.0
    results: tuple[Result | Audit, ...] = ()
    failure: Failure | None = None

    @property
    def is_live(self) -> bool:
        """Whether it waits or runs."""
        return self.state in (WAITING, RUNNING)


@dataclass(eq=False)
class _Entry:
    """A job as the queue keeps it; every field is read and written under the queue's lock. Times are of `monotonic`."""

    job: Job  # as `snapshot` makes it, less what depends on the moment
    request: Request
    on_result: OnResult
    steps: list[ProgressStep]
    seen: float  # when its page last looked at it
    began: list[float] = field(default_factory=list)  # when each step began, as far as it came
    started: float | None = None
    ended: float | None = None
    talk: Conversation | None = None

    def update(self, **changes: Any) -> None:
        self.job = replace(self.job, **changes)

    def begin_step(self, number: int, text: str) -> None:
        """Progress never goes back; steps that were not announced took no time."""
        self.began += [monotonic()] * (min(number + 1, len(self.steps)) - len(self.began))
        self.update(text=text)

    def snapshot(self, position: int) -> Job:
        end = monotonic() if self.ended is None else self.ended
        return replace(
            self.job,
            position=position,
            done=len(self.steps) if self.job.state == DONE else max(0, len(self.began) - 1),
            total=len(self.steps),
            stages=tuple(self._stages(end)),
            running_seconds=0.0 if self.started is None else end - self.started,
        )

    def _stages(self, end: float) -> list[Stage]:
        found, first, begun = [], 0, len(self.began)
        for step, members in groupby(self.steps):
            after = first + len(list(members))
            times = [*self.began[first : after + 1], end]  # of its steps, and of the one after it
            if begun <= first:
                state, seconds = WAITING, 0.0
            elif begun > after or self.job.state == DONE:
                state, seconds = DONE, times[min(after - first, len(times) - 1)] - times[0]
            else:
                state, seconds = self.job.state, end - times[0]
            found.append(Stage(step.stage, step.point, state, seconds))
            first = after
        return found


class Queue:
    """Jobs for the worker; every method may be called from any thread.

    Args:
        python: the interpreter that has torch and transformers; None for the one of `client.interpreter`.
        timeout_seconds: a job whose worker runs longer is ended.
        abandoned_seconds: a job that nobody looked at (`job`, `latest`) for so long is ended: its page was closed. More than a minute,
            because browsers let a page in the background act once a minute only.
        most_waiting: jobs that may wait.
        kept: jobs that ended, the latest, that can still be looked at.

    Its threads start with the first job.
    """

    def __init__(
        self,
        python: str | None = None,
        *,
        timeout_seconds: float = 600,
        abandoned_seconds: float = 180,
        most_waiting: int = 8,
        kept: int = 16,
    ):
        self._python, self._timeout, self._abandoned = python, timeout_seconds, abandoned_seconds
        self._most_waiting, self._kept = most_waiting, kept
        self._changed = threading.Condition()
        self._entries: dict[int, _Entry] = {}
        self._ids = count(1)
        self._thread: threading.Thread | None = None
        self._is_busy = False  # a child may live: longer than its job does, by the time that a kill takes

    def submit(self, request: Request, *, label: str, owner: str, on_result: OnResult = lambda event: None) -> Job:
        """Puts a job at the end of the queue.

        Args:
            request: what to run.
            label: what it is, for people.
            owner: who submits; one job at once each.
            on_result: called with the end of each point, in a thread of the queue. If it raises, the job fails.

        Raises:
            SpecError: the owner has a job that has not ended, or too many wait.
        """
        with self._changed:
            live = [entry.job for entry in self._live()]
            for job in live:
                if job.owner == owner:
                    raise SpecError(f"spot check: {job.label} is still {job.state}; one at a time each, so wait for it or cancel it")
            waiting = sum(job.state == WAITING for job in live)
            if waiting >= self._most_waiting:
                raise SpecError(f"spot check: {waiting} are waiting, at most {self._most_waiting} may; try again when one has ended")
            entry = _Entry(Job(next(self._ids), label, owner), request, on_result, progress_steps(request), seen=monotonic())
            self._entries[entry.job.id] = entry
            if self._thread is None:
                self._thread = threading.Thread(target=self._supervise, name="spot check queue", daemon=True)
                self._thread.start()
                atexit.register(self.close)
            self._changed.notify_all()
            return self._snapshot(entry)

    def job(self, number: int) -> Job | None:
        """A job by its id, as it is now; its owner's page is taken to be open. None where it ended too long ago."""
        with self._changed:
            return self._seen(self._entries.get(number))

    def latest(self, owner: str) -> Job | None:
        """The job an owner submitted last, as it is now; the owner's page is taken to be open. None where there is none."""
        with self._changed:
            return self._seen(next((entry for entry in reversed(self._entries.values()) if entry.job.owner == owner), None))

    def jobs(self) -> tuple[Job, ...]:
        """The job that runs, and those that wait in order, as they are now; says nothing of anyone's page."""
        with self._changed:
            return tuple(self._snapshot(entry) for entry in self._live())

    def cancel(self, number: int) -> bool:
        """Ends a job at once, with the child and all its children where it runs; returns whether it was live."""
        return self._end(number, CANCELLED, failures.CANCELLED)

    def close(self) -> None:
        """Ends every job and the queue's thread; a later job starts them anew."""
        with self._changed:
            self._thread = None
            for number in list(self._entries):
                self._end(number, CANCELLED, failures.STOPPED)
            self._changed.notify_all()
        atexit.unregister(self.close)

    def _seen(self, entry: _Entry | None) -> Job | None:
        if entry is None:
            return None
        entry.seen = monotonic()
        return self._snapshot(entry)

    def _snapshot(self, entry: _Entry) -> Job:
        waiting = [other for other in self._live() if other.job.state == WAITING]
        return entry.snapshot(waiting.index(entry) + 1 if entry in waiting else 0)

    def _live(self) -> list[_Entry]:
        return [entry for entry in self._entries.values() if entry.job.is_live]

    def _end(self, number: int, state: str, failure: Failure | None = None) -> bool:
        with self._changed:
            entry = self._entries.get(number)
            if entry is None or not entry.job.is_live:
                return False
            entry.ended = monotonic()
            entry.update(state=state, failure=failure or entry.job.failure)
            if entry.talk is not None:
                entry.talk.cancel()
            ended = sorted((other for other in self._entries.values() if not other.job.is_live), key=lambda other: other.ended)
            for old in ended[: max(0, len(ended) - self._kept)]:
                del self._entries[old.job.id]
            self._changed.notify_all()
            return True

    def _supervise(self) -> None:
        """Starts jobs, one at a time, and ends those that nobody looks at."""
        with self._changed:
            while self._thread is threading.current_thread():
                for entry in self._live():
                    if entry.seen + self._abandoned <= monotonic():
                        self._end(entry.job.id, CANCELLED, failures.ABANDONED)
                live = self._live()
                if not self._is_busy and (entry := next((entry for entry in live if entry.job.state == WAITING), None)):
                    self._is_busy, entry.started = True, monotonic()
                    entry.update(state=RUNNING, text="starting the worker")
                    threading.Thread(target=self._listen, args=(entry,), name=f"spot check {entry.job.id}", daemon=True).start()
                until = min((entry.seen for entry in live), default=None)
                self._changed.wait(None if until is None else max(0, until + self._abandoned - monotonic()))

    def _listen(self, entry: _Entry) -> None:
        """Listens to the worker of one job to its end."""
        try:
            with converse(entry.request, self._python, timeout_seconds=self._timeout) as talk:
                with self._changed:
                    entry.talk = talk
                    if not entry.job.is_live:
                        talk.cancel()
                for event in talk:
                    self._hear(entry, event)
        except Exception as problem:
            self._end(entry.job.id, FAILED, failures.of_exception(problem))
        finally:
            with self._changed:
                entry.talk, self._is_busy = None, False
                self._changed.notify_all()

    def _hear(self, entry: _Entry, event: Event) -> None:
        with self._changed:
            if not entry.job.is_live:  # what a cancelled worker said last
                return
            match event:
                case Progress():
                    entry.begin_step(event.done, event.text)
                case Waiting():
                    entry.update(text=event.text)
                case Result() | Audit():
                    entry.update(results=(*entry.job.results, event))
                case PointFailed():  # those after it are still run
                    entry.update(failure=event.failure)
                case Failure():
                    self._end(entry.job.id, FAILED, event)
                case Done():
                    entry.begin_step(len(entry.steps) - 1, entry.job.text)
                    self._end(entry.job.id, FAILED if entry.job.failure else DONE)
        if isinstance(event, Result | PointFailed):
            try:
                entry.on_result(event)
            except Exception as problem:
                self._end(entry.job.id, FAILED, Failure(f"the result could not be kept: {problem}", failures.KEPT))


QUEUE = Queue()  # of this server
