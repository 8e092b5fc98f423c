"""The report on a sweep: what came out, how far to trust it, what was asked; as Markdown beside its charts, and as one HTML page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING

from ocr_flops.reports import sweep_table
from ocr_flops.reports.conventions import READING
from ocr_flops.reports.html import Cell, facts, figure, points, section, table
from ocr_flops.reports.offline import document
from ocr_flops.reports.sweep_findings import findings, trust
from ocr_flops.reports.sweep_settings import Facts, asked, conditions, figures_from, title

if TYPE_CHECKING:
    from ocr_flops.studies.sweeps.results import Results

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
class Report:
    """What is told of a sweep; numbers are computed when they are first read.

    Args:
        results: of the sweep.
        made: the date it bears.
    """

    results: Results
    made: date

    @property
    def title(self) -> str:
        """Its heading."""
        return title(self.results.sweep)

    @cached_property
    def findings(self) -> list[str]:
        """What came out, as sentences."""
        return findings(self.results)

    @cached_property
    def asked(self) -> Facts:
        """The resolved choice and the versions, in groups."""
        return asked(self.results)

    @cached_property
    def head(self) -> list[Cell]:
        """The heads of the table's columns."""
        return [head for head, _ in sweep_table.columns(self.results)]

    @cached_property
    def rows(self) -> list[list[Cell]]:
        """The rows of the table."""
        return [list(row) for row in zip(*(cells for _, cells in sweep_table.columns(self.results)), strict=True)]


def markdown(results: Results, kinds: tuple[str, ...] = (), made: date | None = None) -> str:
    """The report as Markdown.

    Args:
        results: of a sweep.
        kinds: "svg" or "png", where charts of that kind lie in `charts/` beside it; the first is shown.
        made: the date it bears; today by default.
    """
    report = Report(results, made or date.today())
    lines = [f"# {report.title}", "", f"{conditions(results)}.", "", "## Findings", "", *(f"- {one}" for one in report.findings)]
    for name, chart in results.charts.items() if kinds else ():
        told = " ".join(chart.title.text)
        lines += ["", f"## {HEADINGS[name]}", "", f"![{told}](charts/{name}.{kinds[0]})"]
    lines += ["", "## By point", "", sweep_table.note(results), ""]
    lines += [f"| {' | '.join(cell.text for cell in report.head)} |"]
    lines += [f"|{'|'.join(' ---: ' if cell.number else ' --- ' for cell in report.head)}|"]
    lines += [f"| {' | '.join(cell.text.replace('*', chr(92) + '*') for cell in row)} |" for row in report.rows]
    lines += ["", "## How far to trust it", "", *(f"- {one}" for one in trust(results))]
    lines += ["", "## Conventions", "", *(f"- {one}" for one in CONVENTIONS), "", "## What was asked", ""]
    for heading, values in report.asked.items():
        lines += [f"**{heading}**", "", *(f"- {name}: {value}" for name, value in values.items()), ""]
    lines += [*figures_from(results), "", FILES, "", f"Made on {report.made.isoformat()}."]
    return "\n".join(lines) + "\n"


def html(results: Results, made: date | None = None, *, in_child: bool = False) -> str:
    """The report as one HTML page that needs no network (arguments as of `markdown`; `in_child` as of `reports.render_html`)."""
    report = Report(results, made or date.today())
    source = "".join(f'<p class="sources">{escape(one)}</p>' for one in figures_from(results))
    content = "\n".join(
        [
            f"<header><h1>{escape(report.title)}</h1><p>{escape(conditions(results))}</p></header><main>{points(report.findings)}",
            *(section(HEADINGS[name], figure(name)) for name in results.charts),
            section("By point", f"<p>{escape(sweep_table.note(results))}</p>", table(report.head, report.rows)),
            section("How far to trust it", points(trust(results))),
            section("Conventions", points(CONVENTIONS)),
            section("What was asked", facts(report.asked), source, points([FILES])),
            f"</main><footer>Made on {report.made.isoformat()}.</footer>",
        ]
    )
    return document(report.title, content, results.charts, in_child=in_child)
