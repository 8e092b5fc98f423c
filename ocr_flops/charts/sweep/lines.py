"""The lines of a sweep's chart: one per series and kind, those that no eye could separate put together."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

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


class Place(NamedTuple):
    """A place on a line: the median, smallest and largest of its points, how many, and whether the published code cuts all their grids."""

    x: float
    value: float
    low: float
    high: float
    published: bool
    n: int


@dataclass(frozen=True)
class Line:
    """A line of a chart, or a bar where there is one place: the kinds and series it stands for, and its places from left to right."""

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


def list_ends(lines: Iterable[Line]) -> list[float]:
    """The smallest and the largest value at every place of lines."""
    return [end for line in lines for place in line.places for end in (place.low, place.high)]


def list_lines(summary: SweepSummary, measure: Measure) -> list[Line]:
    """A line for every kind and series, unknown values left out, and zeros too where the axis is logarithmic."""
    found: dict[tuple[str, Names], list[Place]] = {(kind, series): [] for kind in measure.columns for series in summary.series}
    for row in summary.lines.to_dicts():
        for kind, column in measure.columns.items():
            value, low, high = (row[name] for name in (column, f"{column}<", f"{column}>"))
            if value is not None and (low > 0 or not measure.log):
                numbers = (measure.scale * one for one in (low if low == high else value, low, high))
                found[kind, summary.series_of(row)].append(Place(row["x"], *numbers, row["published"] == row["n"], row["n"]))
    return [Line((kind,), (series,), tuple(places)) for (kind, series), places in found.items() if places]


def merge_lines(lines: list[Line], log: bool, alike: float = ALIKE) -> list[Line]:
    """Puts lines together that are nowhere further apart than a part of their axis: series of one kind first, then kinds of a series."""
    ends = list_ends(lines)
    top, least = max(ends, default=1) or 1, min((end for end in ends if end > 0), default=1)
    nearest = alike * ((math.log(top / least) or 1) if log else top)

    def near(one: Line, other: Line) -> bool:
        if [place.x for place in one.places] != [place.x for place in other.places]:
            return False
        here, there = ([end for place in line.places for end in place[1:4]] for line in (one, other))
        return all(abs(math.log(a / b) if log else a - b) <= nearest for a, b in zip(here, there, strict=True))

    for same, joined in (("kinds", "series"), ("series", "kinds")):
        merged: list[Line] = []
        for line in lines:
            for place, other in enumerate(merged):
                if getattr(other, same) == getattr(line, same) and near(other, line):
                    merged[place] = replace(other, **{joined: getattr(other, joined) + getattr(line, joined)})
                    break
            else:
                merged.append(line)
        lines = merged
    return lines
