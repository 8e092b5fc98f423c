"""The table of a sweep's report: a row a point."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ocr_flops.charts.sweep.points import grid
from ocr_flops.charts.sweep.summary import AXES, Shown
from ocr_flops.reports.html import Cell
from ocr_flops.units import seconds, si

if TYPE_CHECKING:
    from ocr_flops.reports.sweep_report import SweepReport

Row = dict[str, Any]
MOST_ROWS = 120
SHAPE = ("columns", "rows", "global_px", *AXES)  # what a page is; rows of the same have one of each series
COSTS = {  # measure: what its column is called, and the unit
    "total_flops": ("FLOPs", ""),
    "io_bytes": ("bytes moved", "B"),
    "ttft.roofline_seconds": ("TTFT, roofline", "s"),
    "tpot.roofline_seconds": ("TPOT, roofline", "s"),
    "kv_cache_bytes": ("KV cache", "B"),
    "peak_activation_bytes": ("live peak", "B"),
    "needed_bytes": ("memory needed", "B"),
}
RATES = {"tensor_flops": "FLOP/s", "io_bytes": "B/s"}


def chosen(shown: Shown) -> list[Row]:
    """The points of the table: all that are shown, or those of every so many shapes, with all of their series."""
    whole = shown.points.sort("x", *SHAPE, "point")
    shapes = whole.select(SHAPE).unique(maintain_order=True)
    every = -(-whole.height // MOST_ROWS)
    some = shapes.filter(pl.int_range(pl.len()) % every == 0)
    return whole.join(some, on=SHAPE, how="semi", maintain_order="left").head(MOST_ROWS).to_dicts()


def columns(report: SweepReport) -> list[tuple[Cell, list[Cell]]]:
    """The columns of the table: the head of each, and its cells."""
    shown = report.shown
    rows = chosen(shown)
    called = [shown.called_row(row) for row in rows]
    grids = [grid(row) + ("" if row["vendor_supported"] else " *") for row in rows]
    files = [f"{Path(row['image']).name}, page {row['page']}" for row in rows] if "image" in shown.points.columns else []
    found = [("file", files, False)] if files else []
    found += [("views", grids, False)]
    found += [("mode", [shown.place(row) for row in rows], False)] if shown.names else []
    found += [("series", called, False)] if any(called) else []
    apart = [name for name in AXES if len({row[name] for row in rows}) > 1 and name not in shown.series]
    found += [(AXES[name], [f"{row[name]:,}" for row in rows], True) for name in apart]
    for measure, (name, unit) in COSTS.items():
        if shown.has(measure):
            found.append((name, [_words(row[measure], unit) for row in rows], True))
    for phase, target in report.results.targets.items():
        for column, unit in RATES.items():
            if shown.has(f"{phase}.{column}"):
                values = [row[f"{phase}.{column}"] for row in rows]
                name = f"{unit} for {phase.upper()} {seconds(target)}"
                found.append((name, [_words(None if value is None else value / target, "") for value in values], True))
    return [(Cell(name, number=number), [Cell(text, number=number) for text in texts]) for name, texts, number in found]


def note(report: SweepReport) -> str:
    """What the table leaves out, and what a star says."""
    shown = report.shown
    rows = chosen(shown)
    less = f"{len(rows):,} of {shown.count:,} points, spread evenly; the data files have all. " if len(rows) < shown.count else ""
    star = "A star marks grids that the vendor's code does not cut. " if not all(row["vendor_supported"] for row in rows) else ""
    return f"{less}{star}FLOP/s and B/s are sustained over the whole target, both at once."


def _words(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    return seconds(value) if unit == "s" else si(value, unit)
