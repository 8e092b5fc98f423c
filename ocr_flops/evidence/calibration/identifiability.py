"""Which efficiencies and launch overheads records identify, with their intervals; how wide the others are taken to be."""

import numpy as np

from ocr_flops.evidence.calibration.cross_validation import DEVIATIONS
from ocr_flops.evidence.calibration.fit import CEILINGS, Fit
from ocr_flops.evidence.calibration.result import Efficiency, Interval
from ocr_flops.spec.specs import HardwareSpec

LEAST_SHARE = 0.05  # of some record's time that a ceiling, or launches, must take to be identifiable
LARGEST_ERROR = 0.6  # standard error of a logarithm above which nothing is identified: its 90 % interval spans a factor of 7
UNIDENTIFIED_ERROR = float(np.log(2))  # standard error given to the efficiency of an unidentified ceiling
NAMES = ("matrix", "vector", "bandwidth")


def identify_efficiencies(
    fitted: Fit, shares: np.ndarray, covariance: np.ndarray, peaks: HardwareSpec, dtype: str, known: bool
) -> tuple[Efficiency, ...]:
    """Return the efficiency of every ceiling, or why it is unidentifiable.

    Args:
        shares: of each parameter in the time of the rows that are no outliers [row, parameter].
        covariance: of the fit's parameters.
        peaks: what the fit divided by.
        dtype: of matrix products.
        known: whether the peaks are the device's own.
    """
    figures = (peaks.matrix_peak(dtype), peaks.vector_fp32_flops_per_second, peaks.memory_bandwidth_bytes_per_second)
    found = []
    for number, (name, figure) in enumerate(zip(NAMES, figures, strict=True)):
        largest, error = float(shares[:, number].max()), float(covariance[number, number] ** 0.5)
        reason = _why_unidentifiable(largest, error) if figure else "has no figure in the device's config"
        part = rate = None
        if reason is None:
            part = _interval(-fitted.parameters[number], error, 1.0)
            rate = Interval(*(one * figure for one in part))
        found.append(Efficiency(name, part if known else None, rate, figure if known else None, largest, reason))
    return tuple(found)


def identify_launches(fitted: Fit, shares: np.ndarray, covariance: np.ndarray, stages: tuple[str, ...]) -> dict[str, Interval | None]:
    """Return the seconds of a launch in every stage; None where it is unidentifiable. Arguments as for `identify_efficiencies`."""
    found = {}
    for number, stage in enumerate(stages, CEILINGS):
        error = float(covariance[number, number] ** 0.5)
        reason = _why_unidentifiable(float(shares[:, number].max()), error)
        found[stage] = None if reason else _interval(fitted.parameters[number], error)
    return found


def inflate_unidentified(covariance: np.ndarray, efficiencies: tuple[Efficiency, ...]) -> np.ndarray:
    """Inflate the variance of unidentified efficiencies so that intervals widen where they bind."""
    wider = covariance.copy()
    for number, one in enumerate(efficiencies):
        if one.reason:
            wider[number, :] = wider[:, number] = 0.0
            wider[number, number] = max(covariance[number, number], UNIDENTIFIED_ERROR**2)
    return wider


def _interval(logarithm: float, error: float, most: float = np.inf) -> Interval:
    """The 90 % interval of a figure, given its logarithm and the standard error of that, cut off at `most`."""
    return Interval(*(min(most, float(np.exp(logarithm + way * DEVIATIONS * error))) for way in (0, -1, 1)))


def _why_unidentifiable(largest_share: float, error: float) -> str | None:
    """Why records do not identify a ceiling or launches; None where they do."""
    if largest_share < LEAST_SHARE:
        return f"takes at most {100 * largest_share:.0f} % of any record's time" if largest_share >= 0.005 else "binds in no record"
    return "shows in too few records, or they disagree" if error > LARGEST_ERROR else None
