"""Numbers as polars frames, with the columns of every export."""
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ocr_flops.workload import Workload

if TYPE_CHECKING:
    from ocr_flops.estimates import Key
    from ocr_flops.setup import Setup

WORKLOAD_COLUMNS = ("image_width_px", "image_height_px", "global_px", "tile_px", "columns", "rows", "tiles", "image_tokens", "prompt_tokens",
                    "context_tokens", "output_tokens", "batch_size")
TEXT = pl.Categorical
LARGE = 10_000  # rows


def frame(setup: Setup, workload: Workload, keys: tuple[Key, ...], table: dict[str, np.ndarray]) -> pl.DataFrame:
    """One row per point and key, points in order and a point's keys together.

    Columns: labels, the workload, costs, arithmetic_intensity (total FLOPs per byte moved; null where nothing moves).

    Args:
        setup, workload: what ran.
        keys: stages, or stages and modules.
        table: cost columns at [point, key].
    """
    points, width = workload.points, len(keys)
    texts = {"stage": [stage for stage, _ in keys]}
    if keys[0][1] is not None:
        texts["module"] = [module for _, module in keys]
    texts |= {"attention": setup.attention.name, "engine": setup.engine.name, "dtype": setup.dtype, "cache": setup.cache,
              "mode": workload.mode, "evidence": [setup.evidence(stage) for stage, _ in keys]}
    numbers = {name: getattr(workload, name) for name in WORKLOAD_COLUMNS}
    height = points * width
    data: dict[str, pl.Series | np.ndarray] = {}
    constant: list[pl.Expr] = []  # of large frames: literals take no memory
    for name, value in (texts | numbers).items():
        if isinstance(value, list):
            data[name] = _labels(value, points)
        elif isinstance(value, np.ndarray):
            data[name] = _repeated(value, width)
        elif height > LARGE:
            constant.append(pl.lit(value, TEXT if name in texts else pl.Int64).alias(name))
        else:
            data[name] = pl.Series([value], dtype=TEXT).new_from_index(0, height) if name in texts else np.full(height, value, np.int64)
    data |= {name: values.reshape(-1) for name, values in table.items()}
    whole = pl.DataFrame(data)
    if "total_flops" in table and "io_bytes" in table:  # nothing moved: 0 / 0, which is no intensity
        whole.insert_column(len(whole.columns), (whole["total_flops"] / whole["io_bytes"]).fill_nan(None).alias("arithmetic_intensity"))
    return whole.with_columns(*constant).select(*texts, *numbers, *whole.columns[len(data) - len(table):]) if constant else whole


def _labels(values: list[str], points: int) -> pl.Series:
    """A column of names that repeat at every point."""
    names = list(dict.fromkeys(values))
    codes = np.tile(np.array([names.index(value) for value in values], np.uint32), points)
    return pl.Series(names, dtype=TEXT).gather(codes)


def _repeated(value: np.ndarray, width: int) -> np.ndarray:
    """A workload's column, each number once for each of its point's rows."""
    column = np.empty((len(value), width), np.int64)
    column[:] = value[:, None]
    return column.reshape(-1)
