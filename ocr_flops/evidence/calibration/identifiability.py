"""What a fit tells, and what it does not: what is reached of every ceiling, launches, and its errors on workloads left out."""

from __future__ import annotations

import numpy as np
import polars as pl

from ocr_flops.cost.frames import WORKLOAD_COLUMNS
from ocr_flops.evidence.calibration.calibrated import Banded, Reached
from ocr_flops.evidence.calibration.cross_validation import DEVIATIONS, reach
from ocr_flops.evidence.calibration.fit import CEILINGS, Fit
from ocr_flops.spec.specs import HardwareSpec

SHOWN = 0.05  # of some record's time that a ceiling or launches must take for records to tell of them
VAGUE = 0.6  # standard error of a logarithm from which on nothing is told: its 90 % range spans a factor of 7
UNKNOWN = float(np.log(2))  # standard error given to a slowdown of which nothing is told
NAMES = ("matrix", "vector", "bandwidth")


def ceilings(fitted: Fit, shares: np.ndarray, covariance: np.ndarray, peaks: HardwareSpec, dtype: str, known: bool) -> tuple[Reached, ...]:
    """What is reached of every ceiling.

    Args:
        fitted: the fit.
        shares: of each parameter in the time of rows that are no outliers [row, parameter].
        covariance: of its logarithms.
        peaks: what it divided by.
        dtype: of matrix products.
        known: whether these are the device's own.
    """
    figures = (peaks.matrix_peak(dtype), peaks.vector_fp32_flops_per_second, peaks.memory_bandwidth_bytes_per_second)
    found = []
    for number, (name, figure) in enumerate(zip(NAMES, figures, strict=True)):
        largest, error = float(shares[:, number].max()), float(covariance[number, number] ** 0.5)
        reason = _untold(largest, error)
        if figure is None:
            reason = "has no figure in the device's config"
        peak = figure if known else None
        if reason:
            found.append(Reached(name, None, None, peak, largest, reason))
            continue
        part = ranged(-fitted.logarithms[number], error, 1.0)
        rate = Banded(*(one * figure for one in part))
        found.append(Reached(name, part if known else None, rate, peak, largest, None))
    return tuple(found)


def launches(fitted: Fit, shares: np.ndarray, covariance: np.ndarray, stages: tuple[str, ...]) -> dict[str, Banded | None]:
    """Seconds of a launch in every stage; None where it never shows. Arguments as for `ceilings`."""
    found = {}
    for number, stage in enumerate(stages, CEILINGS):
        error = float(covariance[number, number] ** 0.5)
        told = _untold(float(shares[:, number].max()), error) is None
        found[stage] = ranged(fitted.logarithms[number], error) if told else None
    return found


def doubted(covariance: np.ndarray, found: tuple[Reached, ...]) -> np.ndarray:
    """The covariance with a wide error for ceilings of which nothing is told, so that bands are wide where these bind."""
    wider = covariance.copy()
    for number, one in enumerate(found):
        if one.reason:
            wider[number, :] = wider[:, number] = 0.0
            wider[number, number] = max(covariance[number, number], UNKNOWN**2)
    return wider


def ranged(logarithm: float, error: float, most: float = np.inf) -> Banded:
    """A figure with its 90 % range."""
    return Banded(*(min(most, float(np.exp(logarithm + way * DEVIATIONS * error))) for way in (0, -1, 1)))


def _untold(largest: float, error: float) -> str | None:
    """Why records do not tell of a ceiling or of launches; None where they do."""
    if largest < SHOWN:
        return f"takes at most {100 * largest:.0f} % of any record's time" if largest >= 0.005 else "binds in no record"
    return "shows in too few records, or they disagree" if error > VAGUE else None


def table(
    rows: pl.DataFrame, predicted: np.ndarray, bounds: np.ndarray | None, weights: np.ndarray, apart: dict[str, float]
) -> pl.DataFrame:
    """`Calibration.held_out`.

    Args:
        rows: of `matching.usable`.
        predicted: seconds of each without its workload [row].
        bounds: None where there are none [row].
        weights: of the fit to all [row].
        apart: `Calibration.reach`.
    """
    least = np.zeros(len(predicted)) if bounds is None else bounds
    width = np.array([apart[stage] for stage in rows["stage"]])
    value, low, high = (np.maximum(least, predicted * np.exp(way * width)) for way in (0, -1, 1))
    return rows.select("record_id", "measured_at", "attention", *WORKLOAD_COLUMNS, "stage", measured_seconds="median_seconds").with_columns(
        pl.Series("predicted_seconds", value),
        pl.Series("low_seconds", low),
        pl.Series("high_seconds", high),
        pl.Series("bound_seconds", [None] * rows.height if bounds is None else bounds, pl.Float64),
        pl.Series("ratio", value / rows["median_seconds"].to_numpy()),
        pl.Series("outlier", weights == 0),
    )


def errors(held: pl.DataFrame) -> pl.DataFrame:
    """`Calibration.errors`: of every stage, and of the time to first token where a record has both its stages."""
    first = held.filter(pl.col("stage").is_in(["vision", "prefill"])).group_by("record_id", maintain_order=True)
    both = first.agg(pl.col("measured_seconds").sum(), pl.col("predicted_seconds").sum(), pl.len().alias("stages")).filter(
        pl.col("stages") == 2
    )
    figures = {stage: held.filter(pl.col("stage") == stage)["ratio"] for stage in held["stage"].unique(maintain_order=True)}
    if both.height:
        figures["ttft"] = both["predicted_seconds"] / both["measured_seconds"]
    rows = [
        {
            "figure": name,
            "rows": len(ratios),
            "median_error": float((ratios - 1).abs().median()),
            "p90_error": reach((ratios - 1).to_numpy()),
            "within_15_percent": float(((ratios - 1).abs() <= 0.15).mean()),
        }
        for name, ratios in figures.items()
    ]
    return pl.DataFrame(rows)
