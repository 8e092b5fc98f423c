"""Expected seconds by module, coloured by what takes them: the host that issues operators, or the ceiling that binds on the device."""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import altair as alt

from ocr_flops.charts.bars import StageBars, headed_rows, stacked
from ocr_flops.charts.chart import Chart, Row, Template, Title, compiled, data, title
from ocr_flops.charts.encoding import from_zero, listed, occurring, painted, tips
from ocr_flops.charts.overlay import MEASURED, measured_layer, origins
from ocr_flops.charts.theme import BETWEEN, CEILING_COLOURS, CEILING_NAMES, INK, LIMIT, conditions, module_name, rests_on
from ocr_flops.evidence.published.points import rows_beside
from ocr_flops.timing.timing import Timing
from ocr_flops.units import interval, seconds, share, si, workload_words

PHASES = {("vision", "prefill"): "to the first token", ("decode",): "for all output tokens"}
HOST = "the host, issuing operators"
PARTS = {HOST: CEILING_COLOURS["launch"], **{name: CEILING_COLOURS[ceiling] for ceiling, name in CEILING_NAMES.items()}}
PEAKS, BOUND = "device at its peaks", "no implementation below"
MARKS = {PEAKS: INK, BOUND: LIMIT}


def time_by_module(timing: Timing, stages: Sequence[str] = ("vision", "prefill"), measured: Iterable[Row] = ()) -> Chart:
    """Bars of expected seconds by stage and module, of modules their part of the critical path; roofline and bound as ticks.

    A bar has the part in which the host issues operators, and that of kernels, coloured by the ceiling that binds. Drawn once for the time
    to first token and once for decode, which is often ten times as long.

    Args:
        timing: of one point.
        stages: those drawn on one scale.
        measured: rows with `stage`, `module` (None: the whole stage), `seconds`, `spread_seconds` and `origin`, laid over the bars.
    """
    wholes = [row for row in timing.stages.to_dicts() if row["stage"] in stages and row["expected_seconds"]]
    modules = [row for whole in wholes for row in _modules(timing, whole)]
    total = sum(row["expected_seconds"] for row in wholes)
    heads = [{**_described(row, total), "text": _stage_words(row)} for row in wholes]
    ends = [_described(row, total) for row in modules]
    bars = [{**about, **part} for about, row in zip(ends, modules, strict=True) for part in _parts(row)]
    rows = headed_rows([*(f"{row['stage']}|" for row in wholes), *(one["row"] for one in ends)])
    points = [point for point in map(_measured, measured) if point["row"] in rows]
    spent = {point["row"]: point["seconds"] for point in points}
    for row in (*ends, *heads):
        took = spent.get(row["row"], 0)
        row["end"] = max(row["high"], took)  # where its words begin
        row["text"] += f" · ◇ {seconds(took)}" if took else ""
    marks = [{**row, "mark": mark, "at": row[at]} for row in heads for mark, at in ((PEAKS, "peaks"), (BOUND, "bound"))]
    room = max((row["end"] for row in heads), default=0) * ((2.3 if "decode" in stages else 1.9) + (0.4 if points else 0))  # for the words
    datasets = {"bars": bars, "heads": heads, "ends": ends, "marks": marks, MEASURED: points}
    params = {"rows": rows, "room": room or 1, "parts": occurring(PARTS, bars, "kind")}
    return Chart(_template(bool(points)), _title(timing, wholes, modules, stages, points), datasets, params)


def _modules(timing: Timing, whole: Row) -> list[Row]:
    """The modules of a stage that take time, and last what the host does in it besides their operators."""
    rows = [row for row in timing.modules.to_dicts() if row["stage"] == whole["stage"] and row["expected_seconds"] > 0]
    rest = whole["expected_seconds"] - sum(row["expected_seconds"] for row in rows)
    if rest > 1e-6 * whole["expected_seconds"]:
        own = {"module": BETWEEN, "expected_seconds": rest, "expected_host_seconds": rest, "roofline_seconds": 0.0}
        rows.append({**whole, **own, "expected_high_seconds": None, "total_flops": 0, "io_bytes": 0})
    return rows


@cache
def _template(is_measured: bool) -> Template:
    """Bars of modules, and in the rows of headings those of whole stages."""
    bars = StageBars(along=from_zero("expected seconds", "room", "s", ticks=5))
    colour = painted("kind", PARTS, listed("parts", orient="top", columns=alt.ExprRef("narrow ? 1 : 0")))
    spent = {"value": "expected", "hosts": "of it the host", "at_peaks": PEAKS, "least": BOUND, "part": "share of what is drawn"}
    about = tips("stage", name="module", **spent, ceiling="the device is bound by", work="work", moved="DRAM traffic")
    dx = 11 if is_measured else 6
    names = alt.Stroke(
        "mark",
        type="nominal",
        title=None,
        scale=alt.Scale(domain=[*MARKS], range=[*MARKS.values()]),
        legend=alt.Legend(symbolType="stroke", symbolStrokeWidth=3, orient="bottom", columns=alt.ExprRef("narrow ? 1 : 0")),
    )
    ticks = alt.Chart(data("marks")).mark_tick(thickness=1, strokeWidth=2, fillOpacity=0, height={"band": 0.9})
    ranges = alt.Chart(data("heads")).mark_rule(color=INK, strokeWidth=2)
    return compiled(
        bars.segments("heads", about, end="seconds", color=INK, opacity=0.35),
        ranges.encode(bars.rows, bars.x("low"), alt.X2("high"), tooltip=about),
        bars.segments("bars", colour, about, start="start"),
        bars.words("ends", dx=dx),
        ticks.encode(bars.rows, bars.x("at"), names, tooltip=about),
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


def _parts(row: Row) -> Iterable[dict[str, Any]]:
    """What the host and what the device has of a module's time, one after the other."""
    host = row["expected_host_seconds"]
    kinds = {HOST: host, CEILING_NAMES[row["binding_ceiling"]]: row["expected_seconds"] - host}
    return ({"kind": kind, **place} for kind, value, place in stacked(kinds) if value > 0)


def _described(row: Row, total: float) -> Row:
    """A bar, its range, and what its tooltip says."""
    spent, host = row["expected_seconds"], row.get("expected_host_seconds")
    return {
        **_place(row),
        "seconds": spent,
        "low": row["expected_low_seconds"],
        "high": row["expected_high_seconds"] or spent,
        "peaks": row["roofline_seconds"],
        "bound": row["bound_seconds"],
        "text": seconds(spent),
        "value": _with_range(row),
        "hosts": "see its modules" if host is None else seconds(host),
        "at_peaks": seconds(row["roofline_seconds"]),
        "least": seconds(row["bound_seconds"]),
        "part": share(spent, total),
        "ceiling": CEILING_NAMES[row["binding_ceiling"]],
        "work": si(row["total_flops"], "FLOPs"),
        "moved": si(row["io_bytes"], "B"),
    }


def _with_range(row: Row) -> str:
    if row["expected_high_seconds"] is None:
        return seconds(row["expected_seconds"])
    return interval([row[f"expected_{case}seconds"] for case in ("", "low_", "high_")])


def _stage_words(whole: Row) -> str:
    steps = whole["output_tokens"]
    each = f"; {seconds(whole['expected_seconds'] / steps)} a token" if whole["stage"] == "decode" and steps else ""
    return f"{_with_range(whole)}{each}"


def _title(timing: Timing, wholes: list[Row], modules: list[Row], stages: Sequence[str], points: list[Row]) -> Title:
    where, row = timing.hardware.label, timing.estimate.stages.row(0, named=True)
    what = PHASES.get(tuple(stages), "for " + ", ".join(stages))
    if not modules:
        return title(f"{where}: nothing to do {what}", workload_words(row))
    total, low, high = (sum(one[f"expected_{case}seconds"] for one in wholes) for case in ("", "low_", "high_"))
    host = sum(one["expected_host_seconds"] for one in modules)
    widest = max(modules, key=lambda one: one["expected_seconds"])
    waiting = f"; {share(host, total)} of it is the host issuing operators" if host > 0.1 * total else ""
    largest = f"{share(widest['expected_seconds'], total)} in {module_name(widest['module'])}"
    return title(
        f"{where}: {interval((total, low, high))} expected {what}{waiting}; {largest}",
        conditions(row),
        "Of modules: their part of what decides when the stage ends. Grey: the whole stage, with its range as a line",
        rests_on(timing, stages),
        *origins(points),
        width=90,
    )


def halves(timing: Timing, measured: Sequence[Row] = ()) -> dict[str, Chart]:
    """Seconds by module to the first token, and after it, by names that serve as file names; none for stages that do nothing."""
    busy = {row["stage"] for row in timing.stages.to_dicts() if row["io_bytes"]}
    wanted = {"time_to_first_token": ("vision", "prefill"), "time_of_decode": ("decode",)}
    stages = {name: [stage for stage in those if stage in busy] for name, those in wanted.items()}
    marks = [*rows_beside(timing), *measured]
    return {name: time_by_module(timing, those, marks) for name, those in stages.items() if those}
