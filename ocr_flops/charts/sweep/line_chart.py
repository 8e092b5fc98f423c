"""A chart of a sweep along what varies: lines named at their ends, bands where a place stands for several points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from ocr_flops.charts.chart import Chart, Template, compiled, data, title
from ocr_flops.charts.sweep import axes
from ocr_flops.charts.sweep.lines import Line, Measure, Place, bar_chart, list_lines, merge_lines
from ocr_flops.charts.sweep.summary import SweepSummary
from ocr_flops.charts.sweep.wording import explain_lines, list_omissions, name_axis
from ocr_flops.charts.theme import INK

DASHES = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [1, 3], [10, 4])
MARK = "#888888"
LETTER_PX, WIDTH_PX = 7.2, 730  # of words at the ends of lines; of the narrowest plot, about
MAX_ROOM = 0.45  # of the width, for those words
MAX_DOTS = 60  # places on the axis with a dot each


def measure_chart(summary: SweepSummary, measure: Measure, words: Sequence[str], marks: Sequence[tuple[float, str]] = ()) -> Chart:
    """The chart of a measure: lines along what varies, or bars where nothing does.

    Args:
        summary: of the sweep.
        measure: what it shows.
        words: the finding, then further lines.
        marks: values with their names, drawn across.
    """
    lines = list_lines(summary, measure)
    if all(len({end for place in line.places for end in (place.low, place.high)}) == 1 for line in lines):
        heading = title(*words, *list_omissions(summary), width=100)
        return bar_chart(summary, measure, merge_lines(lines, measure.log, alike=0), heading)
    lines = merge_lines(lines, measure.log)
    places = sorted({place.x for line in lines for place in line.places})
    values = [end for line in lines for place in line.places for end in (place.low, place.high)]
    bottom, top = axes.find_domain([*values, *(value for value, _ in marks)], measure.log)
    several = len({line.series for line in lines}) > 1
    points, ends = [], []
    for number, line in enumerate(lines):
        colour, name, last = line.colour(summary, measure), line.name(summary), line.places[-1]
        same = {"line": number, "colour": colour, "dash": line.number(summary) if several else 0, "what": name}
        points += [{**same, **_point(summary, measure, place)} for place in line.places]
        text = ": ".join(part for part in (name, measure.format(last.value)) if part)
        ends.append({"x": last.x, "value": last.value, "colour": colour, "text": text})
    ends += [{"x": places[-1], "value": value, "colour": MARK, "text": text} for value, text in marks]
    axes.separate_words(ends, bottom, top, measure.log)
    room = min(MAX_ROOM, max(len(end["text"]) for end in ends) * LETTER_PX / WIDTH_PX + 0.02)
    x = axes.place_axis(summary, places, room)
    y = alt.Y("value", type="quantitative", **axes.value_axis(measure.name, measure.unit, measure.log, bottom, top))
    rules = [{"value": value, "x": places[0], "end": places[-1]} for value, _ in marks]
    datasets = {"points": points, "ends": ends, "marks": rules, "border": _border(lines)}
    heading = title(*words, *_notes(summary, lines), width=100)
    return Chart(_template(summary, measure, x, y, len(lines), len(places)), heading, datasets)


def _point(summary: SweepSummary, measure: Measure, place: Place) -> dict[str, Any]:
    one = place.low == place.high
    words = measure.format(place.value) if one else f"{measure.format(place.low)} to {measure.format(place.high)}"
    band = {} if one else {"low": place.low, "high": place.high}
    where = summary.layout.resolutions.get(place.x) or f"{place.x:,.6g}"
    published = "yes" if place.published else "no"
    return {"x": place.x, "where": where, "value": place.value, **band, "words": words, "published": published, "n": place.n}


def _notes(summary: SweepSummary, lines: list[Line]) -> list[str]:
    """Conditions below a title: what is filled, held, left out, or put together."""
    places = [place for line in lines for place in line.places]
    kinds = {place.published for place in places}
    known = f"{summary.published:,} of {summary.count:,} points"
    if len(kinds) == 2 and len({place.x for place in places}) <= MAX_DOTS:
        first = [f"Filled: grids that the published code cuts ({known}); hollow: beyond them"]
    else:
        first = [f"{known} are on grids that the published code cuts"] if False in kinds else []
    return [*first, *list_omissions(summary), *explain_lines(summary)]


def _border(lines: list[Line]) -> list[dict[str, Any]]:
    """The place beyond which no point is on a grid of the published code; none where there is none before or beyond it."""
    places = {place.x: place.published for line in lines for place in line.places}
    inside = [x for x, published in places.items() if published]
    return [{"x": max(inside), "text": "largest grid of the published code"}] if inside and max(inside) < max(places) else []


def _template(summary: SweepSummary, measure: Measure, x: alt.X, y: alt.Y, lines: int, places: int) -> Template:
    """Layers over the datasets of `measure_chart`.

    Args:
        summary, measure: what is drawn.
        x, y: axes.
        lines, places: how many there are.
    """
    colour = alt.Color("colour", type="nominal", scale=None)
    numbers = list(range(len(summary.series)))
    dashes = alt.Scale(domain=numbers, range=[DASHES[number % len(DASHES)] for number in numbers])
    dash = alt.StrokeDash("dash", type="nominal", legend=None, scale=dashes)
    tips = {"where": name_axis(summary), "what": "what", "words": measure.name, "published": "grid of the published code", "n": "points"}
    left_out = {*(["what"] if lines == 1 else []), *([] if summary.has_ranges else ["n"])}
    tooltip = [alt.Tooltip(name, type="nominal", title=words) for name, words in tips.items() if name not in left_out]
    points, border, marks, ends = (alt.Chart(data(name)) for name in ("points", "border", "marks", "ends"))
    one, word = alt.Detail("line", type="nominal"), alt.Text("text", type="nominal")
    band = points.transform_filter("isValid(datum.low)").mark_area(opacity=0.16)
    layers = [
        border.mark_rule(strokeDash=[3, 4], color=INK, opacity=0.7).encode(x),
        border.mark_text(align="left", baseline="top", dx=5, fontSize=11, color=INK).encode(x, word, y=alt.value(3)),
        marks.mark_rule(strokeDash=[2, 3], color=MARK).encode(x, y, alt.X2("end")),
        *([band.encode(x, alt.Y("low", type="quantitative"), alt.Y2("high"), colour, one)] if summary.has_ranges else []),
        points.mark_line(strokeWidth=2.2).encode(x, y, colour, dash, one),
    ]
    if places <= MAX_DOTS:
        hollow = alt.FillOpacityValue(1, condition={"test": "datum.published == 'no'", "value": 0})
        fill = alt.Fill("colour", type="nominal", scale=None)
        layers.append(points.mark_point(size=34, strokeWidth=1.5, opacity=1).encode(x, y, colour, fill, hollow, tooltip=tooltip))
    else:
        layers.append(points.mark_point(size=60, opacity=0).encode(x, y, tooltip=tooltip))
    text = ends.mark_text(align="left", baseline="middle", dx=9, fontSize=12, fontWeight="bold")
    layers.append(text.encode(x, word, colour, y=alt.Y("y", type="quantitative", scale=None)))
    return compiled(*layers, height=axes.HEIGHT)
