"""The report on one estimate as a self-contained HTML page: findings, charts with controls, tables, the scenario, how far to trust it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import date
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from ocr_flops import __version__, charts
from ocr_flops.charts import Chart
from ocr_flops.charts.interactive.base import grid_name
from ocr_flops.charts.interactive.explorer import explorer
from ocr_flops.charts.interactive.modes import modes_by_stage
from ocr_flops.evidence.verify import summary
from ocr_flops.files import write_whole
from ocr_flops.reports import headline, tables
from ocr_flops.reports.as_json import as_json
from ocr_flops.reports.conventions import EVIDENCE, NOT_FITTED, READING, ROOFLINE
from ocr_flops.reports.estimate_findings import findings
from ocr_flops.reports.estimate_settings import command, resolved, sources
from ocr_flops.reports.estimate_subject import Subject
from ocr_flops.reports.estimate_tables import modelled_stages, modes_table, modules_table, stages_table
from ocr_flops.reports.html import Cell, exact, facts, figure, folded, points, section, table, text
from ocr_flops.reports.offline import document
from ocr_flops.spec.specs import STAGES
from ocr_flops.units import workload_words

MOST_ACROSS = 8  # headline figures in a row
CHARTS = {  # name: the sentence below it
    "explorer": "Choose a grid and an attention mode above the bars; rest on a bar for its exact number. The menu saves the chart.",
    "modes": "Follows the grid chosen above.",
    "memory": "",
    "tiles": "",
    "roofline": "",
}
COMPARED = {"count": "torch's FLOP counter", "trace": "a trace of every operator"}


def render_html(subject: Subject, *, made: date | None = None, in_child: bool = True) -> str:
    """The report: one HTML file that needs no network.

    Args:
        subject: what it is about.
        made: the date it bears; today by default.
        in_child: get the charts' JavaScript from a child process, so that this one stays small (see `chart_images`).

    Raises:
        SpecError: a number beyond 2^62.
        DrawingError: the child failed.
    """
    row = subject.estimate.stages.row(0, named=True)
    name = subject.estimate.config.model.label
    where = f" on {subject.hardware.label}" if subject.hardware else ""
    pictures = _pictures(subject)
    body = "\n".join(
        [
            f"<header><h1>{escape(f'What a page costs: {name}{where}')}</h1><p>{escape(_conditions(subject, row))}</p></header>",
            f"<main>{_cards(subject)}{points(findings(subject))}",
            section("By stage and module", *_places(pictures, "explorer")),
            section("Attention modes compared", *_places(pictures, "modes"), modes_table(subject)),
            section("Memory and tiles", *_places(pictures, "memory", "tiles")),
            section("Roofline", *_places(pictures, "roofline")),
            section("In numbers", stages_table(subject), folded("Every module, in whole numbers", modules_table(subject))),
            section("What was asked", facts(resolved(subject)), _sources(subject), _repeat(subject)),
            section("How to read it", points(READING)),
            section("How far to trust it", *_trust(subject)),
            f"</main><footer>{escape(_versions(made or date.today()))}</footer>",
        ]
    )
    data = {"estimate": as_json(subject.estimate, subject.timing)}
    return document(f"{name}{where}: what a page costs", body, pictures, data, in_child=in_child)


def write_report(path: Path, subject: Subject, **options: Any) -> Path:
    """Writes the report, whole or not at all (options as of `render_html`).

    Raises:
        SpecError: the file cannot be written, or as in `render_html`.
    """
    return write_whole(path, render_html(subject, **options))


def _conditions(subject: Subject, row: Mapping[str, Any]) -> str:
    mode = row["mode"].replace("_", "-").title()
    attention = subject.estimate.config.attention.name
    same = f" (here {subject.mode})" if attention != subject.mode else ""
    return f"{mode}: {workload_words(row)}; {row['engine']}, attention {attention}{same}, {row['dtype']}, {row['cache']} cache"


def _cards(subject: Subject) -> str:
    """The headline figures."""
    timing = subject.timing if subject.estimate.chosen_stages == STAGES else None
    cards = [
        f'<div{" class=alarm" if one.alarm else ""} title="{escape(one.explanation)}"><span>{escape(one.label)}</span>'
        f"<strong>{escape(one.value)}</strong><span>{escape(one.caption)}</span></div>"
        for one in headline.figures(subject.estimate, timing)
    ]
    across = len(cards) if len(cards) <= MOST_ACROSS else (len(cards) + 1) // 2
    return f'<div class="figures" style="--across: {across}">{"".join(cards)}</div>'


def _pictures(subject: Subject) -> dict[str, Chart]:
    """The charts of the page by the name of their place; none where nothing runs."""
    estimate, device = subject.estimate, subject.hardware.label if subject.hardware else ""
    if not any(row["io_bytes"] for row in estimate.stage_numbers.values()):
        return {}
    stages, modules = subject.sweep(subject.neighbours), subject.sweep(subject.neighbours, "module")
    grid = grid_name(estimate.stages.row(0, named=True))
    found: dict[str, Chart] = {
        "explorer": explorer(stages, modules, grid, subject.mode, device),
        "modes": modes_by_stage(stages, grid, device),
        "memory": charts.memory(subject.by_mode, subject.hardware),
    }
    if "vision" in estimate.chosen_stages and stages["tiles"].n_unique() > 1:
        apart = stages.filter(pl.col("attention").cast(pl.String).is_in(subject.apart_in_vision))
        found["tiles"] = charts.savings_by_tiles(apart, "io_bytes", estimate.workload.tiles)
    if subject.timing:
        found["roofline"] = charts.roofline(subject.timing)
    return found


def _places(pictures: Mapping[str, Chart], *names: str) -> list[str]:
    return [figure(name, CHARTS[name]) for name in names if name in pictures]


def _sources(subject: Subject) -> str:
    return f'<p class="sources">{escape(sources(subject.hardware))}</p>' if subject.hardware else ""


def _repeat(subject: Subject) -> str:
    again = command(subject)
    if again is None:
        return "<p>No command repeats this report: it was made of what no config has.</p>"
    return f'<h3>The same from the shell</h3><code class="command">{escape(again)}</code>'


def _trust(subject: Subject) -> list[str]:
    record, engine = summary.recorded(), subject.estimate.config.engine.label
    modelled = [mode for mode in subject.by_mode if modelled_stages(subject, mode)]
    runnable = [mode for mode in subject.by_mode if mode not in modelled]
    words = [f"{' and '.join(modes)} {kind}" for kind, modes in (("runnable", runnable), ("modelled", modelled)) if modes]
    sentences = [
        NOT_FITTED,
        f"Compared before this version was released: {tables.verification_words(record)}",
        f"**In this report** ({engine}): {', '.join(words)}. {EVIDENCE} for all stages.",
        *([ROOFLINE] if subject.timing else []),
    ]
    rows = (
        pl.DataFrame(record["rows"])
        .group_by("kind", "column", maintain_order=True)
        .agg(pl.col("attention").unique(maintain_order=True), pl.col("points").sum(), pl.col("largest_difference").max())
    )
    head = [text("number"), text("against"), text("attention"), Cell("compared"), Cell("largest difference")]
    cells = [
        [
            text(row["column"]),
            text(COMPARED.get(row["kind"], row["kind"])),
            text(", ".join(row["attention"])),
            exact(row["points"]),
            exact(row["largest_difference"]),
        ]
        for row in rows.to_dicts()
    ]
    return [points(sentences), folded("What was compared", table(head, cells))]


def _versions(made: date) -> str:
    libraries = ", ".join(f"{name} {version(name)}" for name in ("numpy", "polars", "altair"))
    return f"Made on {made.isoformat()} with ocr_flops {__version__}, Python {platform.python_version()}, {libraries}."
