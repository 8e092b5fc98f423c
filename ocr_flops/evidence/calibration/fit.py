"""The robust fit: how much slower than its peaks a device runs, from measured seconds and the seconds of operators under its ceilings.

A stage's time is that of the roofline (`roofline.py`): the sum over operators of the largest of three times, each divided by its ceiling's
efficiency; and each operator's launch. Launches either add to it (a CPU runs an operator, then the next) or hide behind it (a GPU runs
them while the host launches the next: the stage takes the longer of the two). Both are fitted, and the better one is kept.

Residuals are logarithms of ratios, so that a stage of 5 ms counts as much as one of 5 s. They are minimised by Gauss-Newton steps with
iteratively reweighted least squares (Holland and Welsch, 1977): Huber's weights first, then, from there and with the scale found, Tukey's
biweight, under which what lies beyond 4.685 scales has no weight at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np

LAUNCHES = ("added", "hidden")
CEILINGS = 3  # matrix, vector, bandwidth
SLOWEST = 1e8  # times slower than a peak
LAUNCH_SECONDS = (1e-9, 1e-1)
HUBER, TUKEY = 1.345, 4.685  # scales; 95 % efficient where errors are normal
FIRST_SCALE = 0.05
LEAST_SCALE = 0.005  # of a measurement repeated on the same machine
PULL = 1e-3  # of slowdowns towards where the search begins, and of launches towards each other: decides only what no measurement does
STEPS = 60
SEARCHED = 180  # rows on which a fit is searched for from several sides, before all are taken
STARTS = tuple(product((1.3, 4.0), (1.3, 8.0), (1.3, 4.0)))  # slowdowns of a device whose peaks are known
WIDER = tuple(product((0.08, 1.0, 12.0), repeat=3))  # times the slowdown expected of one whose are not
GLANCE, TRIED = 8, 3  # steps from every start, and how many of them are followed further
Robust = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Table:
    """Measured stages and what they ran.

    Args:
        seconds: measured [row].
        ran: which run of operators is a row's [row].
        operators: seconds of every run's operators at the ceilings' peaks, run after run [ceiling, operator].
        first: where each run's operators begin [run].
        launches: operators executed [row].
        stage: which launch overhead is a row's [row].
    """

    seconds: np.ndarray
    ran: np.ndarray
    operators: np.ndarray
    first: np.ndarray
    launches: np.ndarray
    stage: np.ndarray

    def take(self, rows: np.ndarray) -> Table:
        """Those rows."""
        runs, ran = np.unique(self.ran[rows], return_inverse=True)
        ends = np.append(self.first[1:], self.operators.shape[1])[runs]
        where = np.concatenate([np.arange(*span) for span in zip(self.first[runs], ends, strict=True)])
        first = np.cumsum([0, *(ends - self.first[runs])[:-1]])
        return Table(self.seconds[rows], ran, self.operators[:, where], first, self.launches[rows], self.stage[rows])


class Fit(NamedTuple):
    """What was fitted.

    Args:
        logarithms: of the slowdowns (a peak over what is reached, at least 1), then of the seconds of a launch in each stage.
        launches: "added" or "hidden".
        scale: of the residuals, in natural logarithms, outliers apart.
        loss: what was minimised.
        centre: logarithm of the slowdown that ceilings have of which no measurement tells.
    """

    logarithms: np.ndarray
    launches: str
    scale: float
    loss: float
    centre: float

    def seconds(self, table: Table) -> np.ndarray:
        """Seconds of every row."""
        return _seconds(self.logarithms, table, self.launches)

    def shares(self, table: Table) -> np.ndarray:
        """Which part of every row's time each ceiling, then each stage's launches, takes [row, parameter]."""
        return _shares(self.logarithms, table, self.launches)[1]

    def weights(self, table: Table) -> np.ndarray:
        """How much every row counts, from 0 (an outlier) to 1."""
        return _tukey(np.log(self.seconds(table) / table.seconds) / (TUKEY * self.scale))[1]

    def again(self, table: Table, counted: np.ndarray) -> Fit:
        """The fit to some of the rows, from here, with the same kind of launches and scale.

        Args:
            counted: 1 for rows that count, else 0.
        """
        return _refined(self.logarithms, table, self.launches, self.scale, self.centre, counted)


def fit(table: Table, stages: int, slower: float | None = None) -> Fit:
    """The slowdowns and launch overheads that bring the model closest to most of the measurements.

    Args:
        table: what was measured.
        stages: how many there are, each with a row at least.
        slower: how much slower than the peaks the device may be, where these are not its own; None where they are.
    """
    centre, all_rows = 0.0 if slower is None else float(np.log(slower)), np.ones(len(table.seconds))
    sides = np.log(STARTS if slower is None else WIDER)
    few = _few(table)
    each = few.seconds / few.launches
    least = np.array([np.quantile(each[few.stage == stage], 0.1) for stage in range(stages)])
    starts = [_clipped(np.concatenate([centre + side, np.log(part * least)])) for side in sides for part in (0.8, 0.1)]
    roughs = []
    for launches in LAUNCHES:
        options = (launches, HUBER * FIRST_SCALE, _huber, centre)
        seen = sorted((_descended(start, few, *options, np.ones(len(few.seconds)), GLANCE) for start in starts), key=lambda end: end[1])
        ends = [_descended(end, table, *options, all_rows) for end, _ in seen[:TRIED]]
        roughs.append((launches, min(ends, key=lambda end: end[1])[0]))
    scale = min(_scale(rough, table, launches) for launches, rough in roughs)
    return min((_refined(rough, table, launches, scale, centre, all_rows) for launches, rough in roughs), key=lambda one: one.loss)


def _few(table: Table) -> Table:
    """Rows of all stages and sizes, few enough to search on."""
    if len(table.seconds) <= SEARCHED:
        return table
    order = np.lexsort((table.seconds, table.stage))
    first = np.searchsorted(table.stage[order], np.unique(table.stage))  # none of the stages is left out
    return table.take(order[np.union1d(np.linspace(0, len(order) - 1, SEARCHED).astype(int), first)])


def _refined(logarithms: np.ndarray, table: Table, launches: str, scale: float, centre: float, counted: np.ndarray) -> Fit:
    found, loss = _descended(logarithms, table, launches, TUKEY * scale, _tukey, centre, counted)
    return Fit(found, launches, scale, loss, centre)


def _seconds(logarithms: np.ndarray, table: Table, launches: str) -> np.ndarray:
    factors = np.exp(logarithms)
    longest = np.maximum.reduce([line * factor for line, factor in zip(table.operators, factors, strict=False)])
    device, launching = np.add.reduceat(longest, table.first)[table.ran], table.launches * factors[CEILINGS + table.stage]
    return device + launching if launches == "added" else np.maximum(device, launching)


def _shares(logarithms: np.ndarray, table: Table, launches: str) -> tuple[np.ndarray, np.ndarray]:
    """Seconds [row], and the share of each parameter in them [row, parameter], which is the derivative of their logarithm."""
    factors = np.exp(logarithms)
    matrix, vector, moved = (line * factor for line, factor in zip(table.operators, factors, strict=False))
    by_vector = (vector > matrix) & (vector >= moved)
    by_matrix = (matrix >= vector) & (matrix > moved)
    winners = (np.where(by_matrix, matrix, 0.0), np.where(by_vector, vector, 0.0), np.where(by_matrix | by_vector, 0.0, moved))
    spent = np.stack([np.add.reduceat(line, table.first) for line in winners], axis=1)[table.ran]
    device, launching = spent.sum(axis=1), table.launches * factors[CEILINGS + table.stage]
    mine = np.arange(len(logarithms) - CEILINGS) == table.stage[:, None]
    if launches == "added":
        whole = device + launching
        return whole, np.hstack([spent, mine * launching[:, None]]) / whole[:, None]
    shown = (launching > device)[:, None]
    return np.maximum(device, launching), np.hstack([~shown * spent / device[:, None], shown * mine])


def _huber(ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    size = np.maximum(np.abs(ratios), 1e-12)
    return np.where(size <= 1, size**2 / 2, size - 0.5), np.minimum(1, 1 / size)


def _tukey(ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inside = np.maximum(0, 1 - ratios**2)
    return (1 - inside**3) / 6, inside**2


def _scale(logarithms: np.ndarray, table: Table, launches: str) -> float:
    """Median absolute residual as a standard deviation (of normal ones)."""
    residuals = np.log(_seconds(logarithms, table, launches) / table.seconds)
    return max(LEAST_SCALE, 1.4826 * float(np.median(np.abs(residuals))))


def _pull(size: int) -> np.ndarray:
    """Rows of the weak pull: each slowdown towards the centre, each launch overhead towards their mean."""
    rows = np.eye(size)
    rows[CEILINGS:, CEILINGS:] -= 1 / (size - CEILINGS)
    return rows * PULL**0.5


def _clipped(logarithms: np.ndarray) -> np.ndarray:
    return np.clip(logarithms, *_box(len(logarithms)))


def _box(size: int) -> tuple[np.ndarray, np.ndarray]:
    launches = size - CEILINGS
    least, most = np.log(LAUNCH_SECONDS)
    return np.array([0.0] * CEILINGS + [least] * launches), np.array([np.log(SLOWEST)] * CEILINGS + [most] * launches)


def _descended(
    logarithms: np.ndarray, table: Table, launches: str, width: float, robust: Robust, centre: float, counted: np.ndarray, most: int = STEPS
) -> tuple[np.ndarray, float]:
    """Damped Gauss-Newton steps inside the box until the loss no longer falls; where they end, and the loss there."""
    pull, (lower, upper) = _pull(len(logarithms)), _box(len(logarithms))
    towards = np.array([centre] * CEILINGS + [0.0] * (len(logarithms) - CEILINGS))
    measured = np.log(table.seconds)

    def loss(tried: np.ndarray) -> float:
        ratios = (np.log(_seconds(tried, table, launches)) - measured) / width
        return float((counted * robust(ratios)[0]).sum() * width**2 + ((pull @ (tried - towards)) ** 2).sum() / 2)

    now, damping = loss(logarithms), 1e-3
    for _ in range(most):
        seconds, slope = _shares(logarithms, table, launches)
        residuals = np.log(seconds) - measured
        weight = counted * robust(residuals / width)[1]
        gradient = slope.T @ (weight * residuals) + pull.T @ (pull @ (logarithms - towards))
        curvature = (slope.T * weight) @ slope + pull.T @ pull
        held = ((logarithms <= lower) & (gradient > 0)) | ((logarithms >= upper) & (gradient < 0))
        free = np.flatnonzero(~held)
        before = now
        while damping < 1e6:
            step = np.zeros_like(logarithms)
            damped = curvature[np.ix_(free, free)] + damping * np.diag(np.diag(curvature)[free] + 1e-6)
            step[free] = np.linalg.solve(damped, -gradient[free])
            tried = np.clip(logarithms + np.clip(step, -1.5, 1.5), lower, upper)
            after = loss(tried)
            if after < now:
                logarithms, now, damping = tried, after, max(1e-9, damping / 10)
                break
            damping *= 10
        else:
            break
        if before - now <= 1e-5 * before:
            break
    return logarithms, now
