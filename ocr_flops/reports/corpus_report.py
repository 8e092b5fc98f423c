"""The plan of a corpus as one HTML page that needs no network, to be forwarded to whoever pays."""

import shlex
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from markupsafe import Markup

from ocr_flops import __version__
from ocr_flops.charts.corpus import corpus_charts
from ocr_flops.files import write_whole
from ocr_flops.reports.corpus import describe_range, describe_run, groups_table, plans_table
from ocr_flops.reports.html import html_page
from ocr_flops.reports.markdown import escape_markdown, render_markdown, table_markdown
from ocr_flops.studies.corpus.plans import Plan


def corpus_page(plan: Plan, said: Sequence[str], command: Sequence[str] = (), in_child: bool = True) -> str:
    """The page as HTML.

    Args:
        plan: of `plan`.
        said: the answer, a sentence each.
        command: the command line that repeats it; none by default.
        in_child: as of `html_page`.
    """
    charts = corpus_charts(plan)
    title = f"What {plan.pages:,} pages take"
    sources = {
        device.name: next((source.document for source in device.sources if "board_watts" in source.figures), "the command line")
        for device in plan.devices
    }
    text = render_markdown(
        "corpus.md.j2",
        title=title,
        said=said,
        run=describe_run(plan),
        pictures={name: Markup(f"![{escape_markdown(' '.join(chart.title.text))}](#{name})") for name, chart in charts.items()},
        plans=table_markdown(plans_table(plan)),
        groups=table_markdown(groups_table(plan)),
        ranges=describe_range(plan),
        bases=plan.plans["time_basis"].drop_nulls().unique(maintain_order=True).to_list(),
        watts=[
            {"label": device.label, "watts": f"{device.board_watts:g}", "document": sources[device.name]}
            for device in plan.devices
            if device.board_watts
        ],
        command=shlex.join(command),
        made=date.today().isoformat(),
        version=__version__,
    )
    return html_page(title, text, charts, in_child=in_child)


def write_report(path: Path, plan: Plan, said: Sequence[str], command: Sequence[str] = ()) -> Path:
    """Writes `corpus_page`, and returns the path."""
    return write_whole(path, corpus_page(plan, said, command, in_child=False), "--report")
