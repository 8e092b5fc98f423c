"""Times the real model in a worker, point by point; every point ends in a record, whatever becomes of the worker."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ocr_flops.evidence import records
from ocr_flops.measure.client import ask, converse
from ocr_flops.measure.events import PointFailed, Progress, Ran, Result, Waiting
from ocr_flops.measure.plan import Plan
from ocr_flops.measure.protocol import Request, progress_steps
from ocr_flops.spec.workload import Workload

OnProgress = Callable[[int, int, str], None]


def device_facts(plan: Plan, python: str | None = None, timeout_seconds: float | None = None) -> dict[str, Any]:
    """Return what a plan would run on, without running it: "device", "device_name" and versions.

    Args:
        plan: its device is looked up.
        python: the worker's interpreter, as for `converse`.
        timeout_seconds: for the answer.

    Raises:
        SpecError: the worker failed; the message says why and what to do.
    """
    answers = ask(Request({}, [], device=plan.device, kind="device"), python, timeout_seconds=timeout_seconds)
    return next((event.ran for event in answers if isinstance(event, Ran)), {})


def measure_points(
    plan: Plan,
    workloads: Iterable[Workload] | None = None,
    *,
    python: str | None = None,
    timeout_seconds: float | None = None,
    progress: OnProgress = lambda done, total, text: None,
) -> Iterator[dict[str, Any]]:
    """Time points and yield the record of each as soon as it is there; `records.write_record` keeps it.

    A point that fails (out of memory, its worker killed, too slow) ends in a record with state "failed", and those after it are run, in a
    new worker where the old one is gone. What keeps the worker from beginning (no torch, a missing kernel) fails all of them.

    Args:
        workloads: single points; the plan's own where None.
        python: the interpreter that has torch and transformers, as for `converse`.
        timeout_seconds: for each point, the worker's start included for its first; waiting for a GPU that others time on is not.
        progress: called with (steps done, steps of all points, text).

    Raises:
        SpecError: no such interpreter.
    """
    left = [plan.run.workload] if workloads is None else list(workloads)
    total = len(progress_steps(plan.request(left)))
    while left:
        request, ended = plan.request(left), 0
        behind = done = total - len(progress_steps(request))
        with converse(request, python, timeout_seconds=timeout_seconds, per_point=True) as talk:
            for event in talk:
                if isinstance(event, Progress):
                    done = behind + event.done
                if isinstance(event, Progress | Waiting):
                    progress(done, total, event.text)
                elif isinstance(event, Result | PointFailed):
                    yield records.make_record(plan, left[ended], event)
                    ended += 1
        left = left[ended:]
