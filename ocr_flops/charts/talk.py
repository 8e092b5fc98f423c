"""Charts to be read from the back of a room: few marks, large type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import altair as alt

from ocr_flops.charts.memory import KINDS, TRAFFIC
from ocr_flops.charts.savings import COLOURS, OTHER, saved
from ocr_flops.charts.style import INK, SI, STAGE_COLOURS, Chart, compiled, data, seconds, si

if TYPE_CHECKING:
    import polars as pl

    from ocr_flops.estimates import Estimate
    from ocr_flops.timing import Timing

Row = dict[str, Any]
Names = tuple[str, ...]
TYPE = 19  # px, of all words on a chart
FACTOR = 1.45  # by which a chart of the app is enlarged
SIZED = (
    "fontSize",
    "labelFontSize",
    "titleFontSize",
    "subtitleFontSize",
    "dx",
    "dy",
    "strokeWidth",
    "labelPadding",
    "symbolSize",
    "lineHeight",
)
BAR = 0.6  # of a panel's width; the rest is for the words
NO_TITLE = alt.TitleParams("")  # a slide has its own


def enlarged(chart: Chart, height: int) -> Chart:
    """A chart of the app without its title, its type and offsets enlarged.

    Args:
        chart: any.
        height: in pixels.
    """
    return Chart({**_enlarged(chart.template), "height": height}, NO_TITLE, chart.datasets, chart.params)


def _enlarged(part: Any) -> Any:
    if isinstance(part, dict):
        return {
            key: round(FACTOR * value, 1) if key in SIZED and isinstance(value, int | float) else _enlarged(value)
            for key, value in part.items()
        }
    return [_enlarged(one) for one in part] if isinstance(part, list) else part


def moved_and_held(estimates: Mapping[str, Estimate]) -> Chart:
    """Bytes moved to the first token, and the peak of live activations, a bar a mode.

    Args:
        estimates: of one point by attention mode, the one to compare with first.
    """
    moved = {mode: _to_first(one, "io_bytes") for mode, one in estimates.items()}
    held = {mode: {"peak activations": one.footprint.peak_activation_bytes} for mode, one in estimates.items()}
    return panels({"moved to the first token": moved, "held at once, beside weights": held}, lambda value: si(value, "B"))


def first_token(timings: Mapping[str, Timing]) -> Chart:
    """Roofline time to the first token, a bar a mode, vision and prefill apart.

    Args:
        timings: of one point on one device by attention mode.
    """
    return panels({"time to the first token": {mode: _seconds(one, ("vision", "prefill")) for mode, one in timings.items()}}, seconds)


def one_token(estimates: Mapping[str, Estimate]) -> Chart:
    """What a decode step moves on average: weights, KV cache and activations, a bar a mode.

    Args:
        estimates: of one point with output tokens.
    """
    table = {}
    for mode, one in estimates.items():
        row, steps = one.stage_numbers["decode"], one.workload.output_tokens
        table[mode] = {kind: row[column] / steps for kind, (column, _) in TRAFFIC.items()}
    return panels({"moved for each output token": table}, lambda value: si(value, "B"))


def _to_first(estimate: Estimate, column: str) -> dict[str, float]:
    return {stage: estimate.stage_numbers[stage][column] for stage in ("vision", "prefill")}


def _seconds(timing: Timing, stages: Sequence[str]) -> dict[str, float]:
    return {row["stage"]: row["roofline_seconds"] for row in timing.stages.to_dicts() if row["stage"] in stages}


def panels(table: Mapping[str, Mapping[str, Mapping[str, float]]], words: Any) -> Chart:
    """Stacked bars by mode, a panel a measure, each on a scale of its own from zero; savings against the first mode written at the bars.

    Args:
        table: {panel: {mode: {part: value}}}.
        words: a value in words.
    """
    bars, texts, told, heads = [], [], [], []
    for position, (panel, modes) in enumerate(table.items()):
        sums = {mode: sum(parts.values()) for mode, parts in modes.items()}
        most, base = max(sums.values()) or 1, next(iter(sums.values()))
        heads.append({"x": position, "text": panel})
        for mode, parts in modes.items():
            start = float(position)
            for part, value in parts.items():
                end = start + BAR * value / most
                bars.append({"mode": mode, "kind": part, "x": start, "end": end, "value": words(value), "what": panel})
                start = end
            texts.append({"mode": mode, "end": start, "text": words(sums[mode])})
            told.append({"mode": mode, "end": start, "text": saved(sums[mode], base, words) if mode != next(iter(modes)) else ""})
    order = tuple(next(iter(table.values())))
    kinds = tuple(dict.fromkeys(bar["kind"] for bar in bars))
    return Chart(
        _panels_template(order, kinds),
        NO_TITLE,
        {"bars": bars, "texts": texts, "told": told, "heads": heads, "room": [{"end": len(table) - 0.01}, {"end": 0}]},
    )


@lru_cache(maxsize=32)
def _panels_template(modes: Names, kinds: Names) -> dict[str, Any]:
    colours = STAGE_COLOURS | KINDS | {kind: colour for kind, (_, colour) in TRAFFIC.items()}
    y = alt.Y(
        "mode",
        type="nominal",
        sort=modes,
        scale=alt.Scale(domain=modes),
        axis=alt.Axis(title=None, ticks=False, domain=False, labelPadding=12, labelFontSize=TYPE + 3, labelFontWeight="bold"),
    )
    start, end = (
        alt.X("x", type="quantitative", axis=None),
        alt.X("end", type="quantitative", axis=None, scale=alt.Scale(nice=False, zero=True)),
    )
    legend = alt.Legend(orient="bottom", labelFontSize=TYPE, symbolSize=250)
    colour = alt.Color(
        "kind", type="nominal", title=None, legend=legend, scale=alt.Scale(domain=kinds, range=[colours[kind] for kind in kinds])
    )
    tips = (("mode", "attention"), ("what", "what"), ("kind", "part"), ("value", "value"))
    tooltip = [alt.Tooltip(name, type="nominal", title=label) for name, label in tips]
    word, text = alt.Text("text", type="nominal"), {"align": "left", "baseline": "middle", "dx": 10, "color": INK}
    return compiled(
        alt.Chart(data("room")).mark_point(opacity=0, tooltip=None).encode(end),
        alt.Chart(data("heads"))
        .mark_text(align="left", baseline="bottom", y=-8, fontSize=TYPE, fontWeight="bold", color=INK)
        .encode(start, word),
        alt.Chart(data("bars")).mark_bar(height={"band": 0.66}).encode(y, start, alt.X2("end"), colour, tooltip=tooltip),
        alt.Chart(data("texts")).mark_text(dy=-12, fontSize=TYPE + 3, fontWeight="bold", **text).encode(y, end, word),
        alt.Chart(data("told")).mark_text(dy=14, fontSize=TYPE, **text).encode(y, end, word),
        height=100 * len(modes),
    )


def attention_traffic(sweep: pl.DataFrame, context_tokens: int) -> Chart:
    """Bytes that decoder attention moves in prefill against the tokens of the context, a line a mode.

    Args:
        sweep: `of.sweep(level="module")` over ascending contexts in several attention modes.
        context_tokens: the current context, marked.
    """
    found = _attention_rows(sweep)
    modes = tuple(dict.fromkeys(row["mode"] for row in found))
    most = max(row["tokens"] for row in found)
    ends = _joined([row for row in found if row["tokens"] == most])
    points = [{**row, "size": si(row["value"], "B")} for row in found]
    mark = [{"tokens": context_tokens, "text": f"{context_tokens:,} now"}] if context_tokens <= most else []
    room = [{"tokens": 1.25 * most, "value": 0}]
    return Chart(_lines_template(modes), NO_TITLE, {"points": points, "ends": ends, "mark": mark, "room": room})


def _attention_rows(sweep: pl.DataFrame) -> list[Row]:
    return [
        {"mode": row["attention"], "tokens": row["context_tokens"], "value": row["io_bytes"]}
        for row in sweep.to_dicts()
        if (row["stage"], row["module"]) == ("prefill", "decoder.attention")
    ]


def doubling(sweep: pl.DataFrame) -> dict[str, float]:
    """How many times the bytes of decoder attention the longest context takes against one of half its tokens, by mode.

    Raises:
        KeyError: no context of half the tokens is in the sweep.
    """
    rows: dict[str, dict[int, int]] = {}
    for row in _attention_rows(sweep):
        rows.setdefault(row["mode"], {})[row["tokens"]] = row["value"]
    return {mode: by_tokens[most := max(by_tokens)] / by_tokens[most // 2] for mode, by_tokens in rows.items()}


def _joined(rows: list[Row]) -> list[Row]:
    """The words at the lines' ends; modes that end in the same place share them."""
    named: dict[int, list[str]] = {}
    for row in rows:
        named.setdefault(row["value"], []).append(row["mode"])
    return [
        {"mode": modes[0], "tokens": rows[0]["tokens"], "value": value, "text": f"{', '.join(modes)}: {si(value, 'B')}"}
        for value, modes in named.items()
    ]


@lru_cache(maxsize=8)
def _lines_template(modes: Names) -> dict[str, Any]:
    type_ = {"labelFontSize": TYPE, "titleFontSize": TYPE, "titleFontWeight": "normal"}
    x = alt.X(
        "tokens",
        type="quantitative",
        title="tokens of the context",
        scale=alt.Scale(nice=False, zero=True),
        axis=alt.Axis(format=",d", grid=False, tickCount=6, **type_),
    )
    y = alt.Y(
        "value",
        type="quantitative",
        title="moved by decoder attention",
        axis=alt.Axis(labelExpr=f"format(datum.value, '{SI}') + 'B'", tickCount=5, **type_),
    )
    colour = alt.Color(
        "mode", type="nominal", legend=None, scale=alt.Scale(domain=modes, range=[COLOURS.get(mode, OTHER) for mode in modes])
    )
    tips = [
        alt.Tooltip("mode", type="nominal", title="attention"),
        alt.Tooltip("tokens", type="quantitative", format=",d"),
        alt.Tooltip("size", type="nominal", title="bytes"),
    ]
    points, mark, word = alt.Chart(data("points")), alt.Chart(data("mark")), alt.Text("text", type="nominal")
    large = {"fontSize": TYPE, "fontWeight": "bold"}
    return compiled(
        points.mark_line(strokeWidth=4).encode(x, y, colour),
        points.mark_point(size=90, filled=True, opacity=1).encode(x, y, colour, tooltip=tips),
        alt.Chart(data("ends")).mark_text(align="left", baseline="middle", dx=12, **large).encode(x, y, word, colour),
        mark.mark_rule(strokeDash=[5, 5], color=INK, strokeWidth=2).encode(x),
        mark.mark_text(align="center", baseline="bottom", y=-6, color=INK, **large).encode(x, word),
        alt.Chart(data("room")).mark_point(opacity=0, tooltip=None).encode(x, y),
        height=330,
    )
