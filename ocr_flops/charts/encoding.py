"""How charts encode rows: axes, legends and tooltips with the look of ours."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import altair as alt

from ocr_flops.charts.theme import INK
from ocr_flops.units import SI

Row = dict[str, Any]

WORDS = alt.Text("text", type="nominal")
OWN_COLOUR = alt.Color("colour", type="nominal", scale=None)


def spaced(form: str = SI) -> str:
    """Vega expression of a value in d3's format with its SI prefix after a space: "786 G"; "12 " where it takes none."""
    return f"replace(format(datum.value, '{form}'), regexp('([a-zA-Zµ]?)$'), ' $1')"


def si_axis(unit: str = "") -> str:
    """Vega expression for an axis' labels in "B", "s", "FLOP/s", or numbers alone: "25 GB", "200 ms", "0"."""
    text = f"datum.value ? trim({spaced()} + '{unit}') : '0'"
    return f"datum.value >= 1000 ? format(datum.value, ',~r') + ' s' : {text}" if unit == "s" else text  # no kiloseconds


def log_ticks(bottom: float, top: float) -> list[float]:
    """Ticks of a logarithmic axis: powers of ten, and 2 and 5 times them where there are few."""
    powers = range(math.floor(math.log10(bottom)), math.ceil(math.log10(top)) + 1)
    steps = (1,) if len(powers) > 5 else (1, 2, 5)
    return [step * 10.0**power for power in powers for step in steps if bottom <= step * 10.0**power <= top]


def listed(param: str, **look: Any) -> alt.Legend:
    """A legend of those values alone that are in a parameter, so that the scale, and with it the template, can know them all."""
    return alt.Legend(values=alt.ExprRef(param), **look)


def occurring(names: Iterable[str], rows: Iterable[Row], field: str) -> list[str]:
    """Those names that rows have, for a legend; all of them without rows, because Vega cannot draw a legend of nothing."""
    found = {row[field] for row in rows}
    return [name for name in names if name in found or not found]


def x_of(name: str, **options: Any) -> alt.X:
    """A quantitative field along x."""
    return alt.X(name, type="quantitative", **options)


def y_of(name: str, **options: Any) -> alt.Y:
    """A quantitative field along y."""
    return alt.Y(name, type="quantitative", **options)


def from_zero(title: str, end: str, unit: str = "", ticks: int = 6, nice: bool = False) -> dict[str, Any]:
    """Options of a channel: from zero to the parameter `end`, with about so many ticks in a unit as of `si_axis`."""
    scale = alt.Scale(domain=[0, alt.ExprRef(end)], nice=nice)
    return {"title": title, "scale": scale, "axis": alt.Axis(labelExpr=si_axis(unit), tickCount=ticks)}


def painted(name: str, palette: Mapping[str, str], legend: alt.Legend | None = None) -> alt.Color:
    """A nominal field in the colours of a palette."""
    scale = alt.Scale(domain=list(palette), range=list(palette.values()))
    return alt.Color(name, type="nominal", title=None, legend=legend, scale=scale)


def tips(*own: str, **words: str) -> list[alt.Tooltip]:
    """Tooltips of fields that are words: those that go by their own name, and others with their titles."""
    return [alt.Tooltip(name, type="nominal", title=title) for name, title in {**dict(zip(own, own, strict=True)), **words}.items()]


def configured(chart: alt.LayerChart) -> alt.LayerChart:
    """A chart with the look of ours: transparent, framed by nothing, with quiet axes that follow the page's theme."""
    size = {"labelFontSize": 12, "titleFontSize": 12}
    lines = {"gridColor": INK, "gridOpacity": 0.18, "domainColor": INK, "tickColor": INK}
    axis = alt.AxisConfig(**lines, **size, labelLimit=240, titleFontWeight="normal", titlePadding=8)
    legend, fit = alt.LegendConfig(labelLimit=0, **size, symbolStrokeWidth=2), alt.AutoSizeParams(type="fit-x", contains="padding")
    return chart.configure(
        font="system-ui, sans-serif", background="transparent", axis=axis, legend=legend, view=alt.ViewConfig(stroke=None), autosize=fit
    )
