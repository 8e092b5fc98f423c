"""Charts with controls inside them and a title that follows: every module's numbers, and attention modes side by side."""

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import altair as alt
import polars as pl

from ocr_flops.charts.bars import StageBars, headed_rows
from ocr_flops.charts.chart import Chart, Row, Template, Title, compiled, data, title
from ocr_flops.charts.encoding import OWN_COLOUR, spaced, tips
from ocr_flops.charts.savings import MEASURES, Table, add_stages, mode_bars, mode_params, mode_template
from ocr_flops.charts.theme import CEILING_NAMES, conditions, evidence_words, module_colour, module_name
from ocr_flops.units import seconds, share, si

NOTE = "A peak is a maximum, all else adds up. Each panel has a scale of its own"
NOTE_OF_DECODE = f"Decode: mean of an output token. {NOTE}"
Names = tuple[str, ...]
PANELS = {  # column: what its panel is called, and the unit of its numbers
    "total_flops": ("FLOPs", ""),
    "io_bytes": ("DRAM traffic", "B"),
    "peak_activation_bytes": ("peak activation memory", "B"),
    "expected_seconds": ("expected time", "s"),
}
LARGEST = "peak_activation_bytes"  # a maximum; all else adds up
ROW_PX = 18
PER_STEP = f"(datum.decode && datum.key != '{LARGEST}' ? steps : 1)"  # divides what decode sums over its steps
NUMBER = f"(datum.value ? {spaced('.3s')} : '0 ') + datum.unit"
BAR = {3: 0.62, 4: 0.56}  # of a panel's width, by the number of panels; the rest is for the numbers
FIRST, DECODE = "first token", "decode, a token"  # vision and prefill together; the mean of a step


@dataclass(frozen=True, eq=False)
class Controlled(Chart):
    """A chart whose parameters are bound to inputs that Vega shows with it; its title follows them.

    Vega-Lite takes an expression as a subtitle, but its schema knows none, so Altair would refuse such a chart.

    Args:
        bindings: Vega-Lite's binding of each parameter of `params` that has an input.
        findings: {"text": lines, "subtitle": lines} by the values of the bound parameters, nested in their order.
    """

    bindings: dict[str, Row] = field(default_factory=dict)
    findings: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The Vega-Lite specification."""
        spec = super().to_dict()
        bound = [one | ({"bind": self.bindings[one["name"]]} if one["name"] in self.bindings else {}) for one in spec["params"]]
        return {**spec, "params": [*bound, {"name": "findings", "value": self.findings}]}


def grid_name(row: Row) -> str:
    """What the control calls a point's grid, or its view where the mode has no tiles."""
    if row["tile_px"]:
        return f"{row['columns']} × {row['rows']}" if row["tiles"] else "no tiles"
    return f"{row['global_px']} px view"


def _grid_control(rows: list[Row]) -> Row:
    """The list to choose a point's grid from."""
    labels = {grid_name(row): f"{grid_name(row)} · {row['image_tokens']:,} image tokens" for row in rows}
    name = "grid (columns × rows)" if any(row["tile_px"] for row in rows) else "view"
    return {"input": "select", "options": list(labels), "labels": list(labels.values()), "name": name}


def _following(lookup: str) -> Title:
    """A title whose lines are looked up for the values chosen."""
    return Title(*({"expr": f"{lookup}.{lines}"} for lines in ("text", "subtitle")))


def _lines(finding: str, *conditions: str) -> Row:
    """A title's lines as a chart looks them up."""
    return title(finding, *conditions, width=120).lines


def explorer(stages: pl.DataFrame, modules: pl.DataFrame, grid: str, attention: str, device: str = "") -> Controlled:
    """FLOPs, DRAM traffic, peak and (on a device) time by stage and module, for the grid and the attention mode chosen in the chart.

    Args:
        stages, modules: `of.sweep` over grids and attention modes at both levels.
        grid, attention: shown first; a `grid_name` and a mode of the sweep.
        device: its name for people.
    """
    panels = tuple(name for name in PANELS if name in modules.columns)
    parts = [row for row in modules.to_dicts() if row["total_flops"] or row["io_bytes"]]
    busy = {row["stage"] for row in parts}
    wholes = [row for row in stages.to_dicts() if row["stage"] in busy]
    bars = []
    for row in parts:
        ceiling = {"ceiling": CEILING_NAMES[row["binding_ceiling"]]} if "binding_ceiling" in row else {}
        about = {"colour": module_colour(row["module"]), "evidence": row["evidence"], **ceiling}
        bars.append({**_explorer_numbers(row, f"{row['stage']}|{module_name(row['module'])}", panels), **about})
    findings: dict[str, dict[str, Row]] = {}
    inside, around = _by_point(parts), _by_point(wholes)
    for name, mode in around:
        findings.setdefault(name, {})[mode] = _explorer_finding(around[name, mode], inside[name, mode], device)
    modes = list(dict.fromkeys(row["attention"] for row in wholes))
    names = [{"start": number, "text": PANELS[panel][0]} for number, panel in enumerate(panels)]
    chosen = {"grid": grid, "attention": attention, "steps": max(1, wholes[0]["output_tokens"])}
    return Controlled(
        _template(panels),
        _following("findings[grid][attention]"),
        {"bars": bars, "heads": [_explorer_numbers(row, f"{row['stage']}|", panels) for row in wholes], "panels": names},
        {"rows": headed_rows(bar["row"] for bar in bars), "panels": len(panels) - 0.02, **chosen},
        {"grid": _grid_control(wholes), "attention": {"input": "radio", "options": modes, "name": "attention"}},
        findings,
    )


def _explorer_numbers(row: Row, at: str, panels: Names) -> Row:
    """A row of a sweep as the chart reads it: where it is drawn, and exact totals; seconds with six digits, which keeps a page small."""
    totals = {panel: float(f"{row[panel]:.6g}") if isinstance(row[panel], float) else row[panel] for panel in panels}
    return {"grid": grid_name(row), "mode": row["attention"], "row": at, **totals}


def _by_point(rows: list[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by grid and attention mode."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((grid_name(row), row["attention"]), []).append(row)
    return groups


def _explorer_finding(wholes: list[Row], parts: list[Row], device: str) -> Row:
    """What the chosen point costs up to the first token (or in all, where it has no first token), and which module most of it."""
    stages = {row["stage"] for row in wholes}
    first = {"vision", "prefill"} <= stages
    measure = "expected_seconds" if device else "io_bytes"
    rows = [row for row in parts if not first or row["stage"] != "decode"]
    total, row = sum(one[measure] for one in rows), wholes[0]
    widest = max(rows, key=lambda one: one[measure])
    spent = seconds(total) if device else f"{si(total, 'B')} moved"
    where = f"{row['attention']} on {device}" if device else row["attention"]
    part = f"{share(widest[measure], total)} of it by {module_name(widest['module'])} ({widest['stage']})"
    return _lines(
        f"{where}: {spent}{' to the first token' if first else ''}, {part}",
        f"{conditions(row, with_attention=False)} ({evidence_words(wholes)})",
        NOTE_OF_DECODE if "decode" in stages else NOTE,
    )


@cache
def _template(panels: Names) -> Template:
    a_token, length = f"datum.decode && datum.key != '{LARGEST}'", f"{BAR[len(panels)]} * (datum.most ? datum.value / datum.most : 0)"
    bars = StageBars()
    scaled = _folded("bars", panels).transform_joinaggregate(most="max(value)", groupby=["key"])
    modules = scaled.transform_calculate(end=f"datum.start + {length}").transform_calculate(
        text="datum.number",
        what=f"datum.what + ({a_token} ? ', a token' : '')",
        exact="datum.key == 'expected_seconds' ? datum.number : format(datum.total, ',d')",
        name="split(datum.row, '|')[1]",
    )
    wholes = _folded("heads", panels).transform_calculate(text=f"datum.number + ({a_token} ? ' a token' : '')")
    ceiling = {"ceiling": "bound by"} if "expected_seconds" in panels else {}
    about = tips(stage="stage", name="module", mode="attention", what="what", text="value", exact="in all", **ceiling, evidence="evidence")
    return compiled(
        bars.segments(modules, OWN_COLOUR, about, start="start"),
        bars.words(modules),
        bars.words(wholes, at="start", dx=0, fontSize=12, fontWeight="bold"),
        bars.panel_heads(),
        height=alt.Step(ROW_PX),
    )


def _folded(name: str, panels: Names) -> alt.Chart:
    """A dataset's chosen rows, one for each panel: `value`, its `number` in words, and `start`, where the panel begins."""
    chosen = alt.Chart(data(name)).transform_filter("datum.grid == grid && datum.mode == attention")
    found = chosen.transform_fold(list(panels), as_=["key", "total"]).transform_calculate(
        stage="split(datum.row, '|')[0]",
        decode="split(datum.row, '|')[0] == 'decode'",
        start=f"indexof({list(panels)}, datum.key)",
        unit=f"({ {panel: PANELS[panel][1] for panel in panels} })[datum.key]",
        what=f"({ {panel: PANELS[panel][0] for panel in panels} })[datum.key]",
    )
    return found.transform_calculate(value=f"datum.total / {PER_STEP}").transform_calculate(number=NUMBER)


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
            stage, steps = (DECODE, row["output_tokens"]) if row["stage"] == "decode" else (row["stage"], 1)
            numbers = {name: row[name] / (1 if name == LARGEST else steps) for name in measures}  # of decode the mean of a step
            numbers["fixed"] = (row["weight_io_bytes"] + row["kv_io_bytes"]) / steps
            tables.setdefault(grid_name(row), {}).setdefault(stage, {})[row["attention"]] = numbers
    datasets: dict[str, list[Row]] = {}
    findings, of_grid = {}, {grid_name(row): row for row in wholes}
    for name, table in tables.items():
        before = [stage for stage in table if stage != DECODE]
        if len(before) > 1:
            first = {mode: add_stages(table[stage][mode] for stage in before) for mode in modes}
            table = {**{stage: table[stage] for stage in before}, FIRST: first, **table}
        for dataset, rows in mode_bars(table, measures).items():
            datasets.setdefault(dataset, []).extend({**row, "grid": name} for row in rows)
        findings[name] = _modes_finding(table, modes, of_grid[name], device)
    datasets["panels"] = datasets["panels"][: len(measures)]
    return Controlled(
        mode_template(modes[0], "datum.grid == grid"),
        _following("findings[grid]"),
        datasets,
        {**mode_params(datasets), "grid": grid},
        {"grid": _grid_control(wholes)},
        findings,
    )


def _modes_finding(table: Table, modes: list[str], about: Row, device: str) -> Row:
    """What the last mode saves of the first one, and where it saves little."""
    first, last = modes[0], "flash" if "flash" in modes else modes[-1]
    main = FIRST if FIRST in table else next(iter(table))
    row, best = table[main][first], table[main][last]
    less = row["io_bytes"] - best["io_bytes"]
    where = {FIRST: "vision and prefill", DECODE: "decode"}.get(main, main)
    finding = f"{last} moves {si(less, 'B')} ({share(less, row['io_bytes'])}) less than {first} in {where}"
    if device:
        finding += f" and is expected to take {seconds(best['expected_seconds'])} instead of {seconds(row['expected_seconds'])}"
    if main != DECODE and DECODE in table:
        moved = [table[DECODE][mode]["io_bytes"] for mode in (first, last)]
        finding += f"; in decode {share(moved[0] - moved[1], moved[0])} less"
    return _lines(
        finding,
        f"{conditions(about, with_attention=False)}{f', {device}' if device else ''}",
        f"In brackets: against {first}. Inner bar: weights and KV cache, which no attention kernel changes",
        NOTE_OF_DECODE if DECODE in table else NOTE,
    )
