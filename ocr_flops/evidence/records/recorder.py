"""Runs the real model in a worker to time it, point by point; every point ends in a record, whatever becomes of the worker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ocr_flops.errors import SpecError
from ocr_flops.evidence import records
from ocr_flops.measure import failures
from ocr_flops.measure.client import Message, Worker
from ocr_flops.measure.failures import Failure
from ocr_flops.measure.plan import Plan
from ocr_flops.measure.protocol import Request, steps

if TYPE_CHECKING:
    from ocr_flops.spec.workload import Workload

Record = dict[str, Any]
Progress = Callable[[int, int, str], None]
SILENT = Failure("the worker ended without a word on this point", "Its ocr-flops may be of another version: install this one there.")


def device_facts(plan: Plan, python: str | None = None, timeout_seconds: float | None = None) -> dict[str, Any]:
    """What a plan would run on, without running it: "device", "device_name" and versions.

    Args:
        plan: its device is asked for.
        python: the worker's interpreter, as for `Worker`.
        timeout_seconds: for the answer.

    Raises:
        SpecError: the worker failed; the message says why and what to do.
    """
    facts: dict[str, Any] = {}
    for message in _messages(Request({}, [], device=plan.device, kind="device"), python, timeout_seconds):
        if message["event"] == "ran":
            facts = message["ran"]
        elif message["event"] == "error":
            raise SpecError(f"{message['message']} ({message['advice']})")
    return facts


def measure(
    plan: Plan,
    workloads: Iterable[Workload] | None = None,
    *,
    python: str | None = None,
    timeout_seconds: float | None = None,
    progress: Progress = lambda done, total, text: None,
) -> Iterator[Record]:
    """Times points and yields the record of each as soon as it is there; `records.write` keeps it.

    A point that fails (out of memory, its worker killed, too slow) ends in a record with state "failed", and those after it are run, in a
    new worker where the old one is gone. What keeps the worker from beginning (no torch, a missing kernel) fails all of them.

    Args:
        plan: what is run.
        workloads: single points; the plan's own where None.
        python: the interpreter that has torch and transformers, as for `Worker`.
        timeout_seconds: for each point, the worker's start included for its first; waiting for a GPU that others time on is not.
        progress: called with (steps done, steps of all points, text).

    Raises:
        SpecError: no such interpreter.
    """
    left = [plan.run.workload] if workloads is None else list(workloads)
    whole = len(steps(plan.request(left)))
    while left:
        behind = whole - len(steps(plan.request(left)))
        ended = 0
        for record in _served(plan, left, python, timeout_seconds, lambda done, text, behind=behind: progress(behind + done, whole, text)):
            yield record
            ended += 1
        left = left[ended:]


def _served(
    plan: Plan, points: list[Workload], python: str | None, timeout_seconds: float | None, progress: Callable[[int, str], None]
) -> Iterator[Record]:
    """The records of points that one worker serves: of all, or up to the one that it died of."""
    request, ran, ended = plan.request(points), None, 0
    for message in _messages(request, python, timeout_seconds):
        event = message["event"]
        if event == "progress":
            progress(message["done"], message["text"])
        elif event == "waiting":
            progress(0, message["text"])
        elif event == "ran":
            ran = message["ran"]
        elif event in ("result", "failed"):
            yield records.make(plan, points[ended], message=message)
            ended += 1
        elif event == "error":
            for point in points[ended:] if ran is None else points[ended : ended + 1]:
                yield records.make(plan, point, failure=failures.of_message(message), ran=ran)
        elif event == "done":
            for point in points[ended:]:
                yield records.make(plan, point, failure=SILENT, ran=ran)


def _messages(request: Request, python: str | None, timeout_seconds: float | None) -> Iterator[Message]:
    """A worker's messages; one that takes too long for a point is ended, and its last message says so."""
    try:
        worker = Worker(request, python)
    except OSError as problem:
        yield failures.not_started(problem).as_message()
        return
    with worker, _Limit(timeout_seconds, worker.cancel) as limit:
        for message in worker:
            if message["event"] == "error" and limit.is_past:
                message = _too_slow(timeout_seconds).as_message()
            yield message
            if message["event"] in ("waiting", "result", "failed"):
                limit.renew()


class _Limit:
    """Calls `end` in a thread if it is not renewed in time."""

    def __init__(self, seconds: float | None, end: Callable[[], None]):
        self._seconds, self._end = seconds, end
        self._timer: threading.Timer | None = None
        self.is_past = False

    def __enter__(self) -> _Limit:
        self.renew()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def renew(self) -> None:
        """The time begins anew."""
        self.__exit__()
        if self._seconds is not None:
            self._timer = threading.Timer(self._seconds, self._pass)
            self._timer.daemon = True
            self._timer.start()

    def _pass(self) -> None:
        self.is_past = True
        self._end()


def _too_slow(seconds: float) -> Failure:
    return Failure(f"ended after {seconds:,.3g} s, the time-out", "Allow more time by --timeout, or fewer runs, a smaller grid or batch.")
