"""Charts in marimo and in Jupyter: drawn once, after which a new setting sends rows, titles and parameters only."""

import threading
import weakref
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anywidget
import msgspec
import traitlets

from ocr_flops.charts import Chart
from ocr_flops.reports.images import vega_javascript

SCRIPT, STYLE = (Path(__file__).with_suffix(suffix) for suffix in (".js", ".css"))
_OPENED: list[tuple[threading.Thread, "ChartWidget"]] = []  # of a server, each with the thread of its session
_OPENING = threading.Lock()
LIBRARY = f"vega-{version('vl-convert-python')}.js"  # where a server offers `vega_javascript`, beside its pages


class ChartWidget(anywidget.AnyWidget):
    """Charts below each other, or beside each other where the style sheet arranges a view so.

    The browser compiles a template once and keeps its view: the rows, titles and parameters of a next chart with the same template go into
    the view that is there. Text and axes take the page's text colour. Specifications, by identity, and charts are sent as texts.
    """

    templates = traitlets.Dict().tag(sync=True, to_json=lambda templates, _: {key: _text(one) for key, one in templates.items()})
    view = traitlets.Unicode().tag(sync=True)  # names the arrangement
    charts = traitlets.List(traitlets.Dict()).tag(sync=True, to_json=lambda charts, _: [*map(_text, charts)])
    below = traitlets.Unicode().tag(sync=True)  # stands below a chart that is saved
    is_drawn = traitlets.Bool().tag(sync=True)  # whether a page has drawn its first charts
    library: str | None = None  # address of Vega's JavaScript, relative to the page; None where it comes with every widget
    _css = STYLE.read_text(encoding="utf-8")

    def __init__(self, charts: Iterable[Chart] = (), view: str = "", below: str | list[str] = "") -> None:
        script = SCRIPT.read_text(encoding="utf-8")
        library = f'await import(new URL("{self.library}", document.baseURI));' if self.library else vega_javascript()
        super().__init__(_esm=f"{library}\n{script}")
        if self.library:
            self._close_those_left()
        self.show(charts, view, below)

    def _close_those_left(self) -> None:
        """Closes the widgets of sessions that are over: ipywidgets and marimo keep each, and with it all that its page has computed."""
        with _OPENING:
            for thread, widget in [*_OPENED]:
                if not thread.is_alive():
                    _OPENED.remove((thread, widget))
                    widget.layout.close()
                    widget.close()
                    for end in [one.__callback__ for one in weakref.getweakrefs(widget)]:
                        if isinstance(end, weakref.finalize):
                            end()  # marimo's, by which it forgets what shows a widget once that is gone, which this keeps
            _OPENED.append((threading.current_thread(), self))

    def show(self, charts: Iterable[Chart], view: str = "", below: str | list[str] = "") -> None:
        """Draws charts in place of those before.

        Args:
            charts: in reading order.
            view: what they are of, in one word.
            below: what a saved chart says of itself, as of `reports.images.provenance`; a list says so of each.
        """
        found = list(charts)
        belows = [{"below": one} for one in below] if isinstance(below, list) else [{}] * len(found)
        templates = {one.template.key: _without_values(one) for one in found}
        with self.hold_sync():
            if templates.keys() != self.templates.keys():
                self.templates = templates
            self.view, self.below = view, below if isinstance(below, str) else ""
            self.charts = [
                {"template": one.template.key, "name": f"ocr_flops_{view}_{number}", "signals": one.signals, "datasets": one.datasets} | own
                for number, (one, own) in enumerate(zip(found, belows, strict=False), 1)
            ]


def _text(value: dict[str, Any]) -> str:
    """JSON, which on its way to the browser costs nothing, where every level of a nested value is looked through twice."""
    return msgspec.json.encode(value).decode()


def _without_values(chart: Chart) -> dict[str, Any]:
    """What charts of one template share: the specification without rows and without values of its signals."""
    return {**chart.embedded(), "datasets": {}, "params": chart.template.spec.get("params", [])}
