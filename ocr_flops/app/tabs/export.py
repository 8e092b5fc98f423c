"""The tab Export: link, report, tables and charts to take away."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import marimo as mo
import polars as pl

from ocr_flops import charts, reports
from ocr_flops.app import comparison, views
from ocr_flops.app.store import STORE
from ocr_flops.app.tabs.compare import Pins, compared
from ocr_flops.app.tabs.elements import row
from ocr_flops.app.views import Shown
from ocr_flops.charts import Chart

COMPARE = "Compare"
ROWS: dict[str, Callable[[Shown, Pins], pl.DataFrame]] = {
    "modules": lambda shown, pins: shown.modules,
    "stages": lambda shown, pins: pl.concat([one.stages for one in (shown.timings or shown.estimates)]),
    "all grids of this mode": lambda shown, pins: shown.sweep,
    "pinned settings": lambda shown, pins: comparison.frame(compared(shown.model, shown.setting, pins)[0]),
    "spot checks on this server": lambda shown, pins: STORE.table(),
}
CHARTS = (*views.VIEWS, COMPARE)


def export(shown: Shown, pins: Pins, rows: mo.ui.dropdown, of: mo.ui.dropdown, make_report: mo.ui.run_button) -> mo.Html:
    """Everything that can be taken away.

    Args:
        shown: a setting that can be computed.
        pins: names and settings.
        rows: which of `ROWS` the table has.
        of: which of `CHARTS` are offered.
        make_report: makes the report, whose download then takes its place.
    """
    frame = ROWS[rows.value](shown, pins)
    drawn = views.VIEWS[of.value](shown) if of.value in views.VIEWS else [charts.comparison(compared(shown.model, shown.setting, pins)[0])]
    report = make_report
    if make_report.value:
        page = reports.report_html(shown.setting.subject(shown.model, shown.device)).encode()
        report = mo.download(page, _name("report", "html"), mimetype="text/html", label="Download the HTML report")
    tables = (
        mo.download(reports.table_bytes(frame, kind), _name(rows.value.replace(" ", "_"), kind), label=kind.upper())
        for kind in ("csv", "parquet", "json")
    )
    return mo.vstack(
        [
            mo.md("**Link**: the address of this page carries the whole setting, the open tab and the pins. Copy it from the address bar."),
            mo.md("**Report**: one file that works without a network, with controls for grid and attention mode inside its charts."),
            row(report),
            mo.md("**Table**"),
            row(rows, *tables),
            mo.md("**Charts**, also from the ⋯ beside each chart"),
            of,
            *(_images(chart, f"{of.value.lower()}_{number}") for number, chart in enumerate(drawn, 1)),
        ]
    )


def _images(chart: Chart, name: str) -> mo.Html:
    def image(kind: str) -> Callable[[], bytes]:  # drawn when it is asked for, by a child process
        return lambda: reports.chart_images({"": chart}, kind)[""]

    downloads = (mo.download(image(kind), _name(name, kind), label=kind.upper()) for kind in ("svg", "png"))
    return row(*downloads, mo.Html(f"<span>{escape(' '.join(chart.title.text))}</span>"))


def _name(what: str, suffix: str) -> str:
    return f"ocr_flops_{what}.{suffix}"
