"""A chart of what is the same all along: a bar a kind and series."""

from __future__ import annotations

import altair as alt

from ocr_flops.charts.chart import Chart, Title, compiled, data
from ocr_flops.charts.sweep import axes
from ocr_flops.charts.sweep.lines import COLOURS, Line, Measure
from ocr_flops.charts.sweep.summary import Shown
from ocr_flops.charts.theme import INK

ROW_PX, LEAST_PX = 24, 60
ROOM = 1.15  # of the longest bar, for its number


def bars(shown: Shown, measure: Measure, found: list[Line], heading: Title) -> Chart:
    """A bar a line.

    Args:
        shown: of `reading.shown`.
        measure: what it shows.
        found: of `lines`; each has one value.
        heading: its title.
    """
    values = [line.places[0].value for line in found]
    bottom, top = axes.domain(values, measure.log)
    rows = [
        {
            "row": line.called(shown) or ("this point" if shown.count == 1 else "all points"),
            "value": line.places[0].value,
            "start": bottom,
            "text": measure.words(line.places[0].value),
            "colour": line.colour(shown, measure) if measure.colours else COLOURS[0],
        }
        for line in found
    ]
    order = [row["row"] for row in rows]
    axis = alt.Axis(title=None, ticks=False, domain=False, labelPadding=6)
    y = alt.Y("row", type="nominal", sort=order, scale=alt.Scale(domain=order), axis=axis)
    x = alt.X("value", type="quantitative", **axes.measured(measure, bottom, ROOM * top))
    over, colour = alt.Chart(data("bars")), alt.Color("colour", type="nominal", scale=None)
    tips = (("row", "what"), ("text", measure.name))
    tooltip = [alt.Tooltip(name, type="nominal", title=words) for name, words in tips]
    layers = [
        over.mark_rule(strokeWidth=11).encode(y, x, alt.X2("start"), colour, tooltip=tooltip),
        over.mark_text(align="left", baseline="middle", dx=6, fontSize=12, color=INK).encode(y, x, alt.Text("text", type="nominal")),
    ]
    return Chart(compiled(*layers, height=max(LEAST_PX, ROW_PX * len(rows))), heading, {"bars": rows})
