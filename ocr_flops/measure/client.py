"""Talks with the worker, a child process; imports neither torch nor transformers.

`converse` keeps the rules that hold for whoever asks: how a conversation ends, what becomes of each point, time limits, cancellation.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from time import monotonic

from ocr_flops.errors import SpecError
from ocr_flops.measure import failures
from ocr_flops.measure.events import Audit, Done, Event, Learned, PointFailed, Progress, Ran, Result, Traced, Waiting, read_event
from ocr_flops.measure.failures import Failure
from ocr_flops.measure.protocol import Request

VARIABLE = "OCR_FLOPS_PYTHON"
REMOTE_VARIABLE = "OCR_FLOPS_SNAPSHOT_PYTHON"  # the published code needs another version of transformers


def interpreter(python: str | None = None, engine: str = "transformers") -> str:
    """The interpreter that runs the worker: the one named, else that of the environment variable OCR_FLOPS_PYTHON, else this one.

    Args:
        python: a path, or the name of a program.
        engine: that runs; for remote_code the environment variable OCR_FLOPS_SNAPSHOT_PYTHON comes first.

    Raises:
        SpecError: it does not exist, or cannot be executed.
    """
    variable = REMOTE_VARIABLE if engine == "remote_code" and REMOTE_VARIABLE in os.environ else VARIABLE
    named, where = (python, "--python") if python else (os.environ.get(variable), variable)
    if not named:
        return sys.executable
    if found := shutil.which(named):
        return found
    what = "is not there" if not os.path.exists(named) else "cannot be executed" if os.path.isfile(named) else "is not a file"
    raise SpecError(f"{where}: {named!r} {what}; name the Python interpreter that has torch and transformers, as in ~/venv/bin/python")


@contextlib.contextmanager
def converse(
    request: Request, python: str | None = None, *, timeout_seconds: float | None = None, per_point: bool = False
) -> Iterator[Conversation]:
    """Starts the worker and hands it a request; within the context the worker's events can be read, at its end the worker is gone.

    Args:
        request: what to run.
        python: the interpreter that has torch and transformers; `interpreter()` where it is None.
        timeout_seconds: how long the worker may run; the time that it waits for a GPU does not count.
        per_point: whether that is the time of each point (the worker's start counts to the first), not of all.

    Raises:
        SpecError: as `interpreter`.
    """
    with contextlib.ExitStack() as stack:
        try:
            worker = stack.enter_context(contextlib.closing(Worker(request, python)))
            talk = Conversation(request, worker, worker.cancel, timeout_seconds, per_point)
        except OSError as problem:
            talk = Conversation(request, [failures.not_started(problem)])
        with talk:
            yield talk


def ask(
    request: Request,
    python: str | None = None,
    *,
    timeout_seconds: float | None = None,
    progress: Callable[[Progress], None] = lambda event: None,
) -> Iterator[Ran | Result | Audit | Learned | Traced]:
    """Yields the worker's answers to a request that must not fail (arguments as in `converse`).

    Args:
        progress: called with every step that begins.

    Raises:
        SpecError: the worker failed, or as `interpreter`; the message says why and what to do.
    """
    with converse(request, python, timeout_seconds=timeout_seconds) as talk:
        for event in talk:
            if isinstance(event, Failure):
                raise SpecError(str(event))
            if isinstance(event, Progress):
                progress(event)
            elif isinstance(event, Ran | Result | Audit | Learned | Traced):
                yield event


class Conversation:
    """The events of one request; iterating yields them (from `converse`).

    The last event is `Done` or a `Failure`: also when the worker cannot be started, dies, takes too long, says what cannot be read, or is
    cancelled. A timed point ends in a `Result` or a `PointFailed`. Where the worker ends early, the point that it was at
    fails, or all points if it had not yet said what runs, because the next worker would not get further; the points after it can be
    requested again. The points of a cancelled conversation have no such event.
    """

    def __init__(
        self,
        request: Request,
        events: Iterable[Event],
        end: Callable[[], None] = lambda: None,
        timeout_seconds: float | None = None,
        per_point: bool = False,
    ):
        self._request, self._events, self._end, self._per_point = request, events, end, per_point
        self._limit = _Limit(timeout_seconds, lambda: self._end_because(failures.timed_out(timeout_seconds)))
        self._why: Failure | None = None  # we ended it
        self._is_cancelled = False

    def __enter__(self) -> Conversation:
        self._limit.resume()
        return self

    def __exit__(self, *exception: object) -> None:
        self._limit.pause()

    def cancel(self, why: Failure = failures.CANCELLED) -> None:
        """Ends the worker and all its children at once; may be called from any thread, at any time. The last event is `why`."""
        self._is_cancelled = True
        self._end_because(why)

    def _end_because(self, why: Failure) -> None:
        self._why = self._why or why
        self._end()

    def __iter__(self) -> Iterator[Event]:
        ran, ended = None, 0
        for event in self._events:
            if isinstance(event, Ran):
                ran = event.ran
            elif isinstance(event, Failure):
                event = replace(self._why, detail=event.detail) if self._why else event
                if not self._is_cancelled:
                    yield from self._unended(ended, ended + 1 if ran else None, ran, event)
            elif isinstance(event, Done):
                yield from self._unended(ended, None, ran, failures.SILENT)
            yield event
            if isinstance(event, Waiting):
                self._limit.pause()
                continue
            if isinstance(event, Result | PointFailed):
                ended += 1
                if self._per_point:
                    self._limit.renew()
            self._limit.resume()

    def _unended(self, first: int, end: int | None, ran: dict | None, why: Failure) -> Iterator[PointFailed]:
        """The end of points that are timed and of which the worker said nothing."""
        if self._request.kind == "time":
            for number, point in list(enumerate(self._request.workloads))[first:end]:
                yield PointFailed(number, point, ran, why.message, why.advice, why.detail)


class _Limit:
    """Calls `end`, in a thread, once so many seconds have passed without those in which it was paused; never if they are None."""

    def __init__(self, seconds: float | None, end: Callable[[], None]):
        self._seconds = self._left = seconds
        self._end, self._since = end, 0.0
        self._timer: threading.Timer | None = None

    def resume(self) -> None:
        """The time goes on, if it was paused."""
        if self._left is not None and self._timer is None:
            self._since, self._timer = monotonic(), threading.Timer(max(0, self._left), self._end)
            self._timer.daemon = True
            self._timer.start()

    def pause(self) -> None:
        """The time stands still."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._left = None, self._left - (monotonic() - self._since)

    def renew(self) -> None:
        """The time begins anew, paused."""
        self.pause()
        self._left = self._seconds


class Worker:
    """The worker's process (arguments as in `converse`).

    Iterating yields its events; the last one is `Done` or a `Failure`, also when the process dies. A failure carries the end of the
    worker's log as detail. `cancel` may be called from any thread, at any time.

    Raises:
        OSError: the interpreter cannot be started.
        SpecError: as `interpreter`.
    """

    def __init__(self, request: Request, python: str | None = None):
        python = python or interpreter(engine=request.engine)
        self._log = tempfile.TemporaryFile("a+b")  # noqa: SIM115  closed by close(); the worker appends, wherever this side reads
        try:
            self._process = subprocess.Popen(
                [python, "-m", "ocr_flops.measure"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,  # a process group of its own, so that its children end with it
            )
        except OSError:
            self._log.close()
            raise
        with contextlib.suppress(BrokenPipeError), self._process.stdin as pipe:  # it died at start; its exit is reported below
            pipe.write(request.to_json() + "\n")

    def __iter__(self) -> Iterator[Event]:
        for line in self._process.stdout:
            event = read_event(line)
            if isinstance(event, Failure):
                event = replace(event, detail=failures.tail(self._logged()))
            if event is not None:
                yield event
            if isinstance(event, Failure | Done):
                self.cancel()  # all is said: do not wait for the interpreter to take torch down
                self._process.wait()
                return
        code = self._process.wait()
        self._kill()  # what it may have left behind
        yield failures.of_exit(code, self._logged())

    def _logged(self) -> str:
        """The end of the log."""
        self._log.seek(max(0, os.fstat(self._log.fileno()).st_size - failures.TAIL_BYTES))
        return self._log.read(failures.TAIL_BYTES).decode("utf-8", "replace")

    def cancel(self) -> None:
        """Ends the worker and all its children at once."""
        if self._process.returncode is None:
            self._kill()

    def _kill(self) -> None:
        if not hasattr(os, "killpg"):
            self._process.kill()
            return
        with contextlib.suppress(ProcessLookupError):  # all of its process group is gone already
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Ends the worker and frees what it held here."""
        self.cancel()
        self._process.wait()
        self._process.stdout.close()
        self._log.close()
