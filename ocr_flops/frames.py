"""Estimates as polars frames, with the columns of every export."""
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ocr_flops.specs import STAGES

if TYPE_CHECKING:
    from ocr_flops.estimates import Estimate, Row
    from ocr_flops.workload import Workload

WORKLOAD_COLUMNS = ("image_width_px", "image_height_px", "global_px", "tile_px", "columns", "rows", "tiles", "image_tokens", "prompt_tokens",
                    "context_tokens", "output_tokens", "batch_size")


def stage_frame(estimate: Estimate) -> pl.DataFrame:
    """One row per point and stage, points in order, a point's stages together."""
    keys = list(estimate.stage_numbers)
    labels = {"stage": (keys, STAGES)}
    return _frame(estimate, labels, list(estimate.stage_numbers.values()), keys)


def module_frame(estimate: Estimate) -> pl.DataFrame:
    """One row per point, stage and module."""
    keys = list(estimate.module_numbers)
    stages, modules = [stage for stage, _ in keys], [module for _, module in keys]
    labels = {"stage": (stages, STAGES), "module": (modules, tuple(dict.fromkeys(modules)))}
    return _frame(estimate, labels, list(estimate.module_numbers.values()), stages)


def _frame(estimate: Estimate, labels: dict[str, tuple[list[str], tuple[str, ...]]], rows: list[Row], stages: list[str]) -> pl.DataFrame:
    """Interleaves the rows of every point: label columns, workload columns, numbers."""
    points, setup = estimate.workload.points, estimate.setup
    series = [_labels(name, values, points) for name, (values, _) in labels.items()]
    constant = {"attention": setup.attention.name, "engine": setup.engine.name, "dtype": setup.dtype, "cache": setup.cache,
                "mode": estimate.workload.mode}
    series += [pl.repeat(value, points * len(rows), dtype=pl.String, eager=True).alias(name) for name, value in constant.items()]
    series.append(_labels("evidence", [setup.evidence(stage) for stage in stages], points))
    series += _workload_columns(estimate.workload, len(rows))
    for column in rows[0]:
        values = np.empty((points, len(rows)), np.int64)
        for position, row in enumerate(rows):
            values[:, position] = row[column]
        series.append(pl.Series(column, values.reshape(-1)))
    frame = pl.DataFrame(series)
    return frame.with_columns(arithmetic_intensity=pl.when(pl.col("io_bytes") > 0).then(pl.col("total_flops") / pl.col("io_bytes")))


def _labels(name: str, values: list[str], points: int) -> pl.Series:
    """A column of names that repeat at every point."""
    names = list(dict.fromkeys(values))
    codes = np.tile(np.array([names.index(value) for value in values], np.uint32), points)
    return pl.Series(name, names).gather(codes)


def _workload_columns(workload: Workload, rows: int) -> list[pl.Series]:
    """The workload's numbers, each repeated for the rows of its point."""
    found = []
    for name in WORKLOAD_COLUMNS:
        value = getattr(workload, name)
        values = np.repeat(value, rows) if isinstance(value, np.ndarray) else np.full(workload.points * rows, value, np.int64)
        found.append(pl.Series(name, values))
    return found
