"""The tab Compare: pinned settings beside the current one."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any
from urllib.parse import urlencode

import marimo as mo

from ocr_flops import charts
from ocr_flops.app import comparison, links
from ocr_flops.app.links import Link
from ocr_flops.app.setting import Setting
from ocr_flops.app.tabs.elements import plain_table, problem, row
from ocr_flops.spec.specs import ModelSpec

NOW = "now"
Pins = tuple[tuple[str, Setting], ...]


def compared(model: ModelSpec, setting: Setting, pins: Pins) -> tuple[Any, list[str]]:
    """The current setting and the pins as `comparison.compared` has them, and what cannot be compared."""
    return comparison.compared(model, {NOW: setting, **dict(pins)})


def compare(
    model: ModelSpec, setting: Setting, pins: Pins, adding: Sequence[Any], names: Sequence[Any], removals: Sequence[Any]
) -> mo.Html:
    """Chart, list of pins with their controls, and table.

    Args:
        model: whose settings.
        setting: the current one.
        pins: names and settings.
        adding: controls that pin the current one.
        names, removals: for each pin, the field of its name and the button that removes it.
    """
    found, problems = compared(model, setting, pins)
    listed = [
        row(name, mo.Html(_described(kept, setting, pins)), removal) for (_, kept), name, removal in zip(pins, names, removals, strict=True)
    ]
    full = mo.md(f"{links.MAX_PINS} settings are pinned; remove one to pin another.")
    return mo.vstack(
        [
            row(*adding) if len(pins) < links.MAX_PINS else full,
            *([problem("Not everything can be compared.", *problems, kind="warn")] if problems else []),
            charts.comparison(found),
            *([mo.md("**Pinned**, and what differs from the controls now")] if listed else []),
            *listed,
            *([plain_table(comparison.comparison_table(found), pagination=False)] if len(found) > 1 else []),
        ]
    )


def _described(kept: Setting, setting: Setting, pins: Pins) -> str:
    link = escape(urlencode(links.write(Link(kept, "Compare", pins))))
    return f'<span class="pin">{escape(comparison.in_words(kept, setting))} · <a href="?{link}">show it</a></span>'
