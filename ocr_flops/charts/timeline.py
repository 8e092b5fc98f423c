"""Both lanes over time, operator by operator: what the host issues, what the device runs, and where one waits for the other."""

from functools import cache

import altair as alt
import numpy as np
import polars as pl

from ocr_flops.charts.chart import Chart, Row, Template, Title, compiled, data, title
from ocr_flops.charts.encoding import listed, occurring, painted, spaced, tips, x_of
from ocr_flops.charts.theme import BETWEEN, INK, MODULES, TIMED, conditions, module_name, rests_on
from ocr_flops.timing.timeline import timeline
from ocr_flops.timing.timing import Timing
from ocr_flops.units import seconds, share

PLAYED, MOST = 20_000, 2_000  # operators of a stage that are drawn as a whole; of more only the first so many
LANES = ("host", "device")
NAMES = {"vision": "Vision", "prefill": "Prefill", "decode": "The last decode step"}
FINEST = 200  # parts of the whole, in each of which operators of a module share a bar: four pixels of a page 1280 px wide
FULL = 0.9  # of the time: from this share on the device is busy
DIGITS = 9  # of seconds
SEAM = 1 / 1500  # of the whole, by which a bar reaches under one that follows at once, so that no background shines through
ZOOM = "wheel![event.ctrlKey || event.metaKey]"  # a wheel alone scrolls the page; pinching is a wheel with Ctrl
KIND = ("lane", "family", "module", "operator")  # of a bar; rows have its number
NUMBERS = ("start", "end", "under", "wait", "opacity")


def stage_timeline(timing: Timing, stage: str) -> Chart:
    """What the host issues and the device runs over time in one pass over a stage, in decode of its last step.

    Bars are operators, or neighbours of one module that begin within a part in `FINEST` of the whole; then a bar's opacity is the part of
    it in which its lane works. It can be moved by dragging, and zoomed with Ctrl and the wheel.

    Args:
        timing: of one point.
        stage: one of the estimate's.

    Raises:
        SpecError: as `timing.timeline` does.
    """
    whole = timing.stages.row(by_predicate=pl.col("stage") == stage, named=True)
    steps = whole["output_tokens"] if stage == "decode" else 1
    is_cut = whole["operators"] > PLAYED * max(1, steps)
    operators = timeline(timing, stage, most=MOST if is_cut else None)
    total = ended = float(pl.concat([operators["kernel_end_seconds"], operators["issue_end_seconds"]]).max())
    least = total / FINEST
    bars, waits = merge_operators(operators, least), _host_waits(operators, is_cut)
    if stage == "decode" and timing.host.step_us.value and not is_cut:
        total += 1e-6 * timing.host.step_us.value
        numbers = {"start": ended, "end": total, "wait": 0.0, "opacity": 1.0}
        bars.extend(pl.DataFrame([{**dict(zip(KIND, ("host", BETWEEN, BETWEEN, "sampling, bookkeeping"), strict=True)), **numbers}]))
    kinds: dict[tuple[str, ...], int] = {}
    numbers = [kinds.setdefault(kind, len(kinds)) for kind in bars.select(KIND).iter_rows()]
    return Chart(
        _template(),
        _title(timing, stage, operators, whole if is_cut else None, total, least if bars.height < 2 * operators.height else 0),
        {
            "bars": [_as_columns(bars, total) | {"kind": numbers}],
            "idle": [{"lane": "device", "start": 0, "end": total}],
            "waits": waits,
        },
        {
            "total": total,
            "kinds": [[*kind] for kind in kinds],
            "families": occurring(TIMED, [{"family": family} for _, family, *_ in kinds], "family"),
        },
    )


def _as_columns(bars: pl.DataFrame, total: float) -> dict[str, list[float]]:
    """Bars as columns of numbers, which take a third of the room of rows."""
    start, end, wait, opacity = (bars[name].to_numpy() for name in ("start", "end", "wait", "opacity"))
    is_followed = (np.abs(start[1:] - end[:-1]) < 10**-DIGITS) & (np.minimum(opacity[1:], opacity[:-1]) > 0.999)
    under = np.append(np.where(is_followed, np.minimum((end - start)[1:], SEAM * total), 0.0), 0.0)
    times = dict(zip(NUMBERS[:4], (start, end, under, wait), strict=True))
    return {name: values.round(DIGITS).tolist() for name, values in times.items()} | {"opacity": opacity.round(3).tolist()}


def merge_operators(operators: pl.DataFrame, least: float) -> pl.DataFrame:
    """A bar per lane and operator that takes time on it; neighbours of one module that begin within `least` share one.

    Nothing shares a bar across a synchronisation, or with an operator that takes longer than `least`.

    Args:
        operators: of `timing.timeline`.
        least: seconds; 0 for a bar of its own for each.

    Returns:
        a row a bar: the columns of `KIND`, start, end and, in seconds before it, wait; opacity, the part in which its lane works.
    """
    modules, names = operators["module"].to_list(), operators["operator"].to_list()
    known = {module: (MODULES[module][0] if module in MODULES else module, module_name(module)) for module in {*modules}}
    codes, synchronises = operators["module"].rank("dense").to_numpy(), operators["synchronises"].to_numpy()
    parts = np.append(0, ((codes[1:] != codes[:-1]) | synchronises[:-1]).cumsum())
    bars = []
    for lane, work in zip(LANES, ("issue", "kernel"), strict=True):
        start, end = (operators[f"{work}_{moment}_seconds"].to_numpy() for moment in ("start", "end"))
        wait, works = start - np.append(0.0, end[:-1]), np.flatnonzero(end > start)
        start, end, wait, part = start[works], end[works], wait[works], parts[works]
        place, is_long = start // least if least else np.arange(len(works)), end - start > least
        ends = (part[1:] != part[:-1]) | (place[1:] != place[:-1]) | is_long[1:] | is_long[:-1]
        first, last = np.append(0, np.flatnonzero(ends) + 1)[: len(works)], np.append(np.flatnonzero(ends), len(works) - 1)[: len(works)]
        busy = np.add.reduceat(end - start, first) / (end[last] - start[first])
        for here, there, *numbers in zip(first, last, start[first], end[last], np.add.reduceat(wait, first), busy, strict=True):
            one, other = works[here], works[there]
            many = f"{there - here + 1} operators, {names[one]} to {names[other]}" if there > here else names[one]
            bars.append((lane, *known[modules[one]], many, *numbers))
    numbers = dict.fromkeys(("start", "end", "wait", "opacity"), pl.Float64)
    return pl.DataFrame(bars, schema=dict.fromkeys(KIND, pl.String) | numbers, orient="row")


def _host_waits(operators: pl.DataFrame, is_cut: bool) -> list[Row]:
    """Where the host waits for the device: at operators that synchronise, and at the end unless that is cut off."""
    follows = pl.col("issue_start_seconds").shift(-1).fill_null(pl.col("issue_end_seconds" if is_cut else "kernel_end_seconds"))
    is_wait = (pl.col("end") - pl.col("start") > 1e-9) & (pl.col("synchronises") | (pl.col("number") == pl.col("number").max()))
    waits = operators.lazy().with_columns(start=pl.col("issue_end_seconds"), end=follows).filter(is_wait).collect()
    return [
        {
            "lane": "host",
            "start": round(row["start"], DIGITS),
            "end": round(row["end"], DIGITS),
            "module": module_name(row["module"]),
            "operator": row["operator"] if row["synchronises"] else "the end of the stage",
            "took": seconds(row["end"] - row["start"]),
        }
        for row in waits.to_dicts()
    ]


@cache
def _template() -> Template:
    label = f"datum.value ? trim({spaced('.6~s')} + 's') : '0'"
    x = x_of(
        "start",
        title="from the first operator on",
        scale=alt.Scale(domain=[0, alt.ExprRef("total")], nice=False),
        axis=alt.Axis(labelExpr=label, labelFlush=True, tickCount=8),
    )
    y = alt.Y(
        "lane",
        type="nominal",
        sort=None,
        title=None,
        scale=alt.Scale(domain=list(LANES)),
        axis=alt.Axis(ticks=False, domain=False, labelPadding=6),
    )
    zoom = alt.selection_interval(name="zoom", encodings=["x"], bind="scales", zoom=ZOOM)
    waiting = {"height": {"band": 0.12}, "color": INK, "opacity": 0.45, "clip": True}
    idle = alt.Chart(data("idle"), name="idle").mark_bar(**waiting).encode(x, alt.X2("end"), y).add_params(zoom)
    seconds_of = {"starts": "datum.start", "took": "datum.end - datum.start", "waited": "datum.wait"}
    words = {  # of thousands of bars, in a moment
        name: f"{value} < 1e-3 ? format(1e6 * ({value}), '.4~r') + ' µs' : format(1e3 * ({value}), ',.4~r') + ' ms'"
        for name, value in seconds_of.items()
    }
    kind = {name: f"kinds[datum.kind][{number}]" for number, name in enumerate(KIND)}
    view = "'drag it, Ctrl and wheel; double click for all of it'"
    bars = alt.Chart(data("bars")).transform_flatten([*NUMBERS, "kind"]).transform_calculate(
        **kind, **words, view=view, edge="datum.end + datum.under"
    )  # fmt: skip
    about = tips("lane", "module", "operator", starts="starts at", took="takes", waited="its lane waited before it", view="a closer look")
    colour = painted(
        "family", TIMED, listed("families", orient="bottom", symbolType="square", columns=alt.ExprRef("max(2, floor(width / 140))"))
    )
    opacity = alt.Opacity("opacity", type="quantitative", scale=None)
    waits, why = alt.Chart(data("waits")), tips(operator="the host waits at", module="in", took="for")
    look = {"shape": "triangle-down", "size": 60, "filled": True, "color": INK, "opacity": 1, "yOffset": -20, "clip": True}
    return compiled(
        idle,
        bars.mark_bar(height={"band": 0.72}, clip=True).encode(x, alt.X2("edge"), y, colour, opacity, tooltip=about),
        waits.mark_bar(**waiting).encode(x, alt.X2("end"), y, tooltip=why),
        waits.mark_point(**look).encode(x, y, tooltip=why),
        height=alt.Step(52),
    )


def _title(timing: Timing, stage: str, operators: pl.DataFrame, whole: Row | None, total: float, least: float) -> Title:
    """How long it takes, for how much of that the device is busy, and why.

    Args:
        operators: that are drawn.
        whole: the stage's row where they are the first ones only.
        total: seconds that are drawn.
        least: seconds, within which operators of a module share a bar; 0 where none do.
    """
    busy, issued = (float((operators[f"{work}_end_seconds"] - operators[f"{work}_start_seconds"]).sum()) for work in ("kernel", "issue"))
    count = operators.height
    notes = ["Thin grey: waiting; triangles: the host waits for the device"]
    if least:
        notes.append(f"operators of a module within {seconds(least)} share a bar, fainter where its lane also waits")
    if whole:
        notes.append(f"drawn are the first {count:,} of {whole['operators']:,} operators")
        issued, count, total = issued / count * whole["operators"], whole["operators"], whole["expected_seconds"]
        busy = whole["device_busy_share"] * total
    if not issued:
        reason = f"no host, {count:,} kernels one after the other"
    elif stage in timing.host.graphs:
        reason = f"the host launches {count:,} kernels as one graph"
    elif busy < FULL * total:
        reason = f"the host issues {count:,} operators at {seconds(issued / count)}"
    else:
        reason = f"the host issues {count:,} operators in {seconds(issued)} and waits"
    return title(
        f"{NAMES[stage]} on {timing.hardware.label}: {seconds(total)}, device busy {share(busy, total)} of it: {reason}",
        conditions(timing.estimate.stages.row(0, named=True)),
        "; ".join(notes),
        rests_on(timing, [stage]),
        width=120,
    )


def timelines(timing: Timing) -> dict[str, Chart]:
    """The timelines of all stages that do something, by names that serve as file names."""
    busy = [row["stage"] for row in timing.estimate.stages.to_dicts() if row["io_bytes"]]
    return {f"timeline_{stage}": stage_timeline(timing, stage) for stage in busy}
