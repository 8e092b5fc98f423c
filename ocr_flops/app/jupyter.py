"""What the Jupyter twin shows beside its charts: notices and tables as HTML, and their style."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path

import polars as pl

from ocr_flops.app import spot_checks
from ocr_flops.reports import tables
from ocr_flops.reports.html import table_html

STYLE = f"<style>{Path(__file__).with_suffix('.css').read_text(encoding='utf-8')}</style>"


def notice_html(text: str, kind: str = "notice") -> str:
    """A sentence in a frame: "notice" for what is wrong, "good" for what is right; small as "basis"."""
    return f'<div class="of-{kind}">{escape(text)}</div>'


def measured_html(measured: Iterable[pl.DataFrame]) -> str:
    """What spot checks found, latest first: the verdict, what could not be seen, and every module.

    Args:
        measured: frames of `spot_checks.build_frame`, oldest first.
    """
    frames = list(measured)
    if not frames:
        return ""
    compared = pl.concat(reversed(frames))
    parts = [notice_html(spot_checks.verdict(compared), "notice" if spot_checks.count_differences(compared) else "good")]
    return "".join([*parts, table_html(tables.measured_table(compared))])
