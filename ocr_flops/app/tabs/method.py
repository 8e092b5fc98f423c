"""The tab Method: how the numbers are made, what they were compared with, and what torch's counter misses."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import marimo as mo

from ocr_flops.app.tabs.elements import plain_table, problem, row
from ocr_flops.app.views import Shown
from ocr_flops.charts.counter_audit import hidden_flops
from ocr_flops.evidence.verify import counter_audit
from ocr_flops.measure.job import Job
from ocr_flops.reports import tables
from ocr_flops.spec.catalog import notebook_dir

MADE, COMPARED, MISSED = CHAPTERS = ("How these numbers are made", "Compared with the real model", "What torch's counter misses")


def chapter_of(name: str, record: dict[str, Any]) -> list[Any]:
    """What a chapter shows; `counted` shows the last.

    Args:
        name: one of `CHAPTERS`.
        record: of `evidence.recorded`.
    """
    if name == MADE:
        page = mo.md((notebook_dir() / "method.md").read_text(encoding="utf-8"))
        return [mo.Html(f'<div class="page">{page.text}</div>')]
    if name == COMPARED:
        words = mo.md("The comparison this version was released with: " + tables.verification_words(record))
        return [words, plain_table(tables.verification_table(record), page_size=25)]
    return []


def counted(shown: Shown, job: Job | None, inputs: Sequence[Any]) -> mo.Html:
    """What torch's counter sees and misses: as recorded, or as this session's latest job says.

    Args:
        shown: a setting that can be computed.
        job: the session's latest.
        inputs: controls that run it here.
    """
    setting, message = shown.setting, counter_audit.latest(job) or counter_audit.recorded()
    estimate = counter_audit.modelled(shown.model, setting.workload, dtype=setting.dtype, prefill_logits=setting.prefill_logits)
    bad = counter_audit.failures(message)
    return mo.vstack(
        [
            mo.md(
                "What `FlopCounterMode` sees of this model and what it misses, shown by running small operators under it. Whoever measures "
                "FLOPs with it on a plain CPU or with fused kernels gets too few."
            ),
            mo.Html(f"<p>{'<br>'.join(escape(line) for line in counter_audit.words(message, estimate).splitlines())}</p>"),
            row(*inputs),
            *([problem("Not every demonstration ran.", *bad, kind="warn")] if bad else []),
            hidden_flops(counter_audit.hidden(message, estimate), estimate, message["ran"]["torch"]),
            plain_table(tables.audit_table(counter_audit.frame(message, estimate)), page_size=30),
        ]
    )
