"""Markdown -> one HTML page that works without a network: charts, style and all JavaScript are in it, and the browser may load nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from html import escape
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element, SubElement

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown import Markdown
from markdown.treeprocessors import Treeprocessor
from markupsafe import Markup

from ocr_flops.charts import Chart
from ocr_flops.charts.theme import INK
from ocr_flops.reports.headline import Card
from ocr_flops.reports.images import vega_javascript
from ocr_flops.reports.markdown import TEMPLATES, table_markdown
from ocr_flops.units import seconds, si

UNIT = re.compile(r"(\d) (?=%|[kMGTPEmµ]?(?:B|s|FLOPs?)\b)")  # the space between a number and its unit


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
    specs = {name: _inherit_colour(chart.to_dict()) for name, chart in charts.items()}
    style, script = (Markup((TEMPLATES / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))
    return (
        _templates()
        .get_template("page.html.j2")
        .render(
            title=title,
            body=Markup(markdown_html(markdown)),
            data={"charts": specs, **(data or {})},
            style=style,
            scripts=[_script(vega_javascript(in_child)), script],
        )
    )


def markdown_html(text: str) -> str:
    """Markdown as HTML: with tables, fenced code, Markdown inside HTML blocks that ask for it, and places of charts.

    HTML in it is kept, so text of unknown origin is to be escaped (`markdown.escape_markdown`).
    """
    converter = Markdown(extensions=["tables", "fenced_code", "md_in_html"])
    converter.treeprocessors.register(_Page(converter), "page", 15)  # after inline markup
    return UNIT.sub("\\1\N{NO-BREAK SPACE}", converter.convert(text))


def cards_html(cards: Iterable[Card], layout: str = "figures", tooltip: str = "title") -> str:
    """Headline figures as HTML: the only rendering of them, for reports, the app and Jupyter.

    Args:
        cards: of `headline.headline_cards`, and further ones.
        layout: the class of the box that holds them.
        tooltip: the attribute that has a card's explanation; marimo shows `data-tooltip`.
    """
    return _templates().get_template("cards.html.j2").render(cards=list(cards), layout=layout, tooltip=tooltip)


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
                _place_chart(parent)


def _place_chart(paragraph: Element) -> None:
    (image,) = paragraph
    paragraph.tag = "figure"
    paragraph.remove(image)
    SubElement(paragraph, "div", {"class": "chart", "id": image.get("src", "").removeprefix("#"), "aria-label": image.get("alt", "")})
    if image.get("title"):
        SubElement(paragraph, "figcaption").text = image.get("title")


@cache
def _templates() -> Environment:
    found = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    found.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    return found


def _inherit_colour(spec: dict[str, Any]) -> dict[str, Any]:
    """A chart whose text takes the page's colour, light or dark."""
    return json.loads(json.dumps(spec).replace(f'"{INK}"', '"currentColor"'))


def _script(code: str) -> Markup:
    """JavaScript that no string in it can end; in code such a mark stands only inside strings and regular expressions."""
    return Markup(code.replace("</script", "<\\/script").replace("<!--", "<\\!--"))


# Below: pieces of pages that are not made of Markdown yet.


class Cell(NamedTuple):
    """A cell of a table, in plain text.

    Args:
        text: what is read first.
        below: a second, smaller line, such as the exact number.
        number: whether it stands on the right, its digits aligned.
    """

    text: str
    below: str = ""
    number: bool = True

    def html(self, tag: str = "td") -> str:
        """As an element of a row."""
        under = f"<small>{escape(self.below)}</small>" if self.below else ""
        return f"<{tag}{' class=number' if self.number else ''}>{escape(self.text)}{under}</{tag}>"


def whole(value: int, unit: str = "") -> Cell:
    """A whole number: with an SI prefix, and exactly below."""
    return Cell(si(value, unit) if value else "0", f"{value:,}" if abs(value) >= 1000 else "")


def exact(value: int) -> Cell:
    """A whole number with its thousands apart."""
    return Cell(f"{value:,}")


def time(value: float | None) -> Cell:
    """Seconds; a dash where there are none."""
    return Cell("–" if value is None else seconds(value))


def text(value: object) -> Cell:
    """Words."""
    return Cell(str(value), number=False)


def table(head: Sequence[Cell], rows: Iterable[Sequence[Cell]], last_is_sum: bool = False) -> str:
    """A table that can be scrolled sideways where the page is narrow.

    Args:
        head: the columns' headers, aligned as their cells.
        rows: the first cell of each heads its row.
        last_is_sum: the last row is set apart.
    """
    body = [f"<tr>{cells[0].html('th')}{''.join(cell.html() for cell in cells[1:])}</tr>" for cells in rows]
    foot = f"<tfoot>{body.pop()}</tfoot>" if last_is_sum else ""
    columns = "".join(cell.html("th") for cell in head)
    return f'<div class="scroll"><table><thead><tr>{columns}</tr></thead><tbody>{"".join(body)}</tbody>{foot}</table></div>'


def facts(groups: Mapping[str, Mapping[str, object]]) -> str:
    """Names and values in titled groups, side by side where there is room."""
    parts = []
    for heading, values in groups.items():
        rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in values.items())
        parts.append(f"<div><h3>{escape(heading)}</h3><dl>{rows}</dl></div>")
    return f'<div class="facts">{"".join(parts)}</div>'


def inline(words: str) -> str:
    """A sentence in which **bold** and `code` are set as such, and nothing else is markup; numbers stay with their units."""
    marked = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escape(UNIT.sub("\\1\N{NO-BREAK SPACE}", words)))
    return re.sub(r"`(.+?)`", r"<code>\1</code>", marked)


def points(sentences: Iterable[str]) -> str:
    """A list of sentences (`inline`)."""
    return f"<ul>{''.join(f'<li>{inline(one)}</li>' for one in sentences)}</ul>"


def figure(chart: str, caption: str = "") -> str:
    """The place of a chart of `offline.document`.

    Args:
        chart: its name there.
        caption: a sentence or two below it (`inline`).
    """
    below = f"<figcaption>{inline(caption)}</figcaption>" if caption else ""
    return f'<figure><div class="chart" id="{escape(chart)}"></div>{below}</figure>'


def section(heading: str, *parts: str) -> str:
    """A part of the page under a heading; nothing without content."""
    return "" if not any(parts) else f"<section><h2>{escape(heading)}</h2>{''.join(parts)}</section>"


def folded(summary: str, *parts: str) -> str:
    """What is read on demand; it is open in print."""
    return f"<details class=folded><summary>{escape(summary)}</summary>{''.join(parts)}</details>"
