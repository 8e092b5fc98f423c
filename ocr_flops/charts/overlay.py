"""What is laid over charts: the point shown, and what was measured."""

import textwrap
from collections.abc import Callable, Iterable

import altair as alt

from ocr_flops.charts.chart import Row, data
from ocr_flops.charts.encoding import WORDS, tips
from ocr_flops.charts.theme import INK, module_name
from ocr_flops.units import SI

MEASURED = "measured"  # the dataset of `measured_layer`
LOOK = {"shape": "diamond", "size": 95, "filled": True, "fill": "#FFFFFF", "stroke": "#000000", "strokeWidth": 1.5, "opacity": 1}
SHAPES = ["diamond", "triangle-up", "square", "triangle-down", "circle"]  # of what was counted, by what ran
BEYOND = "beyond this chart"


def mark_layers(x: alt.X) -> tuple[alt.Chart, alt.Chart]:
    """The point shown: a line across the chart where dataset "mark" has it, with its `text` above."""
    mark = alt.Chart(data("mark"))
    text = {"align": "center", "baseline": "bottom", "y": -4, "color": INK, "fontSize": 12, "fontWeight": "bold"}
    return mark.mark_rule(strokeDash=[4, 4], color=INK).encode(x), mark.mark_text(**text).encode(x, WORDS)


def measured_layer(x: alt.X, y: alt.Y, **words: str) -> alt.Chart:
    """What was measured, from dataset `MEASURED`: white diamonds with a dark edge, seen on every colour; `words` name further tooltips."""
    return alt.Chart(data(MEASURED)).mark_point(**LOOK).encode(x, y, tooltip=tips(**words, origin="where from"))


def origins(measured: Iterable[Row]) -> tuple[str, ...]:
    """A line below a title that says what the diamonds are; none without any."""
    found = tuple(dict.fromkeys(row["origin"] for row in measured))
    return (f"◇ {'; '.join(found)}",) if found else ()


def counted_point(row: Row, is_clear: bool, otherwise: str) -> Row:
    """FLOPs that were counted (a row of `spot_checks.beside`) with legend and tooltip; not clear is what is not of what is shown."""
    legend = [*textwrap.wrap(f"measured: {row['ran']}", 52), *([] if is_clear else [otherwise])]
    kept = {name: row[name] for name in ("counted_flops", "analytic_flops", "difference", "point", "stage")}
    return {**kept, "name": module_name(row["module"]), "clear": is_clear, "measured": "\n".join(legend)}


def points_inside(points: list[Row], fits: Callable[[Row], bool]) -> tuple[list[Row], list[str]]:
    """The points that fit a chart, and its legend, which also names those of which none does."""
    inside = [point for point in points if fits(point)]
    drawn = {point["measured"] for point in inside}
    names = dict.fromkeys(point["measured"] for point in points)
    return inside, [name if name in drawn else f"{name}; {BEYOND}" for name in names]


def counted_layer(x: alt.X, y: alt.Y, is_named: bool) -> alt.Chart:
    """What was counted, from dataset "points", with a legend of the parameter "ran" if there are any: Vega cannot draw one of nothing."""
    look = {"orient": "bottom", "direction": "vertical", "symbolFillColor": INK, "symbolSize": 90}
    legend = alt.Legend(labelExpr="split(datum.label, '\\n')", **look) if is_named else None
    scale = alt.Scale(domain=alt.ExprRef("ran"), range=SHAPES)
    faint = alt.OpacityValue(value=0.55, condition={"test": "datum.clear", "value": 1})
    tooltip = [
        *tips(measured="what ran", point="at", stage="stage", name="module"),
        alt.Tooltip("counted_flops", type="quantitative", title="counted", format=SI),
        alt.Tooltip("analytic_flops", type="quantitative", title="analytic, of what ran", format=SI),
        alt.Tooltip("difference", type="quantitative", format=",d"),
    ]
    points = alt.Chart(data("points")).mark_point(size=70, filled=True, fill="white", stroke="#333333", strokeWidth=1.4)
    return points.encode(x, y, alt.Shape("measured", type="nominal", title=None, scale=scale, legend=legend), faint, tooltip=tooltip)
