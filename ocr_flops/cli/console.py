"""What commands share: their common options, output as table, JSON or CSV, tables that fit the terminal, and progress."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ocr_flops.errors import SpecError, one_of
from ocr_flops.files import write_whole
from ocr_flops.spec.catalog import names
from ocr_flops.spec.overrides import GROUPS
from ocr_flops.units import (
    SECONDS_PER_DAY,
    count,
    count_interval,
    counted,
    duration,
    escape_controls,
    hour_price,
    interval,
    seconds,
    share,
    si,
)

if TYPE_CHECKING:
    import polars as pl

    from ocr_flops.spec.specs import HardwareSpec

GAP, TIGHT = 3, 1  # characters between columns, and where one beside its keys would not fit else
UNLIMITED = 10_000  # characters of a line that no terminal breaks: of a file or a pipe
LISTED = 10_000  # counts below are written out
PLAIN = ("gpu_hours", "cost", "pages", "fitting", "arithmetic", "mfu", "bandwidth_use")  # columns whose names begin so: no prefixes
NUMBER = re.compile(r"-?[\d,.]+")
PAGE_KEYS = tuple(f"workload.{side}" for side in ("image_width_px", "image_height_px", "columns", "rows", "pages"))  # of a request


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
        help="What is chosen, with the field it changes: "
        + "; ".join(f"{group}={' | '.join(names(group))}" for group in ("engine", "workload", "attention", "host"))
        + "; dtype=bf16 | fp16 | fp32; cache=dynamic | static; prefill_logits=all | last; model= and hardware= (see ocr-flops list); "
        "a field as in workload.columns=2 workload.output_tokens=500 attention.sam=eager hardware.memory_bytes=48e9 host.operator_us=9 "
        "efficiency.matrix=0.7; of a group also a file, hardware=./my.yaml",
        autocompletion=complete_override,
        show_default=False,
    ),
]
Form = Annotated[Literal["table", "json", "csv"], typer.Option("--format", help="What to print.", rich_help_panel="Output")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Write into this folder instead of to the screen.", rich_help_panel="Output")
]
Columns = Annotated[
    str,
    typer.Option(
        "--columns", metavar="NAME,...", help="Columns of the table, by name or heading; all by default.", rich_help_panel="Output"
    ),
]
Prices = Annotated[
    list[str] | None,
    typer.Option(
        "--price",
        metavar="PRICE|DEVICE=PRICE,...",
        help="Of one device hour, in any currency: of every device, or of each as in l4=0.8,h100_sxm=2.5; may be repeated.",
    ),
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
        help="Folder of records (default: OCR_FLOPS_RECORDS, or the user's data folder).",
        show_default=False,
    ),
]


def known_names(option: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    """The names, separated by commas, that an option gives, each of them known; all that are known where it gives none."""
    given = dict.fromkeys(name.strip() for name in text.split(",") if name.strip())
    wrong = [name for name in given if name not in known]
    if len(wrong) > 1:
        raise SpecError(f"{option}: {', '.join(map(repr, wrong))} are not among {', '.join(known)}")
    return tuple(one_of(option, name, tuple(known)) for name in given) or tuple(known)


def read_prices(given: Sequence[str] | None, devices: Iterable[HardwareSpec] = ()) -> float | dict[str, float] | None:
    """What --price says: one price for all devices, or prices by the names of devices, in any case; None where it was not given.

    Args:
        given: its values.
        devices: those that were chosen, which may be one's own.

    Raises:
        SpecError: no number above 0, an unknown device, or both kinds.
    """
    prices: dict[str, float] = {}
    known = {name.lower(): name for name in (*names("hardware"), *(device.name for device in devices))}
    for text in (part.strip() for one in given or () for part in one.split(",")):
        name, equals, number = text.rpartition("=")
        key = known[one_of("--price", name.strip().lower(), known)] if equals else ""
        try:
            prices[key] = float(number)
        except ValueError:
            prices[key] = 0.0
        if not 0 < prices[key] < float("inf"):
            raise SpecError(f"--price: {text!r} is no price above 0; give one for all, as in 1.2, or of devices, as in l4=0.8,h100_sxm=2.5")
    if "" in prices and len(prices) > 1:
        raise SpecError("--price: one for all devices beside prices of devices; give either")
    return prices.get("", prices) or None


def refuse_keys(given: Iterable[str], keys: Iterable[str], why: str) -> None:
    """Raises SpecError for the first of some overrides, or keys of them, that have no effect."""
    names = {text.partition("=")[0] for text in given}
    if found := next((key for key in keys if key in names), None):
        raise SpecError(f"{found}: has no effect; {why}")


def batch_override(batch: str | None) -> list[str]:
    """The override that --batch N stands for; none for "best" and where it was not given."""
    if batch in (None, "best"):
        return []
    if not batch.isdecimal() or not int(batch):
        raise SpecError(f"--batch: {batch!r} is neither a whole number from 1 nor best")
    return [f"workload.batch_size={batch}"]


@contextmanager
def options_named(**flags: str) -> Iterator[None]:
    """Lets errors name options as they are on the command line: `ttft_seconds="--ttft"`."""
    try:
        yield
    except SpecError as problem:
        name, colon, rest = str(problem).partition(":")
        raise SpecError(f"{flags.get(name, name)}{colon}{rest}") from None


def write_result(
    name: str, form: str, out: Path | None, frame: pl.DataFrame, data: Any = None, /, *, text: str = "", template: str = "", **values: Any
) -> None:
    """Prints a command's result in one of its forms, or writes it whole into a folder as a file of this name, and prints its path.

    That is the frame as CSV; as JSON plain data, or what a function makes, by default the frame's rows; or a text, by default that of a
    template with its values (see `render_text`).
    """
    if form == "json":
        made = json.dumps(data() if callable(data) else frame.to_dicts() if data is None else data, indent=1)
    else:
        made = frame.write_csv().removesuffix("\n") if form == "csv" else text or render_text(template or name, out, **values)
    if out is None:
        print(made)
    else:
        print(write_whole(out / f"{name}.{'txt' if form == 'table' else form}", made + "\n"))


def render_text(template: str, out: Path | None = None, **values: Any) -> str:
    """A text for people from a file of `templates/`, as wide as the terminal where `out` is None."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    limit = UNLIMITED if out else terminal_width()
    environment.filters |= {one.__name__: one for one in (si, seconds, interval, count, count_interval, counted, hour_price, share)}
    environment.globals["SECONDS_PER_DAY"] = SECONDS_PER_DAY
    environment.filters |= {"cells": _row_cell, "wrap": partial(_wrap_lines, limit=limit)}
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
        keys: the columns that name a row, repeated in every block. A column whose name has "_low" and the one with "_high" are shown
            as the range of the column without them.
        columns: those wanted beside the keys, by name or heading, separated by commas; all by default.
        most_blocks: tables at most; which columns are left out is said below them.
    """
    keys = [name for name in keys if name in frame.columns] or frame.columns[:1]
    wanted = [name for name in known_names("--columns", _unheaded(columns, frame.columns), frame.columns) if name not in keys]
    ends = {name: (name.replace("_low", ""), name.replace("_low", "_high")) for name in wanted if "_low" in name}
    ranges = {value: (low, high) for low, (value, high) in ends.items() if value in wanted and high in wanted}
    wanted = [name for name in wanted if not any(name in both for both in ranges.values())]
    cells = {name: [_head(name), *_cells(frame, name, ranges.get(name))] for name in (*keys, *wanted)}
    widths = {name: max(map(len, texts)) + GAP for name, texts in cells.items()}
    most = sum(map(widths.get, keys)) + max(map(widths.get, wanted), default=0) - GAP
    gap = GAP if most <= limit else TIGHT
    blocks: list[list[str]] = [[]]
    for name in wanted:
        if blocks[-1] and sum(widths[one] for one in (*keys, *blocks[-1], name)) - GAP > limit:
            blocks.append([])
        blocks[-1].append(name)
    texts = [_block(frame.select(*keys, *block), cells, limit, gap) for block in blocks[:most_blocks]]
    if hidden := [name for block in blocks[most_blocks:] for name in block]:
        texts.append(textwrap.fill(f"Not shown for want of width: {', '.join(hidden)}. See --columns, or --format csv.", limit))
    return "\n\n".join(texts)


def _block(frame: pl.DataFrame, cells: dict[str, list[str]], limit: int, gap: int) -> str:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap // 2))
    for name, kind in frame.schema.items():
        is_number = kind.is_numeric() or all(NUMBER.fullmatch(text) for text in cells[name][1:])
        side = "right" if is_number else "left"
        table.add_column(Text(cells[name][0]), justify=side, no_wrap=True, overflow="ellipsis", min_width=4)
    for row in zip(*(cells[name][1:] for name in frame.columns), strict=True):
        table.add_row(*map(Text, row))
    text = io.StringIO()
    Console(file=text, width=limit, color_system=None, legacy_windows=False).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().rstrip().splitlines())


def _unheaded(text: str, columns: Sequence[str]) -> str:
    """Names of columns, separated by commas, in place of headings: of one with a range also those of its ends."""
    for column in sorted(columns, key=lambda name: len(_head(name)), reverse=True):  # "TTFT, roofline" before "TTFT"
        if _head(column) not in columns:
            shown = ",".join(name for name in columns if re.sub("_(low|high)", "", name) == column) or column
            text = re.sub(rf"(?i)(?<![^,])\s*{re.escape(_head(column))}\s*(?![^,])", shown, text)
    return text


def _head(column: str) -> str:
    from ocr_flops.reports.tables import TITLES

    short = column.removesuffix("_seconds").removesuffix("_bytes").replace("_flops_per", "_FLOPs_per").replace("_bytes_per", "_B_per")
    words = TITLES.get(column, short.replace("_per_second", "/s").replace("_", " "))
    return words.removesuffix(" (B)")  # cells have their units


def _cells(frame: pl.DataFrame, column: str, ends: tuple[str, str] | None) -> list[str]:
    """The values of a column as they are printed, with the ranges that two others give: "218 (179–288) ms"."""
    values = [_cell(column, value) for value in frame[column]]
    if ends is None:
        return values
    if column.startswith("hours"):
        return ["–" if row[0] is None else duration(*row) for row in frame.select(column, *ends).iter_rows()]
    found = []
    for value, low, high in zip(values, *([_cell(column, one) for one in frame[end]] for end in ends), strict=True):
        (number, unit), *others = (text.partition(" ")[::2] for text in (value, low, high))
        if low == high:
            found.append(value)
        elif all(other == unit for _, other in others):
            found.append(f"{number} ({others[0][0]}–{others[1][0]}) {unit}".rstrip())
        else:
            found.append(f"{value} ({low}–{high})")
    return found


def _row_cell(row: Mapping[str, Any], column: str) -> str:
    """A figure of a row with its range."""
    import polars as pl

    return _cells(pl.DataFrame([row]), column, (f"{column}_low", f"{column}_high"))[0]


def _cell(column: str, value: Any) -> str:
    """A value as it is printed in a column."""
    from ocr_flops.reports.tables import BOUND

    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return BOUND.get(value, value) if column == "binding_ceiling" else str(value)
    if "pages_per_second" in column:
        return count(value * SECONDS_PER_DAY)
    if column.startswith("hours"):
        return duration(value)
    if column.startswith(PLAIN):
        return f"{value:,}" if isinstance(value, int) else count(value)
    if column.endswith("_share"):
        return share(value, 1)
    if column.endswith("_seconds"):
        return seconds(value)
    if abs(value) < LISTED and value == int(value) and not column.endswith("_bytes"):
        return f"{int(value):,}"
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
    print(f"ocr-flops {command}: {escape_controls(text)}", file=sys.stderr)


@contextmanager
def show_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Progress bars on a terminal's stderr, one for each kind of work, with its rate and the time left; gone when all is done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

    class Rate(ProgressColumn):
        def render(self, task: Any) -> str:
            return f"{task.finished_speed or task.speed or 0:,.0f}/s"

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn()
    tasks: dict[str, Any] = {}
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bars:

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        yield show
