"""Fit the efficiency of a device's ceilings, and its launch overheads, to measured seconds.

The time of a stage is that of the roofline (`timing/roofline.py`): the sum over operators of the largest of three times, each divided by
the efficiency of its ceiling. Launching the operators either adds to it (a CPU runs an operator, then the next) or hides behind it (a GPU
runs them while the host launches the next, so a stage takes the longer of the two). Both models are fitted and the better one is kept.

Residuals are logarithms of predicted over measured seconds, so that a stage of 5 ms counts as much as one of 5 s. They are minimised by
`scipy.optimize.least_squares` within bounds: from several starts with the loss of Huber (1964), then from the best end, at the scale found
there, with Tukey's biweight (Beaton and Tukey, 1974), under which a residual beyond 4.685 scales has no weight at all.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

LAUNCHES = ("added", "hidden")
CEILINGS = 3  # matrix, vector, bandwidth
LOWEST_EFFICIENCY = 1e-8
LAUNCH_SECONDS = (1e-9, 1e-1)
HUBER, TUKEY = 1.345, 4.685  # scales; 95 % efficient where errors are normal
FIRST_SCALE = 0.05
LEAST_SCALE = 0.005  # of a measurement repeated on the same machine
REGULARISATION = 1e-3  # weight of the prior, which decides only what no measurement does
STARTS = ((1.5, 1.5, 1.5), (1.5, 8.0, 1.5), (1.5, 30.0, 1.5), (4.0, 4.0, 4.0))  # 1 / efficiencies, where the peaks are the device's own
WIDE_STARTS = tuple(product((0.08, 1.0, 12.0), repeat=CEILINGS))  # times those expected, where they are not
SEARCH_ROWS, SEARCH_STEPS, FOLLOWED = 180, 10, 2  # starts are compared on so many rows after so many steps; so many are followed


class Features(NamedTuple):
    """What the fit knows of rows, each a stage of a workload.

    Args:
        operator_seconds: seconds of each operator at the peak of each ceiling [ceiling, operator, row], zeros where a row has fewer.
        launches: kernel launches [row].
        stage: the number of the stage, which chooses the launch overhead [row].
    """

    operator_seconds: np.ndarray
    launches: np.ndarray
    stage: np.ndarray

    def select(self, rows: np.ndarray) -> Features:
        """The features of some rows."""
        return Features(self.operator_seconds[:, :, rows], self.launches[rows], self.stage[rows])


class Fit(NamedTuple):
    """A fitted device.

    Args:
        parameters: natural logarithms of 1 / efficiency of each ceiling, then of the launch seconds of each stage.
        launches: one of `LAUNCHES`.
        scale: standard deviation of the residuals without outliers, in natural logarithms.
        loss: what was minimised.
        prior: the logarithm of 1 / efficiency to which ceilings without evidence are regularised.
    """

    parameters: np.ndarray
    launches: str
    scale: float
    loss: float
    prior: float

    def predict(self, features: Features) -> tuple[np.ndarray, np.ndarray]:
        """Seconds [row], and the share of each parameter in them [row, parameter]."""
        return predict(self.parameters, features, self.launches)

    def scaled_residuals(self, features: Features, seconds: np.ndarray) -> np.ndarray:
        """Residuals over the width of Tukey's biweight [row]; those beyond 1 are outliers."""
        return np.log(self.predict(features)[0] / seconds) / (TUKEY * self.scale)

    def refit(self, features: Features, seconds: np.ndarray) -> np.ndarray:
        """Fit other rows from here, with the same kind of launches and the same scale; returns the parameters."""
        return _minimise(self.parameters, features, seconds, self.launches, self.prior, TUKEY * self.scale, _biweight).x


def predict(parameters: np.ndarray, features: Features, launches: str) -> tuple[np.ndarray, np.ndarray]:
    """Predict seconds [row], and the share of each parameter in them [row, parameter]; arguments as in `Fit`.

    A share is also the derivative of the logarithm of the seconds by the parameter.
    """
    factors = np.exp(parameters)
    matrix, vector, moved = (line * factor for line, factor in zip(features.operator_seconds, factors, strict=False))
    longest = np.maximum(np.maximum(matrix, vector), moved)
    device, launching = longest.sum(axis=0), features.launches * factors[CEILINGS + features.stage]
    under_bandwidth = moved >= longest
    by_bandwidth = np.where(under_bandwidth, moved, 0.0).sum(axis=0)
    by_matrix = np.where((matrix >= longest) & ~under_bandwidth, matrix, 0.0).sum(axis=0)
    computing = np.stack([by_matrix, device - by_matrix - by_bandwidth, by_bandwidth], axis=1)
    overhead = (np.arange(len(parameters) - CEILINGS) == features.stage[:, None]) * launching[:, None]
    seconds = device + launching
    if launches == "hidden":
        seconds, waits = np.maximum(device, launching), (launching > device)[:, None]
        computing, overhead = np.where(waits, 0.0, computing), np.where(waits, overhead, 0.0)
    return seconds, np.hstack([computing, overhead]) / seconds[:, None]


def fit(features: Features, seconds: np.ndarray, stages: int, expected: float | None = None) -> Fit:
    """Fit the efficiencies and launch overheads that bring the model closest to most of the measurements.

    Args:
        seconds: measured [row].
        stages: how many there are, each with at least one row.
        expected: 1 / efficiency to expect where the peaks are not the device's own; None where they are.
    """
    prior = 0.0 if expected is None else float(np.log(expected))
    sample = _sample(features, seconds)
    few, few_seconds = features.select(sample), seconds[sample]
    each = few_seconds / few.launches
    launch_seconds = [0.5 * np.quantile(each[few.stage == stage], 0.1) for stage in range(stages)]
    starts = [np.log([*np.exp(prior) * np.array(start), *launch_seconds]) for start in (STARTS if expected is None else WIDE_STARTS)]
    rough = {}
    for launches in LAUNCHES:
        options = (launches, prior, HUBER * FIRST_SCALE, _huber)
        ends = sorted((_minimise(start, few, few_seconds, *options, steps=SEARCH_STEPS) for start in starts), key=lambda end: end.cost)
        found = [_minimise(end.x, features, seconds, *options) for end in ends[:FOLLOWED]]
        rough[launches] = min(found, key=lambda end: end.cost).x
    residuals = [np.log(predict(found, features, launches)[0] / seconds) for launches, found in rough.items()]
    scale = max(LEAST_SCALE, 1.4826 * min(float(np.median(np.abs(one))) for one in residuals))
    ends = [(_minimise(found, features, seconds, launches, prior, TUKEY * scale, _biweight), launches) for launches, found in rough.items()]
    best, launches = min(ends, key=lambda end: end[0].cost)
    return Fit(best.x, launches, scale, float(best.cost), prior)


def regularisation(parameters: int, prior: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows [row, parameter] and targets [row] that draw 1 / efficiencies to the prior, and launch overheads to their mean."""
    rows = np.eye(parameters)
    rows[CEILINGS:, CEILINGS:] -= 1 / (parameters - CEILINGS)
    return rows * REGULARISATION**0.5, np.where(np.arange(parameters) < CEILINGS, prior, 0.0) * REGULARISATION**0.5


def bounds(parameters: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and the upper bound of each parameter: an efficiency is at most 1."""
    least, most = ([limit] * (parameters - CEILINGS) for limit in np.log(LAUNCH_SECONDS))
    return np.array([0.0] * CEILINGS + least), np.array([-np.log(LOWEST_EFFICIENCY)] * CEILINGS + most)


def _sample(features: Features, seconds: np.ndarray) -> np.ndarray:
    """Choose rows of all stages and sizes, few enough to try the starts on."""
    order = np.lexsort((seconds, features.stage))
    first = np.searchsorted(features.stage[order], np.unique(features.stage))  # none of the stages is left out
    return order[np.union1d(np.linspace(0, len(order) - 1, min(len(order), SEARCH_ROWS)).astype(int), first)]


def _huber(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Huber's loss of squared residuals, and its derivative."""
    size = np.maximum(1.0, np.sqrt(squares))
    return np.where(squares <= 1, squares, 2 * size - 1), 1 / size


def _biweight(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tukey's loss of squared residuals, and its derivative."""
    inside = np.maximum(0.0, 1 - squares)
    return (1 - inside**3) / 3, inside**2


def _minimise(
    start: np.ndarray,
    features: Features,
    seconds: np.ndarray,
    launches: str,
    prior: float,
    width: float,
    robust: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    steps: int | None = None,
) -> OptimizeResult:
    """Minimise the robust loss of the residuals in units of `width` within the bounds."""
    from scipy.optimize import least_squares

    rows, targets = regularisation(len(start), prior)

    def loss(squares: np.ndarray) -> np.ndarray:
        """The loss and its derivatives; zeros for the second, so that steps are those of reweighted least squares."""
        found = np.stack([squares, np.ones_like(squares), np.zeros_like(squares)])  # the prior stays quadratic
        found[:2, : len(seconds)] = robust(squares[: len(seconds)])
        return found

    return least_squares(
        lambda tried: np.append(np.log(predict(tried, features, launches)[0] / seconds), rows @ tried - targets),
        np.clip(start, *bounds(len(start))),
        lambda tried: np.vstack([predict(tried, features, launches)[1], rows]),
        bounds(len(start)),
        method="dogbox",
        loss=loss,
        f_scale=width,
        ftol=1e-6,
        xtol=1e-6,
        max_nfev=steps,
    )
