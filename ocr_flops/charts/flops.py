"""Where the FLOPs go: by stage and module for one point, and against image tokens over many."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

import altair as alt

from ocr_flops.charts.chart import Chart, Template, Title, compiled, data, title
from ocr_flops.charts.interactive.base import headed_rows
from ocr_flops.charts.theme import INK, STAGE_COLOURS, grids_words, listed, module_colour, module_name, si_axis
from ocr_flops.units import SI, share, si, workload_words

if TYPE_CHECKING:
    import polars as pl

Row = dict[str, Any]
Names = tuple[str, ...]
PANELS = {"tensor_flops": "tensor FLOPs (matrix units)", "vector_flops": "vector FLOPs (CUDA cores)"}
SHAPES = ("diamond", "triangle-up", "square", "triangle-down", "circle")
FADED = (1, 0.6, 0.3, 0.15)  # attention modes side by side
ROOM = 1.3  # the longest bar leaves room for its number
ASIDE = 0.25  # of the longest bar: a faint point this close to a bar's end lies on the bar's number, which then stands on its right
BEYOND = "beyond this chart"


def flops_by_module(modules: pl.DataFrame, measured: Iterable[Row] = (), work: str = "tensor_flops") -> Chart:
    """Bars of FLOPs by stage and module, in order of execution; several attention modes side by side.

    Args:
        modules: `Estimate.modules` of one point, for one attention mode or for several stacked.
        measured: rows of `spot_check.beside`, drawn over the bars of tensor FLOPs; of a module the latest that matches, else the latest.
            Those that do not match are drawn faint where the axis, which they take no part in, has room for them.
        work: "tensor_flops" or "vector_flops".
    """
    found = [row for row in modules.to_dicts() if row["total_flops"]]
    modes = tuple(dict.fromkeys(row["attention"] for row in found))
    whole = {mode: sum(row["total_flops"] for row in found if row["attention"] == mode) for mode in modes}
    first = [row for row in found if row["attention"] == modes[0]]
    bars = [_bar(row, work, whole[row["attention"]]) for row in found]
    points = _over_bars(measured, {bar["row"] for bar in bars}) if work == "tensor_flops" else []
    longest = max([bar["flops"] for bar in bars] + [point["counted_flops"] for point in points if point["clear"]])
    points, legend = _inside(points, lambda point: point["counted_flops"] <= ROOM * longest)
    at = {point["row"]: point for point in points}
    for bar in bars:
        bar["end"] = _end(bar["flops"], at.get(bar["row"]), longest)
    by_row: dict[str, list[Row]] = {}
    for bar in bars:
        by_row.setdefault(bar["row"], []).append(bar)
    alike = {row for row, group in by_row.items() if len({bar["flops"] for bar in group}) == 1}
    order = tuple(
        name
        for stage in dict.fromkeys(bar["stage"] for bar in bars)
        for name in (f"{stage}|", *(row for row, group in by_row.items() if group[0]["stage"] == stage))
    )
    heading = (_tensor_title if work == "tensor_flops" else _vector_title)(first, found, modes, whole[modes[0]])
    return Chart(
        _bars_template(work, len(modes), bool(legend)),
        heading,
        {
            "bars": bars,
            "points": points,
            "stages": _stage_totals(first, work),
            "once": [group[0] for row, group in by_row.items() if row in alike],
            **({"each": [bar for bar in bars if bar["row"] not in alike]} if len(modes) > 1 else {}),
        },
        {"rows": order, "room": ROOM * longest or 1, "modes": modes, "ran": legend},
    )


def _bar(row: Row, work: str, whole: int) -> Row:
    name = module_name(row["module"])
    kept = ("stage", "attention", "evidence", "tensor_flops", "vector_flops", "torch_flops")
    return {
        **{name: row[name] for name in kept},
        "row": f"{row['stage']}|{name}",
        "name": name,
        "flops": row[work],
        "colour": module_colour(row["module"]),
        "share": share(row["total_flops"], whole),
        "value": si(row[work]) if row[work] else "",
    }


def _end(flops: int, point: Row | None, longest: int) -> int:
    """Where a bar's number begins: at its end, or at a measured point on the right that would lie on it, if there is room."""
    if point is None or point["counted_flops"] <= flops:
        return flops
    near = point["clear"] or point["counted_flops"] <= min(flops + ASIDE * longest, longest)
    return point["counted_flops"] if near else flops


def _stage_totals(first: list[Row], work: str) -> list[Row]:
    """Beside each stage's heading, its sum and its part of all work of this kind."""
    whole, totals = sum(row[work] for row in first), []
    for stage in dict.fromkeys(row["stage"] for row in first):
        flops = sum(row[work] for row in first if row["stage"] == stage)
        totals.append({"row": f"{stage}|", "text": f"{si(flops, 'FLOPs')} · {share(flops, whole)}"})
    return totals


def _over_bars(measured: Iterable[Row], shown: set[str]) -> list[Row]:
    """Of each stage and module one measured row: the latest of the point shown, else the latest of any."""
    best: dict[str, tuple[bool, Row]] = {}
    for row in measured:
        name = f"{row['stage']}|{module_name(row['module'])}"
        if name in shown and (row["counted_flops"] or row["analytic_flops"]) and (row["matches"] or not best.get(name, (False,))[0]):
            best[name] = row["matches"], {**_tip(row, row["matches"], f"at {row['point']}: not what is shown"), "row": name}
    return [row for _, row in best.values()]


def _tip(row: Row, clear: bool, otherwise: str) -> Row:
    """A measured row with what its legend and its tooltip say; one that is not `clear` is drawn faint, and the legend says why."""
    kept = ("counted_flops", "analytic_flops", "difference", "point", "stage")
    legend = [*textwrap.wrap(f"measured: {row['ran']}", 52), *([] if clear else [otherwise])]
    return {**{name: row[name] for name in kept}, "name": module_name(row["module"]), "clear": clear, "measured": "\n".join(legend)}


def _inside(points: list[Row], fits: Callable[[Row], bool]) -> tuple[list[Row], Names]:
    """The measured points that fit a chart, and its legend, which also names those of which none does."""
    inside = [point for point in points if fits(point)]
    drawn = {point["measured"] for point in inside}
    names = dict.fromkeys(point["measured"] for point in points)
    return inside, tuple(name if name in drawn else f"{name}; {BEYOND}" for name in names)


@cache
def _bars_template(work: str, modes: int, is_measured: bool) -> Template:
    """Bars over headed rows, numbers at their ends, measured points on top.

    Args:
        work: a key of `PANELS`.
        modes: how many attention modes stand side by side.
        is_measured: whether there is a legend of what was measured.
    """
    y = headed_rows()
    x = alt.X(
        "flops",
        type="quantitative",
        title=PANELS[work],
        scale=alt.Scale(domain=[0, alt.ExprRef("room")], nice=False),
        axis=alt.Axis(labelExpr=si_axis(), tickCount=4),
    )
    bar = (
        alt.Chart(data("bars"))
        .mark_bar(height={"band": 0.8})
        .encode(
            y,
            x,
            alt.Color("colour", type="nominal", scale=None),
            tooltip=[
                alt.Tooltip("stage", type="nominal"),
                alt.Tooltip("name", type="nominal", title="module"),
                alt.Tooltip("attention", type="nominal"),
                *_flops_tips("tensor_flops", "vector_flops", "torch_flops"),
                alt.Tooltip("share", type="nominal", title="of all FLOPs"),
                alt.Tooltip("evidence", type="nominal"),
            ],
        )
    )
    text = {"align": "left", "baseline": "middle", "color": INK}
    end = alt.X("end", type="quantitative"), alt.Text("value", type="nominal")
    once = alt.Chart(data("once")).mark_text(dx=11 if is_measured else 5, fontSize=11, **text).encode(y, *end)
    stages = (
        alt.Chart(data("stages"))
        .mark_text(dx=3, fontSize=12, fontWeight="bold", **text)
        .encode(y, alt.Text("text", type="nominal"), x=alt.value(0))
    )
    layers = [bar, once, stages]
    if modes > 1:
        beside = alt.YOffset("attention", type="nominal", sort=None, scale=alt.Scale(domain=alt.ExprRef("modes")))
        fade = alt.Opacity(
            "attention",
            type="nominal",
            sort=None,
            title="attention",
            legend=alt.Legend(orient="top", symbolFillColor=INK, symbolStrokeWidth=0),
            scale=alt.Scale(type="ordinal", domain=alt.ExprRef("modes"), range=FADED),
        )
        layers[0] = bar.encode(yOffset=beside, opacity=fade)
        layers.insert(2, alt.Chart(data("each")).mark_text(dx=5, fontSize=9, **text).encode(y, *end, yOffset=beside))
    layers.append(_points(y, alt.X("counted_flops", type="quantitative"), is_measured))
    return compiled(*layers, height=alt.Step(20 if modes == 1 else 10 * modes, **{"for": "position"}))


def _flops_tips(*columns: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(name, type="quantitative", title=name.replace("_flops", " FLOPs"), format=SI) for name in columns]


def _points(y: alt.Y, x: alt.X, is_named: bool) -> alt.Chart:
    """Measured points, with a legend that names what ran as the parameter "ran" has it; Vega has no place for one of nothing."""
    legend = alt.Legend(orient="bottom", direction="vertical", labelExpr="split(datum.label, '\\n')", symbolFillColor=INK, symbolSize=90)
    shape = alt.Shape(
        "measured",
        type="nominal",
        title=None,
        scale=alt.Scale(domain=alt.ExprRef("ran"), range=SHAPES),
        legend=legend if is_named else None,
    )
    tooltip = [
        alt.Tooltip("measured", type="nominal", title="what ran"),
        alt.Tooltip("point", type="nominal", title="at"),
        alt.Tooltip("stage", type="nominal"),
        alt.Tooltip("name", type="nominal", title="module"),
        alt.Tooltip("counted_flops", type="quantitative", title="counted", format=SI),
        alt.Tooltip("analytic_flops", type="quantitative", title="analytic, of what ran", format=SI),
        alt.Tooltip("difference", type="quantitative", format=",d"),
    ]
    faint = alt.OpacityValue(value=0.55, condition={"test": "datum.clear", "value": 1})
    return (
        alt.Chart(data("points"))
        .mark_point(size=70, filled=True, fill="white", stroke="#333333", strokeWidth=1.4)
        .encode(y, x, shape, faint, tooltip=tooltip)
    )


def _tensor_title(first: list[Row], found: list[Row], modes: Names, whole: int) -> Title:
    """Which stage does most of the work on matrix units, and the module that does most in it."""
    stages: dict[str, int] = {}
    for row in first:
        stages[row["stage"]] = stages.get(row["stage"], 0) + row["tensor_flops"]
    tensor = sum(stages.values())
    stage = max(stages, key=stages.get)
    module = max((row for row in first if row["stage"] == stage), key=lambda row: row["tensor_flops"])
    finding = (
        f"{stage.capitalize()} is {share(stages[stage], tensor)} of {si(tensor)} tensor FLOPs; "
        f"{module_name(module['module'])} alone {share(module['tensor_flops'], tensor)}"
    )
    evidence = {row["evidence"] for row in found}
    how = evidence.pop() if len(evidence) == 1 else "partly modelled"
    row = first[0]
    return title(
        finding,
        f"With {si(whole - tensor)} vector FLOPs it is {si(whole, 'FLOPs')} in all",
        workload_words(row),
        f"{row['engine']}, attention {' / '.join(modes)}, {row['dtype']} ({how})",
        width=60,
    )


def _vector_title(first: list[Row], found: list[Row], modes: Names, whole: int) -> Title:
    """How little vector work there is, and where most of it is done."""
    vector, module = sum(row["vector_flops"] for row in first), max(first, key=lambda row: row["vector_flops"])
    return title(
        f"Vector FLOPs are {share(vector, whole)} of the work",
        f"{share(module['vector_flops'], vector)} of them in {module_name(module['module'])} ({module['stage']})",
        "On a scale of their own",
        width=45,
    )


def flops_by_tokens(sweep: pl.DataFrame, current: pl.DataFrame, measured: Iterable[Row] = ()) -> Chart:
    """Tensor FLOPs of each stage against image tokens, the current point marked.

    Tensor FLOPs, because that is what torch counts, so that measured points lie on the lines; the tooltip has the others.

    Args:
        sweep: `of.sweep` over grids in one attention mode, one row per point and stage.
        current: `Estimate.stages` of the current point.
        measured: rows of `spot_check.beside`; those that ran with other settings than shown are faint. Only those of the current point
            take part in the axes, and what does not fit these is not drawn.
    """
    here = [_line(row) for row in current.to_dicts()]
    around = sweep.to_dicts()
    lines = [_line(row) for row in around]
    if not {row["grid"] for row in here} <= {row["grid"] for row in lines}:
        lines += here
    lines.sort(key=lambda row: row["image_tokens"])
    stages = tuple(dict.fromkeys(row["stage"] for row in here))
    points = [
        {
            **_tip(row, row["on_curve"], "with other settings: not what is shown"),
            "image_tokens": row["image_tokens"],
            "here": row["matches"],
        }
        for row in measured
        if row["module"] == "total" and row["stage"] in stages
    ]
    widest = max(row["image_tokens"] for row in lines)
    highest = max([row["tensor_flops"] for row in lines] + [point["counted_flops"] for point in points if point["here"]])
    points, legend = _inside(points, lambda point: point["image_tokens"] <= widest and point["counted_flops"] <= highest)
    row = current.row(0, named=True)
    text = f"{row['prompt_tokens']:,} prompt + {row['output_tokens']:,} output tokens"
    conditions = f"{grids_words(around)}; {text}, batch {row['batch_size']}, {row['engine']}"
    mark = {**here[0], "text": f"{here[0]['grid']}: {here[0]['image_tokens']:,} tokens"}
    return Chart(
        _tokens_template(bool(legend)),
        title(_tokens_finding(lines, here), conditions),
        {"lines": lines, "here": here, "mark": [mark], "points": points},
        {"stages": stages, "ran": legend},
    )


def _line(row: Row) -> Row:
    kept = ("stage", "image_tokens", "tensor_flops", "vector_flops", "total_flops")
    grid = f"{row['columns']} × {row['rows']}" if row["tiles"] else f"{row['global_px']} px, no tiles"
    return {**{name: row[name] for name in kept}, "grid": grid}


@cache
def _tokens_template(is_measured: bool) -> Template:
    x = alt.X(
        "image_tokens",
        type="quantitative",
        title="image tokens of a page",
        scale=alt.Scale(zero=True),
        axis=alt.Axis(format=",d", tickCount=8),
    )
    y = alt.Y("tensor_flops", type="quantitative", title="tensor FLOPs of the stage", axis=alt.Axis(labelExpr=si_axis(), tickCount=6))
    colour = alt.Color(
        "stage",
        type="nominal",
        title=None,
        legend=listed("stages", orient="top"),
        scale=alt.Scale(domain=list(STAGE_COLOURS), range=list(STAGE_COLOURS.values())),
    )
    tips = [
        alt.Tooltip("grid", type="nominal"),
        alt.Tooltip("stage", type="nominal"),
        alt.Tooltip("image_tokens", type="quantitative", title="image tokens", format=",d"),
        *_flops_tips("tensor_flops", "vector_flops", "total_flops"),
    ]
    over, mark = alt.Chart(data("lines")), alt.Chart(data("mark"))
    layers = [
        over.mark_line(strokeWidth=2, opacity=0.6).encode(x, y, colour),
        over.mark_point(size=45, filled=True, opacity=0.9).encode(x, y, colour, tooltip=tips),
        mark.mark_rule(strokeDash=[4, 4], color=INK).encode(alt.X("image_tokens", type="quantitative")),
        alt.Chart(data("here")).mark_point(size=190, strokeWidth=2.5, filled=False).encode(x, y, colour, tooltip=tips),
        mark.mark_text(align="center", baseline="bottom", y=-4, color=INK, fontSize=12, fontWeight="bold").encode(
            x, alt.Text("text", type="nominal")
        ),
    ]
    layers.append(_points(alt.Y("counted_flops", type="quantitative"), x, is_measured))
    return compiled(*layers, height=420)


def _tokens_finding(lines: list[Row], here: list[Row]) -> str:
    """What the current point costs, and how that compares with the cheapest (or, for the cheapest, the dearest) shown."""
    by_tokens: dict[int, dict[str, int]] = {}
    for row in lines:
        by_tokens.setdefault(row["image_tokens"], {})[row["stage"]] = row["tensor_flops"]
    totals = {tokens: sum(stages.values()) for tokens, stages in by_tokens.items()}
    mine, now = here[0]["image_tokens"], sum(row["tensor_flops"] for row in here)
    other = min(totals) if mine > min(totals) else max(totals)
    if other < mine:
        return f"{mine:,} image tokens cost {si(now)} tensor FLOPs, {now / totals[other]:.1f} times as much as {other:,} tokens"
    return f"{mine:,} image tokens cost {si(now)} tensor FLOPs; {other:,} tokens cost {totals[other] / now:.1f} times as much"
