"""Reports as Markdown: Jinja2 templates in which every value is plain text unless it is marked as Markdown."""

import html
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ocr_flops.reports import tables
from ocr_flops.units import attention_words, counted, interval, seconds, share, si, workload_words

SPECIAL = re.compile(r"[\\`*\[\]|]|(?<!\w)_|_(?!\w)|^[#+-](?= )")  # what Markdown reads as markup within a line, beside HTML
MARKED = re.compile(r"(\*\*.+?\*\*|`[^`]+`)")


def escape_markdown(value: object) -> Markup:
    """A value as Markdown that shows it as it is, on one line. `Markup`, which is Markdown already, stays."""
    if isinstance(value, Markup):
        return value
    return Markup(SPECIAL.sub(r"\\\g<0>", html.escape(re.sub(r"\s+", " ", str(value)), quote=False)))


def sentence(words: str) -> Markup:
    """A sentence as Markdown, in which **bold** and `code` are markup and nothing else is."""
    parts = MARKED.split(words)  # every other one is marked
    parts[::2] = map(escape_markdown, parts[::2])
    parts[1::2] = (part if part.startswith("`") else f"**{sentence(part[2:-2])}**" for part in parts[1::2])
    return Markup("".join(parts))


def table_markdown(frame: pl.DataFrame, formats: Mapping[str, Callable[[Any], str]] | None = None) -> Markup:
    """A frame as a Markdown table whose numbers stand on the right.

    Args:
        frame: a column per column of the table, named by its heading; where a value is missing there is a dash.
        formats: how the values of a column are printed; by default those of `tables.number_formats`. `Markup` may hold HTML.
    """
    formats = tables.number_formats(frame) | dict(formats or {})

    def cell(name: str, value: object) -> str:
        return escape_markdown(tables.NONE if value is None else formats.get(name, str)(value))

    lines = [
        [escape_markdown(name) for name in frame.columns],
        ["---:" if kind.is_numeric() else "---" for kind in frame.dtypes],
        *([cell(name, value) for name, value in row.items()] for row in frame.iter_rows(named=True)),
    ]
    return Markup("\n".join(f"| {' | '.join(cells)} |" for cells in lines))


def render_markdown(template: str, **values: object) -> str:
    """A template of `templates/` with its values filled in.

    Args:
        template: a file's name. Its filters `sentence`, `si`, `seconds`, `share`, `workload_words` and its function `table` are those of
            Python; `count` sets thousands apart, and `bound` names a binding ceiling.
        values: what it names.
    """
    return _markdown_templates().get_template(template).render(values)


def open_templates(**options: Any) -> Environment:
    """The templates of `templates/`, with further options of Jinja2."""
    return Environment(loader=PackageLoader(__package__), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, **options)


@cache
def _markdown_templates() -> Environment:
    found = open_templates(finalize=escape_markdown, keep_trailing_newline=True)
    found.filters |= {one.__name__: one for one in (sentence, si, seconds, interval, share, counted, attention_words, workload_words)}
    found.filters |= {"count": "{:,}".format, "bound": tables.BOUND.get}
    found.globals["table"] = table_markdown
    return found
