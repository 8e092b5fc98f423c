"""The lines of a sweep's chart: one per series and kind, those that no eye could separate put together."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace

from ocr_flops.charts.sweep.summary import Names, SweepSummary
from ocr_flops.charts.sweep.wording import Wording
from ocr_flops.units import seconds, si

ALIKE = 0.004  # of a chart's height: about a line's width
COLOURS = ("#AA4499", "#8F7300", "#3F7FC4", "#D1472F", "#2B9348", "#7A7A7A")  # of series: on white and on black alike
KINDS = {"tensor": "matrix units", "vector": "vector units"}  # by what they are called on charts


@dataclass(frozen=True)
class Measure:
    """What a chart shows.

    Args:
        columns: of `SweepSummary.lines`, by the kind of each; the kind is "" in a chart of one.
        name: on the axis.
        unit: behind a number with its SI prefix; "" for numbers as they are.
        colours: of kinds; None where series have a colour each.
        log: whether the axis is logarithmic; zeros are then left out.
        scale: factor of the values.
    """

    columns: Mapping[str, str]
    name: str
    unit: str
    colours: Mapping[str, str] | None = None
    log: bool = False
    scale: float = 1.0

    def format(self, value: float) -> str:
        """A value for people."""
        return seconds(value) if self.unit == "s" else si(value, self.unit) if self.unit else f"{value:,.3g}"


@dataclass(frozen=True)
class Place:
    """A place on a line.

    Args:
        x: on the axis.
        value, low, high: median, smallest and largest of its points.
        published: whether all of them are on grids of the published code.
        n: how many points.
    """

    x: float
    value: float
    low: float
    high: float
    published: bool
    n: int


@dataclass(frozen=True)
class Line:
    """A line of a chart, or a bar where there is one place.

    Args:
        kinds: of the measure's columns that it stands for.
        series: that it stands for.
        places: from left to right.
    """

    kinds: Names
    series: tuple[Names, ...]
    places: tuple[Place, ...]

    def name(self, words: Wording) -> str:
        """What separates it from the chart's others, in words."""
        kinds = " = ".join(KINDS.get(kind, kind) for kind in self.kinds)
        return ", ".join(part for part in (kinds, words.name_series(self.series)) if part)

    def number(self, summary: SweepSummary) -> int:
        """The place of its first series among those shown."""
        return summary.series.index(self.series[0])

    def colour(self, summary: SweepSummary, measure: Measure) -> str:
        """The colour of its first kind where kinds have colours, else of its first series."""
        return measure.colours[self.kinds[0]] if measure.colours else COLOURS[self.number(summary) % len(COLOURS)]


def list_lines(summary: SweepSummary, measure: Measure) -> list[Line]:
    """A line for every kind and series, unknown values left out, and zeros too where the axis is logarithmic."""
    found: dict[tuple[str, Names], list[Place]] = {(kind, series): [] for kind in measure.columns for series in summary.series}
    for row in summary.lines.to_dicts():
        series = tuple(row[f"series {name}"] for name in summary.layout.columns)
        for kind, column in measure.columns.items():
            value, low, high = (row[name] for name in (column, f"{column}<", f"{column}>"))
            if value is not None and (low > 0 or not measure.log):
                numbers = (measure.scale * one for one in (low if low == high else value, low, high))
                found[kind, series].append(Place(row["x"], *numbers, row["published"] == row["n"], row["n"]))
    return [Line((kind,), (series,), tuple(places)) for (kind, series), places in found.items() if places]


def merge_lines(lines: Iterable[Line], log: bool, alike: float = ALIKE) -> list[Line]:
    """Puts lines together that no eye could separate: series of one kind first, then kinds of the same series.

    Args:
        lines: of `list_lines`.
        log: whether their axis is logarithmic.
        alike: the largest distance of such lines, as a part of the axis.
    """
    lines = list(lines)
    ends = [end for line in lines for place in line.places for end in (place.low, place.high)]
    top, least = max(ends, default=1) or 1, min((end for end in ends if end > 0), default=1)
    nearest = alike * ((math.log(top / least) or 1) if log else top)

    def near(one: Line, other: Line) -> bool:
        if [place.x for place in one.places] != [place.x for place in other.places]:
            return False
        here, there = ([end for place in line.places for end in (place.value, place.low, place.high)] for line in (one, other))
        return all(abs(math.log(a / b) if log else a - b) <= nearest for a, b in zip(here, there, strict=True))

    def merge(lines: Iterable[Line], key: Callable[[Line], Hashable], field: str) -> list[Line]:
        merged: list[Line] = []
        for line in lines:
            place = next((i for i, other in enumerate(merged) if key(other) == key(line) and near(other, line)), None)
            if place is None:
                merged.append(line)
            else:
                merged[place] = replace(merged[place], **{field: getattr(merged[place], field) + getattr(line, field)})
        return merged

    return merge(merge(lines, lambda line: line.kinds, "series"), lambda line: line.series, "kinds")
