"""What commands share: how they read lists and sources, show progress, and print numbers and tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ocr_flops import units
from ocr_flops.errors import SpecError, one_of
from ocr_flops.files import write_whole

UNITS = {"seconds": "s", "bytes": "B"}  # of columns whose names end so
PLAIN = ("gpu_hours", "cost", "pages", "arithmetic", "mfu", "bandwidth_use")  # columns whose names begin so: no prefixes
si = partial(units.si, digits=4, zeros=False, small=True)
OF_THE_SOURCE = ("snapshot", "trust_remote_code", "checkpoint")  # those that only running takes


def listed(text: str) -> tuple[str, ...]:
    """Names apart by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def apart(overrides: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Overrides for a run, and those that say which code and weights run.

    Raises:
        SpecError: trust_remote_code is neither true nor false, or a folder is empty.
    """
    rest, found = [], {}
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals or name not in OF_THE_SOURCE:
            rest.append(text)
        elif name == "trust_remote_code":
            found[name] = one_of(name, value.lower(), ("true", "false")) == "true"
        elif value:
            found[name] = str(Path(value).expanduser().resolve())
        else:
            raise SpecError(f"{name}: empty; name a folder")
    return rest, found


def chosen(option: str, names: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The names given, each of them known; all that are known where none was given."""
    return tuple(dict.fromkeys(one_of(option, name, tuple(known)) for name in names)) or tuple(known)


def write(text: str, options: argparse.Namespace, name: str) -> None:
    """Prints, or writes a file whole."""
    text = text.removesuffix("\n")  # a CSV ends its last line itself
    if options.out is None:
        print(text)
        return
    print(write_whole(options.out / f"{name}.{'txt' if options.format == 'table' else options.format}", text + "\n"))


def _words(column: str) -> Callable[[float], str]:
    """How a column's numbers are written."""
    if column.startswith(PLAIN):
        return "{:.4g}".format
    unit = next((unit for ending, unit in UNITS.items() if column.endswith(ending)), "")
    return lambda value: si(value, unit)


def table(frame: Any) -> str:
    """A frame for a terminal: numbers with SI prefixes and units, no line between rows."""
    import polars as pl

    numeric = [name for name, dtype in frame.schema.items() if dtype.is_numeric()]
    shown = frame.with_columns(pl.col(name).map_elements(_words(name), pl.String) for name in numeric)
    with pl.Config(
        tbl_rows=-1,
        tbl_cols=-1,
        tbl_width_chars=400,
        fmt_str_lengths=60,
        tbl_hide_column_data_types=True,
        tbl_hide_dataframe_shape=True,
        tbl_cell_alignment="RIGHT",
        tbl_formatting="UTF8_FULL_CONDENSED",
    ):
        return str(shown)


class Progress:
    """A line of text on a terminal's stderr, gone when the work is done."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __call__(self, text: str) -> None:
        if self._shown:
            print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)

    def __exit__(self, *exception: object) -> None:
        self("")
