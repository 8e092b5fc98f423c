"""The report on a sweep: what came out, how far to trust it, what was asked; as Markdown beside its charts, and as one HTML page."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from html import escape

from ocr_flops.charts import Chart
from ocr_flops.charts.sweep import charts, reading
from ocr_flops.charts.sweep.summary import Shown
from ocr_flops.reports import sweep_table
from ocr_flops.reports.conventions import READING
from ocr_flops.reports.html import facts, figure, points, section, table
from ocr_flops.reports.offline import document
from ocr_flops.reports.sweep_findings import findings, trust
from ocr_flops.reports.sweep_settings import asked, conditions, figures_from, title
from ocr_flops.studies.sweeps.plan import Sweep
from ocr_flops.studies.sweeps.results import STAGES, Results, cases_frame

HEADINGS = {
    "flops": "FLOPs by stage",
    "flop_split_linear": "Matrix and vector work",
    "flop_split_log": "Matrix and vector work, logarithmic",
    "traffic": "Bytes moved",
    "intensity": "Arithmetic intensity",
    "memory": "Device memory",
    "weights": "Weights",
    "activations": "Live activations",
    "kv_cache": "KV cache",
    "ttft": "Time to first token",
    "tpot": "Time per output token",
    "required_flops_ttft": "Required matrix rate for the first token",
    "required_bandwidth_ttft": "Required bandwidth for the first token",
    "required_flops_tpot": "Required matrix rate for an output token",
    "required_bandwidth_tpot": "Required bandwidth for an output token",
}
CONVENTIONS = (
    *READING,
    "**Weights** of a stage are those of its modules, each once, all experts among them. **Memory needed** adds all weights, the KV cache "
    "at its end and the peak of live activations.",
    "**A required rate** is work over the target: matrix FLOPs, or bytes, of vision and prefill over the TTFT, of a mean output token over "
    "the TPOT. Both rates are needed, neither alone is enough.",
    "**Grids** are columns × rows of tiles; one of a single tile means the global view alone. `vendor_supported` says whether the vendor's "
    "code cuts that grid.",
)
FILES = (
    "`manifest.json` beside this report has the command, the whole resolved configuration, and size and sha256 of every file; "
    "the same command repeats the run."
)


@dataclass(frozen=True, eq=False)
class SweepReport:
    """What charts and reports show of a sweep; everything is computed once, when it is first read.

    Args:
        results: of the sweep.
        made: the date it bears.
    """

    results: Results
    made: date = field(default_factory=date.today)

    @property
    def sweep(self) -> Sweep:
        """What was computed."""
        return self.results.sweep

    @cached_property
    def shown(self) -> Shown:
        """The points that are shown."""
        return reading.shown(self.results.tables[STAGES].frames, cases_frame(self.sweep), self.sweep.points_per_case)

    @cached_property
    def charts(self) -> dict[str, Chart]:
        """Charts by file name."""
        return charts(self.shown, self.results.targets)

    @cached_property
    def findings(self) -> list[str]:
        """What came out, as sentences."""
        return findings(self)

    def markdown(self, images: str | None = None) -> str:
        """The report as Markdown.

        Args:
            images: "svg" or "png", where charts of that kind lie in `charts/` beside it.
        """
        columns = sweep_table.columns(self)
        rows = zip(*(cells for _, cells in columns), strict=True)
        lines = [f"# {title(self.sweep)}", "", f"{conditions(self)}.", "", "## Findings", "", *(f"- {one}" for one in self.findings)]
        for name, chart in self.charts.items() if images else ():
            lines += ["", f"## {HEADINGS[name]}", "", f"![{' '.join(chart.title.text)}](charts/{name}.{images})"]
        lines += ["", "## By point", "", sweep_table.note(self), ""]
        lines += [f"| {' | '.join(head.text for head, _ in columns)} |"]
        lines += [f"|{'|'.join(' ---: ' if head.number else ' --- ' for head, _ in columns)}|"]
        lines += [f"| {' | '.join(cell.text.replace('*', chr(92) + '*') for cell in row)} |" for row in rows]
        lines += ["", "## How far to trust it", "", *(f"- {one}" for one in trust(self))]
        lines += ["", "## Conventions", "", *(f"- {one}" for one in CONVENTIONS), "", "## What was asked", ""]
        for heading, values in asked(self).items():
            lines += [f"**{heading}**", "", *(f"- {name}: {value}" for name, value in values.items()), ""]
        lines += [*figures_from(self), "", FILES, "", f"Made on {self.made.isoformat()}."]
        return "\n".join(lines) + "\n"

    def html(self, in_child: bool = False) -> str:
        """The report as one HTML page that needs no network (`in_child` as of `reports.html`)."""
        columns = sweep_table.columns(self)
        rows = zip(*(cells for _, cells in columns), strict=True)
        source = "".join(f'<p class="sources">{escape(one)}</p>' for one in figures_from(self))
        content = "\n".join(
            [
                f"<header><h1>{escape(title(self.sweep))}</h1><p>{escape(conditions(self))}</p></header><main>{points(self.findings)}",
                *(section(HEADINGS[name], figure(name)) for name in self.charts),
                section("By point", f"<p>{escape(sweep_table.note(self))}</p>", table([head for head, _ in columns], rows)),
                section("How far to trust it", points(trust(self))),
                section("Conventions", points(CONVENTIONS)),
                section("What was asked", facts(asked(self)), source, points([FILES])),
                f"</main><footer>Made on {self.made.isoformat()}.</footer>",
            ]
        )
        return document(title(self.sweep), content, self.charts, in_child=in_child)
