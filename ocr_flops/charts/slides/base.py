"""Charts to be read from the back of a room: they fill their slide, and their type grows with the screen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import altair as alt

from ocr_flops.charts.chart import Chart, Template, Title, compiled, data
from ocr_flops.charts.theme import INK, OWN_COLOUR, WORDS, attention_colour, tips, x_of, y_of
from ocr_flops.units import SI, si

if TYPE_CHECKING:
    import polars as pl

Row = dict[str, Any]
TYPE = 21  # px, of words on a screen of 1280 x 720
FACTOR = 1.6  # by which a chart of the app is enlarged on such a screen
SCREEN = {  # 1 on such a screen; Vega asks anew whenever the chart's own size changes
    "name": "unit",
    "expr": "min(windowSize()[0] / 1280, windowSize()[1] / 720) + 0 * (width + height)",
}
LENGTHS = {
    "fontSize", "labelFontSize", "titleFontSize", "labelLimit", "labelPadding", "titlePadding", "columnPadding", "rowPadding",
    "strokeWidth", "symbolStrokeWidth", "lineHeight", "dx", "dy",
}  # fmt: skip
AREAS = {"size", "symbolSize"}
SHOWN = {"embedOptions": {"renderer": "svg", "actions": False}}  # sharp at any size, in the slide's own colour, without a menu
FULL_INK = "currentColor"  # words as dark, or as light, as the slide's own
HEADROOM = 1.08  # of the highest point, for the words beside it
NO_TITLE = Title([], [])  # a slide has its own


def large(template: Template, factor: float = 1, colours: Mapping[str, str] | None = None) -> Template:
    """A template as high and as wide as its place, whose lengths are multiples of the screen's; too free for Altair's schema.

    Args:
        template: with lengths in px.
        factor: of all lengths on a screen of 1280 x 720.
        colours: that take the place of others.
    """
    spec = in_units(template.spec, factor, colours)
    legend = {**spec["config"]["legend"], "symbolSize": {"expr": "260 * unit * unit"}}
    config = {**spec["config"], "legend": legend, "autosize": {"type": "fit", "contains": "padding"}}
    return Template({**spec, "height": "container", "config": config, "params": [SCREEN], "usermeta": SHOWN})


@lru_cache(maxsize=64)
def _enlarged_template(template: Template, factor: float, colours: tuple[tuple[str, str], ...]) -> Template:
    return large(template, factor, dict(colours))


def enlarged(chart: Chart, colours: Mapping[str, str] | None = None, factor: float = FACTOR) -> Chart:
    """A chart without its title that fills a slide: its type and offsets grow with the screen, its grey words take the slide's colour.

    Args:
        chart: any.
        colours: that take the place of others.
        factor: of all lengths on a screen of 1280 x 720.
    """
    swapped = colours or {}
    rows = {name: [_recoloured(row, swapped) for row in found] for name, found in chart.datasets.items()} if swapped else chart.datasets
    return Chart(_enlarged_template(chart.template, factor, tuple(swapped.items())), NO_TITLE, rows, chart.params)


def _recoloured(row: Row, colours: Mapping[str, str]) -> Row:
    return {name: colours.get(value, value) if isinstance(value, str) else value for name, value in row.items()}


def in_units(part: Any, factor: float = 1, colours: Mapping[str, str] | None = None) -> Any:
    """A specification with all lengths in units of `SCREEN`, and grey words in the slide's colour.

    Args:
        part: the specification, or a part of it.
        factor: of all lengths on a screen of 1280 x 720.
        colours: that take the place of others.
    """
    swapped = {INK: FULL_INK, **(colours or {})}
    if isinstance(part, dict):
        grown = {name: in_units(value, factor, colours) for name, value in part.items()}
        edges = {"x", "y"} if part.get("type") == "text" else set()  # of words that stand at an edge of the chart
        grown |= {name: _length(part[name], factor) for name in (LENGTHS | edges) & part.keys()}
        return grown | {name: _length(part[name], factor**2, "unit * unit") for name in AREAS & part.keys()}
    if isinstance(part, list):
        return [in_units(one, factor, colours) for one in part]
    return swapped.get(part, part) if isinstance(part, str) else part


def _length(value: Any, factor: float, unit: str = "unit") -> Any:
    return {"expr": f"{round(factor * value, 2)} * {unit}"} if isinstance(value, int | float) and value else in_units(value, factor)


def attention_traffic(sweep: pl.DataFrame, context_tokens: int) -> Chart:
    """Bytes that decoder attention moves in prefill against the tokens of the context, a line a mode.

    Args:
        sweep: `of.sweep(level="module")` over ascending contexts in several attention modes.
        context_tokens: the current context, marked.
    """
    found = _attention_rows(sweep)
    most = max(row["tokens"] for row in found)
    ends = _joined([row for row in found if row["tokens"] == most])
    points = [{**row, "size": si(row["value"], "B")} for row in found]
    mark = [{"tokens": context_tokens, "text": f"the page: {context_tokens:,}"}]
    params = {"room": 1.3 * most, "highest": HEADROOM * max(row["value"] for row in found)}
    return Chart(_lines_template(), NO_TITLE, {"points": points, "ends": ends, "mark": mark}, params)


def _attention_rows(sweep: pl.DataFrame) -> list[Row]:
    return [
        {
            "mode": row["attention"],
            "colour": attention_colour(row["attention"]),
            "tokens": row["context_tokens"],
            "value": row["io_bytes"],
        }
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
        {
            "mode": modes[-1],
            "colour": attention_colour(modes[-1]),
            "tokens": rows[0]["tokens"],
            "value": value,
            "text": f"{', '.join(modes)}: {si(value, 'B')}",
        }
        for value, modes in named.items()
    ]


def savings_by_tiles(chart: Chart) -> Chart:
    """`charts.savings_by_tiles` for a slide: the words at the lines' ends give savings in percent alone, for which there is room.

    Args:
        chart: of the app.
    """
    ends = [{**end, "text": f"{end['named']}: {end['size']}{_percent(end['saved'])}"} for end in chart.datasets["ends"]]
    params = {**chart.params, "highest": HEADROOM * chart.params["highest"]}
    return enlarged(replace(chart, datasets={**chart.datasets, "ends": ends}, params=params))


def _percent(saved: str) -> str:
    """The last part of `savings.saved`: ", −61 %"."""
    return f", {saved.rpartition(', ')[2]}" if "%" in saved else ""


@cache
def _lines_template() -> Template:
    type_ = {"labelFontSize": TYPE, "titleFontSize": TYPE}
    scale = alt.Scale(domain=[0, alt.ExprRef("room")], nice=False)
    x = x_of("tokens", title="tokens of the context", scale=scale, axis=alt.Axis(format=",d", grid=False, tickCount=6, **type_))
    axis = alt.Axis(labelExpr=f"format(datum.value, '{SI}') + 'B'", tickCount=5, **type_)
    y = y_of("value", title="moved by decoder attention", scale=alt.Scale(domain=[0, alt.ExprRef("highest")], nice=True), axis=axis)
    about = [*tips(mode="attention", size="bytes"), alt.Tooltip("tokens", type="quantitative", format=",d")]
    points, ends, mark = (alt.Chart(data(name)) for name in ("points", "ends", "mark"))
    bold = {"align": "left", "fontSize": TYPE + 1, "fontWeight": "bold"}
    template = compiled(
        points.mark_line(strokeWidth=5).encode(x, y, OWN_COLOUR),
        points.mark_point(size=110, filled=True, opacity=1).encode(x, y, OWN_COLOUR, about),
        ends.mark_text(baseline="bottom", dx=14, dy=4, **bold).encode(x, y, WORDS, OWN_COLOUR),
        mark.mark_rule(strokeDash=[6, 6], color=INK, strokeWidth=2.5).encode(x),
        mark.mark_text(baseline="top", dx=10, y=2, color=INK, **bold).encode(x, WORDS),
        height=330,
    )
    return large(template)
