"""Where the FLOPs of one point go, by stage and module; and those of many grids, against image tokens."""

from collections.abc import Iterable
from functools import cache

import altair as alt
import polars as pl

from ocr_flops.charts.bars import StageBars, headed_rows
from ocr_flops.charts.chart import Chart, Row, Template, Title, compiled, data, title
from ocr_flops.charts.encoding import OWN_COLOUR, from_zero, listed, painted, si_axis, tips, x_of, y_of
from ocr_flops.charts.overlay import counted_layer, counted_point, mark_layers, points_inside
from ocr_flops.charts.theme import STAGE_COLOURS, attention_colour, evidence_words, grids_words, module_colour, module_name, sum_by
from ocr_flops.units import SI, attention_words, counted, share, si, workload_words

PANELS = {"tensor_flops": "tensor FLOPs (matrix units)", "vector_flops": "vector FLOPs (CUDA cores)"}
ROOM = 1.3  # the longest bar leaves room for its number
ASIDE = 0.25  # of the longest bar: a faint point this close to a bar's end lies on the bar's number, which then stands on its right


def flops_by_module(modules: pl.DataFrame, measured: Iterable[Row] = (), work: str = "tensor_flops") -> Chart:
    """Bars of FLOPs by stage and module, in order of execution; several attention modes side by side.

    Args:
        modules: `Estimate.modules` of one point, for one attention mode or for several stacked.
        measured: rows of `spot_checks.beside`, drawn over the bars of tensor FLOPs; of a module the latest that matches, else the latest.
            Those that do not match are drawn faint where the axis, which they take no part in, has room for them.
        work: "tensor_flops" or "vector_flops".
    """
    found = [row for row in modules.to_dicts() if row["total_flops"]]
    whole = sum_by(found, "attention", "total_flops")
    modes = list(whole)
    first = [row for row in found if row["attention"] == modes[0]]
    bars = [_bar(row, work, whole[row["attention"]]) for row in found]
    points = _latest(measured, {bar["row"] for bar in bars}) if work == "tensor_flops" else []
    longest = max([bar["flops"] for bar in bars] + [point["counted_flops"] for point in points if point["clear"]])
    points, legend = points_inside(points, lambda point: point["counted_flops"] <= ROOM * longest)
    at = {point["row"]: point for point in points}
    by_row: dict[str, list[Row]] = {}
    for bar in bars:
        bar["end"] = _end(bar["flops"], at.get(bar["row"]), longest)
        by_row.setdefault(bar["row"], []).append(bar)
    once = {row: group[0] for row, group in by_row.items() if len({bar["flops"] for bar in group}) == 1}
    totals = sum_by(first, "stage", work)
    heads = {stage: f"{si(flops, 'FLOPs')} · {share(flops, sum(totals.values()))}" for stage, flops in totals.items()}
    datasets = {"bars": bars, "points": points, "once": list(once.values())}
    datasets["heads"] = [{"row": f"{stage}|", "text": text} for stage, text in heads.items()]
    if len(modes) > 1:
        datasets["each"] = [bar for bar in bars if bar["row"] not in once]
    params = {"rows": headed_rows(by_row), "room": ROOM * longest or 1}
    params |= {"modes": modes, "colours": [attention_colour(mode) for mode in modes], "ran": legend}
    heading = (_tensor_title if work == "tensor_flops" else _vector_title)(first, found, modes, whole[modes[0]])
    return Chart(_template(work, len(modes), bool(legend)), heading, datasets, params)


def _bar(row: Row, work: str, whole: int) -> Row:
    name, kept = module_name(row["module"]), ("stage", "attention", "evidence", "tensor_flops", "vector_flops", "torch_flops")
    about = {"share": share(row["total_flops"], whole), "text": si(row[work]) if row[work] else ""}
    place = {"row": f"{row['stage']}|{name}", "name": name, "flops": row[work], "colour": module_colour(row["module"])}
    return {**{column: row[column] for column in kept}, **place, **about}


def _end(flops: int, point: Row | None, longest: int) -> int:
    """Where a bar's number begins: at its end, or at a measured point on the right that would lie on it, if there is room."""
    if point is None or point["counted_flops"] <= flops:
        return flops
    near = point["clear"] or point["counted_flops"] <= min(flops + ASIDE * longest, longest)
    return point["counted_flops"] if near else flops


def _latest(measured: Iterable[Row], rows: set[str]) -> list[Row]:
    """Of each bar one measured point: the latest of the point shown, else the latest of any."""
    best: dict[str, Row] = {}
    for row in measured:
        name = f"{row['stage']}|{module_name(row['module'])}"
        if name in rows and (row["counted_flops"] or row["analytic_flops"]) and (row["matches"] or not best.get(name, {}).get("clear")):
            best[name] = {**counted_point(row, row["matches"], f"at {row['point']}: not what is shown"), "row": name}
    return list(best.values())


@cache
def _template(work: str, modes: int, is_measured: bool) -> Template:
    """Bars of so many modes side by side, numbers at their ends, measured points on top and maybe in a legend."""
    bars = StageBars(along=from_zero(PANELS[work], "room", ticks=4))
    numbers = _flops_tips("tensor_flops", "vector_flops", "torch_flops")
    about = [*tips(stage="stage", name="module", attention="attention"), *numbers, *tips(share="of all FLOPs", evidence="evidence")]
    once = bars.words("once", dx=11 if is_measured else 5)
    points = counted_layer(bars.x("counted_flops"), bars.rows, is_measured)
    if modes == 1:
        return compiled(bars.segments("bars", OWN_COLOUR, about, end="flops"), once, bars.headings(), points, height=alt.Step(20))
    order = alt.Scale(domain=alt.ExprRef("modes"), range=[alt.ExprRef(f"colours[{number}]") for number in range(modes)])
    colour = alt.Color("attention", type="nominal", legend=alt.Legend(orient="top"), scale=order)
    beside = alt.YOffset("attention", type="nominal", sort=None, scale=alt.Scale(domain=order.domain))
    segments = bars.segments("bars", beside, colour, about, end="flops")
    layers = segments, once, bars.words("each", beside, fontSize=9), bars.headings(), points
    return compiled(*layers, height=alt.Step(10 * modes, **{"for": "position"}))


def _flops_tips(*columns: str) -> list[alt.Tooltip]:
    """Tooltips of columns of FLOPs."""
    return [alt.Tooltip(name, type="quantitative", title=name.replace("_flops", " FLOPs"), format=SI) for name in columns]


def _tensor_title(first: list[Row], found: list[Row], modes: list[str], whole: int) -> Title:
    """Which stage does most of the work on matrix units, and the module that does most in it."""
    stages = sum_by(first, "stage", "tensor_flops")
    tensor, stage = sum(stages.values()), max(stages, key=stages.get)
    module = max((row for row in first if row["stage"] == stage), key=lambda row: row["tensor_flops"])
    part = f"{stage.capitalize()} is {share(stages[stage], tensor)} of {si(tensor)} tensor FLOPs"
    row = first[0]
    return title(
        f"{part}; {module_name(module['module'])} alone {share(module['tensor_flops'], tensor)}",
        f"With {si(whole - tensor)} vector FLOPs it is {si(whole, 'FLOPs')} in all",
        workload_words(row),
        f"{row['engine']}, {attention_words(*modes)}, {row['dtype']} ({evidence_words(found)})",
        width=60,
    )


def _vector_title(first: list[Row], found: list[Row], modes: list[str], whole: int) -> Title:
    """How little vector work there is, and where most of it is done."""
    vector, module = sum(row["vector_flops"] for row in first), max(first, key=lambda row: row["vector_flops"])
    part = f"{share(module['vector_flops'], vector)} of them in {module_name(module['module'])} ({module['stage']})"
    return title(f"Vector FLOPs are {share(vector, whole)} of the work", part, "On a scale of their own", width=45)


def flops_by_tokens(sweep: pl.DataFrame, current: pl.DataFrame, measured: Iterable[Row] = ()) -> Chart:
    """Tensor FLOPs of each stage against image tokens, the current point marked.

    Tensor FLOPs, because that is what torch counts, so that measured points lie on the lines; the tooltip has the others.

    Args:
        sweep: `of.sweep` over grids in one attention mode, one row per point and stage.
        current: `Estimate.stages` of the current point.
        measured: rows of `spot_checks.beside`; those that ran with other settings than shown are faint. Only those of the current point
            take part in the axes, and what does not fit these is not drawn.
    """
    here = [_line(row) for row in current.to_dicts()]
    around = sweep.to_dicts()
    lines = [_line(row) for row in around]
    if not {row["grid"] for row in here} <= {row["grid"] for row in lines}:
        lines += here
    lines.sort(key=lambda row: row["image_tokens"])
    stages = [row["stage"] for row in here]
    points = []
    for row in measured:
        if row["module"] == "total" and row["stage"] in stages:
            point = counted_point(row, row["on_curve"], "with other settings: not what is shown")
            points.append({**point, "image_tokens": row["image_tokens"], "here": row["matches"]})
    widest = max(row["image_tokens"] for row in lines)
    highest = max([row["tensor_flops"] for row in lines] + [point["counted_flops"] for point in points if point["here"]])
    points, legend = points_inside(points, lambda point: point["image_tokens"] <= widest and point["counted_flops"] <= highest)
    row = current.row(0, named=True)
    text = f"{row['prompt_tokens']:,} prompt + {counted(row['output_tokens'], 'output token')}"
    heading = title(_finding(lines, here), f"{grids_words(around)}; {text}, batch {row['batch_size']}, {row['engine']}")
    mark = {**here[0], "text": f"{here[0]['grid']}: {here[0]['image_tokens']:,} tokens"}
    datasets = {"lines": lines, "here": here, "mark": [mark], "points": points}
    return Chart(_tokens_template(bool(legend)), heading, datasets, {"stages": stages, "ran": legend})


def _line(row: Row) -> Row:
    kept = ("stage", "image_tokens", "tensor_flops", "vector_flops", "total_flops")
    grid = f"{row['columns']} × {row['rows']}" if row["tiles"] else f"{row['global_px']} px, no tiles"
    return {**{name: row[name] for name in kept}, "grid": grid}


@cache
def _tokens_template(is_measured: bool) -> Template:
    axis = {"scale": alt.Scale(zero=True), "axis": alt.Axis(format=",d", tickCount=8)}
    x = x_of("image_tokens", title="image tokens of a page", **axis)
    y = y_of("tensor_flops", title="tensor FLOPs of the stage", axis=alt.Axis(labelExpr=si_axis(), tickCount=6))
    colour = painted("stage", STAGE_COLOURS, listed("stages", orient="top"))
    tokens = alt.Tooltip("image_tokens", type="quantitative", title="image tokens", format=",d")
    about = [*tips(grid="grid", stage="stage"), tokens, *_flops_tips("tensor_flops", "vector_flops", "total_flops")]
    lines, here = alt.Chart(data("lines")), alt.Chart(data("here"))
    return compiled(
        lines.mark_line(strokeWidth=2, opacity=0.6).encode(x, y, colour),
        lines.mark_point(size=45, filled=True, opacity=0.9).encode(x, y, colour, about),
        here.mark_point(size=190, strokeWidth=2.5, filled=False).encode(x, y, colour, about),
        *mark_layers(x),
        counted_layer(x, y_of("counted_flops"), is_measured),
        height=420,
    )


def _finding(lines: list[Row], here: list[Row]) -> str:
    """What the current point costs, and how that compares with the cheapest (or, for the cheapest, the dearest) shown."""
    totals = sum_by({(row["image_tokens"], row["stage"]): row for row in lines}.values(), "image_tokens", "tensor_flops")
    mine, now = here[0]["image_tokens"], sum(row["tensor_flops"] for row in here)
    other = min(totals) if mine > min(totals) else max(totals)
    if other < mine:
        return f"{mine:,} image tokens cost {si(now)} tensor FLOPs, {now / totals[other]:.1f} times as much as {other:,} tokens"
    return f"{mine:,} image tokens cost {si(now)} tensor FLOPs; {other:,} tokens cost {totals[other] / now:.1f} times as much"
