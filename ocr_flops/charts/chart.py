"""A chart: a template that is compiled once, with a title, rows and values of its own."""

import json
import textwrap
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any

import altair as alt

from ocr_flops.charts.encoding import Row, configured
from ocr_flops.charts.theme import INK

MIME = "application/vnd.vegalite.v6+json"
Rows = list[Row]
TITLE, SUBTITLE = "title_lines", "subtitle_lines"  # signals of a chart that stays
NARROW = {"narrow": False}  # a signal that a page sets which has no more room than a phone


@dataclass(frozen=True)
class Title:
    """A chart's title: `alt.TitleParams` with the look of ours, without its check, which a slider feels.

    Args:
        text, subtitle: sentences, each from a line of its own on, or an expression that gives lines; no title without any.
        width: characters of a line of the text.
    """

    text: list[str] | dict[str, str]
    subtitle: list[str] | dict[str, str]
    width: int = 90

    @property
    def lines(self) -> dict[str, Any]:
        """Text and subtitle in lines, for who does not wrap them."""
        if isinstance(self.text, dict):
            return {"text": self.text, "subtitle": self.subtitle}
        found = {"text": (self.text, self.width), "subtitle": (self.subtitle, int(1.25 * self.width))}
        return {name: [line for one in texts for line in textwrap.wrap(one, width)] for name, (texts, width) in found.items()}

    def to_dict(self) -> dict[str, Any]:
        """As in Vega-Lite."""
        if not self.text:
            return {"text": ""}
        look = {"anchor": "start", "frame": "bounds", "fontSize": 15, "offset": 12}
        below = {"subtitleFontSize": 12, "subtitleColor": INK, "subtitlePadding": 5}
        return {**self.lines, **look, **below}


NO_TITLE = Title([], [])


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
    """

    spec: dict[str, Any]

    @cached_property
    def key(self) -> str:
        """What tells this template from others in a browser, where objects have no identity."""
        return sha256(json.dumps(self.spec, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Chart:
    """A Vega-Lite chart: a template, with a title, rows and values of its own.

    Building and checking a chart through Altair takes 50 ms, which a slider feels; filling a template takes 1. `datasets` are the rows of
    every dataset that the template names, `params` the values of its parameters. "least_px" among them is the plot's least width: with less
    room a page lets it scroll.
    """

    template: Template
    title: Title
    datasets: dict[str, Rows]
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def signals(self) -> dict[str, Any]:
        """Values by the names of the signals that a step sets in `embedded`: the parameters and the lines of the title."""
        return {**self.params, **NARROW, TITLE: self.title.text, SUBTITLE: self.title.subtitle}

    def to_dict(self) -> dict[str, Any]:
        """The Vega-Lite specification."""
        return self._filled(self.title, self.params | NARROW)

    def embedded(self) -> dict[str, Any]:
        """The Vega-Lite specification for a page that keeps the chart and later sets `signals` and `datasets` (`view.data(name, rows)`)."""
        heading = Title({"expr": TITLE}, {"expr": SUBTITLE}) if self.title.text else self.title
        return self._filled(heading, self.signals)

    def _filled(self, heading: Title, values: dict[str, Any]) -> dict[str, Any]:
        params = self.template.spec.get("params", [])
        known = {one["name"] for one in params}
        params = [*params, *({"name": name, "value": value} for name, value in values.items() if name not in known)]
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


def compiled(*layers: alt.Chart | alt.LayerChart, height: int | alt.Step) -> Template:
    """A template of layers, as wide as its container; `height` is in px, or that of each row of an axis."""
    return Template(configured(alt.layer(*layers).properties(width="container", height=height)).to_dict())


def title(finding: str, *conditions: str, width: int = 90) -> Title:
    """A title that states the finding, with the conditions below it.

    Args:
        conditions: each begins a line of its own.
        width: as of `Title`.
    """
    return Title([finding] if finding else [], [*conditions], width)
