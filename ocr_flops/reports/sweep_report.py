"""The report on a sweep: what came out, how far to trust it, its settings; as Markdown beside its charts, and as one HTML page."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup

from ocr_flops.charts import Chart
from ocr_flops.charts.sweep import sweep_charts
from ocr_flops.charts.sweep.summary import AXES, SweepSummary, name_views, summarize_sweep
from ocr_flops.charts.sweep.wording import Wording, format_number, name_memory
from ocr_flops.charts.theme import in_bytes, in_flops
from ocr_flops.evidence.verify import summary as verification
from ocr_flops.reports.estimate_settings import LOGITS, list_figures, name_kernels, name_sources
from ocr_flops.reports.html import html_page
from ocr_flops.reports.markdown import render_markdown
from ocr_flops.reports.tables import NONE
from ocr_flops.spec.run_spec import RunSpec
from ocr_flops.studies.sweeps.folder import list_versions
from ocr_flops.studies.sweeps.plan import Sweep
from ocr_flops.studies.sweeps.results import MEASURED, Results
from ocr_flops.timing.estimate import time_run
from ocr_flops.units import interval, seconds, si

MAX_ROWS = 120
SHAPE = ("columns", "rows", "global_px", *AXES)  # what a page is; the table has all series of the same shape
COSTS = {  # measure: heading, unit
    "total_flops": ("FLOPs", ""),
    "io_bytes": ("DRAM traffic", "B"),
    "ttft.expected_seconds": ("TTFT, expected", "s"),
    "tpot.expected_seconds": ("TPOT, expected", "s"),
    "ttft.roofline_seconds": ("TTFT, roofline", "s"),
    "tpot.roofline_seconds": ("TPOT, roofline", "s"),
    "kv_cache_bytes": ("KV cache", "B"),
    "peak_activation_bytes": ("peak activations", "B"),
    "needed_bytes": ("memory needed", "B"),
}
RATES = {"tensor_flops": "FLOP/s", "io_bytes": "B/s"}
MOST = 6  # values that are listed; of more, the ends and how many
COMMAND_NAMES = {  # what has another name on a command line
    "cache": "KV caches",
    "dtype": "precisions",
    "engine": "engines",
    "hardware": "devices",
    "model": "models",
    "workload": "resolutions",
    "workload.batch_size": "pages in a batch",
}
TEXT = {"prompt tokens": "prompt_tokens", "output tokens": "output_tokens", "pages in a batch": "batch_size"}


@dataclass(frozen=True, eq=False)
class SweepReport:
    """What charts and reports show of a sweep, with the date it bears; everything is computed once, when it is first read."""

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
    def findings(self) -> Markup:
        """Time, targets, work, what attention saves, memory, the real model, and what part of the sweep is shown, as a list in Markdown."""
        summary, targets = self.summary, []
        for phase, target in self.results.targets.items():
            if summary.has(measure := f"{phase}.expected_seconds"):
                times = summary.points[measure].drop_nulls()
                targets.append((phase, target, (times <= target).sum(), len(times)))
        values = {
            "sweep": self.results.sweep,
            "targets": targets,
            "words": Wording(summary),
            "measured": self.results.tables[MEASURED].frame() if MEASURED in self.results.tables else None,
        }
        forms = {"in_bytes": in_bytes, "in_flops": in_flops, "name_memory": name_memory}
        return Markup(render_markdown("sweep_findings.md.j2", summary=summary, **values, **forms))

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
        """The template filled in; `places` are files of charts, or places in a page."""
        sweep, rows = self.results.sweep, choose_points(self.summary)
        points, formats = points_table(self.results, self.summary, rows)
        return render_markdown(
            "sweep.md.j2",
            title=title_sweep(sweep),
            summary=self.summary,
            findings=self.findings,
            places=places,
            charts=self.charts,
            points=points,
            starred=not rows["vendor_supported"].all(),
            formats=formats,
            records=[verification.read_verification(engine) for engine in dict.fromkeys(case.run.engine.name for case in sweep.cases)],
            evidence=describe_evidence(sweep),
            bases=list_bases(sweep),
            made=self.made.isoformat(),
            **describe_settings(self.results),
        )


def describe_evidence(sweep: Sweep) -> str:
    """How many rows of a sweep are of settings that were compared with the real model, and how many are not."""
    kinds, words = Counter(), {}
    for case in sweep.cases:
        config = case.estimate(case.keys.workload()).config
        name = f"{config.attention.name}, {config.dtype}, {config.prefill_logits} logits, {config.model.under(config.engine)}"
        words[name] = verification.describe_compared(config, sweep.stages)
        kinds["compared" if verification.find_compared(config) else "not compared"] += len(sweep.stages) * sweep.points_per_case
    rows = " and ".join(f"{number:,} are of settings that were {kind} with the real model" for kind, number in kinds.items())
    settings = "; ".join(f"{name}: {text}" for name, text in words.items())
    return f"**Of the {sweep.rows:,} rows, {rows}.** A row is one stage of one point. {settings}."


def list_bases(sweep: Sweep) -> list[str]:
    """What the expected times of a sweep rest on, each once; of many the first."""
    timed = (time_run(case.run, case.estimate(case.keys.workload())) for case in sweep.cases)
    found = list(dict.fromkeys(one.time_basis for one in timed if one))
    return found[:MOST] + ([f"{len(found) - MOST:,} more, by the settings"] if len(found) > MOST else [])


def choose_points(summary: SweepSummary) -> pl.DataFrame:
    """The points of the table: all that are shown, or those of every so many shapes, with all of their series."""
    points = summary.points.sort("x", *SHAPE, "point")
    every = -(-points.height // MAX_ROWS)
    some = points.select(SHAPE).unique(maintain_order=True).gather_every(every)
    return points.join(some, on=SHAPE, how="semi", maintain_order="left").head(MAX_ROWS)


def points_table(results: Results, summary: SweepSummary, points: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, Callable[[Any], str]]]:
    """The table of points (of `choose_points`), its columns by their headings, and how numbers are printed."""
    rows, words = points.to_dicts(), Wording(summary)
    columns: dict[str, Any] = {}
    if "image" in points.columns:
        columns["file"] = [f"{Path(row['image']).name}, page {row['page']}" for row in rows]
    columns["views"] = [name_views(row) + ("" if row["vendor_supported"] else " *") for row in rows]
    if summary.layout.resolutions:
        columns["resolution"] = [words.name_place(row) for row in rows]
    if any(series := [words.name_row_series(row) for row in rows]):
        columns["series"] = series
    axes = [name for name in AXES if points[name].n_unique() > 1 and name not in summary.layout.columns]
    columns |= {AXES[name]: points[name] for name in axes}
    formats: dict[str, Callable[[Any], str]] = {}
    for measure, (heading, unit) in COSTS.items():
        ends = [measure.replace("expected_", f"expected_{end}_") for end in ("low", "high")]
        if "expected" in measure and all(map(summary.has, [measure, *ends])):
            figures = zip(*(points[name] for name in (measure, *ends)), strict=True)
            columns[heading] = [NONE if figure[0] is None else interval(figure) for figure in figures]
        elif summary.has(measure):
            columns[heading], formats[heading] = points[measure], seconds if unit == "s" else partial(si, unit=unit)
    for phase, target in results.targets.items():
        for cost, unit in RATES.items():
            if summary.has(f"{phase}.{cost}"):
                heading = f"{unit} for {phase.upper()} {seconds(target)}"
                columns[heading], formats[heading] = points[f"{phase}.{cost}"] / target, si
    return pl.DataFrame(columns), formats


def title_sweep(sweep: Sweep) -> str:
    """What it is a sweep over."""
    begin = f"{list_values(case.run.model.label for case in sweep.cases)}, a sweep"
    if sweep.name != "product":
        return f"{begin}: {sweep.label.replace('<=', '≤')}"
    varied = [COMMAND_NAMES.get(key, key.removeprefix("workload.").replace("_", " ")) for key in sweep.config["sweep"]["axes"]]
    return f"{begin} over {', '.join(varied)}" if sweep.points > 1 else f"{begin} of one point"


def describe_settings(results: Results) -> dict[str, Any]:
    """Every choice behind a sweep, and what computed it, as values of the template."""
    sweep, runs = results.sweep, [case.run for case in results.sweep.cases]
    devices = list(dict.fromkeys(run.hardware for run in runs if run.hardware))
    left_out = [f"{what}: {reason}" for what, reason in sweep.skipped]
    by_label: dict[str, list[dict[str, str]]] = {}
    for device in devices:
        by_label.setdefault(device.label, []).append(list_figures(device))
    return {
        "sweep": sweep,
        "runs": runs,
        "labels": {key: [dict(case.labels)[key] for case in sweep.cases] for key, _ in sweep.cases[0].labels},
        "left_out": left_out[:MOST] + ([f"{len(left_out) - MOST:,} more"] if len(left_out) > MOST else []),
        "page": _list_page(sweep),
        "engines": list_values(run.model.under(run.engine) for run in runs),
        "attention": list_values(map(_describe_attention, runs)),
        "logits_words": LOGITS,
        "targets": results.targets,
        "device_names": list_values(device.label for device in devices),
        "devices": {
            label: {name: list_values(one[name] for one in figures) for name in figures[0] if name != "device"}
            for label, figures in list(by_label.items())[:MOST]
        },
        "sources": " ".join(dict.fromkeys(map(name_sources, devices))),
        "versions": list_versions(),
        "list_values": list_values,
    }


def list_values(values: Iterable[object]) -> str:
    """Values, each once: all of a few, else the ends of numbers, or the first and the last, and how many."""
    found = list(dict.fromkeys(values))
    if len(found) <= MOST:
        return ", ".join(map(_format_value, found))
    ends = (found[0], found[-1]) if any(isinstance(value, str) for value in found) else (min(found), max(found))
    return f"{' to '.join(map(_format_value, ends))}, {len(found):,} values"


def _format_value(value: object) -> str:
    if isinstance(value, str) or value is None:
        return value or "none"
    return format_number(value)


def _list_page(sweep: Sweep) -> dict[str, str]:
    """Resolutions, pages and text by name."""
    keys, axes = [case.keys for case in sweep.cases], dict(sweep.axes)

    def values(name: str) -> str:
        return list_values(axes[name].tolist() if name in axes else (getattr(one, name) for one in keys))

    found = {"resolution": list_values(one.name for one in keys), "global view, px": values("global_px"), "tile, px": values("tile_px")}
    found = {} if all(case.run.model.learned for case in sweep.cases) else found  # whose pages have rules of their own
    if sweep.pages and sweep.pages.images:
        found["pages"] = f"{len(sweep.pages):,}, from {list_values(file for file, _ in sweep.pages.images)}"
    elif sweep.pages:
        grids = zip(*(sweep.pages.fields[name].tolist() for name in ("columns", "rows")), strict=True)
        found["grids"] = f"{list_values(f'{columns} × {rows}' for columns, rows in grids)} (columns × rows)"
    elif "columns" in axes or "rows" in axes or keys[0].columns is not None:
        found |= {name: values(name) for name in ("columns", "rows")}
    else:
        found |= {"width, px": values("image_width_px"), "height, px": values("image_height_px")}
    return found | {name: values(column) for name, column in TEXT.items()}


def _describe_attention(run: RunSpec) -> str:
    attention = run.attention.resolved(run.model, run.engine)
    kernels = name_kernels(run.model, attention)
    return attention.name if attention.name == kernels else f"{attention.name} ({kernels})"
