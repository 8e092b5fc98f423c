"""The worker: `python -m ocr_flops.measure` reads one request from stdin and writes events to stdout, one JSON object a line."""

from __future__ import annotations

import gc
import os
import platform
import select
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

from ocr_flops import __version__
from ocr_flops.measure import failures
from ocr_flops.measure.events import Audit, Done, Event, Progress, Ran, Result, Waiting, write_event
from ocr_flops.measure.protocol import ProgressStep, Request, progress_steps

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
        serve(request, send)
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


class _Progress:
    """Announces the steps of a request one after the other and times them."""

    def __init__(self, request: Request, send: Send):
        self._send, self._points, self._steps = send, request.workloads, progress_steps(request)
        self._done, self._began = 0, 0.0
        self._seconds: Counter[ProgressStep] = Counter()

    def begin(self, text: str) -> None:
        """The next step begins."""
        self.end()
        step, self._began = self._steps[self._done], monotonic()
        if step.point is not None:
            point = self._points[step.point]
            text += f", grid {point.columns} x {point.rows} (point {step.point + 1} of {len(self._points)})"
        self._send(Progress(self._done, len(self._steps), text, step.stage, step.point))
        self._done += 1

    def end(self) -> None:
        """The step that began last has ended."""
        if self._done and self._began:
            self._seconds[self._steps[self._done - 1]] += monotonic() - self._began
            self._began = 0.0

    def leave(self, point: int) -> None:
        """A point has ended, perhaps before its last step."""
        self.end()
        while self._done < len(self._steps) and self._steps[self._done].point == point:
            self._done += 1

    def seconds(self, point: int) -> dict[str, float]:
        """Seconds of each stage of set-up and of a point."""
        return {step.stage: round(spent, 6) for step, spent in self._seconds.items() if step.point in (None, point)}


def serve(request: Request, send: Send) -> None:
    """Runs a request in this process.

    Args:
        request: what to run.
        send: called with every event but the last.

    Raises:
        Exception: whatever keeps the model from running.
    """
    if request.kind == "audit":
        from ocr_flops.measure.worker.counter_audit import audit

        send(Audit(**audit()))
        return
    if request.kind == "device":
        from ocr_flops.measure.worker.machine import device_facts

        send(Ran(device_facts(request.device)))
        return
    progress = _Progress(request, send)
    gc.disable()  # importing makes objects, not garbage: half a second less
    progress.begin("importing torch")
    import torch

    _check_version(torch, request)
    progress.begin("importing transformers")
    import transformers

    _check_version(transformers, request)
    gc.enable()
    transformers.logging.set_verbosity_error()
    if request.kind != "time":
        progress.begin("building the model")
        _observe(request, *_built(request), progress, send)
        return
    from ocr_flops.measure.worker.gpu_lock import turn
    from ocr_flops.measure.worker.machine import timed_device
    from ocr_flops.measure.worker.timing import time_points

    with turn(timed_device(request.device), lambda: send(Waiting("another timed run holds the GPU; waiting for it"))):
        progress.begin("building the model")
        time_points(request, *_built(request), progress, send)


def _built(request: Request) -> tuple[Any, dict[str, Any]]:
    """A session with the model that was asked for, and what a result says of what ran."""
    import torch
    import transformers

    from ocr_flops.measure.worker.device import parameter_count, resolved_device
    from ocr_flops.measure.worker.labels import parameters
    from ocr_flops.measure.worker.machine import device_name, timed_device
    from ocr_flops.measure.worker.session import Session

    device = timed_device(request.device) if request.kind == "time" else resolved_device(request.device)
    weights = "random" if request.checkpoint is None else f"checkpoint {Path(request.checkpoint).name}"
    if request.engine == "remote_code":
        from ocr_flops.measure.worker.remote_snapshot import build

        experts, what = "loop", "the published code"
        model = build(request.snapshot, request.towers, request.dtype, device, request.checkpoint)
    else:
        if request.kind == "time":
            from ocr_flops.measure.worker.kernels import build
        else:
            from ocr_flops.measure.worker.transformers_engine import build

        grouped = request.kind in ("trace", "time")
        experts, what = "grouped_mm" if grouped else "batched_mm" if device == "meta" else "eager", "UnlimitedOcr class"
        experts = request.experts or experts
        model = build(request.towers, request.attention, request.dtype, device, experts, request.checkpoint)
    session = Session(
        model,
        request.towers,
        dtype=request.dtype,
        device=device,
        prefill_logits=request.prefill_logits,
        image=request.image,
        stages=request.stages,
        kind=request.kind,
        engine=request.engine,
    )
    modes = dict.fromkeys(request.attention.values())
    ran = {
        "engine": request.engine,
        "attention": request.attention,
        "dtype": request.dtype,
        "device": device,
        "experts": experts,
        "prefill_logits": request.prefill_logits,
        "kind": request.kind,
        "weights": weights,
        "parameters": parameter_count(model),
        "layer_parameters": parameters(model, session.engine.labels),
        "device_name": device_name(device),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "ocr_flops": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "label": f"transformers, {what}, {'random weights' if weights == 'random' else weights}, {'/'.join(modes)}, {device}",
    }
    return session, ran


def _observe(request: Request, session: Any, ran: dict[str, Any], progress: _Progress, send: Send) -> None:
    """Counts or traces every point."""
    from ocr_flops.measure.worker.machine import now

    for number, point in enumerate(request.workloads):
        started = now()
        stages = session.run(point, progress.begin)
        progress.end()
        timed = {"started": started, "finished": now(), "seconds": progress.seconds(number)}
        send(Result(number, point, ran | timed, stages))


def _check_version(package: Any, request: Request) -> None:
    if package.__name__ == "transformers" and request.engine == "remote_code":
        return  # what the published code needs shows when it is imported
    if problem := failures.too_old(package.__name__, package.__version__):
        raise ImportError(problem)


if __name__ == "__main__":
    sys.exit(main())
