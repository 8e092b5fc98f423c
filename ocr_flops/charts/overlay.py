"""What was measured, laid over charts of what is estimated: white diamonds with a dark edge, seen on every colour."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import altair as alt

from ocr_flops.charts.chart import data

Row = dict[str, Any]
MEASURED = "measured"  # the dataset
LOOK = {"shape": "diamond", "size": 95, "filled": True, "fill": "#FFFFFF", "stroke": "#000000", "strokeWidth": 1.5, "opacity": 1}


def measured_layer(x: alt.X, y: alt.Y, *tips: tuple[str, str]) -> alt.Chart:
    """The diamonds of a chart, over those of its channels.

    Args:
        x, y: channels; `MEASURED` has their fields.
        tips: fields and their words in the tooltip, before where a point comes from.
    """
    told = [alt.Tooltip(name, type="nominal", title=words) for name, words in (*tips, ("origin", "where from"))]
    return alt.Chart(data(MEASURED)).mark_point(**LOOK).encode(x, y, tooltip=told)


def origins(measured: Iterable[Row]) -> tuple[str, ...]:
    """A line below a title that says what the diamonds are; none without any."""
    found = tuple(dict.fromkeys(row["origin"] for row in measured))
    return (f"◇ {'; '.join(found)}",) if found else ()
