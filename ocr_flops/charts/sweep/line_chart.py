"""A chart of a sweep: lines along what varies, named at their ends, with bands of several points; bars where each line has one value."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import altair as alt

from ocr_flops.charts.bars import StageBars, row_axis
from ocr_flops.charts.chart import Chart, Template, compiled, data, title
from ocr_flops.charts.encoding import WORDS, log_ticks, si_axis, tips, y_of
from ocr_flops.charts.sweep.lines import COLOURS, Line, Measure, Place, list_lines, merge_lines
from ocr_flops.charts.sweep.summary import SweepSummary
from ocr_flops.charts.sweep.wording import LONG, Wording
from ocr_flops.charts.theme import INK
from ocr_flops.units import SI

DASHES = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [1, 3], [10, 4])
MARK = "#888888"
LETTER_PX, WIDTH_PX = 7.2, 730  # of words at the ends of lines; of the narrowest plot, about
MAX_ROOM = 0.45  # of the width, for those words
MAX_DOTS = 60  # places on the axis with a dot each
ROW_PX, LEAST_PX = 24, 60  # of bars, and of all of them
ROOM = 1.15  # of the longest bar, for its number
COLOUR = alt.Color("colour", type="nominal", scale=None)
HEIGHT, LINE_PX = 340, 15
NICE = (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9, 10, 12)


def measure_chart(words: Wording, measure: Measure, finding: Sequence[str], marks: Sequence[tuple[float, str]] = ()) -> Chart:
    """The chart of a measure: lines along what varies, or bars where nothing does.

    Args:
        words: of the sweep's summary.
        measure: what it shows.
        finding: the title, then lines below it.
        marks: values with their names, drawn across.
    """
    summary = words.summary
    lines = list_lines(summary, measure)
    if all(len({end for place in line.places for end in (place.low, place.high)}) == 1 for line in lines):
        return _bar_chart(words, measure, finding, merge_lines(lines, measure.log, alike=0))
    lines = merge_lines(lines, measure.log)
    places = sorted({place.x for line in lines for place in line.places})
    values = [end for line in lines for place in line.places for end in (place.low, place.high)]
    bottom, top = find_domain([*values, *(value for value, _ in marks)], measure.log)
    several = len({line.series for line in lines}) > 1
    points, ends = [], []
    for number, line in enumerate(lines):
        colour, name, last = line.colour(summary, measure), line.name(words), line.places[-1]
        same = {"line": number, "colour": colour, "dash": line.number(summary) if several else 0, "what": name}
        points += [{**same, **_point(summary, measure, place)} for place in line.places]
        text = ": ".join(part for part in (name, measure.format(last.value)) if part)
        ends.append({"x": last.x, "value": last.value, "colour": colour, "text": text})
    ends += [{"x": places[-1], "value": value, "colour": MARK, "text": text} for value, text in marks]
    separate_words(ends, bottom, top, measure.log)
    room = min(MAX_ROOM, max(len(end["text"]) for end in ends) * LETTER_PX / WIDTH_PX + 0.02)
    x = place_axis(words, places, room)
    y = y_of("value", **value_axis(measure.name, measure.unit, measure.log, bottom, top))
    rules = [{"value": value, "x": places[0], "end": places[-1]} for value, _ in marks]
    datasets = {"points": points, "ends": ends, "marks": rules, "border": _border(lines)}
    heading = title(*finding, *_notes(words, lines), width=100)
    return Chart(_template(words, measure, x, y, len(lines), len(places)), heading, datasets)


def _bar_chart(words: Wording, measure: Measure, finding: Sequence[str], lines: list[Line]) -> Chart:
    """The chart of a measure that is the same all along: a bar per line."""
    bottom, top = find_domain([line.places[0].value for line in lines], measure.log)
    rows = [
        {
            "row": line.name(words) or ("this point" if words.summary.count == 1 else "all points"),
            "value": line.places[0].value,
            "start": bottom,
            "text": measure.format(line.places[0].value),
            "colour": line.colour(words.summary, measure) if measure.colours else COLOURS[0],
        }
        for line in lines
    ]
    bars = StageBars(row_axis(), value_axis(measure.name, measure.unit, measure.log, bottom, ROOM * top))
    layers = [
        bars.segments("bars", COLOUR, tips(row="what", text=measure.name), start="start", end="value", band=0.46),
        bars.words("bars", at="value", dx=6, fontSize=12),
    ]
    heading = title(*finding, *words.omissions, width=100)
    return Chart(
        compiled(*layers, height=max(LEAST_PX, ROW_PX * len(rows))), heading, {"bars": rows}, {"rows": [row["row"] for row in rows]}
    )


def _point(summary: SweepSummary, measure: Measure, place: Place) -> dict[str, Any]:
    one = place.low == place.high
    words = measure.format(place.value) if one else f"{measure.format(place.low)} to {measure.format(place.high)}"
    band = {} if one else {"low": place.low, "high": place.high}
    where = summary.layout.resolutions.get(place.x) or f"{place.x:,.6g}"
    published = "yes" if place.published else "no"
    return {"x": place.x, "where": where, "value": place.value, **band, "words": words, "published": published, "n": place.n}


def _notes(words: Wording, lines: list[Line]) -> list[str]:
    """Conditions below a title: what is filled, held, left out, or put together."""
    places = [place for line in lines for place in line.places]
    kinds = {place.published for place in places}
    known = f"{words.summary.published:,} of {words.summary.count:,} points"
    if len(kinds) == 2 and len({place.x for place in places}) <= MAX_DOTS:
        first = [f"Filled: grids that the published code cuts ({known}); hollow: beyond them"]
    else:
        first = [f"{known} are on grids that the published code cuts"] if False in kinds else []
    return [*first, *words.omissions, *words.ranges]


def _border(lines: list[Line]) -> list[dict[str, Any]]:
    """The place beyond which no point is on a grid of the published code; none where there is none before or beyond it."""
    places = {place.x: place.published for line in lines for place in line.places}
    inside = [x for x, published in places.items() if published]
    return [{"x": max(inside), "text": "largest grid of the published code"}] if inside and max(inside) < max(places) else []


def _template(words: Wording, measure: Measure, x: alt.X, y: alt.Y, lines: int, places: int) -> Template:
    """Layers over the datasets of `measure_chart`.

    Args:
        words, measure: what is drawn.
        x, y:
        lines, places: how many there are.
    """
    numbers = list(range(len(words.summary.series)))
    dashes = alt.Scale(domain=numbers, range=[DASHES[number % len(DASHES)] for number in numbers])
    dash = alt.StrokeDash("dash", type="nominal", legend=None, scale=dashes)
    about = {"where": words.axis, "what": "what", "words": measure.name, "published": "grid of the published code", "n": "points"}
    left_out = {*(["what"] if lines == 1 else []), *([] if words.summary.has_ranges else ["n"])}
    tooltip = tips(**{name: head for name, head in about.items() if name not in left_out})
    points, border, marks, ends = (alt.Chart(data(name)) for name in ("points", "border", "marks", "ends"))
    one = alt.Detail("line", type="nominal")
    band = points.transform_filter("isValid(datum.low)").mark_area(opacity=0.16)
    layers = [
        border.mark_rule(strokeDash=[3, 4], color=INK, opacity=0.7).encode(x),
        border.mark_text(align="left", baseline="top", dx=5, fontSize=11, color=INK).encode(x, WORDS, y=alt.value(3)),
        marks.mark_rule(strokeDash=[2, 3], color=MARK).encode(x, y, alt.X2("end")),
        band.encode(x, y_of("low"), alt.Y2("high"), COLOUR, one),
        points.mark_line(strokeWidth=2.2).encode(x, y, COLOUR, dash, one),
    ]
    if places <= MAX_DOTS:
        hollow = alt.FillOpacityValue(1, condition={"test": "datum.published == 'no'", "value": 0})
        fill = alt.Fill("colour", type="nominal", scale=None)
        layers.append(points.mark_point(size=34, strokeWidth=1.5, opacity=1).encode(x, y, COLOUR, fill, hollow, tooltip=tooltip))
    else:
        layers.append(points.mark_point(size=60, opacity=0).encode(x, y, tooltip=tooltip))
    text = ends.mark_text(align="left", baseline="middle", dx=9, fontSize=12, fontWeight="bold")
    layers.append(text.encode(x, WORDS, COLOUR, y_of("y", scale=None)))
    return compiled(*layers, height=HEIGHT)


def find_domain(values: Sequence[float], log: bool) -> tuple[float, float]:
    """Both ends of an axis over values: from 0 to a round number, or some way around them where it is logarithmic."""
    top = max(values, default=1) or 1
    if log:
        return min((value for value in values if value > 0), default=top / 10) / 1.5, top * 1.5
    step = 10 ** math.floor(math.log10(top))
    return 0, next(nice * step for nice in NICE if nice * step >= 1.03 * top)


def value_axis(name: str, unit: str, log: bool, bottom: float, top: float) -> dict[str, Any]:
    """Title, scale and axis of a measure.

    Args:
        name, unit, log: as of `lines.Measure`.
        bottom, top: of `find_domain`.
    """
    labels = si_axis(unit) if unit else "format(datum.value, ',~g')"
    scale = alt.Scale(type="log" if log else "linear", domain=[bottom, top], nice=False)
    values = {"values": log_ticks(bottom, top)} if log else {}
    return {"title": f"{name}, logarithmic" if log else name, "scale": scale, "axis": alt.Axis(labelExpr=labels, tickCount=6, **values)}


def place_axis(words: Wording, places: Sequence[float], room: float) -> alt.X:
    """The axis of what varies.

    Args:
        words: of the sweep.
        places: all of them.
        room: part of the width to leave free on the right.
    """
    low, high = min(places), max(places)
    width = (high - low) or 1
    scale = alt.Scale(domain=[low - 0.02 * width, low + width / (1 - room)], nice=False, zero=False)
    if resolutions := words.summary.layout.resolutions:
        names = json.dumps(list(resolutions.values()))
        ticks = {"values": list(resolutions), "labelExpr": f"{names}[datum.value]", "labelOverlap": False}
    else:
        ticks = {"values": _round_numbers(low, high) if high > low else [low], "format": ",~r" if high < LONG else SI}
    return alt.X("x", type="quantitative", title=words.axis, scale=scale, axis=alt.Axis(titleAnchor="start", **ticks))


def separate_words(ends: list[dict[str, Any]], bottom: float, top: float, log: bool) -> None:
    """Sets where the words at the ends of lines stand, none over another: `y`, in pixels from the top.

    Args:
        ends: with the `value` of each.
        bottom, top, log: of the axis.
    """

    def pixel(value: float) -> float:
        part = math.log(value / bottom) / math.log(top / bottom) if log else (value - bottom) / (top - bottom)
        return HEIGHT * (1 - part)

    ends.sort(key=lambda end: -end["value"])
    for end in ends:
        end["y"] = pixel(end["value"])
    for above, below in pairwise(ends):
        below["y"] = max(below["y"], above["y"] + LINE_PX)
    limit = HEIGHT - 8  # clear of the axis
    for end in reversed(ends):
        end["y"] = min(end["y"], limit)
        limit = end["y"] - LINE_PX


def _round_numbers(low: float, high: float) -> list[float]:
    """Round numbers from low to high."""
    step = 10 ** math.floor(math.log10((high - low) / 4 or 1))
    step = max(1, next(step * nice for nice in (1, 2, 5, 10) if (high - low) / (step * nice) <= 9))
    return [step * number for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
