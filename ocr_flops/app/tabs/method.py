"""The tab Method: how the numbers are made, what they were compared with, and what torch's counter misses."""

from html import escape
from typing import Any

import marimo as mo

from ocr_flops.app import runs
from ocr_flops.app.chart_widget import ChartWidget
from ocr_flops.app.tabs.elements import plain_table, problem, row, unless
from ocr_flops.app.views import Results
from ocr_flops.charts.counter_audit import hidden_flops
from ocr_flops.evidence.verify import by_hand, counter_audit, summary
from ocr_flops.measure.job_queue import Job
from ocr_flops.reports import tables
from ocr_flops.reports.markdown import render_markdown
from ocr_flops.spec.catalog import notebook_dir

MADE, COMPARED, MISSED = CHAPTERS = ("How these numbers are made", "Compared with the real model", "What torch's counter misses")


def method(results: Results, chapter: mo.ui.tabs, job: Job | None, run: mo.ui.button) -> mo.Html:
    """The chapter that is open.

    Args:
        results: of a setting.
        chapter: which of `CHAPTERS`.
        job: the page's latest.
        run: the button that repeats the audit of torch's counter here.
    """
    if chapter.value == MADE:
        text = mo.md((notebook_dir() / "method.md").read_text(encoding="utf-8"))
        parts = [mo.Html(f'<div class="page">{text.text}</div>')]
    elif chapter.value == COMPARED:
        record = summary.read_verification(results.setting.engine)
        words = mo.md("The comparison this version was released with: " + render_markdown("verification.md.j2", record=record))
        found = (tables.settings_table(record), tables.verification_table(record)) if record else ()
        parts = [words, mo.md(by_hand.describe_comparison()), *(plain_table(table, page_size=25) for table in found)]
    else:
        parts = _missed(results, job, run)
    return mo.vstack([chapter, *parts])


def _missed(results: Results, job: Job | None, run: mo.ui.button) -> list[Any]:
    """What torch's counter sees and misses: as recorded, or as the page's latest job says."""
    setting, message = results.setting, counter_audit.latest_audit(job) or counter_audit.read_audit()
    estimate = counter_audit.estimate_audited(results.model, setting.workload, dtype=setting.dtype, prefill_logits=setting.prefill_logits)
    bad = counter_audit.list_failures(message)
    return [
        mo.md(
            "What `FlopCounterMode` sees of this model and what it misses, shown by running small operators under it. Whoever measures "
            "FLOPs with it on a plain CPU or with fused kernels gets too few."
        ),
        mo.Html(f"<p>{'<br>'.join(escape(line) for line in counter_audit.describe_audit(message, estimate).splitlines())}</p>"),
        row(unless(runs.missing(runs.check_allowed), run)),
        *([problem("Not every demonstration ran.", *bad, kind="warn")] if bad else []),
        ChartWidget([hidden_flops(counter_audit.hidden_frame(message, estimate), estimate, message["ran"]["torch"])], "method"),
        plain_table(tables.audit_table(counter_audit.audit_frame(message, estimate)), page_size=30),
    ]
