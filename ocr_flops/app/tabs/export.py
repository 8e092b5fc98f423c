"""The tab Export: link, report, tables and charts to take away."""

from collections.abc import Callable
from dataclasses import replace
from html import escape

import marimo as mo
import polars as pl

from ocr_flops.app import comparison, views
from ocr_flops.app.jupyter import linked_notebook
from ocr_flops.app.links import Link, Pins
from ocr_flops.app.spot_checks import STORE
from ocr_flops.app.tabs.compare import compared_charts, provenance_of
from ocr_flops.app.tabs.elements import labelled, row
from ocr_flops.app.views import Results
from ocr_flops.charts import Chart
from ocr_flops.reports.estimate_report import report_html
from ocr_flops.reports.export import table_bytes
from ocr_flops.reports.images import chart_images

COMPARE = "Compare"
ROWS: dict[str, Callable[[Results, Pins], pl.DataFrame]] = {
    "modules": lambda results, pins: results.modules,
    "stages": lambda results, pins: pl.concat([one.stages for one in (results.timings or results.estimates)]),
    "all grids of this mode": lambda results, pins: results.sweep,
    "pinned settings": lambda results, pins: comparison.comparison_frame(comparison.compare_pins(results.model, results.setting, pins)[0]),
    "spot checks on this server": lambda results, pins: STORE.table(),
}
CHARTS = (*views.VIEWS, COMPARE)


def export_controls() -> mo.ui.dictionary:
    """Which rows the table has, and which charts are offered."""
    return mo.ui.dictionary(
        {
            "rows": mo.ui.dropdown(list(ROWS), value="modules", label=labelled("rows", "Every column there is, with exact integers.")),
            "charts": mo.ui.dropdown(list(CHARTS), value=CHARTS[0], label=labelled("charts of", "As they are for the current setting.")),
        }
    )


def export(results: Results, link: Link, inputs: mo.ui.dictionary, make_report: mo.ui.run_button) -> mo.Html:
    """Everything that can be taken away.

    Args:
        results: a setting that can be computed.
        link: what the page's address says.
        inputs: of `export_controls`.
        make_report: makes the report, whose download then takes its place.
    """
    rows, of = inputs.value["rows"], inputs.value["charts"]
    frame = ROWS[rows](results, link.pins)
    drawn = views.VIEWS[of](results) if of in views.VIEWS else compared_charts(results, link.pins)
    below = results.provenance if of in views.VIEWS else provenance_of(results, link.pins)
    report = make_report
    if make_report.value:
        subject = results.setting.subject(results.model, results.device)
        page = report_html(replace(subject, **results.conditions) if results.device else subject).encode()
        report = mo.download(page, _name("report", "html"), mimetype="text/html", label="Download the HTML report")
    tables = (
        mo.download(table_bytes(frame, kind), _name(rows.replace(" ", "_"), kind), label=kind.upper())
        for kind in ("csv", "parquet", "json")
    )
    return mo.vstack(
        [
            mo.md(
                "**Link**: the address of this page carries the sidebar, *Plan*, *Serving*, tab and pins; of *Corpus* engine and prices."
            ),
            mo.md("**Report**: one file that works without a network, with controls for grid and attention mode inside its charts."),
            row(report),
            mo.md("**Jupyter**: a notebook with these charts and numbers, which begins with this setting; it needs `ocr_flops`."),
            mo.download(linked_notebook(link), "ocr_flops_what_if.ipynb", label="Download the notebook"),
            mo.md("**Table**"),
            row(inputs.elements["rows"], *tables),
            mo.md("**Charts**, also from the ⋯ beside each chart"),
            inputs.elements["charts"],
            *(_images(chart, f"{of.lower().replace(' ', '_')}_{number}", below) for number, chart in enumerate(drawn, 1)),
        ]
    )


def _images(chart: Chart, name: str, below: str) -> mo.Html:
    def image(kind: str) -> Callable[[], bytes]:  # drawn when it is asked for, by a child process
        return lambda: chart_images({"": chart}, kind, below=below)[""]

    downloads = (mo.download(image(kind), _name(name, kind), label=kind.upper()) for kind in ("svg", "png"))
    return row(*downloads, mo.Html(f"<span>{escape(' '.join(chart.title.text))}</span>"))


def _name(what: str, suffix: str) -> str:
    return f"ocr_flops_{what}.{suffix}"
