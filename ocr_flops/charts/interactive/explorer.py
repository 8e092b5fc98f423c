"""Every module's FLOPs, bytes, peak and time, for the grid and the attention mode chosen inside the chart."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import altair as alt

from ocr_flops.charts.chart import Template, compiled, data
from ocr_flops.charts.interactive.base import (
    HEAD,
    LARGEST,
    NOTE,
    NOTE_OF_DECODE,
    NUMBER,
    PANELS,
    ROW_PX,
    WORDS,
    Controlled,
    Names,
    Row,
    axes,
    following,
    grid_control,
    grid_name,
    headed_rows,
    lines,
    numbers,
    panel_heads,
    placed,
    scaled,
    tips,
)
from ocr_flops.charts.theme import CEILING_NAMES, module_colour, module_name
from ocr_flops.units import seconds, share, si, workload_words

if TYPE_CHECKING:
    import polars as pl

BAR = {3: 0.62, 4: 0.56}  # of a panel's width, by the number of panels; the rest is for the numbers


def explorer(stages: pl.DataFrame, modules: pl.DataFrame, grid: str, attention: str, device: str = "") -> Controlled:
    """FLOPs, bytes moved, peak and (on a device) time by stage and module, for the grid and the attention mode chosen in the chart.

    Args:
        stages, modules: `of.sweep` over grids and attention modes at both levels.
        grid, attention: shown first; a `grid_name` and a mode of the sweep.
        device: its name for people.
    """
    panels = tuple(name for name in PANELS if name in modules.columns)
    wholes, parts = stages.to_dicts(), [row for row in modules.to_dicts() if row["total_flops"] or row["io_bytes"]]
    by_stage: dict[str, dict[str, None]] = {}
    for row in parts:
        by_stage.setdefault(row["stage"], {})[module_name(row["module"])] = None
    wholes = [row for row in wholes if row["stage"] in by_stage]
    order = tuple(name for stage, names in by_stage.items() for name in (f"{stage}|", *(f"{stage}|{one}" for one in names)))
    bars = [
        {
            **numbers(row, f"{row['stage']}|{module_name(row['module'])}", panels),
            "colour": module_colour(row["module"]),
            "evidence": row["evidence"],
            **({"ceiling": CEILING_NAMES[row["binding_ceiling"]]} if "binding_ceiling" in row else {}),
        }
        for row in parts
    ]
    findings: dict[str, dict[str, Row]] = {}
    inside = _grouped(parts)
    for (name, mode), of_point in _grouped(wholes).items():
        findings.setdefault(name, {})[mode] = _explained(of_point, inside[name, mode], device)
    modes = list(dict.fromkeys(row["attention"] for row in wholes))
    return Controlled(
        _explorer_template(panels),
        following("findings[grid][attention]"),
        {"bars": bars, "heads": [numbers(row, f"{row['stage']}|", panels) for row in wholes], "panels": panel_heads(panels)},
        {"rows": order, "grid": grid, "attention": attention, "steps": max(1, wholes[0]["output_tokens"])},
        {"grid": grid_control(wholes), "attention": {"input": "radio", "options": modes, "name": "attention"}},
        findings,
    )


def _grouped(rows: list[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by grid and attention mode."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((grid_name(row), row["attention"]), []).append(row)
    return groups


def _explained(wholes: list[Row], parts: list[Row], device: str) -> Row:
    """What the chosen point costs up to the first token (or in all, where it has no first token), and which module most of it."""
    stages = {row["stage"] for row in wholes}
    first = {"vision", "prefill"} <= stages
    measure = "roofline_seconds" if device else "io_bytes"
    rows = [row for row in parts if not first or row["stage"] != "decode"]
    total, row = sum(one[measure] for one in rows), wholes[0]
    widest = max(rows, key=lambda one: one[measure])
    spent = seconds(total) if device else f"{si(total, 'B')} moved"
    where = f"{row['attention']} on {device}" if device else row["attention"]
    part = f"{share(widest[measure], total)} of it by {module_name(widest['module'])} ({widest['stage']})"
    evidence = {one["evidence"] for one in wholes}
    how = evidence.pop() if len(evidence) == 1 else "partly modelled"
    return lines(
        f"{where}: {spent}{' to the first token' if first else ''}, {part}",
        f"{workload_words(row)}; {row['engine']}, {row['dtype']} ({how})",
        NOTE_OF_DECODE if "decode" in stages else NOTE,
    )


@cache
def _explorer_template(panels: Names) -> Template:
    chosen = "datum.grid == grid && datum.mode == attention"
    y, (start, end), word = headed_rows(), axes(panels), alt.Text("text", type="nominal")
    names = {panel: PANELS[panel][0] for panel in panels}
    bars = scaled(placed("bars", panels, chosen), BAR[len(panels)]).transform_calculate(
        text=NUMBER,
        what=f"({names})[datum.key] + (datum.decode && datum.key != '{LARGEST}' ? ', a token' : '')",
        exact="datum.key == 'roofline_seconds' ? datum.text : format(datum.total, ',d')",
        stage="split(datum.row, '|')[0]",
        name="split(datum.row, '|')[1]",
    )
    tooltip = tips(
        ("stage", "stage"),
        ("name", "module"),
        ("mode", "attention"),
        ("what", "what"),
        ("text", "value"),
        ("exact", "in all"),
        *((("ceiling", "bound by"),) if "roofline_seconds" in panels else ()),
        ("evidence", "evidence"),
    )
    sums = placed("heads", panels, chosen).transform_calculate(
        text=f"{NUMBER} + (datum.decode && datum.key != '{LARGEST}' ? ' a token' : '')"
    )
    return compiled(
        bars.mark_bar(height={"band": 0.8}).encode(
            y, start, alt.X2("end"), alt.Color("colour", type="nominal", scale=None), tooltip=tooltip
        ),
        bars.mark_text(dx=5, fontSize=11, **WORDS).encode(y, end, word),
        sums.mark_text(fontSize=12, fontWeight="bold", **WORDS).encode(y, start, word),
        alt.Chart(data("panels")).mark_text(**HEAD).encode(start, word),
        height=alt.Step(ROW_PX),
    )
