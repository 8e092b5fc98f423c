"""Expected seconds: what a user would see, from the order of the operators, the host that issues them and the efficiency of kernels.

Every stage ends with a synchronisation, and so does every decode step, since its token is read.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ocr_flops.cost.run_config import RunConfig
from ocr_flops.cost.stage_groups import StageGroup
from ocr_flops.spec.host import EfficiencySpec, HostSpec
from ocr_flops.spec.specs import HardwareSpec
from ocr_flops.timing.convex_sums import sum_convex
from ocr_flops.timing.stage_lanes import CONTEXT, StageLanes

CASES = ("value", "low", "high")  # of the figures: as expected, all in favour, all against
MODULE_CHUNK = 256  # points whose critical path is found together

lanes_of = functools.lru_cache(maxsize=1024)(StageLanes)  # bounded: a page has a new one for every figure that is typed


class Expected(NamedTuple):
    """Seconds of a stage, in decode over all steps: each [case, point], cases as in `CASES`.

    Args:
        seconds: from the first operator's issue to the end of the last kernel.
        device: in which the device runs kernels.
    """

    seconds: np.ndarray
    device: np.ndarray


def expected_seconds(group: StageGroup, config: RunConfig, hardware: HardwareSpec, host: HostSpec, efficiency: EfficiencySpec) -> Expected:
    """A stage at the points of a group: one pass, or all decode steps, summed exactly without a loop over them.

    Args:
        host: what it takes to issue operators.
        efficiency: what kernels reach of the device's peaks.

    Raises:
        SpecError: the device has no peak for the precision of a matrix product.
    """
    lanes = lanes_of(group.program, group.stage, hardware, config, host, efficiency)

    def evaluate(values: np.ndarray, points: np.ndarray) -> np.ndarray:
        return lanes.figures(values, group, points)

    seconds, device = _over_steps(group, lanes, evaluate, 2)
    if group.steps is not None:
        seconds = seconds + lanes.step[:, None] * group.steps
    return Expected(seconds, device)


def module_seconds(group: StageGroup, config: RunConfig, hardware: HardwareSpec, host: HostSpec, efficiency: EfficiencySpec) -> np.ndarray:
    """What each of the program's modules has of a stage's expected seconds, by the critical path: [host or device, module, point].

    A decode step's own host work belongs to no module. Arguments and errors as of `expected_seconds`.
    """
    lanes = lanes_of(group.program, group.stage, hardware, config, host, efficiency)

    def evaluate(values: np.ndarray, points: np.ndarray) -> np.ndarray:
        chunks = [slice(start, start + MODULE_CHUNK) for start in range(0, max(1, len(points)), MODULE_CHUNK)]
        shares = [lanes.critical_path(values[:, one], group, points[one]) for one in chunks]
        shares = np.concatenate(shares, axis=-1)
        return np.concatenate([shares.sum(axis=0, keepdims=True), shares])

    return _over_steps(group, lanes, evaluate, 1)[1:].reshape(2, len(group.program.modules), -1)


def _over_steps(group: StageGroup, lanes: StageLanes, evaluate: Callable[[np.ndarray, np.ndarray], np.ndarray], convex: int) -> np.ndarray:
    """Seconds over all steps of a stage: [..., point].

    Args:
        evaluate: takes the monomials' values [monomial, n] and the points' indices [n]; returns [figure, ..., n].
        convex: how many of these figures are convex in the context; the others are linear where those are.
    """
    if group.steps is None:  # a single pass, perhaps one decode step alone, whose context is not summed over
        return evaluate(lanes.last_values(group), np.arange(group.workload.points))
    alike, number = group.find_distinct(without=CONTEXT)  # as many as batch sizes
    wanted = group.steps, group.growing_steps, group.values[CONTEXT]
    steps, growing, last = (np.zeros(len(number), np.int64) + one for one in wanted)
    settled, grows = lanes.settled_values(group), lanes.order.grows[:, None]

    def step(context: np.ndarray, functions: np.ndarray) -> np.ndarray:
        at = alike[functions]
        values = np.where(grows, settled[:, at] * context, settled[:, at])
        return evaluate(values, at)

    total = sum_convex(step, number, last - growing + 1, last, lanes.crossings(settled[:, alike]), convex)
    like_last = steps - growing
    return total + like_last * step(last, number) if like_last.any() else total
