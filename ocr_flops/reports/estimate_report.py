"""The report on one estimate, written once as Markdown: beside images of its charts, or as one HTML page with charts that have controls."""

import shlex
from collections.abc import Callable, Mapping
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
from markupsafe import Markup

from ocr_flops.charts import Chart
from ocr_flops.charts.theme import module_name
from ocr_flops.errors import one_of
from ocr_flops.evidence.verify import summary
from ocr_flops.files import write_whole
from ocr_flops.reports.estimate_charts import all_charts, page_charts
from ocr_flops.reports.estimate_settings import LOGITS, find_overrides, list_figures, name_kernels, name_sources
from ocr_flops.reports.estimate_subject import Subject
from ocr_flops.reports.export import describe_estimate
from ocr_flops.reports.headline import Card, headline_cards
from ocr_flops.reports.html import cards_html, html_page
from ocr_flops.reports.images import chart_images
from ocr_flops.reports.markdown import escape_markdown, render_markdown, table_markdown
from ocr_flops.reports.tables import BOUND, TITLES, verification_table
from ocr_flops.spec.host import Ranged
from ocr_flops.spec.specs import STAGES
from ocr_flops.studies.sweeps.folder import list_versions
from ocr_flops.timing import planning
from ocr_flops.timing.estimate import Estimate
from ocr_flops.timing.timing import EXPECTED_COLUMNS
from ocr_flops.units import seconds, share, si

CAPTIONS = {
    "explorer": "Choose a grid and an attention mode above the bars; rest on a bar for its exact number. The menu saves the chart.",
    "modes": "Follows the grid chosen above.",
}
TIMES = [*EXPECTED_COLUMNS, "roofline_seconds", "bound_seconds", "binding_ceiling"]
SUMS = ("total_flops", "tensor_flops", "vector_flops", "io_bytes", "operators", *TIMES[:3], "roofline_seconds", "bound_seconds")
TOGETHER = "**all stages**"
Formats = Mapping[str, Callable[[Any], str]]


def report_html(subject: Subject, *, made: date | None = None, in_child: bool = True) -> str:
    """The report as one HTML file that needs no network.

    Args:
        made: the date it bears; today by default.
        in_child: get the charts' JavaScript from a child process, so that this one stays small (see `chart_images`).

    Raises:
        SpecError: a number is beyond 2^62.
        DrawingError: the child failed.
    """
    charts = page_charts(subject)
    places = {name: f'#{name} "{CAPTIONS[name]}"' if name in CAPTIONS else f"#{name}" for name in charts}
    text = _render(subject, Markup(cards_html(_cards(subject))), charts, places, made)
    data = {"estimate": describe_estimate(subject.estimate, subject.timing)}
    return html_page(_title(subject), text, charts, data, in_child=in_child)


def report_markdown(
    subject: Subject, charts: Mapping[str, Chart] | None = None, files: Mapping[str, str] | None = None, *, made: date | None = None
) -> str:
    """The report as Markdown.

    Args:
        charts: those of `all_charts` that it shows as images, by name; none by default.
        files: the image of each, relative to the report.
        made: the date it bears; today by default.
    """
    rows = [(card.label, card.value, card.caption) for card in _cards(subject)]
    cards = table_markdown(pl.DataFrame(rows, schema=["figure", "value", "note"], orient="row"))
    return _render(subject, cards, charts or {}, {name: quote(file) for name, file in (files or {}).items()}, made)


def write_report(
    path: Path, subject: Subject, *, images: str = "", made: date | None = None, in_child: bool = True, **drawing: Any
) -> list[Path]:
    """Writes the report, and images of all charts beside it; each file whole or not at all.

    Args:
        path: of a file that ends in .html or .md.
        subject: what it is about.
        images: "svg" or "png" for an image of every chart of the app, which a report in Markdown shows; "" for none.
        made, in_child: as in `report_html`.
        **drawing: progress, as in `chart_images`.

    Raises:
        SpecError: a file cannot be written, or as in `report_html`.
        DrawingError: the child failed.
    """
    one_of("format", path.suffix.removeprefix("."), ("html", "md"))
    charts = all_charts(subject) if images else {}
    files = {name: f"{path.stem}_{name}.{images}" for name in charts}
    markdown = path.suffix == ".md"
    text = report_markdown(subject, charts, files, made=made) if markdown else report_html(subject, made=made, in_child=in_child)
    drawn = chart_images(charts, images, in_child=in_child, **drawing) if images else {}
    return [write_whole(path, text), *(write_whole(path.with_name(files[name]), image) for name, image in drawn.items())]


def write_findings(subject: Subject) -> Markup:
    """Time, work, what leaner attention saves, and memory, as a list in Markdown."""
    estimate, hardware = subject.estimate, subject.hardware
    (stage, module), row = max(estimate.module_numbers.items(), key=lambda item: item[1]["total_flops"])
    lean = next(mode for mode in ("flash", "sdpa", "eager") if mode in subject.by_mode)  # no flash kernel takes fp32
    values = {
        "work": {stage: row["total_flops"] for stage, row in estimate.stage_numbers.items()},
        "largest": {"stage": stage, "module": module_name(module), "flops": row["total_flops"]},
        "lean_mode": lean,
        "lean": _sum_movement(subject.by_mode[lean]),
        "eager": _sum_movement(subject.by_mode["eager"]),
        "largest_batch": planning.largest_batch(estimate, hardware.memory_bytes) if hardware else 0,
        "kernels": name_kernels(estimate.config.model, estimate.config.attention),
    }
    return Markup(render_markdown("findings.md.j2", subject=subject, **values))


def _sum_movement(estimate: Estimate) -> dict[str, int]:
    """DRAM traffic and peak activation memory before the first token, DRAM traffic of decode, and the weights and KV cache in it."""
    first = [row for stage, row in estimate.stage_numbers.items() if stage != "decode"]
    decode = estimate.stage_numbers.get("decode", {"io_bytes": 0, "weight_io_bytes": 0, "kv_io_bytes": 0})
    return {
        "first_bytes": sum(row["io_bytes"] for row in first),
        "peak_bytes": max((row["peak_activation_bytes"] for row in first), default=0),
        "decode_bytes": decode["io_bytes"],
        "fixed_decode_bytes": decode["weight_io_bytes"] + decode["kv_io_bytes"],
    }


def _cards(subject: Subject) -> list[Card]:
    return headline_cards(subject.estimate, subject.timing if subject.estimate.chosen_stages == STAGES else None)


def _title(subject: Subject) -> str:
    where = f" on {subject.hardware.label}" if subject.hardware else ""
    return f"What a page costs: {subject.estimate.config.model.label}{where}"


def _render(subject: Subject, cards: Markup, charts: Mapping[str, Chart], places: Mapping[str, str], made: date | None) -> str:
    """The template filled in; a chart's title describes its image, whose file or place in the page is in `places`."""
    stages, modes, config = subject.estimate.chosen_stages, subject.by_mode.items(), subject.estimate.config
    compared = "; ".join(f"{mode} {summary.describe_compared(one.config, stages)}" for mode, one in modes)
    overrides = find_overrides(subject)
    return render_markdown(
        "estimate.md.j2",
        subject=subject,
        title=_title(subject),
        row=subject.estimate.stages.row(0, named=True),
        cards=cards,
        findings=write_findings(subject),
        pictures={name: Markup(f"![{escape_markdown(' '.join(chart.title.text))}]({places[name]})") for name, chart in charts.items()},
        modes=modes_table(subject),
        stages=stages_table(subject),
        modules=modules_table(subject),
        logits=LOGITS,
        device=list_figures(subject.hardware) if subject.hardware else {},
        sources=name_sources(subject.hardware) if subject.hardware else "",
        command=overrides and shlex.join(["ocr-flops", "report", *overrides]),
        records=[summary.read_verification(config.engine.name)],
        evidence=f"**In this report** ({config.model.under(config.engine)}, {config.dtype}): {compared}.",
        bases=[subject.timing.time_basis] if subject.timing else [],
        compared=evidence_table(config.engine.name),
        made=(made or date.today()).isoformat(),
        versions=list_versions(),
    )


def print_integer(value: int, unit: str = "") -> Markup:
    """An integer with an SI prefix, and exactly below it."""
    return Markup(f"{si(value, unit)} <small>{value:,}</small>" if abs(value) >= 1000 else f"{value:,}")


print_bytes = partial(print_integer, unit="B")


def print_range(figure: Ranged) -> str:
    """Expected seconds as Markdown, their range below them."""
    value, low, high = map(seconds, figure[:3])
    return f"{value} <small>{low} to {high}</small>"


FORMATS: Formats = {
    "stage": lambda stage: Markup(stage) if stage == TOGETHER else stage,
    "module": module_name,
    "arithmetic_intensity": "{:,.3g}".format,
    "binding_ceiling": BOUND.get,
    "device_busy_share": lambda busy: share(busy, 1),
    **dict.fromkeys((*TIMES[:3], "roofline_seconds", "bound_seconds"), seconds),
    **dict.fromkeys(("expected_ttft", "expected_tpot"), Markup),
}
READABLE: Formats = FORMATS | dict.fromkeys(("total_flops", "tensor_flops", "vector_flops"), print_integer)
READABLE |= dict.fromkeys(("io_bytes", "peak_activation_bytes", "total_bytes"), print_bytes)


def stages_table(subject: Subject) -> Markup:
    """Every stage and their sum, times and work in a table each: readable numbers with the exact ones below."""
    work = ["total_flops", "tensor_flops", "vector_flops", "io_bytes", "peak_activation_bytes", "operators", "arithmetic_intensity"]
    frame = (subject.timing or subject.estimate).stages.select("stage", *work, *(TIMES if subject.timing else []))
    frame = frame.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String), pl.col(pl.Int64).cast(pl.Int128))  # sums may exceed 2^63
    sums = frame.select(
        pl.lit(TOGETHER).alias("stage"),
        *(pl.col(name).sum() for name in SUMS if name in frame.columns),
        pl.col("peak_activation_bytes").max(),
        (pl.col("total_flops").sum() / pl.col("io_bytes").sum()).fill_nan(None).alias("arithmetic_intensity"),
    )
    if frame.height > 1:
        frame = pl.concat([frame, sums], how="diagonal")
    if subject.timing is None:
        return _table(frame, READABLE)
    whole = pl.lit(subject.timing.device_busy_share)  # of all stages together
    frame = frame.with_columns(pl.when(pl.col("stage") == TOGETHER).then(whole).otherwise("device_busy_share").alias("device_busy_share"))
    return Markup("\n\n").join(_table(frame.select("stage", *names), READABLE) for names in (TIMES, work))


def modules_table(subject: Subject) -> Markup:
    """Every module of every stage in integers."""
    numbers = ["tensor_flops", "vector_flops", "torch_flops", "operators", "io_bytes", "peak_activation_bytes", "weight_bytes"]
    times = ["expected_seconds", "roofline_seconds", "binding_ceiling"] if subject.timing else []
    return _table((subject.timing or subject.estimate).modules.select("stage", "module", *numbers, *times, "evidence"), FORMATS)


def modes_table(subject: Subject) -> Markup:
    """Every attention mode at the report's own grid."""
    times = ("expected_ttft", "expected_tpot") if subject.timing and subject.timing.expected_ttft else ()
    rows = []
    for mode, estimate in subject.by_mode.items():
        modelled = ", ".join(subject.modelled_stages(mode))
        evidence = f"modelled: {modelled}" if modelled else "not compared"
        rows.append(
            {
                "attention": f"{mode}, this report" if mode == subject.mode else mode,
                "io_bytes": sum(row["io_bytes"] for row in estimate.stage_numbers.values()),
                "peak_activation_bytes": estimate.footprint.peak_activation_bytes,
                "total_bytes": estimate.footprint.total_bytes,
                **{name: (found := getattr(subject.timings[mode], name)) and print_range(found) for name in times},
                "evidence": "compared" if summary.find_compared(estimate.config) else evidence,
            }
        )
    return _table(pl.DataFrame(rows), READABLE)


def evidence_table(engine: str) -> Markup:
    """What an engine was compared with before this version's release, without stages and modules; empty where nothing was."""
    record = summary.read_verification(engine)
    if record is None:
        return Markup()
    rows = verification_table(record).group_by("number", "against", maintain_order=True)
    return table_markdown(rows.agg(pl.col("compared").sum(), pl.col("largest difference").max()))


def _table(frame: pl.DataFrame, formats: Formats) -> Markup:
    titles = {name: TITLES.get(name, name).removesuffix(" (B)" if formats.get(name) is print_bytes else "") for name in frame.columns}
    return table_markdown(frame.rename(titles), {titles[name]: formats[name] for name in frame.columns if name in formats})
