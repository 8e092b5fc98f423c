"""Small things that every panel is made of."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import marimo as mo

from ocr_flops import tables

if TYPE_CHECKING:
    import polars as pl


def labelled(text: str, explanation: str) -> str:
    """A control's label, explained where the pointer rests on it."""
    return f'<span data-tooltip="{escape(explanation)}">{escape(text)}</span>'


def problem(title: str, *texts: str, kind: str = "danger") -> mo.Html:
    """A notice. Its texts may quote what somebody typed or sent, so nothing in them is taken for HTML or Markdown."""
    return mo.callout(mo.Html(f"<strong>{escape(title)}</strong> " + "<br>".join(escape(text) for text in texts)), kind=kind)


def choice(options: Mapping[str, str], value: str, label: str) -> mo.ui.dropdown:
    """A list that begins with the option that has this value."""
    return mo.ui.dropdown(options, value=next(name for name, known in options.items() if known == value), full_width=True, label=label)


def counting_button(label: str) -> mo.ui.button:
    """A button whose value is how often it was pressed."""
    return mo.ui.button(value=0, on_click=lambda number: number + 1, label=label, kind="success")


def plain_table(frame: pl.DataFrame, **options: Any) -> mo.ui.table:
    """A table to read."""
    return mo.ui.table(
        frame, selection=None, format_mapping=tables.formats(frame), show_column_summaries=False, show_data_types=False, **options
    )


def row(*items: Any, gap: float = 1) -> mo.Html:
    """Things side by side."""
    return mo.hstack(items, justify="start", align="center", gap=gap, wrap=True)
