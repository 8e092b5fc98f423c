"""Markdown -> one HTML page that works without a network: charts, style and all JavaScript are in it, and the browser may load nothing."""

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import polars as pl
from jinja2 import Environment
from markdown import Markdown
from markdown.treeprocessors import Treeprocessor
from markupsafe import Markup

from ocr_flops.charts import Chart
from ocr_flops.charts.theme import INK
from ocr_flops.reports.headline import Card
from ocr_flops.reports.images import vega_javascript
from ocr_flops.reports.markdown import open_templates, table_markdown

UNIT = re.compile(r"(\d) (?=%|[kMGTPEmµ]?(?:B|s|FLOPs?)\b|[kMGTPE]\b)")  # the space between a number and its unit


def html_page(
    title: str, markdown: str, charts: Mapping[str, Chart], data: Mapping[str, Any] | None = None, *, in_child: bool = True
) -> str:
    """A report as one HTML file.

    Args:
        title: of the browser's tab, plain text.
        markdown: the report (see `markdown_html`).
        charts: by name; the image `![title](#name "caption")` is where one is drawn. Charts with inputs of the same name follow each other.
        data: what the page carries for programs, as JSON by the id of its element.
        in_child: get Vega's JavaScript from a child process (see `images.chart_images`).

    Raises:
        DrawingError: the child failed.
    """
    specs = json.dumps({name: chart.to_dict() for name, chart in charts.items()})
    vega = vega_javascript(in_child).replace("</script", "<\\/script").replace("<!--", "<\\!--")  # which stand only inside strings
    carried = {"charts": json.loads(specs.replace(f'"{INK}"', '"currentColor"')), **(data or {})}  # text as the page's, light or dark
    page = _html_templates().get_template("page.html.j2")
    return page.render(title=title, body=Markup(markdown_html(markdown)), data=carried, vega=Markup(vega))


def markdown_html(text: str) -> str:
    """Markdown as HTML: with tables, fenced code, Markdown inside HTML blocks that ask for it, and places of charts.

    HTML in it is kept, so text of unknown origin is to be escaped (`markdown.escape_markdown`).
    """
    converter = Markdown(extensions=["tables", "fenced_code", "md_in_html"])
    converter.treeprocessors.register(_Page(converter), "page", 15)  # after inline markup
    return _keep_units(converter.convert(text))


def _keep_units(text: str) -> str:
    """A text in which no line parts a number from its unit."""
    return UNIT.sub("\\1\N{NO-BREAK SPACE}", text)


def cards_html(cards: Iterable[Card], layout: str = "figures", tooltip: str = "title") -> str:
    """Headline figures as HTML: the only rendering of them, for reports, the app and Jupyter.

    Args:
        cards: of `headline.headline_cards`, and further ones.
        layout: the class of the box that holds them.
        tooltip: the attribute that has a card's explanation; marimo shows `data-tooltip`.
    """
    cards = [card._replace(caption=_keep_units(card.caption)) for card in cards]
    return _html_templates().get_template("cards.html.j2").render(cards=cards, layout=layout, tooltip=tooltip)


def table_html(frame: pl.DataFrame) -> str:
    """A frame of `tables` as HTML (see `table_markdown`)."""
    return markdown_html(table_markdown(frame))


class _Page(Treeprocessor):
    """Tables get a box to scroll in and headings of rows; images of `#name` become places of charts."""

    def run(self, root: Element) -> None:
        for parent in list(root.iter()):
            for number, child in enumerate(parent):
                if child.tag == "table":
                    parent[number] = box = Element("div", {"class": "scroll"})
                    box.append(child)
            if parent.tag == "tr" and parent[0].tag == "td":
                parent[0].tag = "th"
                parent[0].set("scope", "row")
            if parent.tag == "p" and len(parent) == 1 and parent[0].get("src", "").startswith("#"):
                image = parent[0].attrib
                parent.clear()
                parent.tag = "figure"
                SubElement(parent, "div", {"class": "chart", "id": image["src"].removeprefix("#"), "aria-label": image["alt"]})
                if "title" in image:
                    SubElement(parent, "figcaption").text = image["title"]


@cache
def _html_templates() -> Environment:
    found = open_templates(autoescape=True)
    found.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    return found
