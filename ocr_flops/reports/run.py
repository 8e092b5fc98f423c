"""The report on a sweep: what was asked, what came out, how far to trust it; as Markdown beside its charts, and as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

from ocr_flops import evidence, tables
from ocr_flops.charts.run import AXES, PHASES, Cut, charts, cut, rows_of_phase, series_of
from ocr_flops.charts.style import Chart, seconds, share, si
from ocr_flops.reports.elements import Cell, figure, folded, points, section, table
from ocr_flops.reports.offline import document

if TYPE_CHECKING:
    import polars as pl

    from ocr_flops.sweeps.outputs import Results

Row = dict[str, Any]
MOST_ROWS = 120  # of the table by input shape; the data files have all
HEADINGS = {
    "flops": "FLOPs by stage",
    "flop_split_linear": "Matrix and vector work",
    "flop_split_log": "Matrix and vector work, logarithmic",
    "traffic": "Bytes moved",
    "intensity": "Arithmetic intensity",
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
    "A multiply-add is 2 FLOPs. Tensor FLOPs run on matrix units, vector FLOPs on the others; attention is counted dense.",
    "Bytes moved: what every executed operator reads and writes at its real precision, weights once per operator and pass.",
    "Activations: the largest sum alive at one instant beside weights and KV cache. Memory needed adds weights, KV cache and that peak.",
    "Roofline time is a model, not a measurement: every operator takes the time of its highest ceiling, none overlap. "
    "`bound_seconds` in the data is what no implementation undercuts.",
    "A required rate is work over the target; matrix rate and bandwidth are both needed, neither alone is enough.",
    "Grids are columns × rows; 1 × 1 means no tiles. `vendor_supported` says whether the vendor's code cuts that grid.",
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

    @cached_property
    def shown(self) -> Cut:
        """The rows that charts and tables show."""
        return cut(self.results.tables["stages"].frames)

    @cached_property
    def charts(self) -> dict[str, Chart]:
        """By file name."""
        return charts(self.shown, self.results.targets)

    @property
    def title(self) -> str:
        """Its heading."""
        return f"{self.results.sweep.cases[0].run.model.label}, a sweep: {self.results.sweep.label}"

    @cached_property
    def weights(self) -> dict[tuple[str, str, str], int]:
        """Bytes of all weights by model, engine and precision."""
        runs = [case.run for case in self.results.sweep.cases]
        return {(run.model.name, run.engine.name, run.dtype): run.estimate().footprint.weight_bytes for run in runs}

    @cached_property
    def rows(self) -> list[Row]:
        """A row a point of the cut: its sums over stages, times, memory and required rates; None where there is none."""
        found: dict[int, Row] = {}
        for row in self.shown.frame.to_dicts():
            one = found.setdefault(row["point"], {**row, "flops": 0, "moved": 0, "kv": 0, "peak": 0, "called": series_of(self.shown, row)})
            one["flops"] += row["total_flops"]
            one["moved"] += row["io_bytes"]
            one["kv"] = max(one["kv"], row["kv_cache_bytes"])
            one["peak"] = max(one["peak"], row["peak_activation_bytes"])
        for one in found.values():
            one["needed"] = self.weights[one["model"], one["engine"], one["dtype"]] + one["kv"] + one["peak"]
        by_phase = {
            (phase, column): {(row["called"], row["x"], row["grid"]): row["value"] for row in self._phase(phase, column)}
            for phase in PHASES
            for column in ("roofline_seconds", "tensor_flops", "io_bytes")
        }
        for one in found.values():
            key = (one["called"], one[self.shown.axis], _grid(one))
            one |= {f"{phase}_{column}": values.get(key) for (phase, column), values in by_phase.items()}
        return list(found.values())

    def _phase(self, phase: str, column: str) -> list[Row]:
        return [{**row, "called": row["kind"]} for row in rows_of_phase(self.shown, phase, column)]

    @cached_property
    def findings(self) -> list[str]:
        """What was asked and what came out, as sentences."""
        sweep, rows, axis = self.results.sweep, self.rows, AXES[self.shown.axis]
        told = [
            f"**Asked**: {sweep.label}, {sweep.points:,} points, stages {', '.join(sweep.stages)}"
            + (
                f", on {', '.join(dict.fromkeys(case.run.hardware.label for case in sweep.cases if case.run.hardware))}"
                if _has_device(sweep)
                else ""
            )
            + (f". {self.shown.words}." if self.shown.words else ".")
        ]
        least, most = (pick(rows, key=lambda row: row[self.shown.axis]) for pick in (min, max))
        told.append(
            f"**FLOPs** go from {si(least['flops'], 'FLOPs')} at {least[self.shown.axis]:,} {axis.split(' of ')[0]} "
            f"to {si(most['flops'], 'FLOPs')} at {most[self.shown.axis]:,}; "
            f"**bytes moved** from {si(least['moved'], 'B')} to {si(most['moved'], 'B')}."
        )
        for phase, name in (("ttft", "Time to first token"), ("tpot", "Time per output token")):
            timed = [row for row in rows if row[f"{phase}_roofline_seconds"] is not None]
            if timed:
                fast, slow = (pick(timed, key=lambda row: row[f"{phase}_roofline_seconds"]) for pick in (min, max))
                told.append(
                    f"**{name}** (roofline): {seconds(fast[f'{phase}_roofline_seconds'])} ({_named(self.shown, fast)}) to "
                    f"{seconds(slow[f'{phase}_roofline_seconds'])} ({_named(self.shown, slow)})."
                )
        told += self._savings()
        largest = max(rows, key=lambda row: row["needed"])
        told.append(
            f"**Memory**: at most {si(largest['needed'], 'B')} ({_named(self.shown, largest)}), "
            f"of it {share(largest['peak'], largest['needed'])} live activations."
        )
        devices = {case.run.hardware.name: case.run.hardware for case in sweep.cases if case.run.hardware}
        if devices:
            wrong = [row for row in rows if row["needed"] > devices[row["hardware"]].memory_bytes]
            told.append(
                f"{len(wrong)} of the {len(rows)} points shown do not fit their device's memory."
                if wrong
                else f"All {len(rows)} points shown fit their device's memory."
            )
        known = sum(row["vendor_supported"] for row in rows)
        if known < len(rows):
            told.append(
                f"{known} of {len(rows)} points shown are grids of the vendor's code; the others go beyond it by the same arithmetic."
            )
        return told

    def _savings(self) -> list[str]:
        """What the leanest attention mode moves less than eager, at the largest point that has both."""
        modes = {row["attention"] for row in self.rows}
        best = next((mode for mode in ("flash", "sdpa") if mode in modes), None)
        if "eager" not in modes or best is None:
            return []
        pairs: dict[Any, dict[str, Row]] = {}
        for row in self.rows:
            others = tuple(row.get(name) for name in self.shown.series if name != "attention")
            pairs.setdefault((row[self.shown.axis], _grid(row), others), {})[row["attention"]] = row
        both = [pair for pair in pairs.values() if {"eager", best} <= set(pair)]
        if not both:
            return []
        pair = max(both, key=lambda pair: pair["eager"][self.shown.axis])
        moved, held = ([pair[mode][name] for mode in ("eager", best)] for name in ("moved", "peak"))
        return [
            f"**{best} against eager** at the largest point: {si(moved[0] - moved[1], 'B')} "
            f"({share(moved[0] - moved[1], moved[0])}) less moved, {si(held[0] - held[1], 'B')} "
            f"({share(held[0] - held[1], held[0])}) less held at once; matrix FLOPs are the same."
        ]

    @property
    def trust(self) -> list[str]:
        """How far to trust the numbers."""
        counts = self.shown.frame["evidence"].cast(str).value_counts(sort=True).rows() if "evidence" in self.shown.frame.columns else []
        kinds = ", ".join(f"{number} {kind}" for kind, number in counts)
        measured = self.results.tables["measured"].frame() if "measured" in self.results.tables else None
        return [
            "Nothing is fitted: every operator that the engine executes is listed with its FLOPs and bytes and added up in whole numbers.",
            f"Rows shown by evidence: {kinds}. Runnable: that mode exists in that engine and was counted and traced on the real model; "
            "modelled: by the same rules, without a runnable counterpart.",
            f"Compared before this version was released: {tables.verification_words(evidence.recorded())}",
            *([_beside(measured)] if measured is not None else []),
        ]

    @property
    def head(self) -> list[str]:
        """The columns of `cells`."""
        rates = [
            f"{name} for {phase.upper()} {seconds(target)}" for phase, target in self.results.targets.items() for name in ("FLOP/s", "B/s")
        ]
        return [
            "series",
            "grid",
            AXES[self.shown.axis],
            "FLOPs",
            "moved",
            "TTFT",
            "TPOT",
            "KV cache",
            "activations",
            "memory needed",
            *rates,
        ]

    @cached_property
    def cells(self) -> list[list[str]]:
        """The table by input shape, in words."""
        chosen = set(self._shapes[:: self._step])
        ordered = sorted(self.rows, key=lambda row: (row[self.shown.axis], _grid(row), row["called"]))
        found = []
        for row in [row for row in ordered if (row[self.shown.axis], _grid(row)) in chosen]:
            rates = [
                "–" if row[f"{phase}_{column}"] is None else si(row[f"{phase}_{column}"] / target, unit)
                for phase, target in self.results.targets.items()
                for column, unit in (("tensor_flops", "FLOP/s"), ("io_bytes", "B/s"))
            ]
            times = ["–" if row[f"{phase}_roofline_seconds"] is None else seconds(row[f"{phase}_roofline_seconds"]) for phase in PHASES]
            sizes = [si(row[name], "B") for name in ("kv", "peak", "needed")]
            grid = _grid(row) + ("" if row["vendor_supported"] else " *")
            found.append(
                [row["called"], grid, f"{row[self.shown.axis]:,}", si(row["flops"]), si(row["moved"], "B"), *times, *sizes, *rates]
            )
        return found

    @cached_property
    def _shapes(self) -> list[tuple[int, str]]:
        return sorted({(row[self.shown.axis], _grid(row)) for row in self.rows})

    @property
    def _step(self) -> int:
        """One shape of so many is in the table, with all its series."""
        return -(-len(self.rows) // MOST_ROWS)

    @property
    def table_note(self) -> str:
        """What the table leaves out, and what a star says."""
        less = (
            f"Every {-(-len(self.rows) // MOST_ROWS)}th of {len(self.rows)} rows; the data files have all. "
            if len(self.rows) > MOST_ROWS
            else ""
        )
        return f"{less}* a grid that the vendor's code does not cut. Required rates are sustained."

    @property
    def asked(self) -> dict[str, dict[str, object]]:
        """The resolved choice and the versions, in groups."""
        from ocr_flops.sweeps.manifest import versions

        config = {name: value for name, value in self.results.sweep.config.items() if not isinstance(value, Mapping)}
        return {"Choice": config, "Workload": _flat(self.results.sweep.config.get("workload", {})), "Versions": versions()}


def markdown(results: Results, kinds: tuple[str, ...] = (), made: date | None = None) -> str:
    """The report as Markdown.

    Args:
        results: of a sweep.
        kinds: "svg" or "png", where charts of that kind lie in `charts/` beside it; the first is shown.
        made: the date it bears; today by default.
    """
    report = Report(results, made or date.today())
    lines = [f"# {report.title}", "", *(f"- {one}" for one in report.findings), "", "## By input shape", "", report.table_note, ""]
    lines += [f"| {' | '.join(report.head)} |", f"|{' --- |' * len(report.head)}", *(f"| {' | '.join(row)} |" for row in report.cells)]
    for name, chart in report.charts.items() if kinds else ():
        told = " ".join(chart.title.text)
        lines += ["", f"## {HEADINGS[name]}", "", told, "", f"![{told}](charts/{name}.{kinds[0]})"]
    lines += ["", "## How far to trust it", "", *(f"- {one}" for one in report.trust), "", "## Conventions", ""]
    lines += [*(f"- {one}" for one in CONVENTIONS), "", "## What was asked", ""]
    for heading, values in report.asked.items():
        lines += [f"**{heading}**: {', '.join(f'{name} {value}' for name, value in values.items())}", ""]
    return "\n".join([*lines, f"Made on {report.made.isoformat()}."]) + "\n"


def html(results: Results, made: date | None = None, *, in_child: bool = False) -> str:
    """The report as one HTML page that needs no network (arguments as of `markdown`; `in_child` as of `reports.html`)."""
    report = Report(results, made or date.today())
    head = [Cell(one, number=number > 1) for number, one in enumerate(report.head)]
    body = [[Cell(text, number=number > 1) for number, text in enumerate(row)] for row in report.cells]
    facts = "".join(
        f"<h3>{escape(heading)}</h3><p>{escape(', '.join(f'{name}: {value}' for name, value in values.items()))}</p>"
        for heading, values in report.asked.items()
    )
    content = "\n".join(
        [
            f"<header><h1>{escape(report.title)}</h1></header><main>{points(report.findings)}",
            *(section(HEADINGS[name], figure(name)) for name in report.charts),
            section("By input shape", f"<p>{escape(report.table_note)}</p>", table(head, body)),
            section("How far to trust it", points(report.trust)),
            section("Conventions", points(CONVENTIONS)),
            section("What was asked", folded("Resolved choice and versions", facts)),
            f"</main><footer>Made on {report.made.isoformat()}.</footer>",
        ]
    )
    return document(report.title, content, report.charts, in_child=in_child)


def _beside(measured: pl.DataFrame) -> str:
    wrong = int((measured["difference"] != 0).sum())
    verdict = "all equal, as integers" if not wrong else f"{wrong} differ"
    return f"The real model ran beside this sweep: {measured.height:,} numbers in the table `measured`, {verdict}."


def _grid(row: Row) -> str:
    return f"{row['columns']} × {row['rows']}" if row["tiles"] else f"{row['global_px']} px view"


def _named(shown: Cut, row: Row) -> str:
    series = f", {row['called']}" if shown.series else ""
    return f"{_grid(row)}, {row[shown.axis]:,} {AXES[shown.axis].split(' of ')[0]}{series}"


def _has_device(sweep: Any) -> bool:
    return any(case.run.hardware for case in sweep.cases)


def _flat(tree: Mapping[str, Any]) -> dict[str, object]:
    return {name: value for name, value in tree.items() if value is not None}
