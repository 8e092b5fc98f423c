"""What is said above the tabs of a run of the real model."""

from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from typing import Any

import marimo as mo

from ocr_flops.app.session import Session, Start
from ocr_flops.app.tabs.elements import button, problem, row
from ocr_flops.measure.job_queue import CANCELLED, WAITING, Job


def run_button(
    label: str, page: Session, start: Start, inputs: mo.ui.dictionary | None, set_asked: Callable[[Callable[[int], int]], None]
) -> mo.ui.button:
    """A button that asks for a run of the real model.

    Args:
        label: on the button.
        page: whose run it is.
        start: puts the run into the queue, see `Session.ask`.
        inputs: the start's options.
        set_asked: counts what was asked for, so that the page looks.
    """

    def ask() -> None:
        page.ask(partial(start, **(inputs.value if inputs is not None else {})))
        set_asked(lambda count: count + 1)

    return button(label, ask)


def job_html(job: Job, queue: Sequence[Job]) -> str:
    """A job on its way: its place in the queue, or how far each stage of its current point is."""
    if job.state == WAITING:
        before = [escape(f"{other.label} ({other.state})") for other in queue if other.id < job.id]
        return f'<div class="job">Run of {escape(job.label)} waits: {job.position} in line, after {", ".join(before)}</div>'
    now = next((stage.point for stage in job.stages if stage.state == "running" and stage.point is not None), 0)
    stages = [stage for stage in job.stages if stage.point in (None, now)]
    items = [f'<li class="{one.state}">{escape(one.name)}{f" {one.seconds:.1f} s" if one.seconds else ""}</li>' for one in stages]
    waiting = sum(other.state == WAITING for other in queue)
    return (
        f'<div class="job">Run of {escape(job.label)}: {escape(job.text)}, {job.running_seconds:.0f} s'
        f"{f'; {waiting} waiting' if waiting else ''}"
        f'<progress value="{job.done}" max="{job.total}"></progress><ol>{"".join(items)}</ol></div>'
    )


def progress(session: Session, queue: Sequence[Job], cancel: Any, tick: Any, with_ended: bool) -> mo.Html | None:
    """What is said of a page's latest run: how far it is, why it ended early, why another was not started; None where there is nothing.

    Args:
        session: of the page.
        queue: jobs that run and wait.
        cancel: the button that ends it.
        tick: what makes the page look again; None where nothing is awaited.
        with_ended: whether it is said, too, why a run ended early or was not started: where runs are asked for.
    """
    job, parts = session.job, []
    if session.refused and with_ended:
        parts.append(problem("The run was not started.", f"{session.refused}.", kind="warn"))
    if job is not None and job.is_live:
        parts.append(row(mo.Html(job_html(job, queue)), cancel))
    elif job is not None and job.failure is not None and with_ended:
        kept = [f"{len(job.results)} results that came before are kept."] if job.results else []
        kind = "warn" if job.state == CANCELLED else "danger"
        parts.append(problem(f"The run ended early: {job.failure.message}.", job.failure.advice, *kept, kind=kind))
    if tick is not None:
        parts.append(mo.Html(f'<div class="tick{"" if parts else " alone"}">{mo.as_html(tick).text}</div>'))
    return mo.vstack(parts, gap=0) if parts else None
