"""A chart of a sweep along what varies: lines named at their ends, bands where a place stands for several points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from ocr_flops.charts.chart import Chart, compiled, data, title
from ocr_flops.charts.sweep import axes
from ocr_flops.charts.sweep.bars import bars
from ocr_flops.charts.sweep.lines import Line, Measure, Place, lines, together
from ocr_flops.charts.sweep.summary import Shown
from ocr_flops.charts.theme import INK

DASHES = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [1, 3], [10, 4])
MARK = "#888888"
LETTER_PX, WIDTH_PX = 7.2, 730  # of words at the ends of lines; of the narrowest plot, about
MOST_ROOM = 0.45  # of the width, for those words
MOST_DOTS = 60  # places on the axis with a dot each


def chart(shown: Shown, measure: Measure, said: Sequence[str], marks: Sequence[tuple[float, str]] = ()) -> Chart:
    """One measure.

    Args:
        shown: of `reading.shown`.
        measure: which.
        said: the finding, then further lines.
        marks: values with their names, drawn across.
    """
    found = lines(shown, measure)
    if all(len({end for place in line.places for end in (place.low, place.high)}) == 1 for line in found):
        return bars(shown, measure, together(found, measure.log, alike=0), title(*said, *shown.part, width=100))
    drawn = together(found, measure.log)
    places = sorted({place.x for line in drawn for place in line.places})
    values = [end for line in drawn for place in line.places for end in (place.low, place.high)]
    bottom, top = axes.domain([*values, *(value for value, _ in marks)], measure.log)
    several = len({line.series for line in drawn}) > 1
    points, ends = [], []
    for number, line in enumerate(drawn):
        colour, called = line.colour(shown, measure), line.called(shown)
        alike = {"line": number, "colour": colour, "dash": line.number(shown) if several else 0, "what": called}
        points += [{**alike, **_point(shown, measure, place)} for place in line.places]
        last = line.places[-1]
        ends.append(
            {
                "x": last.x,
                "value": last.value,
                "colour": colour,
                "text": ": ".join(part for part in (called, measure.words(last.value)) if part),
            }
        )
    ends += [{"x": places[-1], "value": value, "colour": MARK, "text": text} for value, text in marks]
    axes.spread(ends, bottom, top, measure.log)
    room = min(MOST_ROOM, max(len(end["text"]) for end in ends) * LETTER_PX / WIDTH_PX + 0.02)
    x = axes.along(shown, places, room)
    y = alt.Y("value", type="quantitative", **axes.measured(measure, bottom, top))
    rules = [{"value": value, "x": places[0], "end": places[-1]} for value, _ in marks]
    datasets = {"points": points, "ends": ends, "marks": rules, "border": _border(drawn)}
    heading = title(*said, *_notes(shown, drawn), width=100)
    return Chart(_template(shown, measure, x, y, len(drawn), len(places)), heading, datasets)


def _point(shown: Shown, measure: Measure, place: Place) -> dict[str, Any]:
    one = place.n == 1 or place.low == place.high
    words = measure.words(place.value) if one else f"{measure.words(place.low)} to {measure.words(place.high)}"
    band = {} if one else {"low": place.low, "high": place.high}
    where = shown.names.get(place.x) or f"{place.x:,.6g}"
    return {
        "x": place.x,
        "where": where,
        "value": place.value,
        **band,
        "words": words,
        "vendor": "yes" if place.vendor else "no",
        "n": place.n,
    }


def _notes(shown: Shown, drawn: list[Line]) -> list[str]:
    """What is shown of the sweep, below the finding."""
    known = f"{shown.vendor_points:,} of {shown.count:,} points"
    kinds = {place.vendor for line in drawn for place in line.places}
    if len(kinds) > 1 and shown.lines["x"].n_unique() <= MOST_DOTS:
        return [f"Filled: grids that the vendor's code cuts ({known}); hollow: beyond them", *shown.part, *shown.pooled]
    if False in kinds:
        return [f"{known} are on grids that the vendor's code cuts", *shown.part, *shown.pooled]
    return [*shown.part, *shown.pooled]


def _border(drawn: list[Line]) -> list[dict[str, Any]]:
    """The place beyond which no point is a grid of the vendor's code; none where there is none before or beyond it."""
    places = {place.x: place.vendor for line in drawn for place in line.places}
    inside = [x for x, vendor in places.items() if vendor]
    return [{"x": max(inside), "text": "largest vendor grid"}] if inside and max(inside) < max(places) else []


def _template(shown: Shown, measure: Measure, x: alt.X, y: alt.Y, many: int, places: int) -> dict[str, Any]:
    """Layers over the datasets of `chart`.

    Args:
        many: lines.
        places: on the axis.
    """
    colour = alt.Color("colour", type="nominal", scale=None)
    numbers = list(range(max(len(shown.kinds), 1)))
    dashes = alt.Scale(domain=numbers, range=[DASHES[number % len(DASHES)] for number in numbers])
    dash = alt.StrokeDash("dash", type="nominal", legend=None, scale=dashes)
    tips = {"words": measure.name, "vendor": "vendor's grid"}
    tips = {**({"what": "what"} if many > 1 else {}), **tips, **({"n": "points"} if shown.spread else {})}
    tips = {"where": shown.axis_name, **tips}
    tooltip = [alt.Tooltip(name, type="nominal", title=words) for name, words in tips.items()]
    points, border, marks, ends = (alt.Chart(data(name)) for name in ("points", "border", "marks", "ends"))
    one, word = alt.Detail("line", type="nominal"), alt.Text("text", type="nominal")
    band = points.transform_filter("isValid(datum.low)").mark_area(opacity=0.16)
    layers = [
        border.mark_rule(strokeDash=[3, 4], color=INK, opacity=0.7).encode(x),
        border.mark_text(align="left", baseline="top", dx=5, fontSize=11, color=INK).encode(x, word, y=alt.value(3)),
        marks.mark_rule(strokeDash=[2, 3], color=MARK).encode(x, y, alt.X2("end")),
        *([band.encode(x, alt.Y("low", type="quantitative"), alt.Y2("high"), colour, one)] if shown.spread else []),
        points.mark_line(strokeWidth=2.2).encode(x, y, colour, dash, one),
    ]
    if places <= MOST_DOTS:
        hollow = alt.FillOpacityValue(1, condition={"test": "datum.vendor == 'no'", "value": 0})
        fill = alt.Fill("colour", type="nominal", scale=None)
        layers.append(points.mark_point(size=34, strokeWidth=1.5, opacity=1).encode(x, y, colour, fill, hollow, tooltip=tooltip))
    else:
        layers.append(points.mark_point(size=60, opacity=0).encode(x, y, tooltip=tooltip))
    text = ends.mark_text(align="left", baseline="middle", dx=9, fontSize=12, fontWeight="bold")
    layers.append(text.encode(x, word, colour, y=alt.Y("y", type="quantitative", scale=None)))
    return compiled(*layers, height=axes.HEIGHT)
