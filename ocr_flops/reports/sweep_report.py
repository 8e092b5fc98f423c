"""The report on a sweep: what came out, how far to trust it, its settings; as Markdown beside its charts, and as one HTML page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from ocr_flops.charts import Chart
from ocr_flops.charts.sweep import sweep_charts
from ocr_flops.charts.sweep.points import name_views
from ocr_flops.charts.sweep.summary import AXES, SweepSummary, summarize_sweep
from ocr_flops.charts.sweep.wording import Wording
from ocr_flops.evidence.verify import summary as verification
from ocr_flops.reports.html import html_page
from ocr_flops.reports.markdown import render_markdown
from ocr_flops.reports.sweep_findings import describe_evidence, list_findings
from ocr_flops.reports.sweep_settings import describe_conditions, describe_settings, title_sweep
from ocr_flops.studies.sweeps.results import Results
from ocr_flops.units import seconds, si

HEADINGS = {
    "flops": "FLOPs by stage",
    "flop_split_linear": "Matrix and vector work",
    "flop_split_log": "Matrix and vector work, logarithmic",
    "traffic": "DRAM traffic",
    "intensity": "Arithmetic intensity",
    "memory": "Device memory",
    "weights": "Weights",
    "activations": "Peak activation memory",
    "kv_cache": "KV cache",
    "ttft": "Time to first token",
    "tpot": "Time per output token",
    "required_flops_ttft": "Required matrix rate for the first token",
    "required_bandwidth_ttft": "Required bandwidth for the first token",
    "required_flops_tpot": "Required matrix rate for an output token",
    "required_bandwidth_tpot": "Required bandwidth for an output token",
}
MAX_ROWS = 120
SHAPE = ("columns", "rows", "global_px", *AXES)  # what a page is; the table has all series of the same shape
COSTS = {  # measure: heading, unit
    "total_flops": ("FLOPs", ""),
    "io_bytes": ("DRAM traffic", "B"),
    "ttft.roofline_seconds": ("TTFT, roofline", "s"),
    "tpot.roofline_seconds": ("TPOT, roofline", "s"),
    "kv_cache_bytes": ("KV cache", "B"),
    "peak_activation_bytes": ("peak activations", "B"),
    "needed_bytes": ("memory needed", "B"),
}
RATES = {"tensor_flops": "FLOP/s", "io_bytes": "B/s"}


@dataclass(frozen=True, eq=False)
class SweepReport:
    """What charts and reports show of a sweep; everything is computed once, when it is first read.

    Args:
        results: of the sweep.
        made: the date it bears.
    """

    results: Results
    made: date = field(default_factory=date.today)

    @cached_property
    def summary(self) -> SweepSummary:
        """The points that are shown."""
        return summarize_sweep(self.results)

    @cached_property
    def charts(self) -> dict[str, Chart]:
        """Charts by file name."""
        return sweep_charts(self.summary, self.results.targets)

    @cached_property
    def findings(self) -> list[str]:
        """What came out, as sentences."""
        return list_findings(self.results, Wording(self.summary))

    def markdown(self, images: str | None = None) -> str:
        """The report as Markdown.

        Args:
            images: "svg" or "png", where charts of that kind lie in `charts/` beside it; None where there are none.
        """
        return self._render({name: f"charts/{name}.{images}" for name in self.charts} if images else {})

    def html(self, in_child: bool = False) -> str:
        """The report as one HTML page that needs no network (`in_child` as of `html_page`)."""
        markdown = self._render({name: f"#{name}" for name in self.charts})
        return html_page(title_sweep(self.results.sweep), markdown, self.charts, in_child=in_child)

    def _render(self, places: dict[str, str]) -> str:
        points = choose_points(self.summary)
        frame, formats = points_table(self.results, self.summary, points)
        return render_markdown(
            "sweep.md.j2",
            title=title_sweep(self.results.sweep),
            conditions=describe_conditions(self.results.sweep),
            findings=self.findings,
            charts=[(HEADINGS[name], " ".join(self.charts[name].title.text), place) for name, place in places.items()],
            note=_table_note(self.summary, points),
            points=frame,
            formats=formats,
            record=verification.recorded(),
            evidence=describe_evidence(self.results.sweep),
            has_times=any(case.run.hardware for case in self.results.sweep.cases),
            made=self.made.isoformat(),
            **describe_settings(self.results),
        )


def choose_points(summary: SweepSummary) -> pl.DataFrame:
    """The points of the table: all that are shown, or those of every so many shapes, with all of their series."""
    points = summary.points.sort("x", *SHAPE, "point")
    every = -(-points.height // MAX_ROWS)
    some = points.select(SHAPE).unique(maintain_order=True).gather_every(every)
    return points.join(some, on=SHAPE, how="semi", maintain_order="left").head(MAX_ROWS)


def points_table(results: Results, summary: SweepSummary, points: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, Callable[[Any], str]]]:
    """The table of points, its columns by their headings, and how numbers are printed.

    Args:
        results, summary: of the sweep.
        points: its rows, of `choose_points`.
    """
    rows, words = points.to_dicts(), Wording(summary)
    columns: dict[str, list[Any]] = {}
    if "image" in points.columns:
        columns["file"] = [f"{Path(row['image']).name}, page {row['page']}" for row in rows]
    columns["views"] = [name_views(row) + ("" if row["vendor_supported"] else " *") for row in rows]
    if summary.layout.resolutions:
        columns["resolution"] = [words.name_place(row) for row in rows]
    if any(series := [words.name_row_series(row) for row in rows]):
        columns["series"] = series
    columns |= {
        heading: points[name] for name, heading in AXES.items() if points[name].n_unique() > 1 and name not in summary.layout.columns
    }
    formats: dict[str, Callable[[Any], str]] = {}
    for measure, (heading, unit) in COSTS.items():
        if summary.has(measure):
            columns[heading], formats[heading] = points[measure], seconds if unit == "s" else lambda value, unit=unit: si(value, unit)
    for phase, target in results.targets.items():
        for cost, unit in RATES.items():
            if summary.has(f"{phase}.{cost}"):
                heading = f"{unit} for {phase.upper()} {seconds(target)}"
                columns[heading], formats[heading] = points[f"{phase}.{cost}"] / target, si
    return pl.DataFrame(columns), formats


def _table_note(summary: SweepSummary, points: pl.DataFrame) -> str:
    """What the table leaves out, and what a star says."""
    fewer = f"{points.height:,} of {summary.count:,} points, spread evenly; the data files have all. "
    star = "A star marks grids that the published code does not cut. "
    return "".join(
        [
            fewer if points.height < summary.count else "",
            "" if points["vendor_supported"].all() else star,
            "FLOP/s and B/s are sustained over the whole target, both at once.",
        ]
    )
