"""Expected seconds: what a user would see, from the order of the operators, the host that issues them and the efficiency of kernels.

Every stage ends with a synchronisation, and so does every decode step, since its token is read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ocr_flops.cost.run_config import RunConfig
from ocr_flops.cost.stage_groups import StageGroup
from ocr_flops.spec.host import EfficiencySpec, HostSpec
from ocr_flops.spec.specs import HardwareSpec
from ocr_flops.timing.run_groups import find_distinct
from ocr_flops.timing.stage_lanes import CONTEXT, StageLanes, take

CASES = ("value", "low", "high")  # of the figures: as expected, all in favour, all against
MODULE_CHUNK = 256  # points whose critical path is found together

lanes_of = functools.lru_cache(maxsize=1024)(StageLanes)  # bounded: a page has a new one for every figure that is typed


class Expected(NamedTuple):
    """Seconds of a stage and of its lanes, in decode over all steps: each [case, point], cases as in `CASES`.

    Args:
        seconds: from the first operator's issue to the end of the last kernel.
        device: in which the device runs kernels.
        host: in which the host issues operators.
    """

    seconds: np.ndarray
    device: np.ndarray
    host: np.ndarray


def expected_seconds(group: StageGroup, config: RunConfig, hardware: HardwareSpec, host: HostSpec, efficiency: EfficiencySpec) -> Expected:
    """A stage at the points of a group: one pass, or all decode steps, summed exactly without a loop over them.

    Args:
        group: the stage.
        config: what runs.
        hardware: the device.
        host: what it takes to issue operators.
        efficiency: what kernels reach of the device's peaks.

    Raises:
        SpecError: the device has no peak for the precision of a matrix product.
    """
    lanes = lanes_of(group.program, group.stage, hardware, config.dtype, host, efficiency)

    def evaluate(values: np.ndarray, hits: np.ndarray, points: np.ndarray) -> np.ndarray:
        return lanes.figures(values, hits, group, points)

    seconds, device, host_seconds = _over_steps(group, lanes, evaluate, 3)
    if group.steps is not None:
        spent = lanes.step[:, None] * group.steps
        seconds, host_seconds = seconds + spent, host_seconds + spent
    return Expected(seconds, device, host_seconds)


def module_seconds(group: StageGroup, config: RunConfig, hardware: HardwareSpec, host: HostSpec, efficiency: EfficiencySpec) -> np.ndarray:
    """What each of the program's modules has of a stage's expected seconds, by the critical path: [host or device, module, point].

    A decode step's own host work belongs to no module. Arguments and errors as of `expected_seconds`.
    """
    lanes = lanes_of(group.program, group.stage, hardware, config.dtype, host, efficiency)

    def evaluate(values: np.ndarray, hits: np.ndarray, points: np.ndarray) -> np.ndarray:
        chunks = [slice(start, start + MODULE_CHUNK) for start in range(0, max(1, len(points)), MODULE_CHUNK)]
        shares = [lanes.critical_path(values[:, one], hits if len(hits) == 1 else hits[one], group, points[one]) for one in chunks]
        shares = np.concatenate(shares, axis=-1)
        return np.concatenate([shares.sum(axis=0, keepdims=True), shares])

    return _over_steps(group, lanes, evaluate, 1)[1:].reshape(2, len(group.program.modules), -1)


def _over_steps(
    group: StageGroup, lanes: StageLanes, evaluate: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray], convex: int
) -> np.ndarray:
    """Seconds over all steps of a stage: [..., point].

    Args:
        group, lanes: the stage.
        evaluate: takes the monomials' values [monomial, n], the experts hit [n] or [1], and the points' indices [n]; returns
            [figure, ..., n].
        convex: how many of these figures are convex in the context; the others are linear where those are.
    """
    order = lanes.order
    hits, settled = take(group.values.get("experts_hit", 1), None), lanes.settled_values(group)
    alike, number = _find_alike(group)
    if group.steps is None:
        return evaluate(settled[:, alike], take(hits, alike), alike)[..., number]
    steps, last = (np.broadcast_to(np.asarray(one, np.int64), len(number)) for one in (group.steps, group.values[CONTEXT]))
    grows = order.grows[:, None]

    def step(context: np.ndarray, functions: np.ndarray) -> np.ndarray:
        at = alike[functions]
        values = np.where(grows, settled[:, at] * context, settled[:, at])
        return evaluate(values, take(hits, at), at)

    return sum_convex(step, number, last - steps + 1, last, lanes.crossings(settled[:, alike]), convex)


def _find_alike(group: StageGroup) -> tuple[np.ndarray, np.ndarray]:
    """Points of a group that differ, in decode but for the context (there are as many as batch sizes), and which of them each point is;
    as of `find_distinct`."""
    columns = [column for name, column in group.values.items() if group.steps is None or name != CONTEXT]
    values = np.array([np.broadcast_to(column, group.workload.points) for column in columns], float)
    return find_distinct(values, np.ones(1), np.sqrt(np.arange(2, len(values) + 2)) @ values)


def sum_convex(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray],
    number: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
    bends: np.ndarray,
    convex: int = 1,
) -> np.ndarray:
    """Sums of convex functions over whole numbers, where the functions are linear piece by piece; exact to rounding.

    A convex function that lies on its chord in the middle of an interval is linear on all of it, so pieces between known bends are
    halved only where the function bends besides. Points of one function share its pieces.

    Args:
        function: takes arguments [n] and the numbers of the functions [n] they are of; returns values [figure, ..., n].
        number: the function of every point; each has one at least: [point].
        first, last: the range of every point, both included; empty where last < first: [point].
        bends: arguments after which functions may bend, in any order, also outside the range: [bend, function].
        convex: how many of the figures are such functions; the others are linear where these are.

    Returns:
        the sums [..., point].
    """
    least = np.full(bends.shape[1], np.iinfo(np.int64).max)
    np.minimum.at(least, number, first)
    greatest = least.copy()
    np.maximum.at(greatest, number, last)
    ends = np.sort(np.concatenate([np.clip(np.floor(bends), least - 1, greatest), greatest[None]]), axis=0).astype(np.int64)
    starts = np.concatenate([least[None], ends[:-1] + 1])
    piece, of = np.nonzero(starts <= ends)
    pieces = _linear_pieces(function, of, starts[piece, of], ends[piece, of], convex)
    return pieces.sum_to(number, np.maximum(last, first - 1)) - pieces.sum_to(number, first - 1)


class _Pieces(NamedTuple):
    """Functions that are linear piece by piece, by function and in order.

    Args:
        of, low: the function of every piece, and its first argument: [piece].
        at_low, rise: the value there, and what each further argument adds: [..., piece].
        before: the function's sum over all smaller arguments: [..., piece].
    """

    of: np.ndarray
    low: np.ndarray
    at_low: np.ndarray
    rise: np.ndarray
    before: np.ndarray

    def sum_to(self, number: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Sums of functions from their first arguments to x, included, which is at least the one before the first: [..., point]."""
        begins = np.searchsorted(self.of, number)
        at = np.maximum(np.searchsorted((self.of << 32) + self.low, (number << 32) + x, side="right") - 1, begins)
        count = x - self.low[at] + 1
        return self.before[..., at] + count * (self.at_low[..., at] + self.rise[..., at] * ((count - 1) / 2))


def _linear_pieces(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray], of: np.ndarray, low: np.ndarray, high: np.ndarray, convex: int
) -> _Pieces:
    """Halves pieces of functions until all are linear; arguments as of `sum_convex`, and the function, the first and the last argument of
    every piece: [piece]."""
    found: list[tuple[np.ndarray, ...]] = []
    count, middle = len(of), (low + high) // 2
    at = function(np.concatenate([low, middle, high]), np.concatenate([of, of, of]))
    at_low, at_middle, at_high = at[..., :count], at[..., count : 2 * count], at[..., 2 * count :]
    while True:
        width = np.maximum(high - low, 1)
        bent = np.abs(at_middle - at_low - (at_high - at_low) * ((middle - low) / width))[:convex] > 1e-12 * np.abs(at_middle[:convex])
        halved = bent.reshape(-1, len(of)).any(axis=0) & (high - low > 1)
        found.append(tuple(one[..., ~halved] for one in (of, low, at_low, (at_high - at_low) / width)))
        if not halved.any():
            break
        of, middles = np.tile(of[halved], 2), middle[halved]  # a middle begins the one half and ends the other
        low, high = np.concatenate([low[halved], middles]), np.concatenate([middles, high[halved]])
        at_low, at_high = (
            np.concatenate([one[..., halved], other[..., halved]], axis=-1) for one, other in ((at_low, at_middle), (at_middle, at_high))
        )
        middle = (low + high) // 2
        at_middle = function(middle, of)
    of, low, at_low, rise = (np.concatenate(parts, axis=-1) for parts in zip(*found, strict=True))
    by_place = np.lexsort((low, of))
    of, low, at_low, rise = (one[..., by_place] for one in (of, low, at_low, rise))
    length = np.where(of[1:] == of[:-1], low[1:] - low[:-1], 0)  # of each piece but the last, up to where the next begins
    begins = np.searchsorted(of, np.arange(of[-1] + 1))
    rank = np.arange(len(of)) - begins[of]
    sums = np.zeros((*at_low.shape[:-1], len(begins), rank.max() + 1))  # by function, so that none loses digits to another
    sums[..., of[1:], rank[1:]] = np.where(rank[1:] > 0, length * (at_low[..., :-1] + rise[..., :-1] * ((length - 1) / 2)), 0.0)
    return _Pieces(of, low, at_low, rise, sums.cumsum(axis=-1)[..., of, rank])
