"""Every module's FLOPs, bytes, peak and time, for the grid and the attention mode chosen inside the chart."""

from __future__ import annotations

from functools import cache

import altair as alt
import polars as pl

from ocr_flops.charts.bars import StageBars, headed_rows
from ocr_flops.charts.chart import Row, Template, compiled, data
from ocr_flops.charts.encoding import OWN_COLOUR, spaced, tips
from ocr_flops.charts.interactive.base import NOTE, NOTE_OF_DECODE, Controlled, following, grid_control, grid_name, title_lines
from ocr_flops.charts.theme import CEILING_NAMES, conditions, module_colour, module_name
from ocr_flops.units import seconds, share, si

Names = tuple[str, ...]
PANELS = {  # column: what its panel is called, and the unit of its numbers
    "total_flops": ("FLOPs", ""),
    "io_bytes": ("DRAM traffic", "B"),
    "peak_activation_bytes": ("peak activation memory", "B"),
    "roofline_seconds": ("roofline time", "s"),
}
LARGEST = "peak_activation_bytes"  # a maximum; all else adds up
ROW_PX = 18
PER_STEP = f"(datum.decode && datum.key != '{LARGEST}' ? steps : 1)"  # divides what decode sums over its steps
NUMBER = f"(datum.value ? {spaced('.3s')} : '0 ') + datum.unit"
BAR = {3: 0.62, 4: 0.56}  # of a panel's width, by the number of panels; the rest is for the numbers


def explorer(stages: pl.DataFrame, modules: pl.DataFrame, grid: str, attention: str, device: str = "") -> Controlled:
    """FLOPs, DRAM traffic, peak and (on a device) time by stage and module, for the grid and the attention mode chosen in the chart.

    Args:
        stages, modules: `of.sweep` over grids and attention modes at both levels.
        grid, attention: shown first; a `grid_name` and a mode of the sweep.
        device: its name for people.
    """
    panels = tuple(name for name in PANELS if name in modules.columns)
    parts = [row for row in modules.to_dicts() if row["total_flops"] or row["io_bytes"]]
    groups: dict[str, dict[str, None]] = {}
    for row in parts:
        groups.setdefault(row["stage"], {})[module_name(row["module"])] = None
    wholes = [row for row in stages.to_dicts() if row["stage"] in groups]
    bars = []
    for row in parts:
        ceiling = {"ceiling": CEILING_NAMES[row["binding_ceiling"]]} if "binding_ceiling" in row else {}
        about = {"colour": module_colour(row["module"]), "evidence": row["evidence"], **ceiling}
        bars.append({**_numbers(row, f"{row['stage']}|{module_name(row['module'])}", panels), **about})
    inside = _by_point(parts)
    findings: dict[str, dict[str, Row]] = {}
    for (name, mode), of_point in _by_point(wholes).items():
        findings.setdefault(name, {})[mode] = _finding(of_point, inside[name, mode], device)
    modes = list(dict.fromkeys(row["attention"] for row in wholes))
    names = [{"start": number, "text": PANELS[panel][0]} for number, panel in enumerate(panels)]
    chosen = {"grid": grid, "attention": attention, "steps": max(1, wholes[0]["output_tokens"])}
    return Controlled(
        _template(panels),
        following("findings[grid][attention]"),
        {"bars": bars, "heads": [_numbers(row, f"{row['stage']}|", panels) for row in wholes], "panels": names},
        {"rows": headed_rows(groups), "panels": len(panels) - 0.02, **chosen},
        {"grid": grid_control(wholes), "attention": {"input": "radio", "options": modes, "name": "attention"}},
        findings,
    )


def _numbers(row: Row, at: str, panels: Names) -> Row:
    """A row of a sweep as the chart reads it: where it is drawn, and exact totals; seconds with six digits, which keeps a page small."""
    totals = {panel: float(f"{row[panel]:.6g}") if isinstance(row[panel], float) else row[panel] for panel in panels}
    return {"grid": grid_name(row), "mode": row["attention"], "row": at, **totals}


def _by_point(rows: list[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by grid and attention mode."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((grid_name(row), row["attention"]), []).append(row)
    return groups


def _finding(wholes: list[Row], parts: list[Row], device: str) -> Row:
    """What the chosen point costs up to the first token (or in all, where it has no first token), and which module most of it."""
    stages = {row["stage"] for row in wholes}
    first = {"vision", "prefill"} <= stages
    measure = "roofline_seconds" if device else "io_bytes"
    rows = [row for row in parts if not first or row["stage"] != "decode"]
    total, row = sum(one[measure] for one in rows), wholes[0]
    widest = max(rows, key=lambda one: one[measure])
    spent = seconds(total) if device else f"{si(total, 'B')} moved"
    where = f"{row['attention']} on {device}" if device else row["attention"]
    evidence = {one["evidence"] for one in wholes}
    how = evidence.pop() if len(evidence) == 1 else "partly modelled"
    part = f"{share(widest[measure], total)} of it by {module_name(widest['module'])} ({widest['stage']})"
    return title_lines(
        f"{where}: {spent}{' to the first token' if first else ''}, {part}",
        f"{conditions(row, with_attention=False)} ({how})",
        NOTE_OF_DECODE if "decode" in stages else NOTE,
    )


@cache
def _template(panels: Names) -> Template:
    chosen, a_token = "datum.grid == grid && datum.mode == attention", f"datum.decode && datum.key != '{LARGEST}'"
    bars = StageBars()
    modules = _scaled(_folded("bars", panels, chosen), BAR[len(panels)]).transform_calculate(
        text="datum.number",
        what=f"datum.what + ({a_token} ? ', a token' : '')",
        exact="datum.key == 'roofline_seconds' ? datum.number : format(datum.total, ',d')",
        name="split(datum.row, '|')[1]",
    )
    wholes = _folded("heads", panels, chosen).transform_calculate(text=f"datum.number + ({a_token} ? ' a token' : '')")
    ceiling = {"ceiling": "bound by"} if "roofline_seconds" in panels else {}
    about = tips(stage="stage", name="module", mode="attention", what="what", text="value", exact="in all", **ceiling, evidence="evidence")
    return compiled(
        bars.segments(modules, OWN_COLOUR, about, start="start"),
        bars.words(modules),
        bars.words(wholes, at="start", dx=0, fontSize=12, fontWeight="bold"),
        bars.panel_heads(),
        height=alt.Step(ROW_PX),
    )


def _folded(name: str, panels: Names, chosen: str) -> alt.Chart:
    """A dataset's chosen rows, one for each panel: `value`, its `number` in words, and `start`, where the panel begins.

    Args:
        name: of the dataset.
        panels: columns.
        chosen: an expression of a row.
    """
    found = alt.Chart(data(name)).transform_filter(chosen).transform_fold(list(panels), as_=["key", "total"])
    found = found.transform_calculate(
        stage="split(datum.row, '|')[0]",
        decode="split(datum.row, '|')[0] == 'decode'",
        start=f"indexof({list(panels)}, datum.key)",
        unit=f"({ {panel: PANELS[panel][1] for panel in panels} })[datum.key]",
        what=f"({ {panel: PANELS[panel][0] for panel in panels} })[datum.key]",
    )
    return found.transform_calculate(value=f"datum.total / {PER_STEP}").transform_calculate(number=NUMBER)


def _scaled(chart: alt.Chart, bar: float) -> alt.Chart:
    """With `end`, where the bar of a row ends in its panel.

    Args:
        chart: from `_folded`.
        bar: length of the longest, as a part of a panel's width.
    """
    length = f"{bar} * (datum.most ? datum.value / datum.most : 0)"
    return chart.transform_joinaggregate(most="max(value)", groupby=["key"]).transform_calculate(end=f"datum.start + {length}")
