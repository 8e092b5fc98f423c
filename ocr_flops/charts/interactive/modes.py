"""Attention modes side by side, stage by stage, for the grid chosen inside the chart."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import altair as alt

from ocr_flops.charts.bars import StageBars, headed_axis, headed_rows
from ocr_flops.charts.chart import Row, Template, compiled
from ocr_flops.charts.interactive.base import (
    LARGEST,
    NOTE,
    NOTE_OF_DECODE,
    PANELS,
    PER_STEP,
    ROW_PX,
    Controlled,
    Names,
    folded,
    following,
    grid_control,
    grid_name,
    numbers,
    panel_names,
    rounded,
    scaled,
    title_lines,
)
from ocr_flops.charts.savings import FIXED
from ocr_flops.charts.theme import OWN_COLOUR, attention_colour, tips
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
    bars, findings, groups = [], {}, []
    for name, by_stage in by_grid.items():
        groups = [stage for stage in by_stage if stage != "decode"]
        if len(groups) > 1:
            by_stage[FIRST] = {mode: _together([by_stage[stage][mode] for stage in groups]) for mode in modes}
            groups.append(FIRST)
        groups += ["decode"] if "decode" in by_stage else []
        for group in groups:
            base = {f"{panel}_base": rounded(by_stage[group][modes[0]][panel]) for panel in panels}
            for mode, row in by_stage[group].items():
                about = {"colour": attention_colour(mode), "fixed_bytes": row["fixed_bytes"]}
                bars.append({**numbers(row, f"{group}|{mode}", panels), **base, **about})
        findings[name] = _finding(by_stage, modes, device)
    return Controlled(
        _template(panels, modes[0]),
        following("findings[grid]"),
        {"bars": bars, "panels": panel_names(panels)},
        {
            "rows": headed_rows(dict.fromkeys(groups, modes)),
            "panels": len(panels) - 0.02,
            "grid": grid,
            "steps": max(1, wholes[0]["output_tokens"]),
        },
        {"grid": grid_control(wholes)},
        findings,
    )


def _together(rows: list[Row]) -> Row:
    """Several stages as one."""
    sums = {name: sum(row[name] for row in rows) for name in SUMMED if name in rows[0]}
    return {**rows[0], **sums, LARGEST: max(row[LARGEST] for row in rows)}


def _finding(by_stage: dict[str, dict[str, Row]], modes: Names, device: str) -> Row:
    """What the last mode saves of the first one, and where it saves little."""
    first, last = modes[0], "flash" if "flash" in modes else modes[-1]
    main = FIRST if FIRST in by_stage else next(iter(by_stage))
    base, best = by_stage[main][first], by_stage[main][last]
    less = base["io_bytes"] - best["io_bytes"]
    finding = f"{last} moves {si(less, 'B')} ({share(less, base['io_bytes'])}) less than {first} in {_in_words(main)}"
    if device:
        finding += f" and takes {seconds(best['roofline_seconds'])} instead of {seconds(base['roofline_seconds'])}"
    if main != "decode" and "decode" in by_stage:
        base, best = by_stage["decode"][first], by_stage["decode"][last]
        finding += f"; in decode {share(base['io_bytes'] - best['io_bytes'], base['io_bytes'])} less"
    row = base
    where = f", {device}" if device else ""
    return title_lines(
        finding,
        f"{workload_words(row)}; {row['engine']}, {row['dtype']}{where}",
        f"In brackets: against {first}. Inner bar: weights and KV cache, which no attention kernel changes",
        NOTE_OF_DECODE if "decode" in by_stage else NOTE,
    )


def _in_words(group: str) -> str:
    return "vision and prefill" if group == FIRST else group


@cache
def _template(panels: Names, base: str) -> Template:
    """Panels of bars, the numbers after them with their change.

    Args:
        panels: columns.
        base: the attention mode compared with.
    """
    bars = StageBars(headed_axis(decode="decode, a token"))
    found = scaled(folded("bars", panels, "datum.grid == grid"), BAR).transform_calculate(
        change="datum[datum.key + '_base'] ? datum.total / datum[datum.key + '_base'] - 1 : 0",
        fixed_end=f"datum.start + {BAR} * (datum.most ? datum.fixed_bytes / {PER_STEP} / datum.most : 0)",
    )
    found = found.transform_calculate(changed=f"datum.change ? {CHANGE} : 'none'")
    words = f"datum.mode == '{base}' ? '' : datum.change ? ' (' + datum.changed + ')' : ' (same)'"
    found = found.transform_calculate(text=f"datum.number + ({words})")
    about = tips(stage="stage", mode="attention", what="what", number="value", changed=f"change against {base}")
    fixed = found.transform_filter("datum.key == 'io_bytes'")
    return compiled(
        bars.segments(found, OWN_COLOUR, about, start="start", band=0.82),
        bars.segments(fixed, start="start", end="fixed_end", tooltip=None, **FIXED),
        bars.words(found),
        bars.panel_heads(),
        height=alt.Step(ROW_PX + 1),
    )
