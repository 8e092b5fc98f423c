"""Charts to be read from the back of a room: they fill their slide, and their type grows with the screen."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ocr_flops.charts.chart import NO_TITLE, Chart, Template
from ocr_flops.charts.theme import INK

FACTOR = 1.6  # by which a chart of the app is enlarged on a screen of 1280 x 720
SCREEN = {  # 1 on such a screen; Vega asks anew whenever the chart's own size changes
    "name": "unit",
    "expr": "min(windowSize()[0] / 1280, windowSize()[1] / 720) + 0 * (width + height)",
}
LENGTHS = {
    "fontSize", "labelFontSize", "titleFontSize", "labelLimit", "labelPadding", "titlePadding", "columnPadding", "rowPadding",
    "strokeWidth", "symbolStrokeWidth", "lineHeight", "dx", "dy",
}  # fmt: skip
AREAS = {"size", "symbolSize"}
EMBEDDING = {"embedOptions": {"renderer": "svg", "actions": False}}  # sharp at any size, in the slide's own colour, without a menu
FULL_INK = "currentColor"  # words as dark, or as light, as the slide's own


def enlarged(chart: Chart, colours: Mapping[str, str] | None = None, factor: float = FACTOR) -> Chart:
    """A chart without its title that fills a slide: its type and offsets grow with the screen, its grey words take the slide's colour.

    Args:
        chart: any.
        colours: that take the place of others.
        factor: of all lengths on a screen of 1280 x 720.
    """
    swapped = colours or {}
    rows = {name: [_recoloured(row, swapped) for row in found] for name, found in chart.datasets.items()} if swapped else chart.datasets
    return Chart(_enlarged(chart.template, factor, tuple(swapped.items())), NO_TITLE, rows, chart.params)


def _recoloured(row: dict[str, Any], colours: Mapping[str, str]) -> dict[str, Any]:
    return {name: colours.get(value, value) if isinstance(value, str) else value for name, value in row.items()}


@lru_cache(maxsize=64)
def _enlarged(template: Template, factor: float, colours: tuple[tuple[str, str], ...]) -> Template:
    """A template as high and as wide as its place, whose lengths are multiples of the screen's; too free for Altair's schema."""
    spec = _in_units(template.spec, factor, {INK: FULL_INK, **dict(colours)})
    legend = {**spec["config"]["legend"], "symbolSize": {"expr": "260 * unit * unit"}}
    config = {**spec["config"], "legend": legend, "autosize": {"type": "fit", "contains": "padding"}}
    return Template({**spec, "height": "container", "config": config, "params": [SCREEN], "usermeta": EMBEDDING})


def _in_units(part: Any, factor: float, colours: Mapping[str, str]) -> Any:
    """A specification, or a part of it, with all lengths in units of `SCREEN` and other colours."""
    if isinstance(part, dict):
        grown = {name: _in_units(value, factor, colours) for name, value in part.items()}
        edges = {"x", "y"} if part.get("type") == "text" else set()  # of words that stand at an edge of the chart
        for name in (LENGTHS | AREAS | edges) & part.keys():
            if isinstance(part[name], int | float) and part[name]:
                grown[name] = {
                    "expr": f"{round(factor**2 * part[name], 2)} * unit * unit"
                    if name in AREAS
                    else f"{round(factor * part[name], 2)} * unit"
                }
        return grown
    if isinstance(part, list):
        return [_in_units(one, factor, colours) for one in part]
    return colours.get(part, part) if isinstance(part, str) else part
