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
from ocr_flops.timing.stage_lanes import StageLanes, take

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
    everything = np.arange(group.workload.points)
    if group.steps is None:
        return evaluate(settled, hits, everything)
    steps, last = (np.broadcast_to(np.asarray(one, np.int64), everything.shape) for one in (group.steps, group.values["context"]))
    grows = order.grows[:, None]

    def step(context: np.ndarray, points: np.ndarray) -> np.ndarray:
        values = np.where(grows, settled[:, points] * context, settled[:, points])
        return evaluate(values, hits if len(hits) == 1 else hits[points], points)

    return sum_convex(step, last - steps + 1, last, lanes.crossings(settled), convex)


def sum_convex(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray], first: np.ndarray, last: np.ndarray, bends: np.ndarray, convex: int = 1
) -> np.ndarray:
    """The sum over whole numbers of convex functions that are linear piece by piece, exact to rounding.

    A convex function that lies on its chord in the middle of an interval is linear on all of it, so pieces between known bends are
    halved only where the function bends besides.

    Args:
        function: takes arguments [n] and the indices of the points [n] they are of; returns values [figure, ..., n].
        first, last: the range of every point, both included; empty where last < first: [point].
        bends: arguments after which functions may bend, in any order, also outside the range: [bend, point].
        convex: how many of the figures are such functions; the others are linear where these are.

    Returns:
        the sums [..., point].
    """
    ends = np.sort(np.concatenate([np.clip(np.floor(bends), first - 1, last), last[None]]), axis=0).astype(np.int64)
    starts = np.concatenate([first[None], ends[:-1] + 1])
    piece, points = np.nonzero(starts <= ends)
    low, high = starts[piece, points], ends[piece, points]
    count, middle = len(points), (low + high) // 2
    at = function(np.concatenate([low, middle, high]), np.concatenate([points, points, points]))
    at_low, at_middle, at_high = at[..., :count], at[..., count : 2 * count], at[..., 2 * count :]
    total = np.zeros((*at.shape[:-1], len(first)))
    while count:
        chord = at_low + (at_high - at_low) * ((middle - low) / np.maximum(high - low, 1))
        bent = np.abs(at_middle[:convex] - chord[:convex]) > 1e-12 * np.abs(at_middle[:convex])
        halved = bent.reshape(-1, count).any(axis=0) & (high - low > 1)
        sums = np.where(halved, -at_middle, (at_low + at_high) / 2 * (high - low + 1))  # a middle belongs to both halves
        if len(first) == 1:
            total += sums.sum(axis=-1, keepdims=True)
        else:
            np.add.at(total, (..., points), sums)
        if not halved.any():
            break
        points, middles = np.tile(points[halved], 2), middle[halved]
        low, high = np.concatenate([low[halved], middles]), np.concatenate([middles, high[halved]])
        at_low, at_high = (
            np.concatenate([one[..., halved], other[..., halved]], axis=-1) for one, other in ((at_low, at_middle), (at_middle, at_high))
        )
        count, middle = len(points), (low + high) // 2
        at_middle = function(middle, points)
    return total
