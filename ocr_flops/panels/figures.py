"""The headline figures above the tabs."""

from __future__ import annotations

from html import escape
from typing import Any

import marimo as mo

from ocr_flops.headline import Figure, figures
from ocr_flops.views import Shown

CARDS = 6


def headline(shown: Shown, record: dict[str, Any]) -> mo.Html:
    """Six figures as cards, the rest in a line.

    Args:
        shown: a setting that can be computed.
        record: of `evidence.recorded`.
    """
    found = figures(shown.estimates[0], shown.timings[0] if shown.timings else None)
    cards = [
        f'<div class="{"alarm" if one.alarm else ""}"><span data-tooltip="{escape(one.explanation)}">{escape(one.label)}</span>'
        f"<strong>{escape(one.value)}</strong><span>{escape(one.caption)}</span></div>"
        for one in found[:CARDS]
    ]
    details = "".join(_detail(one) for one in (*found[CARDS:], _checked(record)))
    return mo.Html(f'<div class="figures">{"".join(cards)}</div><div class="details">{details}</div>')


def _detail(one: Figure) -> str:
    return (
        f'<div data-tooltip="{escape(one.explanation)}"><span>{escape(one.label)}</span> <strong>{escape(one.value)}</strong> '
        f"<span>{escape(one.caption)}</span></div>"
    )


def _checked(record: dict[str, Any]) -> Figure:
    wrong = sum(one["largest_difference"] != 0 for one in record["rows"])
    return Figure(
        "checked",
        f"{record['numbers']:,} numbers",
        f"{wrong} DIFFER" if wrong else "all equal the real model",
        "How this version was compared with the real model before it was released; see Method.",
    )
