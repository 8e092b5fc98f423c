"""What the Jupyter twin shows beside its charts: notices and tables as HTML, and their style."""

from base64 import b64encode
from collections.abc import Iterable
from html import escape
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import polars as pl

from ocr_flops.app import links, spot_checks, views
from ocr_flops.app.planned import plan_pages
from ocr_flops.app.tabs import TABS
from ocr_flops.errors import SpecError
from ocr_flops.reports import tables
from ocr_flops.reports.html import markdown_html, table_html
from ocr_flops.spec.catalog import notebook_dir

LINK = 'LINK = \\"\\"'  # as JSON has it
STYLE = f"<style>{Path(__file__).with_suffix('.css').read_text(encoding='utf-8')}</style>"


def notice_html(text: str, kind: str = "notice") -> str:
    """A sentence in a frame: "notice" for what is wrong, "good" for what is right; small as "basis"."""
    return f'<div class="of-{kind}">{escape(text)}</div>'


def begin(link: str) -> links.Link:
    """What the twin's controls begin with: a link of the app, or the part of it behind "?"; "" for the defaults."""
    query = urlsplit(link if "?" in link else f"?{link}").query
    return links.read(dict(parse_qsl(query, keep_blank_values=True)), TABS)


def linked_notebook(link: links.Link) -> bytes:
    """The twin as a file whose controls and pins begin with those of a link."""
    text = (notebook_dir() / "what_if.ipynb").read_text(encoding="utf-8")
    return text.replace(LINK, f'LINK = \\"{urlencode(links.write(link))}\\"').encode()


def download_html(name: str, content: bytes, mimetype: str, text: str) -> str:
    """A link that saves some content as a file, without a server."""
    return f'<a download="{escape(name)}" href="data:{mimetype};base64,{b64encode(content).decode()}">{escape(text)}</a>'


def plan_html(results: views.Results) -> str:
    """The plan in sentences and a row a device; or why there is none."""
    try:
        words, devices = plan_pages(results)
    except SpecError as error:
        return notice_html(f"This target has no answer. {error}.")
    return f"{markdown_html(words)}{table_html(devices)}"


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
