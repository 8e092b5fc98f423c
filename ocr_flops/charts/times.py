"""Roofline seconds by module, coloured by the ceiling that binds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

import altair as alt

from ocr_flops.charts.bars import StageBars, headed_rows
from ocr_flops.charts.chart import Chart, Row, Template, Title, compiled, data, title
from ocr_flops.charts.encoding import from_zero, listed, occurring, painted, tips
from ocr_flops.charts.overlay import MEASURED, measured_layer, origins
from ocr_flops.charts.theme import CEILING_COLOURS, CEILING_NAMES, INK, LIMIT, conditions, module_name
from ocr_flops.timing.timing import Timing
from ocr_flops.units import seconds, share, si, workload_words

PHASES = {("vision", "prefill"): "to the first token", ("decode",): "for all output tokens"}
CEILINGS = {name: CEILING_COLOURS[ceiling] for ceiling, name in CEILING_NAMES.items()}


def time_by_module(timing: Timing, stages: Sequence[str] = ("vision", "prefill"), measured: Iterable[Row] = ()) -> Chart:
    """Bars of roofline seconds by stage and module, coloured by the ceiling that binds; each stage's bound as a tick.

    Drawn once for the time to first token and once for decode, which is often ten times as long.

    Args:
        timing: of one point.
        stages: those drawn on one scale.
        measured: rows with `stage`, `module` (None: the whole stage), `seconds`, `spread_seconds` and `origin`, laid over the bars.
    """
    wholes = [row for row in timing.stages.to_dicts() if row["stage"] in stages]
    busy = {row["stage"] for row in wholes if row["roofline_seconds"]}
    modules = [row for row in timing.modules.to_dicts() if row["stage"] in busy and row["roofline_seconds"] > 0]
    total = sum(row["roofline_seconds"] for row in wholes)
    heads = [{**_described(row, total), "words": _stage_words(row)} for row in wholes if row["stage"] in busy]
    bars = [_described(row, total) for row in modules]
    rows = headed_rows([*(f"{row['stage']}|" for row in wholes), *(bar["row"] for bar in bars)])
    points = [point for point in map(_measured, measured) if point["row"] in rows]
    spent = {point["row"]: point["seconds"] for point in points}
    for row in (*bars, *heads):
        took = spent.get(row["row"], 0)
        row["end"] = max(row["seconds"], took)  # where its words begin
        row["text"] = row["words"] + (f" · ◇ {seconds(took)}" if took else "")
    room = max((row["end"] for row in heads), default=0) * ((2.3 if "decode" in stages else 1.6) + (0.5 if points else 0))  # for the words
    datasets = {"bars": bars, "heads": heads, MEASURED: points}
    params = {"rows": rows, "room": room or 1, "ceilings": occurring(CEILINGS, bars, "ceiling")}
    return Chart(_template(bool(points)), _title(timing, modules, total, stages, points), datasets, params)


@cache
def _template(is_measured: bool) -> Template:
    """Bars of modules, and in the rows of headings those of whole stages."""
    bars = StageBars(along=from_zero("roofline seconds", "room", "s", ticks=5))
    colour = painted("ceiling", CEILINGS, listed("ceilings", title="bound by", orient="top", titleFontWeight="normal"))
    spent = {"value": "roofline time", "least": "bound", "part": "share of what is drawn"}
    about = tips("stage", name="module", **spent, ceiling="bound by", next="ahead of the next ceiling", work="work", moved="DRAM traffic")
    dx = 11 if is_measured else 6
    bound = alt.Chart(data("heads")).mark_tick(thickness=3, height={"band": 0.95}, color=LIMIT)
    return compiled(
        bars.segments("heads", about, end="seconds", color=INK, opacity=0.35),
        bars.segments("bars", colour, about, end="seconds"),
        bars.words("bars", dx=dx),
        bound.encode(bars.rows, bars.x("bound"), tooltip=about),
        bars.words("heads", dx=dx, fontSize=12, fontWeight="bold"),
        measured_layer(bars.x("seconds"), bars.rows, stage="stage", name="module", value="measured, median", spread="interquartile range"),
        height=alt.Step(22),
    )


def _place(row: Row) -> Row:
    """Where the bar of a module, or of a whole stage, is, and what it is called."""
    name = module_name(row["module"]) if row.get("module") else ""
    return {"row": f"{row['stage']}|{name}", "stage": row["stage"], "name": name or "whole stage"}


def _measured(row: Row) -> Row:
    """A measured time on the bar it belongs to."""
    spread = "" if row["spread_seconds"] is None else seconds(row["spread_seconds"])
    return {**_place(row), "seconds": row["seconds"], "value": seconds(row["seconds"]), "spread": spread, "origin": row["origin"]}


def _described(row: Row, total: float) -> Row:
    """A bar, and what its tooltip says."""
    margin, value = row["ceiling_margin"], seconds(row["roofline_seconds"])
    return {
        **_place(row),
        "seconds": row["roofline_seconds"],
        "bound": row["bound_seconds"],
        "value": value,
        "words": value,
        "least": seconds(row["bound_seconds"]),
        "part": share(row["roofline_seconds"], total),
        "ceiling": CEILING_NAMES[row["binding_ceiling"]],
        "next": f"{margin:.3g} times its time" if margin else "no other binds",
        "work": si(row["total_flops"], "FLOPs"),
        "moved": si(row["io_bytes"], "B"),
    }


def _stage_words(whole: Row) -> str:
    steps = whole["output_tokens"]
    each = f", {seconds(whole['roofline_seconds'] / steps)} a token" if whole["stage"] == "decode" and steps else ""
    return f"{seconds(whole['roofline_seconds'])}{each}; bound {seconds(whole['bound_seconds'])}"


def _title(timing: Timing, modules: list[Row], total: float, stages: Sequence[str], points: list[Row]) -> Title:
    where, row = timing.hardware.label, timing.estimate.stages.row(0, named=True)
    what = PHASES.get(tuple(stages), "for " + ", ".join(stages))
    if not modules:
        return title(f"{where}: nothing to do {what}", workload_words(row))
    widest = max(modules, key=lambda one: one["roofline_seconds"])
    return title(
        f"{where}: {seconds(total)} {what}; {share(widest['roofline_seconds'], total)} of it in {module_name(widest['module'])}",
        conditions(row),
        "Grey: the whole stage. Red tick: its bound, which no implementation undercuts",
        *origins(points),
        width=60,
    )


def halves(timing: Timing, measured: Sequence[Row] = ()) -> dict[str, Chart]:
    """Seconds by module to the first token, and after it, by names that serve as file names; none for stages that do nothing."""
    busy = {row["stage"] for row in timing.stages.to_dicts() if row["io_bytes"]}
    wanted = {"time_to_first_token": ("vision", "prefill"), "time_of_decode": ("decode",)}
    stages = {name: [stage for stage in those if stage in busy] for name, those in wanted.items()}
    return {name: time_by_module(timing, those, measured) for name, those in stages.items() if those}
