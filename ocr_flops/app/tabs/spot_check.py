"""The tab Spot check, and what is said of a job on its way."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import marimo as mo

from ocr_flops.app import spot_checks
from ocr_flops.app.store import STORE
from ocr_flops.app.tabs.elements import plain_table, problem, row
from ocr_flops.measure.job import CANCELLED, WAITING, Job
from ocr_flops.measure.plan import DECODE_STEPS
from ocr_flops.reports import tables

DEVICES = {"cuda if present, else meta": "auto", "meta (exact, no GPU)": "meta", "cpu (slow, 7 GB)": "cpu"}

ABOUT = """
Builds the real model in a child process and counts its FLOPs with PyTorch's own counter, for the setting in the sidebar.

What runs: **transformers, UnlimitedOcr class, random weights, eager, {device}**. It is given DeepSeek-OCR's dimensions, with which it is
the same architecture; no weights are downloaded. At most {steps} decode steps are run and compared as such. About 8 s for a point on
`meta`. One run at a time on a server; others wait their turn, and everything else stays live meanwhile.
"""


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


def progress(job: Job | None, queue: Sequence[Job], refused: str | None, cancel: Any, tick: Any) -> mo.Html | None:
    """What is said of a session's latest job above the tabs; None where there is nothing to say.

    Args:
        job: the latest; None where there is none.
        queue: those that run and wait.
        refused: why the last one asked for was not taken.
        cancel: the button that ends it.
        tick: what makes the page look again; None where nothing is awaited.
    """
    hidden = mo.Html(f'<div class="tick">{mo.as_html(tick).text}</div>') if tick is not None else None
    if job is not None and job.is_live and not refused:
        return row(mo.Html(job_html(job, queue)), cancel, hidden)
    said = _notice(job, refused)
    return mo.vstack([said, hidden]) if said is not None and hidden is not None else said or hidden


def _notice(job: Job | None, refused: str | None) -> mo.Html | None:
    """What is said of a job that was refused, or that ended early."""
    if refused:
        return problem("The run was not started.", f"{refused}.", kind="warn")
    if job is None or job.is_live or job.failure is None:
        return None
    kept = [f"{len(job.results)} results that came before are kept."] if job.results else []
    kind = "warn" if job.state == CANCELLED else "danger"
    return problem(f"The run ended early: {job.failure.message}.", job.failure.advice, *kept, kind=kind)


def panel(device: mo.ui.dropdown, scope: Any, go: Any, output_tokens: int) -> mo.Html:
    """What runs, the controls that start it, and what was measured so far.

    Args:
        device, scope, go: the controls.
        output_tokens: of the setting.
    """
    measured = STORE.table()
    results = [mo.md("Nothing has been measured on this server yet.")]
    if len(measured):
        unseen = spot_checks.missed(measured)
        is_equal = not measured["difference"].abs().sum()
        results = [
            mo.callout(spot_checks.verdict(measured), kind="success" if is_equal else "danger"),
            *([problem("Not seen by torch's counter, so not compared.", *unseen, kind="warn")] if unseen else []),
            mo.md("Measured on this server, by anyone; the latest first."),
            plain_table(tables.measured_table(measured), page_size=25),
        ]
    about = ABOUT.format(device=device.selected_key, steps=DECODE_STEPS)
    if output_tokens > DECODE_STEPS:
        about += f" The charts show {output_tokens:,} output tokens, so decode's counts stand in the table below alone."
    return mo.vstack([mo.md(about), row(device, scope, go, gap=2), *results])
