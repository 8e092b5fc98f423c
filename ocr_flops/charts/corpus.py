"""A corpus drawn: its pages by grid, and what they take on GPUs and under other choices, with ranges."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import altair as alt
import polars as pl

from ocr_flops.charts.bars import Panel, StageBars, panel_rows, panel_template, panel_words, row_axis
from ocr_flops.charts.chart import Chart, Row, Template, Title, compiled, data, title
from ocr_flops.charts.encoding import OWN_COLOUR, from_zero, tips
from ocr_flops.charts.theme import INK, STAGE_COLOURS, attention_colour
from ocr_flops.studies.corpus.kinds import PATCHES
from ocr_flops.studies.corpus.plans import Plan
from ocr_flops.units import count, money, share, si

PARTS = {"pages": STAGE_COLOURS["vision"], "FLOPs": STAGE_COLOURS["decode"], "GPU-hours": STAGE_COLOURS["prefill"]}
ROOM = 1.75  # of the longest range, with the words behind it
ROW_PX = 34
MOST_PATCHES = 2000  # by which pages of patches stand in a row


def pages_by_grid(plan: Plan) -> Chart:
    """Pages by grid, with the part that each grid has of FLOPs and of the best device's hours."""
    groups = plan.groups.sort(pl.col("columns") * pl.col("rows"), "columns")
    names = [_grid(row) for row in groups.iter_rows(named=True)]
    bars = {"pages": groups["pages"].to_list(), "FLOPs": groups["flops_share"].to_list()}
    if plan.best:
        keys = ["mode", "columns", "rows"]
        hours = groups.join(plan.parts.filter(pl.col("hardware") == plan.best["hardware"]), on=keys, how="left", maintain_order="left")
        bars["GPU-hours"] = hours["hours_share"].to_list()
    table = pl.DataFrame({"row": names, **bars}).group_by("row", maintain_order=True).sum()
    words = {"pages": lambda value: f"{value:,.0f}"}
    panels = [
        Panel(name, {row: {name: value} for row, value in table["row", name].rows()}, words.get(name, lambda value: share(value, 1)))
        for name in bars
    ]
    rows, whole = panel_rows(panels, 0.6)
    lines = panel_words(
        whole,
        lambda bar: bar.panel.words(bar.total),
        lambda bar: f"{share(bar.total, plan.pages)} of all" if bar.panel.name == "pages" else "",
    )
    params = {"rows": table["row"].to_list(), "kinds": list(bars), "panels": len(panels)}
    return Chart(_grid_template(), _grid_title(plan, panels), {**rows, **lines}, params)


@cache
def _grid_template() -> Template:
    return panel_template(row_axis(labelFontSize=12), PARTS, alt.Step(ROW_PX))


def _grid(row: Mapping[str, Any]) -> str:
    """The row that a grid is in: its own, or, of the many that are of patches, one of as many thousands of them."""
    number = row["columns"] * row["rows"]
    if row["mode"] == PATCHES.name:
        most = -(-number // MOST_PATCHES) * MOST_PATCHES
        return f"{most - MOST_PATCHES + 1:,} to {most:,}"
    return "no tiles" if number == 1 else f"{row['columns']} × {row['rows']}"


def _grid_title(plan: Plan, panels: list[Panel]) -> Title:
    most = max(panels[0].bars.items(), key=lambda item: sum(item[1].values()))[0]
    pages, flops = (sum(panel.bars[most].values()) for panel in panels[:2])
    patches = plan.kinds[0].mode == PATCHES
    what = f"of {most} patches" if patches else "without tiles" if most == "no tiles" else f"cut into {most} tiles"
    rows = f"Patches of a page, by {MOST_PATCHES:,}" if patches else "Columns × rows of tiles"
    return title(
        f"{share(pages, plan.pages)} of {plan.pages:,} pages are {what}, and take {share(flops, 1)} of the FLOPs",
        f"{rows}; {si(plan.totals['total_flops'], 'FLOPs')} in all, every page by itself",
        *([f"GPU-hours on {plan.best['label']}"] if plan.best else []),
    )


def costs_by_gpu(plan: Plan) -> Chart:
    """What the corpus takes on every GPU that runs it: money where there are prices, else GPU-hours; ranges as lines."""
    column, unit = ("cost", plan.currency) if plan.prices else ("gpu_hours", "GPU-hours")
    found = [row for row in plan.rows if row[column] is not None]
    rows = [{"row": row["label"], "colour": STAGE_COLOURS["vision"], **ranged_row(row, f"{column}{{}}", unit)} for row in found]
    if not found:
        return ranged_chart(title("None of these GPUs runs it"), rows, unit)
    best, others = found[0], found[1:]
    finding = f"{best['label']} takes {money(best[column], unit)}"
    if others:
        finding += f", {others[0]['label']} {others[0][column] / best[column]:.3g} times as much"
    prices = ", ".join(f"{row['label']} {plan.prices[row['hardware']]:,.10g}" for row in found) if plan.prices else ""
    line = f"{plan.pages:,} pages{f'; an hour of {prices} {plan.currency}'.rstrip() * bool(prices)}; bars as expected, lines the ranges"
    return ranged_chart(title(finding, line), rows, unit or "cost")


def hours_by_choice(plan: Plan) -> Chart:
    """GPU-hours on the best device in other resolution modes and with other attention; ranges as lines."""
    rows = []
    for row in plan.alternatives.iter_rows(named=True):
        name = row["name"] if row["choice"] == "mode" else f"{row['choice']} {row['name']}"
        colour = attention_colour(row["name"]) if row["choice"] == "attention" else STAGE_COLOURS["decode"]
        rows.append({"row": name, "colour": colour, **ranged_row(row, "gpu_hours{}", "GPU-hours")})
    where = plan.best["label"] if plan.best else "no GPU"
    finding = f"Other choices on {where}: resolution modes for all pages, engines and attention for the plan's own"
    return ranged_chart(title(finding, "Modes read pages in more or less detail; bars as expected, lines the ranges"), rows, "GPU-hours")


def ranged_row(row: Mapping[str, Any], column: str, unit: str) -> Row:
    """A bar with its range, of a frame's row.

    Args:
        row: of the frame.
        column: in which {} is the case, as in "cost{}".
        unit: of the words.
    """
    value, low, high = (row[column.format(case)] for case in ("", "_low", "_high"))
    words = f"{money(value, unit)} ({count(low)} to {count(high)})"
    return {"end": value, "low": low, "high": high, "text": words}


def ranged_chart(heading: Title, rows: list[Row], unit: str) -> Chart:
    """Bars with their ranges as lines; rows are of `ranged_row`, each with its "row" and "colour"."""
    room = ROOM * max((row["high"] for row in rows), default=1)
    return Chart(_ranged_template(unit), heading, {"bars": rows}, {"rows": [row["row"] for row in rows], "room": room})


@cache
def _ranged_template(unit: str) -> Template:
    """Bars with their ranges as lines, and words behind them."""
    axis = alt.Axis(labelExpr="format(datum.value, datum.value < 1000 ? '~g' : '~s')", tickCount=5)
    bars = StageBars(row_axis(labelFontSize=12), from_zero(unit, "room") | {"axis": axis})
    about = tips(row="choice", text=unit)
    ranges = alt.Chart(data("bars")).mark_rule(color=INK, strokeWidth=2)
    return compiled(
        bars.segments("bars", OWN_COLOUR, about, band=0.6),
        ranges.encode(bars.rows, bars.x("low"), alt.X2("high"), tooltip=about),
        bars.words("bars", at="high", dx=8, fontSize=12),
        height=alt.Step(ROW_PX),
    )


def corpus_charts(plan: Plan) -> dict[str, Chart]:
    """The charts of a plan by names that serve as file names."""
    return {"pages_by_grid": pages_by_grid(plan), "costs_by_gpu": costs_by_gpu(plan), "hours_by_choice": hours_by_choice(plan)}
