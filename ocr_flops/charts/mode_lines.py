"""Lines of attention modes over what grows, named at their ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import altair as alt

from ocr_flops.charts.chart import Chart, Row, Template, Title, compiled, data
from ocr_flops.charts.encoding import OWN_COLOUR, WORDS, si_axis, tips, x_of, y_of
from ocr_flops.charts.overlay import mark_layers
from ocr_flops.charts.theme import attention_colour
from ocr_flops.units import si

ROOM = 1.42  # of the longest line, with the words behind it


def mode_lines(
    rows: Sequence[Row], heading: Title, axes: tuple[str, str], mark: Row | None, words: Callable[[Row], str], **about: str
) -> Chart:
    """A line for each attention mode, of bytes.

    Args:
        rows: points with `mode`, `x` and `value`, ordered by `x`.
        heading: the title.
        axes: titles of x and y.
        mark: the current point's `x` and its `text`, drawn across; None for none.
        words: what stands behind a mode's name at the end of its line; modes that end in the same place share the words of the last one.
        about: what the tooltip calls further fields, all words.
    """
    points = [{**row, "colour": attention_colour(row["mode"]), "size": si(row["value"], "B")} for row in rows]
    most, ends = max(row["x"] for row in points), {}
    for point in points:
        if point["x"] == most:
            names = [*ends.get(point["value"], {}).get("modes", ()), point["mode"]]
            ends[point["value"]] = {**point, "modes": names, "text": f"{', '.join(names)}: {words(point)}"}
    datasets = {"points": points, "ends": list(ends.values()), "mark": [mark] if mark else []}
    params = {"room": ROOM * most or 1, "highest": max(point["value"] for point in points)}
    return Chart(_template(*axes, tuple(about.items())), heading, datasets, params)


@cache
def _template(x_title: str, y_title: str, about: tuple[tuple[str, str], ...]) -> Template:
    along, up = (alt.Scale(domain=[0, alt.ExprRef(end)], nice=nice) for end, nice in (("room", False), ("highest", True)))
    x = x_of("x", title=x_title, scale=along, axis=alt.Axis(format=",d", tickMinStep=1, tickCount=10, grid=False))
    y = y_of("value", title=y_title, scale=up, axis=alt.Axis(labelExpr=si_axis("B"), tickCount=6))
    tooltip = [alt.Tooltip("x", type="quantitative", title=x_title, format=",d"), *tips(mode="attention", size="bytes", **dict(about))]
    points, ends = alt.Chart(data("points")), alt.Chart(data("ends"))
    return compiled(
        points.mark_line(strokeWidth=2.5).encode(x, y, OWN_COLOUR),
        points.mark_point(size=50, filled=True, opacity=1).encode(x, y, OWN_COLOUR, tooltip),
        ends.mark_text(align="left", baseline="middle", dx=9, fontSize=12, fontWeight="bold").encode(x, y, WORDS, OWN_COLOUR),
        *mark_layers(x),
        height=360,
    )
