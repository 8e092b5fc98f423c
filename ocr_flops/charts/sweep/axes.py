"""Axes of a sweep's charts: where they end, their ticks, and room for words at the ends of lines."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import altair as alt

from ocr_flops.charts.sweep.lines import Measure
from ocr_flops.charts.sweep.summary import LONG, Shown
from ocr_flops.charts.theme import si_axis
from ocr_flops.units import SI

HEIGHT, LABEL_PX = 340, 15
NICE = (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9, 10, 12)


def domain(values: Sequence[float], log: bool) -> tuple[float, float]:
    """Both ends of an axis over values: from 0 to a round number, or some way around them where it is logarithmic."""
    top = max(values, default=1) or 1
    if log:
        return min((value for value in values if value > 0), default=top / 10) / 1.5, top * 1.5
    step = 10 ** math.floor(math.log10(top))
    return 0, next(nice * step for nice in NICE if nice * step >= 1.03 * top)


def measured(measure: Measure, bottom: float, top: float) -> dict[str, Any]:
    """Title, scale and axis of a measure.

    Args:
        measure: which.
        bottom, top: of `domain`.
    """
    labels = si_axis(measure.unit) if measure.unit else "format(datum.value, ',~g')"
    scale = alt.Scale(type="log" if measure.log else "linear", domain=[bottom, top], nice=False)
    values = {"values": _decades(bottom, top)} if measure.log else {}
    name = f"{measure.name}, logarithmic" if measure.log else measure.name
    return {"title": name, "scale": scale, "axis": alt.Axis(labelExpr=labels, tickCount=6, **values)}


def along(shown: Shown, places: Sequence[float], room: float) -> alt.X:
    """What varies.

    Args:
        shown: of which.
        places: all of them.
        room: part of the width to leave free on the right.
    """
    low, high = min(places), max(places)
    span = (high - low) or 1
    scale = alt.Scale(domain=[low - 0.02 * span, low + span / (1 - room)], nice=False, zero=False)
    if shown.names:
        ticks = {"values": list(shown.names), "labelExpr": f"{json.dumps(list(shown.names.values()))}[datum.value]", "labelOverlap": False}
    else:
        ticks = {"values": _ticks(low, high) if high > low else [low], "format": ",~r" if high < LONG else SI}
    axis = alt.Axis(titleAnchor="start", **ticks)
    return alt.X("x", type="quantitative", title=shown.axis_name, scale=scale, axis=axis)


def spread(ends: list[dict[str, Any]], bottom: float, top: float, log: bool) -> None:
    """Sets where the words at the ends of lines stand, apart from each other: `y`, in pixels from the top.

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
        below["y"] = max(below["y"], above["y"] + LABEL_PX)
    limit = HEIGHT - 8  # clear of the axis
    for end in reversed(ends):
        end["y"] = min(end["y"], limit)
        limit = end["y"] - LABEL_PX


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from low to high."""
    step = 10 ** math.floor(math.log10((high - low) / 4 or 1))
    step = max(1, next(step * nice for nice in (1, 2, 5, 10) if (high - low) / (step * nice) <= 9))
    return [step * number for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _decades(bottom: float, top: float) -> list[float]:
    """Ticks of a logarithmic axis: powers of ten, and 2 and 5 times them where there are few."""
    powers = range(math.floor(math.log10(bottom)), math.ceil(math.log10(top)) + 1)
    steps = (1,) if len(powers) > 5 else (1, 2, 5)
    return [step * 10.0**power for power in powers for step in steps if bottom <= step * 10.0**power <= top]
