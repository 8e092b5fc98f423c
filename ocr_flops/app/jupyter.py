"""Widgets for Jupyter: charts that need no network and follow the page's theme, figures and tables as HTML."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from html import escape

import anywidget
import polars as pl
import traitlets
import vl_convert

from ocr_flops.app import spot_checks
from ocr_flops.charts import Chart
from ocr_flops.reports import tables
from ocr_flops.reports.html import table_html

STYLE = """<style>
.widget-html-content .figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(6.6rem, 1fr)); gap: 0.4rem; }
.widget-html-content .figures, .widget-html-content .scroll { line-height: 1.3; }
.widget-html-content .figures > div { border: 1px solid rgb(128 128 128 / 40%); border-radius: 0.5rem; padding: 0.3rem 0.6rem; }
.widget-html-content .figures > div { position: relative; }
.widget-html-content .figures span { display: block; font-size: 0.85em; }
.widget-html-content .figures span:last-child { opacity: 0.7; }
.widget-html-content .figures span[title]::after { content: ""; position: absolute; inset: 0; }
.widget-html-content .figures strong { display: block; font-size: 1.4em; line-height: 1.5; white-space: nowrap; }
.widget-html-content .figures .alarm, .of-notice { border: 1px solid #cc3311; background: rgb(204 51 17 / 12%); }
.of-good { border: 1px solid #009988; background: rgb(0 153 136 / 12%); }
.of-notice, .of-good { border-radius: 0.5rem; padding: 0.4rem 0.7rem; line-height: 1.4; }
.widget-html-content:has(.scroll) { min-width: 0; }
.widget-html-content .scroll { overflow: auto; max-height: 36rem; }
.widget-html-content .scroll table { border-collapse: collapse; font-size: 0.95em; }
.widget-html-content .scroll :is(th, td) {
  padding: 0.15rem 0.6rem !important; text-align: left; white-space: nowrap; font-variant-numeric: tabular-nums;
}
.widget-html-content .scroll thead th { border-bottom: 1px solid rgb(128 128 128 / 60%); }
.widget-html-content .scroll tbody th { font-weight: inherit; }
</style>"""


DRAW = """
const options = { renderer: "svg", actions: { export: true, source: false, compiled: false, editor: false } };  // the editor is a site

function render({ model, el }) {
  let views = [], busy = false, stale = false, width = 0;
  el.classList.add("of-charts");

  async function drawAll() {
    const specs = structuredClone(model.get("specs"));
    views.forEach(view => view.finalize());
    views = [];
    if (!el.children.length) el.textContent = "";  // what went wrong before
    while (el.children.length > specs.length) el.lastChild.remove();
    while (el.children.length < specs.length) el.append(document.createElement("div"));
    for (const [number, spec] of specs.entries()) {
      const panel = el.children[number];
      panel.style.minHeight = panel.clientHeight + "px";  // the page must not jump while the panel is empty
      views.push((await vegaEmbed(panel, spec, options)).view);
      panel.style.minHeight = "";
    }
  }

  async function draw() {
    stale = true;
    if (busy || !width) return;
    busy = true;
    while (stale) {  // what came meanwhile is drawn once, as it was last
      stale = false;
      await drawAll().catch(problem => { el.textContent = problem.message; });
    }
    busy = false;
  }

  const room = new ResizeObserver(() => {  // a widget has no width before Jupyter puts it on the page
    if (el.clientWidth && el.clientWidth !== width) { width = el.clientWidth; draw(); }
  });
  room.observe(el);
  model.on("change:specs", draw);
  return () => { room.disconnect(); model.off("change:specs", draw); views.forEach(view => view.finalize()); };
}
export default { render };
"""


class Charts(anywidget.AnyWidget):
    """Charts below each other. Their JavaScript comes with them; what is black on white follows the page's theme.

    Altair's `JupyterChart` would check every chart anew (100 ms), draw it 0 px wide before it is on the page, and keep all it ever drew.
    """

    specs = traitlets.List(traitlets.Dict()).tag(sync=True)
    _css = """
    .of-charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 46rem), 1fr)); gap: 0.5rem; align-items: start; }
    .of-charts > div { min-width: 0; }
    .vega-embed { width: 100%; box-sizing: border-box; }
    .vega-embed text[fill="#000"], .vega-embed text[fill="black"] { fill: currentColor; }
    """

    def __init__(self) -> None:
        type(self)._esm = _bundle()
        super().__init__()

    def show(self, charts: Iterable[Chart]) -> None:
        """Draws these charts in place of those before."""
        self.specs = [chart.to_dict() for chart in charts]


@cache
def _bundle() -> str:
    """`DRAW` with Vega, Vega-Lite and Vega-Embed in it, so that nothing is loaded from elsewhere; takes two seconds."""
    return vl_convert.javascript_bundle(DRAW)


def notice_html(text: str, kind: str = "notice") -> str:
    """A sentence in a frame: "notice" for what is wrong, "good" for what is right."""
    return f'<div class="of-{kind}">{escape(text)}</div>'


def measured_html(measured: Iterable[pl.DataFrame]) -> str:
    """What spot checks found, latest first: the verdict, what could not be seen, and every module.

    Args:
        measured: frames of `spot_check.frame`, oldest first.
    """
    frames = list(measured)
    if not frames:
        return ""
    compared = pl.concat(reversed(frames))
    equal, unseen = not compared["difference"].abs().sum(), spot_checks.missed(compared)
    parts = [notice_html(spot_checks.verdict(compared), "good" if equal else "notice")]
    parts += [notice_html(f"Not seen by torch's counter, so not compared. {'; '.join(unseen)}")] if unseen else []
    return "".join([*parts, table_html(tables.measured_table(compared))])
