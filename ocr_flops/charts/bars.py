"""Horizontal bars by stage: segments behind each other, words in and after them, rows under headings, panels beside each other."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import altair as alt

from ocr_flops.charts.chart import Row, Template, compiled, data
from ocr_flops.charts.encoding import WORDS, listed, painted, tips, x_of
from ocr_flops.charts.theme import INK

AFTER = {"align": "left", "baseline": "middle", "dx": 5, "fontSize": 11, "color": INK}
INSIDE = {"baseline": "middle", "fontSize": 11, "fontWeight": "bold", "color": "white"}
HEAD = {"align": "left", "baseline": "bottom", "y": -4, "fontSize": 13, "fontWeight": "bold", "color": INK}
LETTER_PX, MARGIN_PX = 6.2, 4  # of words in segments, which are written where they fit
PANELS = {"axis": None, "scale": alt.Scale(domain=[0, alt.ExprRef("panels")], nice=False)}  # each panel takes a width of 1


def row_axis(**look: Any) -> alt.Y:
    """Rows of bars, in the order in which the parameter "rows" names them, on an axis with further looks."""
    axis = alt.Axis(title=None, ticks=False, domain=False, **{"labelPadding": 6, **look})
    return alt.Y("row", type="nominal", sort=None, scale=alt.Scale(domain=alt.ExprRef("rows")), axis=axis)


def headed_axis(head: str = "upper({})") -> alt.Y:
    """Rows under headings: "stage|" is a heading, "stage|name" a row of it; a heading's words take the place of {} in `head`."""
    heading = "split(datum.value, '|')[1] == ''"
    words = head.format("(datum.value == 'decode|' ? 'decode' : split(datum.value, '|')[0])")
    return row_axis(
        labelExpr=f"{heading} ? {words} : split(datum.value, '|')[1]",
        labelFontWeight={"condition": {"test": heading, "value": "bold"}, "value": "normal"},
    )


def headed_rows(rows: Iterable[str]) -> list[str]:
    """The rows of a `headed_axis`, each once, with every stage's together below its heading."""
    groups: dict[str, dict[str, None]] = {}
    for row in rows:
        stage, name = row.split("|")
        groups.setdefault(stage, {"": None})[name] = None
    return [f"{stage}|{name}" for stage, names in groups.items() for name in names]


@dataclass(frozen=True)
class StageBars:
    """Layers of one chart of bars; each reads a dataset of its own, or one that is given with its transformations.

    Args:
        rows: the axis of rows, `row_axis` or `headed_axis`.
        along: options of the axis along the bars; by default that of panels, whose number is the parameter "panels".
    """

    rows: alt.Y = field(default_factory=headed_axis)
    along: Mapping[str, Any] = field(default_factory=lambda: PANELS)

    def x(self, name: str) -> alt.X:
        """A field on the axis along the bars."""
        return x_of(name, **self.along)

    def segments(
        self, source: str | alt.Chart = "bars", *channels: Any, end: str = "end", start: str = "", band: float = 0.8, **look: Any
    ) -> alt.Chart:
        """Bars up to `end`, from `start` or from zero; channels say how they are coloured and what they are."""
        place = (self.x(start), alt.X2(end)) if start else (self.x(end).stack(None),)
        return _layer(source).mark_bar(height={"band": band}, **look).encode(self.rows, *place, *channels)

    def words(self, source: str | alt.Chart = "ends", *channels: Any, at: str = "end", **look: Any) -> alt.Chart:
        """The rows' `text`, after a bar, briefly in a narrow page."""
        return briefly(source).mark_text(**AFTER | look).encode(self.rows, self.x(at), WORDS, *channels)

    def headings(self) -> alt.Chart:
        """The `text` of "heads" at the left edge, beside a heading or in its place."""
        look = AFTER | {"dx": 3, "fontSize": 12, "fontWeight": "bold"}
        return _layer("heads").mark_text(**look).encode(self.rows, WORDS, x=alt.value(0))

    def inside(self, text: str, span: str) -> alt.Chart:
        """A field's words in the middle of those of the "bars" that have room for them, where `span` is the axis' length."""
        fits = f"(datum.end - datum.start) * width / ({span}) > {LETTER_PX} * length(datum.{text}) + {MARGIN_PX}"
        segments = _layer("bars").transform_filter(fits).transform_calculate(middle="(datum.start + datum.end) / 2")
        return segments.mark_text(**INSIDE).encode(self.rows, self.x("middle"), alt.Text(text, type="nominal"))

    def panel_heads(self, **look: Any) -> alt.Chart:
        """Names over the panels."""
        two = "narrow ? split(datum.text, regexp(', | of | to | for | in which ')) : datum.text"
        return _layer("panels").transform_calculate(text=two).mark_text(**HEAD | look).encode(self.x("start"), WORDS)


def briefly(source: str | alt.Chart) -> alt.Chart:
    """A layer whose rows show, in a narrow page, of their `text` what stands before further words, or `brief` where they have it."""
    return _layer(source).transform_calculate(
        text="!narrow ? datum.text : isValid(datum.brief) ? datum.brief : split(datum.text, regexp(': |, | [(]'))[0]"
    )


def _layer(source: str | alt.Chart) -> alt.Chart:
    return alt.Chart(data(source)) if isinstance(source, str) else source


def stacked(parts: Mapping[str, float], start: float = 0, scale: float = 1) -> Iterable[tuple[str, float, dict[str, float]]]:
    """Parts behind each other from `start` on, `scale` long for a value of 1: the name and value of each, and where it begins and ends."""
    for name, value in parts.items():
        end = start + scale * value
        yield name, value, {"start": start, "end": end}
        start = end


@dataclass(frozen=True)
class Panel:
    """Bars of one measure, on a scale of their own from zero.

    Args:
        name: what is measured.
        bars: the parts of every row's bar, {row: {part: value}}.
        words: a value in words.
        limit: a value that no bar should exceed, drawn as a line; None for none.
    """

    name: str
    bars: Mapping[str, Mapping[str, float]]
    words: Callable[[float], str]
    limit: float | None = None


class Bar(NamedTuple):
    """A whole bar: the sum of its parts, that of its panel's first bar, and where on the axis of panels it and a limit end."""

    panel: Panel
    row: str
    total: float
    base: float
    end: float


def panel_rows(panels: Sequence[Panel], width: float) -> tuple[dict[str, list[Row]], list[Bar]]:
    """Panels beside each other: the rows of "bars", "panels" and "limits", and the whole bars, after which words can stand.

    Args:
        panels: from left to right.
        width: of the longest bar, as a part of a panel's; the rest is for words.
    """
    rows: dict[str, list[Row]] = {"bars": [], "panels": [], "limits": []}
    whole = []
    for position, panel in enumerate(panels):
        sums = {row: sum(parts.values()) for row, parts in panel.bars.items()}
        scale = width / (max(*sums.values(), panel.limit or 0) or 1)
        rows["panels"].append({"start": position, "text": panel.name})
        if panel.limit:
            rows["limits"].append({"start": position + scale * panel.limit})
        for row, parts in panel.bars.items():
            for kind, value, place in stacked(parts, position, scale):
                about = {"what": panel.name, "value": panel.words(value), "all": panel.words(sums[row])}
                rows["bars"].append({"row": row, "kind": kind, **place, **about})
            end = position + scale * max(sums[row], panel.limit or 0)
            whole.append(Bar(panel, row, sums[row], next(iter(sums.values())), end))
    return rows, whole


def panel_words(whole: Iterable[Bar], value: Callable[[Bar], str], difference: Callable[[Bar], str]) -> dict[str, list[Row]]:
    """The two lines of words after each bar of a `panel_template`."""
    lines = {"ends": value, "differences": difference}
    return {name: [{"row": bar.row, "end": bar.end, "text": words(bar)} for bar in whole] for name, words in lines.items()}


def panel_template(rows: alt.Y, colours: Mapping[str, str], height: int) -> Template:
    """Panels with two lines of words after each bar, its value ("ends") and how it differs ("differences"), and lines of limits.

    Args:
        rows: the axis of rows.
        colours: of all parts; the parameter "kinds" has those that the legend lists.
        height: in px.
    """
    bars = StageBars(rows)
    about = tips(row="setting", what="figure", kind="part", value="value", all="in all")
    colour = painted("kind", colours, listed("kinds", orient="bottom", columnPadding=14, columns=alt.ExprRef("narrow ? 1 : 0")))
    return compiled(
        bars.panel_heads(y=-6),
        bars.segments("bars", colour, about, start="start", band=0.62),
        alt.Chart(data("limits")).mark_rule(strokeDash=[4, 3], strokeWidth=1.7, color=INK).encode(bars.x("start")),
        bars.words("ends", dy=-7, fontSize=13, fontWeight="bold"),
        bars.words("differences", dy=8, fontSize=12),
        height=height,
    )
