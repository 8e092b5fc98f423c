"""One HTML file that works without a network: charts, style and all JavaScript are in it, and the browser is told to load nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from ocr_flops.charts import Chart
from ocr_flops.charts.theme import INK
from ocr_flops.reports.images import vega_javascript

FOLDER = Path(__file__).parent / "templates"
POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:"  # Vega compiles
INHERITED = "currentColor"  # text and axes of a chart take the page's colour, light or dark
CONFIG = {
    "axis": {"labelColor": INHERITED, "titleColor": INHERITED},
    "legend": {"labelColor": INHERITED, "titleColor": INHERITED},
    "title": {"color": INHERITED},
    "text": {"color": INHERITED},
    "font": "system-ui, sans-serif",
}


def document(title: str, body: str, charts: Mapping[str, Chart], data: Mapping[str, Any] | None = None, *, in_child: bool = True) -> str:
    """A page with charts.

    Args:
        title: of the browser's tab, plain text.
        body: HTML made of `elements`; `elements.figure(name)` is where a chart is drawn.
        charts: by the name of their place. Charts with inputs of the same name follow each other.
        data: what the page carries for programs, as JSON by the id of its element.
        in_child: get the JavaScript from a child process (see `chart_images`).
    """
    style, script = ((FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    specs = {name: _themed(chart.to_dict()) for name, chart in charts.items()}
    carried = "".join(_json(name, value) for name, value in {"charts": specs, **(data or {})}.items())
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<noscript><p class="notice">The charts need JavaScript, which this file brings along; the tables do not.</p></noscript>
{body}
{carried}
<script>{_script(vega_javascript(in_child))}</script>
<script>{_script(script)}</script>
</body>
</html>
"""


def _themed(spec: dict[str, Any]) -> dict[str, Any]:
    """A chart whose text follows the page's colour scheme."""
    config = spec.get("config", {})
    merged = {key: {**config.get(key, {}), **value} if isinstance(value, dict) else value for key, value in CONFIG.items()}
    return json.loads(json.dumps({**spec, "config": {**config, **merged}}).replace(f'"{INK}"', f'"{INHERITED}"'))


def _json(name: str, value: Any) -> str:
    """Data in an element; no text in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{escape(name)}">{text}</script>\n'


def _script(code: str) -> str:
    """JavaScript that no string in it can end; in code such a mark stands only inside strings and regular expressions."""
    return code.replace("</script", "<\\/script").replace("<!--", "<\\!--")
