"""Both lanes over time, operator by operator: what the host issues, what the device runs, and where one waits for the other."""

from functools import cache

import altair as alt
import polars as pl

from ocr_flops.charts.chart import Chart, Row, Template, Title, compiled, data, title
from ocr_flops.charts.encoding import listed, painted, spaced, tips, x_of
from ocr_flops.charts.theme import BETWEEN, INK, MODULES, TIMED, conditions, module_name, rests_on
from ocr_flops.timing.timeline import timeline
from ocr_flops.timing.timing import Timing
from ocr_flops.units import seconds, share

PLAYED, MOST = 20_000, 2_000  # operators of a stage that are drawn as a whole; of more only the first so many
LANES = ("host", "device")
NAMES = {"vision": "Vision", "prefill": "Prefill", "decode": "The last decode step"}
FINEST = 400  # parts of the whole, in each of which operators of a module share a bar: two pixels of a page 1280 px wide
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
    kinds = bars.select(KIND).unique(maintain_order=True).with_row_index("kind")
    return Chart(
        _template(),
        _title(timing, stage, operators, whole if is_cut else None, total, least if bars.height < 2 * operators.height else 0),
        {
            "bars": [_as_columns(bars, kinds, total)],
            "idle": [{"lane": "device", "start": 0, "end": total}],
            "waits": waits,
        },
        {
            "total": total,
            "kinds": [[*kind] for kind in kinds.select(KIND).rows()],
            "families": [name for name in TIMED if name in {*kinds["family"]}],
        },
    )


def _as_columns(bars: pl.DataFrame, kinds: pl.DataFrame, total: float) -> dict[str, list[float]]:
    """Bars as columns of numbers, which take a third of the room of rows; "kind" is a row of kinds."""
    length = (pl.col("end") - pl.col("start")).shift(-1)
    is_followed = (pl.col("start").shift(-1) - pl.col("end")).abs() < 10**-DIGITS
    is_solid = pl.min_horizontal("opacity", pl.col("opacity").shift(-1)) > 0.999
    under = pl.when(is_followed & is_solid).then(pl.min_horizontal(length, SEAM * total)).fill_null(0.0)
    numbered = bars.with_columns(under=under).join(kinds, on=KIND, how="left", maintain_order="left")
    rounded = numbered.select(pl.col(NUMBERS[:4]).round(DIGITS), pl.col("opacity").round(3), "kind")
    return rounded.to_dict(as_series=False)


def merge_operators(operators: pl.DataFrame, least: float) -> pl.DataFrame:
    """A bar per lane and operator that takes time on it; neighbours of one module that begin within `least` share one.

    Nothing shares a bar across a synchronisation, or with an operator that takes longer than `least`.

    Args:
        operators: of `timing.timeline`.
        least: seconds; 0 for a bar of its own for each.

    Returns:
        a row a bar: the columns of `KIND`, start, end and, in seconds before it, wait; opacity, the part in which its lane works.
    """
    follows = (pl.col("module") == pl.col("module").shift()) & ~pl.col("synchronises").shift()
    grouped = operators.with_columns(group=(~follows).fill_null(True).cum_sum())
    lanes = []
    for lane, work in zip(LANES, ("issue", "kernel"), strict=True):
        start, end = f"{work}_start_seconds", f"{work}_end_seconds"
        is_long = pl.col(end) - pl.col(start) > least
        worked = grouped.with_columns(wait=pl.col(start) - pl.col(end).shift().fill_null(0.0)).filter(pl.col(end) > pl.col(start))
        place = (pl.col(start) / least).floor() if least else pl.int_range(pl.len())
        apart = (is_long | is_long.shift(fill_value=False)).cum_sum()
        count, first, last = pl.len(), pl.col("operator").first(), pl.col("operator").last()
        merged = worked.group_by("group", place.alias("place"), apart.alias("apart"), maintain_order=True).agg(
            pl.lit(lane).alias("lane"),
            pl.col(start).first().alias("start"),
            pl.col(end).last().alias("end"),
            ((pl.col(end) - pl.col(start)).sum() / (pl.col(end).last() - pl.col(start).first())).alias("opacity"),
            pl.col("module").first(),
            pl.when(count == 1).then(first).otherwise(pl.format("{} operators, {} to {}", count, first, last)).alias("operator"),
            pl.col("wait").sum(),
        )
        lanes.append(merged)
    modules = {module: module_name(module) for module in operators["module"].unique()}
    families = {module: MODULES[module][0] if module in MODULES else module for module in modules}
    bars = pl.concat(lanes).with_columns(family=pl.col("module").replace(families), module=pl.col("module").replace(modules))
    return bars.select(*KIND, "start", "end", "wait", "opacity")


def _host_waits(operators: pl.DataFrame, is_cut: bool) -> list[Row]:
    """Where the host waits for the device: at operators that synchronise, and at the end unless that is cut off."""
    follows = pl.col("issue_start_seconds").shift(-1).fill_null(pl.col("issue_end_seconds" if is_cut else "kernel_end_seconds"))
    is_wait = (pl.col("end") - pl.col("start") > 1e-9) & (pl.col("synchronises") | (pl.col("number") == pl.col("number").max()))
    waits = operators.with_columns(start=pl.col("issue_end_seconds"), end=follows).filter(is_wait)
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
    words = {name: f"trim({spaced('.4~s')} + 's')".replace("datum.value", value) for name, value in seconds_of.items()}
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
