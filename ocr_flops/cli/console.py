"""What commands share: their common options, output as table, JSON or CSV, tables that fit the terminal, and progress."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ocr_flops.errors import one_of
from ocr_flops.files import write_whole
from ocr_flops.spec.catalog import names
from ocr_flops.spec.overrides import GROUPS
from ocr_flops.units import interval, seconds, share, si

if TYPE_CHECKING:
    import polars as pl

GAP = 3  # characters between columns
UNLIMITED = 10_000  # characters of a line that no terminal breaks: of a file or a pipe
PLAIN = ("gpu_hours", "cost", "pages", "arithmetic", "mfu", "bandwidth_use")  # columns whose names begin so: no prefixes


def complete_override(incomplete: str) -> list[str]:
    """What an override may begin with, or the names that a group offers, for the shell's completion."""
    key, equals, _ = incomplete.partition("=")
    if equals:
        return [f"{key}={name}" for name in names(key)] if key in GROUPS else []
    return [f"{group}=" for group in GROUPS if group.startswith(key)]


Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Hydra overrides, as in: workload=gundam workload.columns=2 workload.rows=3 attention=eager engine=remote_code dtype=fp16 "
        "hardware=l4 host=graphs host.operator_us=9 efficiency.matrix=0.7",
        autocompletion=complete_override,
        show_default=False,
    ),
]
Form = Annotated[Literal["table", "json", "csv"], typer.Option("--format", help="What to print.", rich_help_panel="Output")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Write into this folder instead of to the screen.", rich_help_panel="Output")
]
Columns = Annotated[
    str, typer.Option("--columns", metavar="NAME,...", help="Columns of the table; all by default.", rich_help_panel="Output")
]
Python = Annotated[
    str | None,
    typer.Option(
        "--python",
        metavar="PATH",
        help="Interpreter that runs the model, with torch and transformers (default: that of OCR_FLOPS_PYTHON, or this one).",
        show_default=False,
    ),
]
Records = Annotated[
    str | None,
    typer.Option(
        "--records",
        metavar="DIR",
        help="Folder of records (default: OCR_FLOPS_RECORDS, or ~/.local/share/ocr_flops/records).",
        show_default=False,
    ),
]


def known_names(option: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    """The names, separated by commas, that an option gives, each of them known; all that are known where it gives none."""
    given = [name.strip() for name in text.split(",") if name.strip()]
    return tuple(dict.fromkeys(one_of(option, name, tuple(known)) for name in given)) or tuple(known)


def write_result(name: str, form: str, out: Path | None, **forms: Callable[[], Any]) -> None:
    """Prints a command's result in one of its forms, or writes it whole into a folder as a file of this name, and prints its path.

    Forms are functions that make the result: plain data for json, a frame for csv, text for table.
    """
    made = forms[form]()
    text = json.dumps(made, indent=1) if form == "json" else made.write_csv().removesuffix("\n") if form == "csv" else made
    if out is None:
        print(text)
    else:
        print(write_whole(out / f"{name}.{'txt' if form == 'table' else form}", text + "\n"))


def render_text(template: str, out: Path | None = None, **values: Any) -> str:
    """A text for people from a file of `templates/`, as wide as the terminal where `out` is None."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    limit = UNLIMITED if out else terminal_width()
    environment.filters |= {"si": si, "seconds": seconds, "interval": interval, "share": share, "wrap": partial(_wrap_lines, limit=limit)}
    return environment.get_template(f"{template}.txt.j2").render(table=partial(render_table, limit=limit), **values).rstrip()


def _wrap_lines(text: str, limit: int) -> str:
    """Lines broken where the terminal ends."""
    return "".join(textwrap.fill(line, limit, subsequent_indent="  ") + "\n" for line in text.splitlines())


def terminal_width() -> int:
    """Characters that a line may have: of the terminal or of COLUMNS; as many as it takes in a file or a pipe."""
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        return shutil.get_terminal_size().columns
    return UNLIMITED


def render_table(frame: pl.DataFrame, keys: Sequence[str] = (), columns: str = "", most_blocks: int = 9, limit: int = UNLIMITED) -> str:
    """A frame as text whose lines have at most `limit` characters: one table, or several below each other that share their first columns.

    Args:
        frame: numbers get SI prefixes and units.
        keys: the columns that name a row, repeated in every block.
        columns: those wanted beside the keys, separated by commas; all by default.
        most_blocks: tables at most; which columns are left out is said below them.
    """
    keys = [name for name in keys if name in frame.columns] or frame.columns[:1]
    wanted = [name for name in known_names("--columns", columns, frame.columns) if name not in keys]
    cells = {name: [_head(name), *(_cell(name, value) for value in frame[name])] for name in (*keys, *wanted)}
    widths = {name: max(map(len, texts)) + GAP for name, texts in cells.items()}
    blocks: list[list[str]] = [[]]
    for name in wanted:
        if blocks[-1] and sum(widths[one] for one in (*keys, *blocks[-1], name)) - GAP > limit:
            blocks.append([])
        blocks[-1].append(name)
    texts = [_block(frame.select(*keys, *block), cells, limit) for block in blocks[:most_blocks]]
    if hidden := [name for block in blocks[most_blocks:] for name in block]:
        texts.append(textwrap.fill(f"Not shown for want of width: {', '.join(hidden)}. See --columns, or --format csv.", limit))
    return "\n\n".join(texts)


def _block(frame: pl.DataFrame, cells: dict[str, list[str]], limit: int) -> str:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1))
    for name, kind in frame.schema.items():
        side = "right" if kind.is_numeric() else "left"
        table.add_column(Text(cells[name][0]), justify=side, no_wrap=True, overflow="ellipsis", min_width=4)
    for row in zip(*(cells[name][1:] for name in frame.columns), strict=True):
        table.add_row(*map(Text, row))
    text = io.StringIO()
    Console(file=text, width=limit, color_system=None, legacy_windows=False).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().rstrip().splitlines())


def _head(column: str) -> str:
    from ocr_flops.reports.tables import TITLES

    words = TITLES.get(column, column.removesuffix("_seconds").removesuffix("_bytes").replace("_", " "))
    return words.removesuffix(" (B)")  # cells have their units


def _cell(column: str, value: Any) -> str:
    """A value as it is printed in a column."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    if column.startswith(PLAIN):
        return f"{value:.4g}"
    if column.endswith("_share"):
        return share(value, 1)
    if column.endswith("_seconds"):
        return seconds(value)
    return si(value, "B" if column.endswith("_bytes") else "", digits=4)


@contextmanager
def show_progress(text: str = "starting") -> Iterator[Callable[[str], None]]:
    """A line on a terminal's stderr that says what goes on, gone when the work is done; nothing where stderr is no terminal."""
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(text)) as status:
        yield lambda words: status.update(Text(words))


def complain(command: str, text: str) -> None:
    """Says on stderr what went wrong, after the command's name."""
    print(f"ocr-flops {command}: {text}", file=sys.stderr)


@contextmanager
def show_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Progress bars on a terminal's stderr, one for each kind of work, with the time left; gone when all is done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    tasks: dict[str, Any] = {}
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bars:

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        yield show
