"""FLOPs of each stage against image tokens, over many grids."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import altair as alt
import polars as pl

from ocr_flops.charts.chart import Chart, Row, Template, compiled, data, title
from ocr_flops.charts.encoding import listed, painted, si_axis, tips, x_of, y_of
from ocr_flops.charts.flops import flops_tips
from ocr_flops.charts.overlay import counted_layer, counted_point, mark_layers, points_inside
from ocr_flops.charts.theme import STAGE_COLOURS, grids_words
from ocr_flops.units import si


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
    text = f"{row['prompt_tokens']:,} prompt + {row['output_tokens']:,} output tokens"
    conditions = f"{grids_words(around)}; {text}, batch {row['batch_size']}, {row['engine']}"
    mark = {**here[0], "text": f"{here[0]['grid']}: {here[0]['image_tokens']:,} tokens"}
    return Chart(
        _template(bool(legend)),
        title(_finding(lines, here), conditions),
        {"lines": lines, "here": here, "mark": [mark], "points": points},
        {"stages": stages, "ran": legend},
    )


def _line(row: Row) -> Row:
    kept = ("stage", "image_tokens", "tensor_flops", "vector_flops", "total_flops")
    grid = f"{row['columns']} × {row['rows']}" if row["tiles"] else f"{row['global_px']} px, no tiles"
    return {**{name: row[name] for name in kept}, "grid": grid}


@cache
def _template(is_measured: bool) -> Template:
    axis = {"scale": alt.Scale(zero=True), "axis": alt.Axis(format=",d", tickCount=8)}
    x = x_of("image_tokens", title="image tokens of a page", **axis)
    y = y_of("tensor_flops", title="tensor FLOPs of the stage", axis=alt.Axis(labelExpr=si_axis(), tickCount=6))
    colour = painted("stage", STAGE_COLOURS, listed("stages", orient="top"))
    tokens = alt.Tooltip("image_tokens", type="quantitative", title="image tokens", format=",d")
    about = [*tips(grid="grid", stage="stage"), tokens, *flops_tips("tensor_flops", "vector_flops", "total_flops")]
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
    by_tokens: dict[int, dict[str, int]] = {}
    for row in lines:
        by_tokens.setdefault(row["image_tokens"], {})[row["stage"]] = row["tensor_flops"]
    totals = {tokens: sum(stages.values()) for tokens, stages in by_tokens.items()}
    mine, now = here[0]["image_tokens"], sum(row["tensor_flops"] for row in here)
    other = min(totals) if mine > min(totals) else max(totals)
    if other < mine:
        return f"{mine:,} image tokens cost {si(now)} tensor FLOPs, {now / totals[other]:.1f} times as much as {other:,} tokens"
    return f"{mine:,} image tokens cost {si(now)} tensor FLOPs; {other:,} tokens cost {totals[other] / now:.1f} times as much"
