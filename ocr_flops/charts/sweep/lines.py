"""What a chart of a sweep shows: a line a series and kind, those that no eye could tell apart put together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ocr_flops.charts.sweep.points import Names
from ocr_flops.charts.sweep.summary import Shown
from ocr_flops.units import seconds, si

ALIKE = 0.004  # of a chart's height: about a line's width
COLOURS = ("#AA4499", "#8F7300", "#3F7FC4", "#D1472F", "#2B9348", "#7A7A7A")  # of series: on white and on black alike
KINDS = {"tensor": "matrix units", "vector": "vector units"}  # by what they are called on charts


@dataclass(frozen=True)
class Measure:
    """What a chart shows.

    Args:
        columns: measures of `Shown.lines`, by what each is called; "" for a chart of one.
        name: on the axis.
        unit: behind a number with its SI prefix; "" for numbers as they are.
        colours: by the names of `columns`; none where series have a colour each.
        log: whether the axis is logarithmic; zeros are then left out.
        scale: by which values are multiplied.
    """

    columns: Mapping[str, str]
    name: str
    unit: str
    colours: Mapping[str, str] | None = None
    log: bool = False
    scale: float = 1.0

    def words(self, value: float) -> str:
        """A value for people."""
        return seconds(value) if self.unit == "s" else si(value, self.unit) if self.unit else f"{value:,.3g}"


@dataclass(frozen=True)
class Place:
    """A place on a line: where, the median of its points, the smallest and largest, whether all are grids of the vendor, how many."""

    x: float
    value: float
    low: float
    high: float
    vendor: bool
    n: int


@dataclass(frozen=True)
class Line:
    """A line of a chart, or a bar where there is one place.

    Args:
        kind: a key of `Measure.columns`; several that are alike with " = " between.
        series: those that it stands for.
        places: from left to right.
    """

    kind: str
    series: tuple[Names, ...]
    places: tuple[Place, ...]

    def called(self, shown: Shown) -> str:
        """What sets it apart from the chart's others."""
        kinds = " = ".join(KINDS.get(kind, kind) for kind in self.kind.split(" = "))
        return ", ".join(part for part in (kinds, shown.called(*self.series)) if part)

    def number(self, shown: Shown) -> int:
        """The place of its first series among those shown."""
        return shown.kinds.index(self.series[0])

    def colour(self, shown: Shown, measure: Measure) -> str:
        """Of its first kind where kinds have colours, else of its first series."""
        kind = self.kind.split(" = ")[0]
        return measure.colours[kind] if measure.colours else COLOURS[self.number(shown) % len(COLOURS)]


def lines(shown: Shown, measure: Measure) -> list[Line]:
    """A line for every column of a measure and every series, unknown values left out, zeros too where the axis is logarithmic."""
    found: dict[tuple[str, Names], list[Place]] = {(kind, series): [] for kind in measure.columns for series in shown.kinds}
    for row in shown.lines.to_dicts():
        series = tuple(row[f"series {name}"] for name in shown.series)
        for kind, column in measure.columns.items():
            value, low, high = (row[name] for name in (column, f"{column}<", f"{column}>"))
            if value is not None and (low > 0 or not measure.log):
                numbers = (measure.scale * one for one in (low if low == high else value, low, high))
                found[kind, series].append(Place(row["x"], *numbers, bool(row["vendor"]), row["n"]))
    return [Line(kind, (series,), tuple(places)) for (kind, series), places in found.items() if places]


def together(found: list[Line], log: bool, alike: float = ALIKE) -> list[Line]:
    """Lines that no eye could tell apart as one: series of one kind first, then kinds of the same series.

    Args:
        found: of `lines`.
        log: whether their axis is logarithmic.
        alike: how far they are apart at most, as a part of the axis.
    """
    ends = [end for line in found for place in line.places for end in (place.low, place.high)]
    top, least = max(ends, default=1) or 1, min((end for end in ends if end > 0), default=1)
    nearest = alike * ((math.log(top / least) or 1) if log else top)

    def near(one: Line, other: Line) -> bool:
        if [place.x for place in one.places] != [place.x for place in other.places]:
            return False
        here, there = ([end for place in line.places for end in (place.value, place.low, place.high)] for line in (one, other))
        return all(abs(math.log(a / b) if log else a - b) <= nearest for a, b in zip(here, there, strict=True))

    drawn: list[Line] = []
    for line in found:
        place = next((i for i, other in enumerate(drawn) if other.kind == line.kind and near(other, line)), None)
        if place is None:
            drawn.append(line)
        else:
            drawn[place] = replace(drawn[place], series=drawn[place].series + line.series)
    whole: list[Line] = []
    for line in drawn:
        place = next((i for i, other in enumerate(whole) if other.series == line.series and near(other, line)), None)
        if place is None:
            whole.append(line)
        else:
            whole[place] = replace(whole[place], kind=f"{whole[place].kind} = {line.kind}")
    return whole
