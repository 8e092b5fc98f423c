"""Runs of the worker, one at a time, in the order they were asked for, whoever asks: one queue for all sessions of a server."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from itertools import count
from time import monotonic
from typing import Any

from ocr_flops.errors import SpecError
from ocr_flops.measure import failures
from ocr_flops.measure.client import Worker
from ocr_flops.measure.failures import Failure
from ocr_flops.measure.job import CANCELLED, DONE, FAILED, RUNNING, WAITING, Entry, Job
from ocr_flops.measure.protocol import Request, steps

Message = dict[str, Any]


class Queue:
    """Jobs for the worker; every method may be called from any thread.

    Args:
        python: the interpreter that has torch and transformers; None for the one of `client.interpreter`.
        timeout_seconds: a job that runs longer is ended.
        abandoned_seconds: a job that nobody asked for (`job`, `latest`) for so long is ended: its page was closed. More than a minute,
            because browsers let a page in the background act once a minute only.
        most_waiting: jobs that may wait.
        kept: jobs that ended, the latest, that can still be asked for.

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
        self._entries: dict[int, Entry] = {}
        self._ids = count(1)
        self._thread: threading.Thread | None = None
        self._is_busy = False  # a child may live: longer than its job does, by the time that a kill takes

    def submit(self, request: Request, *, label: str, owner: str, on_result: Callable[[Message], None] = lambda message: None) -> Job:
        """Puts a job at the end of the queue.

        Args:
            request: what to run.
            label: what it is, for people.
            owner: who asks; one job at once each.
            on_result: called with every "result" and "failed" message, in a thread of the queue. If it raises, the job fails.

        Raises:
            SpecError: the owner has a job that has not ended, or too many wait.
        """
        with self._changed:
            live = [entry for entry in self._entries.values() if entry.is_live]
            for entry in live:
                if entry.owner == owner:
                    raise SpecError(f"spot check: {entry.label} is still {entry.state}; one at a time each, so wait for it or cancel it")
            waiting = sum(entry.state == WAITING for entry in live)
            if waiting >= self._most_waiting:
                raise SpecError(f"spot check: {waiting} are waiting, at most {self._most_waiting} may; try again when one has ended")
            now = monotonic()
            entry = Entry(next(self._ids), label, owner, request, on_result, now, now, steps(request))
            self._entries[entry.id] = entry
            if self._thread is None:
                self._thread = threading.Thread(target=self._supervise, name="spot check queue", daemon=True)
                self._thread.start()
                atexit.register(self.close)
            self._changed.notify_all()
            return self._snapshot(entry)

    def job(self, number: int) -> Job | None:
        """A job by its id, as it is now; its owner's page is taken to be open. None where it ended too long ago."""
        with self._changed:
            return self._asked_for(self._entries.get(number))

    def latest(self, owner: str) -> Job | None:
        """The job an owner submitted last, as it is now; the owner's page is taken to be open. None where there is none."""
        with self._changed:
            return self._asked_for(next((entry for entry in reversed(self._entries.values()) if entry.owner == owner), None))

    def jobs(self) -> tuple[Job, ...]:
        """The job that runs, and those that wait in order, as they are now; says nothing of anyone's page."""
        with self._changed:
            return tuple(self._snapshot(entry) for entry in self._entries.values() if entry.is_live)

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

    def _asked_for(self, entry: Entry | None) -> Job | None:
        if entry is None:
            return None
        entry.asked = monotonic()
        return self._snapshot(entry)

    def _snapshot(self, entry: Entry) -> Job:
        waiting = [other for other in self._entries.values() if other.state == WAITING]
        return entry.snapshot(waiting.index(entry) + 1 if entry.state == WAITING else 0, monotonic())

    def _end(self, number: int, state: str, failure: Failure | None) -> bool:
        with self._changed:
            entry = self._entries.get(number)
            if entry is None or not entry.is_live:
                return False
            entry.state, entry.failure, entry.ended = state, failure, monotonic()
            if entry.worker is not None:
                entry.worker.cancel()
            ended = sorted((other for other in self._entries.values() if not other.is_live), key=lambda other: other.ended)
            for old in ended[: max(0, len(ended) - self._kept)]:
                del self._entries[old.id]
            self._changed.notify_all()
            return True

    def _supervise(self) -> None:
        """Starts jobs, one at a time, and ends those that run too long or that nobody asks for."""
        with self._changed:
            while self._thread is threading.current_thread():
                until = []
                for entry in [entry for entry in self._entries.values() if entry.is_live]:
                    limits = [(entry.asked + self._abandoned, CANCELLED, failures.ABANDONED)]
                    if entry.started is not None:
                        limits.append((entry.started + self._timeout, FAILED, failures.timed_out(self._timeout)))
                    limit, state, failure = min(limits, key=lambda limit: limit[0])
                    if limit <= monotonic():
                        self._end(entry.id, state, failure)
                    else:
                        until.append(limit)
                waiting = next((entry for entry in self._entries.values() if entry.state == WAITING), None)
                if waiting and not self._is_busy:
                    self._is_busy, waiting.state, waiting.started, waiting.text = True, RUNNING, monotonic(), "starting the worker"
                    threading.Thread(target=self._run, args=(waiting,), name=f"spot check {waiting.id}", daemon=True).start()
                    continue
                self._changed.wait(min(until) - monotonic() if until else None)

    def _run(self, entry: Entry) -> None:
        """Listens to the worker of one job to its end."""
        try:
            try:
                worker = Worker(entry.request, self._python)
            except OSError as problem:
                self._end(entry.id, FAILED, failures.not_started(problem))
                return
            with worker:
                with self._changed:
                    entry.worker = worker
                    if not entry.is_live:
                        worker.cancel()
                for message in worker:
                    self._hear(entry, message)
        except Exception as problem:
            self._end(entry.id, FAILED, failures.of_exception(problem))
        finally:
            with self._changed:
                entry.worker, self._is_busy = None, False
                self._changed.notify_all()

    def _hear(self, entry: Entry, message: Message) -> None:
        with self._changed:
            if not entry.is_live:  # what a killed worker said last
                return
            event = message["event"]
            if event == "progress":
                entry.step_begins(message["done"], message["text"], monotonic())
            elif event == "waiting":
                entry.text = message["text"]
            elif event in ("result", "audit"):
                entry.results.append(message)
            elif event == "done":
                entry.step_begins(entry.total - 1, entry.text, monotonic())
                self._end(entry.id, FAILED if entry.failure else DONE, entry.failure)
            elif event == "error":
                self._end(entry.id, FAILED, failures.of_message(message))
            elif event == "failed":  # a point; those after it are still run
                entry.failure = failures.of_message(message)
        if event in ("result", "failed"):
            try:
                entry.on_result(message)
            except Exception as problem:
                self._end(entry.id, FAILED, Failure(f"the result could not be kept: {problem}", failures.KEPT))


QUEUE = Queue()  # of this server
