"""Attention modes side by side, stage by stage, for the grid chosen inside the chart."""

from __future__ import annotations

import polars as pl

from ocr_flops.charts.chart import Row
from ocr_flops.charts.interactive.base import NOTE, NOTE_OF_DECODE, Controlled, following, grid_control, grid_name, title_lines
from ocr_flops.charts.savings import MEASURES, Table, mode_bars, mode_params, mode_template
from ocr_flops.charts.theme import conditions
from ocr_flops.units import seconds, share, si

FIRST, DECODE = "first token", "decode, a token"  # vision and prefill together; the mean of a step


def modes_by_stage(stages: pl.DataFrame, grid: str, device: str = "") -> Controlled:
    """Attention modes side by side, stage by stage, for the grid chosen in the chart: DRAM traffic, peak and (on a device) time.

    Args:
        stages: `of.sweep` over grids and attention modes.
        grid: shown first; a `grid_name` of the sweep.
        device: its name for people.
    """
    measures = [name for name in MEASURES if name in stages.columns]
    wholes = stages.to_dicts()
    modes = list(dict.fromkeys(row["attention"] for row in wholes))
    tables: dict[str, Table] = {}
    for row in wholes:
        if row["io_bytes"]:
            stage = DECODE if row["stage"] == "decode" else row["stage"]
            tables.setdefault(grid_name(row), {}).setdefault(stage, {})[row["attention"]] = _numbers(row)
    datasets: dict[str, list[Row]] = {}
    findings = {}
    for name, table in tables.items():
        before = [stage for stage in table if stage != DECODE]
        if len(before) > 1:
            first = {mode: _together([table[stage][mode] for stage in before]) for mode in modes}
            table = {**{stage: table[stage] for stage in before}, FIRST: first, **table}
        for dataset, rows in mode_bars(table, measures).items():
            datasets.setdefault(dataset, []).extend({**row, "grid": name} for row in rows)
        findings[name] = _finding(table, modes, device)
    datasets["panels"] = datasets["panels"][: len(measures)]
    return Controlled(
        mode_template(modes[0], "datum.grid == grid"),
        following("findings[grid]"),
        datasets,
        {**mode_params(datasets, table), "grid": grid},
        {"grid": grid_control(wholes)},
        findings,
    )


def _numbers(row: Row) -> Row:
    """A stage's numbers; of decode the mean of a step, but for the peak."""
    steps = row["output_tokens"] if row["stage"] == "decode" else 1
    spent = {name: row[name] / steps for name in ("io_bytes", "roofline_seconds") if name in row}
    return {**row, **spent, "fixed": (row["weight_io_bytes"] + row["kv_io_bytes"]) / steps}


def _together(rows: list[Row]) -> Row:
    """Several stages as one."""
    sums = {name: sum(row[name] for row in rows) for name in ("io_bytes", "fixed", "roofline_seconds") if name in rows[0]}
    return {**rows[0], **sums, "peak_activation_bytes": max(row["peak_activation_bytes"] for row in rows)}


def _finding(table: Table, modes: list[str], device: str) -> Row:
    """What the last mode saves of the first one, and where it saves little."""
    first, last = modes[0], "flash" if "flash" in modes else modes[-1]
    main = FIRST if FIRST in table else next(iter(table))
    row, best = table[main][first], table[main][last]
    less = row["io_bytes"] - best["io_bytes"]
    where = {FIRST: "vision and prefill", DECODE: "decode"}.get(main, main)
    finding = f"{last} moves {si(less, 'B')} ({share(less, row['io_bytes'])}) less than {first} in {where}"
    if device:
        finding += f" and takes {seconds(best['roofline_seconds'])} instead of {seconds(row['roofline_seconds'])}"
    if main != DECODE and DECODE in table:
        moved = [table[DECODE][mode]["io_bytes"] for mode in (first, last)]
        finding += f"; in decode {share(moved[0] - moved[1], moved[0])} less"
    return title_lines(
        finding,
        f"{conditions(row, with_attention=False)}{f', {device}' if device else ''}",
        f"In brackets: against {first}. Inner bar: weights and KV cache, which no attention kernel changes",
        NOTE_OF_DECODE if DECODE in table else NOTE,
    )
