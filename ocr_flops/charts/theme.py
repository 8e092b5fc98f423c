"""What all charts share: colours, names, number formats, titles."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any

import altair as alt

from ocr_flops.spec.tiling import vendor_grids
from ocr_flops.units import SI

FAMILIES = {  # any two differ for colour-blind readers too, and all are seen on white as on black: tests hold it
    "SAM": "#0080ED",
    "CLIP": "#3DA8E4",
    "projector, merge": "#0BB2B7",
    "decoder attention": "#FF7569",
    "dense MLP": "#EA8802",
    "routed experts": "#CA0013",
    "shared experts": "#FF1689",
    "router": "#A80C94",
    "norms, embedding": "#5C5C5C",
    "lm_head": "#5B8238",
}
STAGE_COLOURS = {"vision": "#0077BB", "prefill": "#EE7733", "decode": "#009988"}
MODULES = {  # module: its family and its name on charts
    "sam.patch": ("SAM", "SAM patches"),
    "sam.attention_windowed": ("SAM", "SAM windowed attention"),
    "sam.attention_global": ("SAM", "SAM global attention"),
    "sam.mlp": ("SAM", "SAM MLP"),
    "sam.neck": ("SAM", "SAM neck"),
    "clip.embed": ("CLIP", "CLIP embedding"),
    "clip.attention": ("CLIP", "CLIP attention"),
    "clip.mlp": ("CLIP", "CLIP MLP"),
    "projector": ("projector, merge", "projector"),
    "merge": ("projector, merge", "merge"),
    "decoder.embed": ("norms, embedding", "token embedding"),
    "decoder.attention": ("decoder attention", "decoder attention"),
    "decoder.dense_mlp": ("dense MLP", "dense MLP (layer 0)"),
    "decoder.router": ("router", "router"),
    "decoder.routed_experts": ("routed experts", "routed experts"),
    "decoder.shared_experts": ("shared experts", "shared experts"),
    "decoder.norm_residual": ("norms, embedding", "norms and residuals"),
    "lm_head": ("lm_head", "lm_head"),
}
INK = "#808080"  # text and strokes that read on white and on black; everything else follows the theme
MIME = "application/vnd.vegalite.v6+json"

CEILING_COLOURS = {"bandwidth": "#EE7733", "matrix": "#0077BB", "vector": "#009988", "launch": "#AA4499"}
CEILING_NAMES = {"bandwidth": "memory bandwidth", "matrix": "matrix units", "vector": "vector units", "launch": "launches"}


def module_name(module: str) -> str:
    """A module's name on charts."""
    return MODULES[module][1] if module in MODULES else module


def module_colour(module: str) -> str:
    """The colour of a module's family."""
    return FAMILIES[MODULES[module][0]] if module in MODULES else INK


def spaced(form: str = SI) -> str:
    """Vega expression of a value with an SI prefix after a space: "786 G"; "12 " where it takes none.

    Args:
        form: d3's format of the number.
    """
    return f"replace(format(datum.value, '{form}'), regexp('([a-zA-Zµ]?)$'), ' $1')"


def si_axis(unit: str = "") -> str:
    """Vega expression for an axis' labels, `alt.Axis(labelExpr=si_axis("B"))`: "25 GB", "200 ms", "0".

    Args:
        unit: "B", "s", "FLOP/s"; "" for a number alone.
    """
    text = f"datum.value ? trim({spaced()} + '{unit}') : '0'"
    return f"datum.value >= 1000 ? format(datum.value, ',~r') + ' s' : {text}" if unit == "s" else text  # no kiloseconds


Rows = list[dict[str, Any]]
TITLE, SUBTITLE = "title_lines", "subtitle_lines"  # signals of a chart that stays


@dataclass(frozen=True)
class Title:
    """A chart's title: `alt.TitleParams` with the look of ours, without its check, which a slider feels.

    Args:
        text, subtitle: lines, or an expression that gives them; no title without any.
    """

    text: list[str] | dict[str, str]
    subtitle: list[str] | dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """As in Vega-Lite."""
        if not self.text:
            return {"text": ""}
        look = {"anchor": "start", "frame": "bounds", "fontSize": 15, "offset": 12}
        below = {"subtitleFontSize": 12, "subtitleColor": INK, "subtitlePadding": 5}
        return {"text": self.text, "subtitle": self.subtitle, **look, **below}


@dataclass(frozen=True, eq=False)
class Template:
    """A Vega-Lite specification without rows, title and values of its parameters, which Altair compiled and checked once.

    Charts of one kind share a template as far as their settings allow; equal settings share the same object. Everything that a setting
    changes between two charts of one template is a row, a line of the title or the value of a parameter: the rows of a bar chart and
    their order (`row_axis`), the chart's height with them, the ends of an axis, what a legend lists (`listed`). So a page that has drawn
    `Chart.embedded` shows the next chart of the same template by setting `Chart.signals` and `Chart.datasets` in its Vega view, and then
    the view's width to its container's, from which Vega fits the plot beside its words anew:

        for (const [name, value] of Object.entries(signals)) view.signal(name, value);
        for (const [name, rows] of Object.entries(datasets)) view.data(name, rows);
        await view.width(view.container().clientWidth).resize().runAsync();

    Args:
        spec: the specification.
    """

    spec: dict[str, Any]

    @cached_property
    def key(self) -> str:
        """What tells this template from others in a browser, where objects have no identity."""
        return sha256(json.dumps(self.spec, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Chart:
    """A Vega-Lite chart: a template, with a title, rows and values of its own.

    Building and checking a chart through Altair takes 50 ms, which a slider feels; filling a template takes 1.

    Args:
        template: from `compiled`.
        title: of `title`.
        datasets: rows of every dataset that the template names.
        params: values of the template's parameters.
    """

    template: Template
    title: Title
    datasets: dict[str, Rows]
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def signals(self) -> dict[str, Any]:
        """Values by the names of the signals that a step sets in `embedded`: the parameters and the lines of the title."""
        return {**self.params, TITLE: self.title.text, SUBTITLE: self.title.subtitle}

    def to_dict(self) -> dict[str, Any]:
        """The Vega-Lite specification."""
        return self._filled(self.title, self.params)

    def embedded(self) -> dict[str, Any]:
        """The Vega-Lite specification for a page that keeps the chart and later sets `signals` and `datasets` (`view.data(name, rows)`)."""
        heading = Title({"expr": TITLE}, {"expr": SUBTITLE}) if self.title.text else self.title
        return self._filled(heading, self.signals)

    def altair(self, **properties: Any) -> alt.LayerChart:
        """The same chart as an Altair object, with properties such as `width` changed."""
        return alt.LayerChart.from_dict({**self.to_dict(), **properties})

    def _filled(self, heading: Title, values: dict[str, Any]) -> dict[str, Any]:
        params = [*self.template.spec.get("params", ()), *({"name": name, "value": value} for name, value in values.items())]
        return {**self.template.spec, "title": heading.to_dict(), "datasets": self.datasets, "params": params}

    def _mime_(self) -> tuple[str, str]:
        """How marimo shows it."""
        return MIME, json.dumps(self.to_dict())

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """How Jupyter shows it."""
        return {MIME: self.to_dict()}


def data(name: str) -> alt.NamedData:
    """A place in a template for the rows of a dataset."""
    return alt.NamedData(name=name)


def listed(param: str, **look: Any) -> alt.Legend:
    """A legend of those values alone that are in a parameter, so that the scale, and with it the template, can know them all."""
    return alt.Legend(values=alt.ExprRef(param), **look)


def row_axis(**look: Any) -> alt.Y:
    """Rows of bars, in the order in which the parameter "rows" names them.

    Args:
        look: of the axis.
    """
    axis = alt.Axis(title=None, ticks=False, domain=False, **look)
    return alt.Y("row", type="nominal", sort=None, scale=alt.Scale(domain=alt.ExprRef("rows")), axis=axis)


def compiled(*layers: alt.Chart | alt.LayerChart, height: int | alt.Step) -> Template:
    """A template of layers, as wide as its container.

    Args:
        height: in px, or that of each row of an axis.
    """
    return Template(_finished(alt.layer(*layers).properties(width="container", height=height)).to_dict())


def title(finding: str, *conditions: str, width: int = 90) -> Title:
    """A title that states the finding, with the conditions below it.

    Args:
        conditions: each begins a line of its own.
        width: characters of a line of the finding.
    """
    subtitle = [line for text in conditions for line in textwrap.wrap(text, int(1.25 * width))]
    return Title(textwrap.wrap(finding, width), subtitle)


def _finished(chart: alt.LayerChart) -> alt.LayerChart:
    """Transparent, framed by nothing, with quiet axes that follow the theme."""
    axis = alt.AxisConfig(
        gridColor=INK,
        gridOpacity=0.18,
        domainColor=INK,
        tickColor=INK,
        labelFontSize=12,
        titleFontSize=12,
        labelLimit=240,
        titleFontWeight="normal",
        titlePadding=8,
    )
    legend = alt.LegendConfig(labelLimit=0, labelFontSize=12, titleFontSize=12, symbolStrokeWidth=2)
    return chart.configure(
        background="transparent",
        axis=axis,
        legend=legend,
        view=alt.ViewConfig(stroke=None),
        autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
    )


def grids_words(rows: Iterable[dict[str, Any]]) -> str:
    """Which grids, or views, the rows of a sweep are about."""
    found = {(row["tiles"], row["columns"], row["rows"]): row for row in rows}
    row = next(iter(found.values()))
    if not row["tile_px"]:
        return "The modes without tiles"
    grids, mode = [(columns, rows) for _, columns, rows in sorted(found)], row["mode"].replace("_", "-").title()
    beyond = [grid for grid in grids if grid not in ((1, 1), *vendor_grids())]
    if len(grids) - len(beyond) <= len(vendor_grids()):
        return f"{len(grids)} grids of {mode}"
    vendors = f"{len(vendor_grids())} vendor grids of {mode}"
    if not beyond:
        return f"No tiles and the {vendors}"
    last = " × ".join(map(str, beyond[-1]))
    return f"No tiles, the {vendors} and{' nearly square grids beyond them up to' if len(beyond) > 1 else ''} {last}"
