"""A chart of a sweep: lines along what varies, named at their ends, with bands of several points; bars where each line has one value."""

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import altair as alt

from ocr_flops.charts.bars import StageBars, row_axis
from ocr_flops.charts.chart import Chart, Row, compiled, data, title
from ocr_flops.charts.encoding import OWN_COLOUR, WORDS, log_ticks, si_axis, tips, y_of
from ocr_flops.charts.sweep.lines import COLOURS, Line, Measure, Place, list_ends, list_lines, merge_lines
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
HEIGHT, LINE_PX = 340, 15
NICE = (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9, 10, 12)


def measure_chart(words: Wording, measure: Measure, finding: Sequence[str], marks: Sequence[tuple[float, str]] = ()) -> Chart:
    """The chart of a measure: lines along what varies, or bars where nothing does.

    Args:
        finding: the title, then lines below it.
        marks: values with their names, drawn across.
    """
    lines = list_lines(words.summary, measure)
    if all(len(set(list_ends([line]))) == 1 for line in lines):
        return _bar_chart(words, measure, finding, merge_lines(lines, measure.log, alike=0))
    lines = merge_lines(lines, measure.log)
    places = sorted({place.x for line in lines for place in line.places})
    bottom, top = _domain([*list_ends(lines), *(value for value, _ in marks)], measure.log)
    several = len({line.series for line in lines}) > 1
    points, ends = [], []
    for number, line in enumerate(lines):
        colour, name, last = line.colour(words.summary, measure), line.name(words), line.places[-1]
        same = {"line": number, "colour": colour, "dash": line.number(words.summary) if several else 0, "what": name}
        points += [{**same, **_point(words, measure, place)} for place in line.places]
        text = ": ".join(part for part in (name, measure.format(last.value)) if part)
        ends.append({"x": last.x, "value": last.value, "colour": colour, "text": text})
    ends += [{"x": places[-1], "value": value, "colour": MARK, "text": text} for value, text in marks]
    _separate_words(ends, bottom, top, measure.log)
    room = min(MAX_ROOM, max(len(end["text"]) for end in ends) * LETTER_PX / WIDTH_PX + 0.02)
    layers = _layers(words, measure, _place_axis(words, places, room), y_of("value", **_value_axis(measure, bottom, top)), points)
    rules = [{"value": value, "x": places[0], "end": places[-1]} for value, _ in marks]
    datasets = {"points": points, "ends": ends, "marks": rules, "border": _border(lines)}
    return Chart(compiled(*layers, height=HEIGHT), title(*finding, *_notes(words, lines), width=100), datasets)


def _bar_chart(words: Wording, measure: Measure, finding: Sequence[str], lines: list[Line]) -> Chart:
    """The chart of a measure that is the same all along: a bar per line."""
    bottom, top = _domain([line.places[0].value for line in lines], measure.log)
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
    bars = StageBars(row_axis(), _value_axis(measure, bottom, ROOM * top))
    template = compiled(
        bars.segments("bars", OWN_COLOUR, tips(row="what", text=measure.name), start="start", end="value", band=0.46),
        bars.words("bars", at="value", dx=6, fontSize=12),
        height=max(LEAST_PX, ROW_PX * len(rows)),
    )
    return Chart(template, title(*finding, *words.omissions, width=100), {"bars": rows}, {"rows": [row["row"] for row in rows]})


def _point(words: Wording, measure: Measure, place: Place) -> Row:
    low, high = measure.format(place.low), measure.format(place.high)
    one = place.low == place.high
    about = {"words": measure.format(place.value) if one else f"{low} to {high}", "published": "yes" if place.published else "no"}
    band = {} if one else {"low": place.low, "high": place.high}
    where = words.summary.layout.resolutions.get(place.x) or f"{place.x:,.6g}"
    return {"x": place.x, "where": where, "value": place.value, **band, **about, "n": place.n}


def _notes(words: Wording, lines: list[Line]) -> list[str]:
    """Conditions below a title: what is filled, held, left out, or put together."""
    places = [place for line in lines for place in line.places]
    kinds = {place.published for place in places}
    known, first = f"{words.summary.published:,} of {words.summary.count:,} points", []
    if len(kinds) == 2 and len({place.x for place in places}) <= MAX_DOTS:
        first = [f"Filled: grids that the published code cuts ({known}); hollow: beyond them"]
    elif False in kinds:
        first = [f"{known} are on grids that the published code cuts"]
    return [*first, *words.omissions, *words.ranges]


def _border(lines: list[Line]) -> list[Row]:
    """The place beyond which no point is on a grid of the published code; none where there is none before or beyond it."""
    places = {place.x: place.published for line in lines for place in line.places}
    inside = [x for x, published in places.items() if published]
    return [{"x": max(inside), "text": "largest grid of the published code"}] if inside and max(inside) < max(places) else []


def _layers(words: Wording, measure: Measure, x: alt.X, y: alt.Y, rows: list[Row]) -> list[alt.Chart]:
    """Layers over the datasets of `measure_chart`, of which `rows` are the points."""
    numbers = list(range(len(words.summary.series)))
    dashes = alt.Scale(domain=numbers, range=[DASHES[number % len(DASHES)] for number in numbers])
    dash = alt.StrokeDash("dash", type="nominal", legend=None, scale=dashes)
    about = {"where": words.axis, "what": "what", "words": measure.name, "published": "grid of the published code", "n": "points"}
    left_out = {"what"} if rows[-1]["line"] == 0 else set()
    left_out |= set() if words.summary.has_ranges else {"n"}
    tooltip = tips(**{name: head for name, head in about.items() if name not in left_out})
    points, border, marks, ends = (alt.Chart(data(name)) for name in ("points", "border", "marks", "ends"))
    one = alt.Detail("line", type="nominal")
    band = points.transform_filter("isValid(datum.low)").mark_area(opacity=0.16)
    if len({row["x"] for row in rows}) <= MAX_DOTS:
        hollow = alt.FillOpacityValue(1, condition={"test": "datum.published == 'no'", "value": 0})
        fill = alt.Fill("colour", type="nominal", scale=None)
        dots = points.mark_point(size=34, strokeWidth=1.5, opacity=1).encode(x, y, OWN_COLOUR, fill, hollow, tooltip=tooltip)
    else:
        dots = points.mark_point(size=60, opacity=0).encode(x, y, tooltip=tooltip)
    brief = ends.transform_calculate(text="narrow ? split(datum.text, ': ')[0] : datum.text")  # the name alone
    text = brief.mark_text(align="left", baseline="middle", dx=alt.ExprRef("narrow ? 4 : 9"), fontSize=12, fontWeight="bold")
    return [
        border.mark_rule(strokeDash=[3, 4], color=INK, opacity=0.7).encode(x),
        border.mark_text(align="left", baseline="top", dx=5, fontSize=11, color=INK).encode(x, WORDS, y=alt.value(3)),
        marks.mark_rule(strokeDash=[2, 3], color=MARK).encode(x, y, alt.X2("end")),
        band.encode(x, y_of("low"), alt.Y2("high"), OWN_COLOUR, one),
        points.mark_line(strokeWidth=2.2).encode(x, y, OWN_COLOUR, dash, one),
        dots,
        text.encode(x, WORDS, OWN_COLOUR, y_of("y", scale=None)),
    ]


def _domain(values: Sequence[float], log: bool) -> tuple[float, float]:
    """Both ends of an axis over values: from 0 to a round number, or some way around them where it is logarithmic."""
    top = max(values, default=1) or 1
    if log:
        return min((value for value in values if value > 0), default=top / 10) / 1.5, top * 1.5
    step = 10 ** math.floor(math.log10(top))
    return 0, next(nice * step for nice in NICE if nice * step >= 1.03 * top)


def _value_axis(measure: Measure, bottom: float, top: float) -> dict[str, Any]:
    """Title, scale and axis of a measure from bottom to top."""
    labels = si_axis(measure.unit) if measure.unit else "format(datum.value, ',~g')"
    scale = alt.Scale(type="log" if measure.log else "linear", domain=[bottom, top], nice=False)
    axis = alt.Axis(labelExpr=labels, tickCount=6, **({"values": log_ticks(bottom, top)} if measure.log else {}))
    return {"title": f"{measure.name}, logarithmic" if measure.log else measure.name, "scale": scale, "axis": axis}


def _place_axis(words: Wording, places: Sequence[float], room: float) -> alt.X:
    """The axis of what varies, over all places, with a part of the width left free on the right."""
    low, high = places[0], places[-1]
    width = (high - low) or 1
    scale = alt.Scale(domain=[low - 0.02 * width, low + width / (1 - room)], nice=False, zero=False)
    ticks: dict[str, Any] = {"values": _round_numbers(low, high) if high > low else [low], "format": ",~r" if high < LONG else SI}
    if resolutions := words.summary.layout.resolutions:
        names = json.dumps(list(resolutions.values()))
        ticks = {"values": list(resolutions), "labelExpr": f"{names}[datum.value]", "labelOverlap": False}
    return alt.X("x", type="quantitative", title=words.axis, scale=scale, axis=alt.Axis(titleAnchor="start", **ticks))


def _round_numbers(low: float, high: float) -> list[float]:
    """Round numbers from low to high."""
    step = 10 ** math.floor(math.log10((high - low) / 4 or 1))
    step = max(1, next(step * nice for nice in (1, 2, 5, 10) if (high - low) / (step * nice) <= 9))
    return [step * number for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _separate_words(ends: list[Row], bottom: float, top: float, log: bool) -> None:
    """Sets where the words at the ends of lines stand, by their `value` and none over another: `y`, in pixels from the top."""
    ends.sort(key=lambda end: -end["value"])
    for end in ends:
        value = end["value"]
        part = math.log(value / bottom) / math.log(top / bottom) if log else (value - bottom) / (top - bottom)
        end["y"] = HEIGHT * (1 - part)
    for above, below in pairwise(ends):
        below["y"] = max(below["y"], above["y"] + LINE_PX)
    limit = HEIGHT - 8  # clear of the axis
    for end in reversed(ends):
        end["y"] = min(end["y"], limit)
        limit = end["y"] - LINE_PX
