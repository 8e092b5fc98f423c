"""What a fit says of workloads it has not seen: each is left out once, and predicted by the others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from ocr_flops.evidence.calibration.fit import Fit, Table

FOLDS = 200  # fits at most; more workloads share them
PART = 0.9  # of held-out errors inside a band
DEVIATIONS = 1.645  # standard ones that hold the same part of normal errors
VIEWS = ("global_px", "tile_px", "columns", "rows", "batch_size")
COST = {  # what each stage's cost depends on
    "vision": VIEWS,
    "prefill": ("image_tokens", "context_tokens", "batch_size"),
    "decode": ("context_tokens", "output_tokens", "batch_size"),
}
WORKLOAD = (*VIEWS, "prompt_tokens", "output_tokens")


class HeldOut(NamedTuple):
    """Args:
    seconds: of every row, by a fit without its workload.
    logarithms: of every such fit [fold, parameter].
    """

    seconds: np.ndarray
    logarithms: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """Of the fit's logarithms, by the jackknife over workloads (Efron and Stein, 1981)."""
        folds = len(self.logarithms)
        apart = self.logarithms - self.logarithms.mean(axis=0)
        return (folds - 1) / folds * apart.T @ apart


def held_out(rows: pl.DataFrame, table: Table, fitted: Fit) -> HeldOut:
    """Leave-one-workload-out.

    Left out with a workload are all rows that cost the same as one of its: a page's vision is the same whatever is asked about it, and
    would otherwise be predicted by itself.

    Args:
        rows: of `matching.usable`.
        table: the same rows.
        fitted: to all of them; every fit begins there, with its kind of launches and its scale.
    """
    workload, cost = numbered(rows, WORKLOAD), costs_of(rows)
    seconds, found = np.empty(len(cost)), []
    for fold in range(min(FOLDS, workload.max() + 1)):
        mine = workload % FOLDS == fold
        without = fitted.again(table, 1.0 - np.isin(cost, cost[mine]))
        seconds[mine] = without.seconds(table.take(np.flatnonzero(mine)))
        found.append(without.logarithms)
    return HeldOut(seconds, np.stack(found))


def costs_of(rows: pl.DataFrame) -> np.ndarray:
    """A number for each row, equal where a stage costs the same (in one attention mode)."""
    cost, above = np.zeros(rows.height, np.int64), 0
    for stage, columns in COST.items():
        where = np.flatnonzero((rows["stage"] == stage).to_numpy())
        if len(where):
            cost[where] = above + numbered(rows[where], columns)
            above = cost.max() + 1
    return cost


def numbered(rows: pl.DataFrame, columns: tuple[str, ...]) -> np.ndarray:
    """A number from 0 for each row, equal where the columns are; tiles count only where there are some."""
    tiled = {"tile_px": pl.col("tile_px") * (pl.col("tiles") > 0)}
    return (
        (rows.select(pl.struct(*(tiled.get(name, pl.col(name)) for name in columns)).rank("dense")).to_series() - 1)
        .cast(pl.Int64)
        .to_numpy()
    )


def reach(errors: np.ndarray) -> float:
    """The size below which nine of ten further errors should lie, given these: their quantile at rank 0.9 x (count + 1), or the largest."""
    sizes = np.sort(np.abs(errors))
    return float(sizes[min(len(sizes), int(np.ceil(PART * (len(sizes) + 1)))) - 1])
