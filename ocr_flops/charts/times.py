"""Roofline seconds by module, coloured by the ceiling that binds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import altair as alt

from ocr_flops.charts.chart import Chart, Template, Title, compiled, data, title
from ocr_flops.charts.interactive.base import headed_rows
from ocr_flops.charts.overlay import MEASURED, measured_layer, origins
from ocr_flops.charts.theme import CEILING_COLOURS, CEILING_NAMES, INK, listed, module_name, si_axis
from ocr_flops.units import seconds, share, si, workload_words

if TYPE_CHECKING:
    from ocr_flops.timing.timing import Timing

Row = dict[str, Any]
PARTS = {("vision", "prefill"): "to the first token", ("decode",): "for all output tokens"}


def time_by_module(timing: Timing, stages: Sequence[str] = ("vision", "prefill"), measured: Iterable[Row] = ()) -> Chart:
    """Bars of roofline seconds by stage and module, coloured by the ceiling that binds; each stage's bound as a tick.

    Drawn once for the time to first token and once for decode, which is often ten times as long.

    Args:
        timing: of one point.
        stages: those drawn on one scale.
        measured: rows with `stage`, `module` (None: the whole stage), `seconds`, `spread_seconds` and `origin`, laid over the bars.
    """
    wholes = [row for row in timing.stages.to_dicts() if row["stage"] in stages]
    modules = [row for row in timing.modules.to_dicts() if row["stage"] in stages and row["roofline_seconds"] > 0]
    total = sum(row["roofline_seconds"] for row in wholes)
    order, bars, sums = [], [], []
    for whole in wholes:
        order.append(f"{whole['stage']}|")
        if not whole["roofline_seconds"]:
            continue
        sums.append({**_timed(whole, total), "row": order[-1], "bound": whole["bound_seconds"], "text": _stage_words(whole)})
        for row in modules:
            if row["stage"] == whole["stage"]:
                order.append(f"{row['stage']}|{module_name(row['module'])}")
                bars.append({**_timed(row, total), "row": order[-1], "name": module_name(row["module"])})
    points = [_measured(row) for row in measured if row["stage"] in stages]
    points = [point for point in points if point["row"] in order]
    reached = {point["row"]: point["seconds"] for point in points}
    for row in (*bars, *sums):
        spent = reached.get(row["row"])
        row["end"] = max(row["seconds"], spent or 0)  # where its words begin
        row["words"] = row.get("text", row["value"]) + (f" · ◇ {seconds(spent)}" if spent else "")
    longest = max((row["seconds"] for row in sums), default=0)
    widest = max(longest, *reached.values(), 0) + (1.3 if "decode" in stages else 0.6) * longest  # leaves room for its words
    room = [{"seconds": widest or 1}]
    bound = {row["ceiling"] for row in bars}
    ceilings = [name for name in CEILING_NAMES.values() if name in bound or not bound]
    return Chart(
        _time_template(bool(points)),
        _time_title(timing, modules, total, stages, points),
        {"bars": bars, "stages": sums, "room": room, MEASURED: points},
        {"rows": order, "ceilings": ceilings},
    )


@cache
def _time_template(is_measured: bool) -> Template:
    """Bars over headed rows; a heading's own bar is its stage's sum."""
    y = headed_rows()
    x = alt.X(
        "seconds",
        type="quantitative",
        title="roofline seconds",
        scale=alt.Scale(nice=False, zero=True),
        axis=alt.Axis(labelExpr=si_axis("s"), tickCount=5),
    )
    colour = alt.Color(
        "ceiling",
        type="nominal",
        title="bound by",
        legend=listed("ceilings", orient="top", titleFontWeight="normal"),
        scale=alt.Scale(domain=list(CEILING_NAMES.values()), range=[CEILING_COLOURS[name] for name in CEILING_NAMES]),
    )
    tooltip = [
        alt.Tooltip(name, type="nominal", title=label)
        for name, label in (
            ("stage", "stage"),
            ("name", "module"),
            ("value", "roofline time"),
            ("least", "bound"),
            ("part", "share of what is drawn"),
            ("ceiling", "bound by"),
            ("next", "ahead of the next ceiling"),
            ("work", "work"),
            ("moved", "moved"),
        )
    ]
    bar, stage, end = alt.Chart(data("bars")), alt.Chart(data("stages")), alt.X("end", type="quantitative")
    text = {"align": "left", "baseline": "middle", "dx": 11 if is_measured else 6, "color": INK}
    return compiled(
        stage.mark_bar(height={"band": 0.8}, color=INK, opacity=0.35).encode(y, x, tooltip=tooltip),
        bar.mark_bar(height={"band": 0.8}).encode(y, x, colour, tooltip=tooltip),
        bar.mark_text(fontSize=11, **text).encode(y, end, alt.Text("words", type="nominal")),
        stage.mark_tick(thickness=3, height={"band": 0.95}, color="#CC3311").encode(
            y, alt.X("bound", type="quantitative"), tooltip=tooltip
        ),
        stage.mark_text(fontSize=12, fontWeight="bold", **text).encode(y, end, alt.Text("words", type="nominal")),
        alt.Chart(data("room")).mark_point(opacity=0, tooltip=None).encode(x),
        measured_layer(x, y, ("stage", "stage"), ("name", "module"), ("value", "measured, median"), ("spread", "interquartile range")),
        height=alt.Step(22),
    )


def _measured(row: Row) -> Row:
    """A measured time on the bar it belongs to."""
    name = module_name(row["module"]) if row["module"] else ""
    return {
        "row": f"{row['stage']}|{name}",
        "stage": row["stage"],
        "name": name or "whole stage",
        "seconds": row["seconds"],
        "value": seconds(row["seconds"]),
        "spread": "" if row["spread_seconds"] is None else seconds(row["spread_seconds"]),
        "origin": row["origin"],
    }


def _timed(row: Row, total: float) -> Row:
    """What a bar's tooltip says."""
    margin = row["ceiling_margin"]
    return {
        "stage": row["stage"],
        "name": "whole stage",
        "seconds": row["roofline_seconds"],
        "value": seconds(row["roofline_seconds"]),
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


def _time_title(timing: Timing, modules: list[Row], total: float, stages: Sequence[str], points: list[Row]) -> Title:
    where, row = timing.hardware.label, timing.estimate.stages.row(0, named=True)
    config = timing.estimate.config
    what = PARTS.get(tuple(stages), "for " + ", ".join(stages))
    if not modules:
        return title(f"{where}: nothing to do {what}", workload_words(row))
    widest = max(modules, key=lambda one: one["roofline_seconds"])
    finding = f"{where}: {seconds(total)} {what}; {share(widest['roofline_seconds'], total)} of it in {module_name(widest['module'])}"
    return title(
        finding,
        f"{workload_words(row)}; {config.engine.name}, attention {config.attention.name}, {config.dtype}",
        "Grey: the whole stage. Red tick: its bound, which no implementation undercuts",
        *origins(points),
        width=60,
    )


def halves(timing: Timing, measured: Sequence[dict[str, Any]] = ()) -> dict[str, Chart]:
    """Seconds by module to the first token, and after it, by names that serve as file names; none for stages that do nothing."""
    busy = {row["stage"] for row in timing.stages.to_dicts() if row["io_bytes"]}
    wanted = {"time_to_first_token": ("vision", "prefill"), "time_of_decode": ("decode",)}
    stages = {name: [stage for stage in those if stage in busy] for name, those in wanted.items()}
    return {name: time_by_module(timing, those, measured) for name, those in stages.items() if those}
