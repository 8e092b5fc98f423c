"""Attention modes side by side, stage by stage, for the grid chosen inside the chart."""

from __future__ import annotations

from functools import lru_cache
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
    PER_STEP,
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
    short,
    tips,
)
from ocr_flops.charts.savings import COLOURS, OTHER
from ocr_flops.units import seconds, share, si, workload_words

if TYPE_CHECKING:
    import polars as pl

SUMMED = ("total_flops", "io_bytes", "fixed_bytes", "roofline_seconds")
FIRST = "first token"  # vision and prefill together
BAR = 0.5  # numbers are longer
CHANGE = (
    "(datum.change > 0 ? '+' : '−') + (abs(datum.change) >= 0.01 || !datum.change ? format(100 * abs(datum.change), '.0f') "
    ": format(100 * abs(datum.change), '.2~g')) + ' %'"
)


def modes_by_stage(stages: pl.DataFrame, grid: str, device: str = "") -> Controlled:
    """Attention modes side by side, stage by stage, for the grid chosen in the chart: bytes moved, peak and (on a device) time.

    Args:
        stages: `of.sweep` over grids and attention modes.
        grid: shown first; a `grid_name` of the sweep.
        device: its name for people.
    """
    panels = tuple(name for name in PANELS if name in stages.columns and name != "total_flops")
    wholes = stages.to_dicts()
    modes = tuple(dict.fromkeys(row["attention"] for row in wholes))
    by_grid: dict[str, dict[str, dict[str, Row]]] = {}
    for row in wholes:
        row["fixed_bytes"] = row["weight_io_bytes"] + row["kv_io_bytes"]
        if row["io_bytes"]:
            by_grid.setdefault(grid_name(row), {}).setdefault(row["stage"], {})[row["attention"]] = row
    bars, findings, groups = [], {}, ()
    for name, shown in by_grid.items():
        groups = [stage for stage in shown if stage != "decode"]
        if len(groups) > 1:
            shown[FIRST] = {mode: _together([shown[stage][mode] for stage in groups]) for mode in modes}
            groups.append(FIRST)
        groups += ["decode"] if "decode" in shown else []
        for group in groups:
            base = {f"{panel}_base": short(shown[group][modes[0]][panel]) for panel in panels}
            for mode, row in shown[group].items():
                bars.append({**numbers(row, f"{group}|{mode}", panels), **base, "fixed_bytes": row["fixed_bytes"]})
        findings[name] = _compared(shown, modes, device)
    order = tuple(name for group in groups for name in (f"{group}|", *(f"{group}|{mode}" for mode in modes)))
    return Controlled(
        _modes_template(panels, modes),
        following("findings[grid]"),
        {"bars": bars, "panels": panel_heads(panels)},
        {"rows": order, "grid": grid, "steps": max(1, wholes[0]["output_tokens"])},
        {"grid": grid_control(wholes)},
        findings,
    )


def _together(rows: list[Row]) -> Row:
    """Several stages as one."""
    sums = {name: sum(row[name] for row in rows) for name in SUMMED if name in rows[0]}
    return {**rows[0], **sums, LARGEST: max(row[LARGEST] for row in rows)}


def _compared(shown: dict[str, dict[str, Row]], modes: Names, device: str) -> Row:
    """What the last mode saves of the first one, and where it saves little."""
    first, last = modes[0], "flash" if "flash" in modes else modes[-1]
    main = FIRST if FIRST in shown else next(iter(shown))
    base, best = shown[main][first], shown[main][last]
    less = base["io_bytes"] - best["io_bytes"]
    finding = f"{last} moves {si(less, 'B')} ({share(less, base['io_bytes'])}) less than {first} in {_in_words(main)}"
    if device:
        finding += f" and takes {seconds(best['roofline_seconds'])} instead of {seconds(base['roofline_seconds'])}"
    if main != "decode" and "decode" in shown:
        base, best = shown["decode"][first], shown["decode"][last]
        finding += f"; in decode {share(base['io_bytes'] - best['io_bytes'], base['io_bytes'])} less"
    row = base
    where = f", {device}" if device else ""
    return lines(
        finding,
        f"{workload_words(row)}; {row['engine']}, {row['dtype']}{where}",
        f"In brackets: against {first}. Inner bar: weights and KV cache, which no attention kernel changes",
        NOTE_OF_DECODE if "decode" in shown else NOTE,
    )


def _in_words(group: str) -> str:
    return "vision and prefill" if group == FIRST else group


@lru_cache(maxsize=32)
def _modes_template(panels: Names, modes: Names) -> Template:
    y, (start, end), word = headed_rows(", a token"), axes(panels), alt.Text("text", type="nominal")
    bars = scaled(placed("bars", panels, "datum.grid == grid"), BAR).transform_calculate(
        change="datum[datum.key + '_base'] ? datum.total / datum[datum.key + '_base'] - 1 : 0",
        number=NUMBER,
        fixed_end=f"datum.x + {BAR} * (datum.most ? datum.fixed_bytes / {PER_STEP} / datum.most : 0)",
        group="split(datum.row, '|')[0]",
        what=f"({ {panel: PANELS[panel][0] for panel in panels} })[datum.key]",
    )
    bars = bars.transform_calculate(changed=f"datum.change ? {CHANGE} : 'none'")
    bars = bars.transform_calculate(
        text=f"datum.number + (datum.mode == '{modes[0]}' ? '' : datum.change ? ' (' + datum.changed + ')' : ' (same)')"
    )
    colour = alt.Color(
        "mode", type="nominal", legend=None, scale=alt.Scale(domain=modes, range=[COLOURS.get(mode, OTHER) for mode in modes])
    )
    tooltip = tips(
        ("group", "stage"), ("mode", "attention"), ("what", "what"), ("number", "value"), ("changed", f"change against {modes[0]}")
    )
    fixed = bars.transform_filter("datum.key == 'io_bytes'")
    return compiled(
        bars.mark_bar(height={"band": 0.82}).encode(y, start, alt.X2("end"), colour, tooltip=tooltip),
        fixed.mark_bar(height={"band": 0.26}, color="#333333", opacity=0.75, tooltip=None).encode(y, start, alt.X2("fixed_end")),
        bars.mark_text(dx=5, fontSize=11, **WORDS).encode(y, end, word),
        alt.Chart(data("panels")).mark_text(**HEAD).encode(start, word),
        height=alt.Step(ROW_PX + 1),
    )
