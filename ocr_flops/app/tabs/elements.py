"""Small things that every tab is made of."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from html import escape
from itertools import islice
from typing import Any

import marimo as mo
import polars as pl
from marimo._plugins.ui._impl.table import SearchTableArgs, SearchTableResponse

from ocr_flops.reports import tables

LETTER_PX, CELL_PX, LONG, MOST_CARDS = 7.3, 22, 13, 60  # of a table: a letter, what is around words, letters of a line, rows on a phone


def labelled(text: str, explanation: str) -> str:
    """A control's label, explained where the pointer rests on it."""
    return f'<span data-tooltip="{escape(explanation)}">{escape(text)}</span>'


def doors(served: Mapping[str, Any]) -> mo.Html:
    """A button that copies the page's address, which carries the setting, and a link to the talk; the page's script does what they say.

    Args:
        served: what the server says of itself; another one has no talk.
    """
    talk = ' <a class="with-setting" href="talk/">The talk</a>' if served.get("talk") else ""
    return mo.Html(f'<div class="doors"><button type="button" class="copy-link">Copy link</button>{talk}</div>')


def problem(title: str, *texts: str, kind: str = "danger") -> mo.Html:
    """A notice. Its texts may quote what somebody typed or sent, so nothing in them is taken for HTML; `commands` are set as such."""
    words = re.sub("`([^`]*)`", r"<code>\1</code>", "<br>".join(escape(text) for text in texts))
    return mo.callout(mo.Html(f"<strong>{escape(title)}</strong> {words}"), kind=kind)


def choice(options: Mapping[str, Any] | Iterable[str], value: Any, label: str, explanation: str) -> mo.ui.dropdown:
    """A list that begins with the option that has this value; options by their names, or names alone."""
    by_name = dict(options) if isinstance(options, Mapping) else {name: name for name in options}
    first = next(name for name, known in by_name.items() if known == value)
    return mo.ui.dropdown(by_name, value=first, full_width=True, label=labelled(label, explanation))


def button(label: str, act: Callable[[], None], kind: str = "success") -> mo.ui.button:
    """A button that acts once a press, however often the cells that show it run."""
    return mo.ui.button(value=0, on_click=lambda number: number + 1, on_change=lambda _: act(), label=label, kind=kind)


def unless(missing: str | None, run: Any) -> Any:
    """A button that runs something; where something is missing for it, one that says so and cannot be pressed."""
    return run if missing is None else mo.ui.button(label=f"Cannot be run: {escape(missing)}", disabled=True)


class LiteralSearch(mo.ui.table):
    """A table whose search takes what is typed for text, where marimo's takes it for a regular expression: "L4 (24 GB)" is found.

    Where there is no room for it, the style sheet shows `cards` in its place: HTML of its first rows.
    """

    cards = ""

    @property
    def text(self) -> str:
        return f'<div class="folding"><div>{super().text}</div>{self.cards}</div>'

    def _search(self, args: SearchTableArgs) -> SearchTableResponse:
        return super()._search(replace(args, query=args.query and re.escape(args.query)))


def plain_table(frame: pl.DataFrame, **options: Any) -> mo.ui.table:
    """A table to read: a dash where there is nothing, columns as narrow as their words in few lines allow.

    Args:
        frame: the table.
        options: as `mo.ui.table` takes them.
    """
    texts = [name for name, kind in frame.schema.items() if kind == pl.String]
    shown, formats = frame.with_columns(pl.col(texts).fill_null(tables.NONE)), tables.number_formats(frame)
    words = {name: [formats.get(name, str)(value) for value in shown[name]] for name in shown.columns}
    px = {name: round(LETTER_PX * _letters(name, cells)) + CELL_PX for name, cells in words.items()}
    table = LiteralSearch(
        shown,
        selection=None,
        format_mapping=formats,
        wrapped_columns=[*texts],
        column_widths=px,
        show_column_summaries=False,
        show_data_types=False,
        **options,
    )
    rows = islice(zip(*words.values(), strict=True), MOST_CARDS)
    heads = [f"<dt>{escape(name)}</dt>" for name in words]
    cards = ("".join(f"{head}<dd>{escape(cell)}</dd>" for head, cell in zip(heads, row, strict=True)) for row in rows)
    table.cards = "".join(f"<dl>{one}</dl>" for one in cards)
    return table


def _letters(name: str, cells: Iterable[str]) -> int:
    """Letters of a column's longest line: long words in lines of about `LONG`, of very long ones in longer lines."""
    longest = max(map(len, cells), default=0)
    words = (word for text in (name, *cells) for word in text.split())
    return max(4, *map(len, words), longest if longest <= LONG else max(LONG, round((3 * longest) ** 0.5)))


def grid(*items: Any) -> mo.Html:
    """Controls in columns of one width."""
    return mo.Html(f'<div class="targets">{"".join(one.text for one in items)}</div>')


def row(*items: Any, gap: float = 1) -> mo.Html:
    """Things side by side."""
    return mo.hstack(items, justify="start", align="center", gap=gap, wrap=True)
