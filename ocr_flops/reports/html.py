"""Pieces of an HTML page, every text escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

from ocr_flops.units import seconds, si

UNIT = r"(\d) (?=%|[kMGTPEmµ]?(?:B|s|FLOPs?)\b)"  # the space between a number and its unit


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
    marked = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escape(re.sub(UNIT, "\\1\N{NO-BREAK SPACE}", words)))
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
