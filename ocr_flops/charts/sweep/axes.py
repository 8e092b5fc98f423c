"""Axes of a sweep's charts: where they end, their ticks, and where the words at the ends of lines stand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import altair as alt

from ocr_flops.charts.encoding import si_axis
from ocr_flops.charts.sweep.wording import LONG, Wording
from ocr_flops.units import SI

HEIGHT, LABEL_PX = 340, 15
NICE = (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9, 10, 12)


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
        below["y"] = max(below["y"], above["y"] + LABEL_PX)
    limit = HEIGHT - 8  # clear of the axis
    for end in reversed(ends):
        end["y"] = min(end["y"], limit)
        limit = end["y"] - LABEL_PX


def _round_numbers(low: float, high: float) -> list[float]:
    """Round numbers from low to high."""
    step = 10 ** math.floor(math.log10((high - low) / 4 or 1))
    step = max(1, next(step * nice for nice in (1, 2, 5, 10) if (high - low) / (step * nice) <= 9))
    return [step * number for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def log_ticks(bottom: float, top: float) -> list[float]:
    """Ticks of a logarithmic axis: powers of ten, and 2 and 5 times them where there are few."""
    powers = range(math.floor(math.log10(bottom)), math.ceil(math.log10(top)) + 1)
    steps = (1,) if len(powers) > 5 else (1, 2, 5)
    return [step * 10.0**power for power in powers for step in steps if bottom <= step * 10.0**power <= top]
