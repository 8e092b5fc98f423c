"""The worker: `python -m ocr_flops.measure` reads one request from stdin and writes events to stdout, one JSON object a line."""

from __future__ import annotations

import gc
import importlib
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from ocr_flops.measure import failures
from ocr_flops.measure.events import Done, Event, Ran, Result, Waiting, write_event
from ocr_flops.measure.protocol import Request

if TYPE_CHECKING:
    from ocr_flops.measure.worker.progress import Announcer
    from ocr_flops.measure.worker.session import Session

Send = Callable[[Event], None]


def main() -> int:
    """Serves one request; returns the exit code."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # whatever a library prints goes to stderr, not between the events
    if hasattr(select, "poll"):
        threading.Thread(target=_end_with_the_reader, args=(lines.fileno(),), daemon=True).start()

    def send(event: Event) -> None:
        lines.write(write_event(event) + "\n")

    try:
        request = Request.from_json(sys.stdin.readline())
    except (ValueError, TypeError) as problem:
        send(failures.of_exception(problem))
        return 1
    try:
        serve(request, send, is_alone=True)
    except Exception as problem:  # the other side shows every failure to a person
        if not failures.is_known(problem):
            traceback.print_exc()  # into the log
        send(failures.of_exception(problem))
        return 1
    send(Done())
    return 0


def _end_with_the_reader(descriptor: int) -> None:
    """Waits until nobody reads the events any more, then ends this process and, where it leads a session, its children.

    The parent may have been killed, and so could not tell. PR_SET_PDEATHSIG would not do: it fires when the parent's thread ends.
    """
    watched = select.poll()
    watched.register(descriptor, 0)  # errors and hang-ups are always reported
    watched.poll()
    if os.getsid(0) == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def serve(request: Request, send: Send, is_alone: bool = False) -> None:
    """Runs a request in this process.

    Args:
        send: called with every event but the last.
        is_alone: whether nothing else runs in this process, so that kernels may be exchanged.

    Raises:
        Exception: whatever keeps the model from running.
    """
    if request.kind == "audit":
        from ocr_flops.measure.worker.counter_audit import audit_counter

        send(audit_counter())
        return
    if request.kind == "device":
        from ocr_flops.measure.worker.machine import device_facts

        send(Ran(device_facts(request.device)))
        return
    from ocr_flops.measure.worker.progress import Announcer

    progress = Announcer(request, send)
    gc.disable()  # importing makes objects, not garbage: half a second less
    for name in ("torch", "transformers"):
        progress.begin(f"importing {name}")
        package = importlib.import_module(name)
        if name == "transformers" and request.engine == "remote_code":
            continue  # what the published code needs shows when it is imported
        if problem := failures.too_old(name, package.__version__):
            raise ImportError(problem)
    gc.enable()
    package.logging.set_verbosity_error()
    if request.kind == "learn":
        from ocr_flops.measure.worker.learning import serve_lesson

        serve_lesson(request.lesson, send, is_alone)
        return
    from ocr_flops.measure.worker.session import Session

    if request.kind != "time":
        progress.begin("building the model")
        if request.kind == "host":
            from ocr_flops.measure.worker.host_lane import time_host as run
        else:
            run = _observe
        run(Session(request), progress, send)
        return
    from ocr_flops.measure.worker.gpu_lock import hold_gpu
    from ocr_flops.measure.worker.machine import resolve_device
    from ocr_flops.measure.worker.timing import time_points

    with hold_gpu(resolve_device(request.device, is_timed=True), lambda: send(Waiting("another timed run holds the GPU; waiting for it"))):
        progress.begin("building the model")
        time_points(Session(request), progress, send)


def _observe(session: Session, progress: Announcer, send: Send) -> None:
    """Counts every point; kind "trace" traces it in the same pass."""
    from ocr_flops.measure.worker.counting import Counting, Tracing
    from ocr_flops.measure.worker.machine import now

    request, facts = session.request, session.facts()
    for number, point in enumerate(request.workloads):
        observer, started = (Tracing if request.kind == "trace" else Counting)(session), now()
        session.run_stages(point, observer, progress.begin)
        progress.end()
        times = {"started": started, "finished": now(), "seconds": progress.seconds(number)}
        send(Result(number, point, facts | times, observer.stages))


if __name__ == "__main__":
    sys.exit(main())
