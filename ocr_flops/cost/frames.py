"""Numbers as polars frames, with the columns of every export."""

from __future__ import annotations

import numpy as np
import polars as pl

from ocr_flops.cost.run_config import RunConfig
from ocr_flops.cost.stage_groups import Key
from ocr_flops.spec.workload import Workload

PAGE_COLUMNS = ("image_width_px", "image_height_px", "global_px", "tile_px", "columns", "rows", "tiles", "image_tokens")
WORKLOAD_COLUMNS = (*PAGE_COLUMNS, "prompt_tokens", "context_tokens", "output_tokens", "batch_size", "pages")
TEXT = pl.Categorical
SMALL = 500  # rows


def build_frame(config: RunConfig, workload: Workload, keys: tuple[Key, ...], table: dict[str, np.ndarray]) -> pl.DataFrame:
    """One row per point and key, points in order and a point's keys together.

    Columns: labels, the workload, costs, arithmetic_intensity (total FLOPs per byte moved; null where nothing moves).

    Args:
        keys: stages, or stages and modules.
        table: cost columns at [point, key].
    """
    points, width = workload.points, len(keys)
    texts = {"stage": [stage for stage, _ in keys]}
    if keys[0][1] is not None:
        texts["module"] = [module for _, module in keys]
    texts |= {
        "attention": config.attention.name,
        "engine": config.engine.title,
        "dtype": config.dtype,
        "cache": config.cache,
        "mode": workload.mode,
        "evidence": [config.evidence(stage) for stage, _ in keys],
    }
    numbers = {name: getattr(workload, name) for name in WORKLOAD_COLUMNS}
    return (_small if points * width <= SMALL else _large)(texts, numbers, table, points, width)


def _small(texts: dict, numbers: dict, table: dict[str, np.ndarray], points: int, width: int) -> pl.DataFrame:
    """From lists and one matrix, which is fastest for a few rows."""
    labels = {name: value * points if isinstance(value, list) else [value] * (points * width) for name, value in texts.items()}
    matrix = np.empty((len(numbers) + len(table), points, width), np.int64)
    for row, value in zip(matrix, [*numbers.values(), *table.values()], strict=True):
        row[:] = value[:, None] if isinstance(value, np.ndarray) and value.ndim == 1 else value
    whole = pl.DataFrame(labels, dict.fromkeys(labels, TEXT))
    whole = whole.hstack(pl.DataFrame(matrix.reshape(len(matrix), -1), [*numbers, *table], orient="col"), in_place=True)
    if "total_flops" in table and "io_bytes" in table:
        ratios = [flops / moved if moved else None for flops, moved in zip(whole["total_flops"], whole["io_bytes"], strict=True)]
        whole.insert_column(whole.width, pl.Series("arithmetic_intensity", ratios, pl.Float64))
    return whole


def _large(texts: dict, numbers: dict, table: dict[str, np.ndarray], points: int, width: int) -> pl.DataFrame:
    """From arrays; constants become literals, which take no memory."""
    varying: dict[str, pl.Series | np.ndarray] = {name: _labels(value, points) for name, value in texts.items() if isinstance(value, list)}
    varying |= {name: np.repeat(value, width) for name, value in numbers.items() if isinstance(value, np.ndarray)}
    varying |= {name: values.reshape(-1) for name, values in table.items()}
    constant = [
        pl.lit(value, TEXT if name in texts else pl.Int64).alias(name) for name, value in (texts | numbers).items() if name not in varying
    ]
    whole = pl.DataFrame(varying).with_columns(*constant).select(*texts, *numbers, *table)
    if "total_flops" in table and "io_bytes" in table:  # nothing moved: 0 / 0, which is no intensity
        whole.insert_column(whole.width, (whole["total_flops"] / whole["io_bytes"]).fill_nan(None).alias("arithmetic_intensity"))
    return whole


def _labels(values: list[str], points: int) -> pl.Series:
    """A column of names that repeat at every point."""
    names = list(dict.fromkeys(values))
    codes = np.tile(np.array([names.index(value) for value in values], np.uint32), points)
    return pl.Series(names, dtype=TEXT).gather(codes)
