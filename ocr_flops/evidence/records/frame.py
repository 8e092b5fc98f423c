"""All records as one frame, beside which charts and calibration lay the estimate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from ocr_flops.cost.frames import WORKLOAD_COLUMNS
from ocr_flops.errors import SpecError, one_of
from ocr_flops.evidence.records.record import VERSIONS, Record
from ocr_flops.evidence.records.store import RESTORE, USER, Problem, read_all
from ocr_flops.spec.specs import STAGES

LEVELS = ("stage", "module")
IDENTITY = ("record_id", "measured_at", "state", "source", "path", "engine", "attention", "experts", "dtype", "device", "hardware", "host")
FIGURES = {
    "runs": int,
    "median_seconds": float,
    "spread_seconds": float,
    "min_seconds": float,
    "torch_flops_counted": int,
    "peak_allocated_bytes": int,
    "peak_reserved_bytes": int,
    "mfu": float,
    "bandwidth_use": float,
    "io_bytes": int,
    "io_bytes_source": str,
    "analytic_torch_flops": int,
    "peak_source": str,
}
ASKED = ("mode", "prefill_logits", "cache", "stage")
AFTER = ("model", "weights", "failure")
COLUMNS = (*IDENTITY, *VERSIONS, *WORKLOAD_COLUMNS, *ASKED, *FIGURES, *AFTER)  # `module` follows `stage` at that level
MOST = 2**63 - 1
Row = dict[str, Any]


def frame(where: Path | None = None, *, level: str = "stage", shipped: Path | None = None) -> tuple[pl.DataFrame, list[Problem]]:
    """Every record as rows, a row for each stage, or for each of its modules.

    A record that failed has a row for each stage that was asked for, without figures, and none at level "module".

    Args:
        where: the user's folder; `records.folder()` where None.
        level: "stage" or "module".
        shipped: the package's folder; `records.shipped_folder()` where None.

    Returns:
        a frame, and the files that could not be read. Columns: record_id, measured_at (ISO 8601, UTC), state ("done" or "failed"),
        source ("user" or "shipped"), path, engine, attention (one mode, or sam/clip/decoder), experts, dtype, device (its name), hardware
        (the config of its figures, or null), host; versions; the workload's; mode (null: a grid of no mode's), prefill_logits, cache,
        stage, module; runs, median_seconds, spread_seconds (interquartile range), min_seconds, torch_flops_counted,
        peak_allocated_bytes and peak_reserved_bytes (weights and cache included), mfu, bandwidth_use, io_bytes, io_bytes_source ("traced"
        or "analytic"), analytic_torch_flops, peak_source ("allocator" or "traced"); model (a config's name), weights ("random", or a
        checkpoint's), failure (why, and what to do).

    Raises:
        SpecError: an unknown level.
    """
    one_of("level", level, LEVELS)
    found, problems = read_all(where, shipped)
    rows: list[Row] = []
    for source, path, record in found:
        try:
            rows += list(_rows(source, path, record, level))
        except SpecError as problem:
            problems.append(Problem(path, f"damaged: {problem}; {RESTORE}"))
        except (KeyError, TypeError, AttributeError, ValueError) as problem:
            problems.append(Problem(path, f"damaged: {type(problem).__name__} {problem}; {RESTORE}"))
    return _framed(rows, level), problems


def rows_of(record: Record, path: Path, level: str = "stage") -> pl.DataFrame:
    """The rows of one record of the user's, as in `frame`."""
    return _framed(list(_rows(USER, path, record, level)), level)


def _framed(rows: list[Row], level: str) -> pl.DataFrame:
    kinds = {**dict.fromkeys(COLUMNS, str), **dict.fromkeys(WORKLOAD_COLUMNS, int), **FIGURES}
    types = {str: pl.String, int: pl.Int64, float: pl.Float64}
    names = [name for column in COLUMNS for name in ((column, "module") if (column, level) == ("stage", "module") else (column,))]
    return pl.DataFrame(rows, {name: types[kinds.get(name, str)] for name in names}, orient="row")


def _rows(source: str, path: Path, record: dict[str, Any], level: str) -> Iterator[Row]:
    """The rows of a record; every value is of its column's kind."""
    ran, asked, failure = record.get("ran") or {}, record["asked"], record.get("failure")
    shared = {
        "record_id": record["record_id"],
        "measured_at": record["finished"],
        "state": record["state"],
        "source": source,
        "path": str(path),
        "attention": attention_words(asked["attention"]),
        "experts": ran.get("experts") or asked["experts"],
        "device": ran.get("device_name") or asked["device"],
        "hardware": (record.get("hardware") or {}).get("name"),
        "host": record["host"],
        **{name: asked[name] for name in ("engine", "dtype", "prefill_logits", "cache")},
        **{name: ran.get(name) for name in VERSIONS},
        **{name: record["workload"][name] for name in (*WORKLOAD_COLUMNS, "mode")},
        "model": record["model"]["name"],
        "weights": ran.get("weights"),
        "failure": f"{failure['message']} ({failure['advice']})" if failure else None,
    }
    if failure:
        for stage in asked["stages"] if level == "stage" else ():
            yield _checked(shared | dict.fromkeys(FIGURES) | {"stage": one_of("stage", stage, STAGES)})
    for stage, figures in record["derived"].items():
        one_of("stage", stage, STAGES)
        if level == "stage":
            yield _checked(shared | {"stage": stage} | {name: figures.get(name) for name in FIGURES})
        for module, inner in figures["modules"].items() if level == "module" else ():
            yield _checked(shared | {"stage": stage, "module": module} | {name: inner.get(name) for name in FIGURES})


def _checked(row: Row) -> Row:
    """The row, if every value is of its column's kind, and every number one that a column can hold and a run can have.

    Raises:
        SpecError: one is not.
    """
    for name in ("global_px", "columns", "rows", "batch_size"):
        if type(row[name]) is int and row[name] < 1:
            raise SpecError(f"{name} is {row[name]}")
    for name, value in row.items():
        kind = int if name in WORKLOAD_COLUMNS else FIGURES.get(name, str)
        if value is None and name not in WORKLOAD_COLUMNS:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
            raise SpecError(f"{name} is {value!r}")
        if kind is not str and not 0 <= value <= MOST:  # NaN neither
            raise SpecError(f"{name} is {value!r}")
    return row


def attention_words(attention: dict[str, str]) -> str:
    """One mode where all towers share it, else those of sam/clip/decoder."""
    modes = [attention[tower] for tower in ("sam", "clip", "decoder")]
    return modes[0] if len(set(modes)) == 1 else "/".join(modes)
