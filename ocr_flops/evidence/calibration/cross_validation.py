"""Leave-one-out cross-validation: each workload is predicted by a fit to the others, and their spread gives the fit's covariance."""

from typing import NamedTuple

import numpy as np
import polars as pl

from ocr_flops.evidence.calibration.fit import Features, Fit, bounds, predict, regularisation
from ocr_flops.evidence.records.schema import POINT_NUMBERS

SMALL_STEP = 0.05  # of the logarithms of efficiencies and launch seconds
FOLDS = 200  # at most; more workloads share them
COVERAGE = 0.9  # part of further errors that an interval should hold
DEVIATIONS = 1.645  # standard deviations that hold the same part of normal errors
VIEWS = ("global_px", "tile_px", "columns", "rows", "batch_size")
COST = {  # what the cost of each stage depends on
    "vision": VIEWS,
    "prefill": ("image_tokens", "context_tokens", "batch_size"),
    "decode": ("context_tokens", "output_tokens", "batch_size"),
}
WORKLOAD = (*VIEWS, "prompt_tokens", "output_tokens")


class CrossValidation(NamedTuple):
    """The fits without each workload: seconds of every row as predicted without it [row], and parameters of every such fit [fold,
    parameter]."""

    seconds: np.ndarray
    parameters: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """Covariance of the fit's parameters, by the jackknife over workloads (Efron and Stein, 1981)."""
        folds = len(self.parameters)
        deviations = self.parameters - self.parameters.mean(axis=0)
        return (folds - 1) / folds * deviations.T @ deviations


def cross_validate(rows: pl.DataFrame, features: Features, seconds: np.ndarray, fitted: Fit) -> CrossValidation:
    """Predict each workload by the others.

    Left out with a workload are all rows that cost the same as one of its: vision of a page is the same whatever the prompt is, and
    would otherwise be predicted by itself. The fit without them is one Newton step from the fit to all rows, within its bounds; where that
    step is not a small one, the other rows are fitted anew. Either has the same kind of launches and the same scale as the fit to all.

    Args:
        rows: of `selection.select_rows`.
        features, seconds: of the same rows.
        fitted: to all of them.
    """
    from scipy.optimize import lsq_linear

    workload, cost = number_groups(rows, WORKLOAD), number_costs(rows)
    predicted, shares = fitted.predict(features)
    squares = fitted.scaled_residuals(features, seconds) ** 2
    inside = np.maximum(0.0, 1 - squares)
    score = np.log(predicted / seconds) * inside**2  # derivative of Tukey's loss
    curvature = inside * np.maximum(0.0, 1 - 5 * squares)
    prior_rows, targets = regularisation(len(fitted.parameters), fitted.prior)
    prior_curvature = prior_rows.T @ prior_rows + 1e-9 * np.eye(len(fitted.parameters))  # no rows may tell of any launches
    limits = [limit - fitted.parameters for limit in bounds(len(fitted.parameters))]
    found, without = np.empty(len(cost)), []
    for fold in range(min(FOLDS, workload.max() + 1)):
        mine = workload % FOLDS == fold
        kept = ~np.isin(cost, cost[mine])
        gradient = shares[kept].T @ score[kept] + prior_rows.T @ (prior_rows @ fitted.parameters - targets)
        root = np.linalg.cholesky((shares[kept].T * curvature[kept]) @ shares[kept] + prior_curvature)
        step = lsq_linear(root.T, np.linalg.solve(root, -gradient), limits, method="bvls").x
        is_small = np.abs(step).max() < SMALL_STEP
        without.append(fitted.parameters + step if is_small else fitted.refit(features.select(kept), seconds[kept]))
        found[mine] = predict(without[-1], features.select(mine), fitted.launches)[0]
    return CrossValidation(found, np.stack(without))


def prediction_frame(
    rows: pl.DataFrame, predicted: np.ndarray, bounds: np.ndarray | None, outliers: np.ndarray, half_widths: dict[str, float]
) -> pl.DataFrame:
    """Return `Calibration.predictions`.

    Args:
        rows: of `selection.select_rows`.
        predicted: seconds of each without its workload [row].
        bounds: seconds that no implementation undercuts [row]; None where they are not known.
        outliers: whether the fit to all rows gives a row no weight [row].
        half_widths: of the interval of each stage, as in `Calibration`.
    """
    least = np.zeros(len(predicted)) if bounds is None else bounds
    width = np.array([half_widths[stage] for stage in rows["stage"]])
    value, low, high = (np.maximum(least, predicted * np.exp(way * width)) for way in (0, -1, 1))
    return rows.select("record_id", "measured_at", "attention", *POINT_NUMBERS, "stage", measured_seconds="median_seconds").with_columns(
        predicted_seconds=value,
        low_seconds=low,
        high_seconds=high,
        bound_seconds=pl.lit(None, pl.Float64) if bounds is None else pl.Series(bounds),
        ratio=value / rows["median_seconds"].to_numpy(),
        outlier=outliers,
    )


def error_frame(predictions: pl.DataFrame) -> pl.DataFrame:
    """Return `Calibration.errors`: of every stage, and of the time to first token where a record has both its stages."""
    first = predictions.filter(pl.col("stage").is_in(["vision", "prefill"])).group_by("record_id", maintain_order=True)
    both = first.agg(pl.col("predicted_seconds", "measured_seconds").sum(), pl.len()).filter(pl.col("len") == 2)
    ratios = {stage: predictions.filter(pl.col("stage") == stage)["ratio"] for stage in predictions["stage"].unique(maintain_order=True)}
    if both.height:
        ratios["ttft"] = both["predicted_seconds"] / both["measured_seconds"]
    rows = [
        {
            "figure": figure,
            "rows": len(errors),
            "median_error": float(errors.median()),
            "p90_error": half_width(errors.to_numpy()),
            "within_15_percent": float((errors <= 0.15).mean()),
        }
        for figure, errors in ((figure, (found - 1).abs()) for figure, found in ratios.items())
    ]
    return pl.DataFrame(rows)


def number_costs(rows: pl.DataFrame) -> np.ndarray:
    """Number the rows so that those of equal stage and cost (in one attention mode) have the same number."""
    cost, used = np.zeros(rows.height, np.int64), 0
    for stage, columns in COST.items():
        where = np.flatnonzero((rows["stage"] == stage).to_numpy())
        if len(where):
            cost[where] = used + number_groups(rows[where], columns)
            used = cost.max() + 1
    return cost


def number_groups(rows: pl.DataFrame, columns: tuple[str, ...]) -> np.ndarray:
    """Number the rows from 0 so that those equal in some columns have the same number; the tile size counts only where there are tiles."""
    tile_px = pl.col("tile_px") * (pl.col("tiles") > 0)
    keys = pl.struct(*(tile_px if name == "tile_px" else name for name in columns))
    return (rows.select(keys.rank("dense")).to_series() - 1).cast(pl.Int64).to_numpy()


def half_width(errors: np.ndarray) -> float:
    """Half-width of an interval that should hold nine of ten further errors: their quantile at rank 0.9 x (count + 1), or the largest."""
    sizes = np.sort(np.abs(errors))
    return float(sizes[min(len(sizes), int(np.ceil(COVERAGE * (len(sizes) + 1)))) - 1])
