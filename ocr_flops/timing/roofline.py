"""Costs times hardware: seconds under three ceilings (matrix units, vector units, memory bandwidth), and which one binds.

`roofline_seconds` sums over operators the largest of what each ceiling allows (Williams et al., Roofline, 2009, per operator): nothing
overlaps and no cache is reused. It is no bound; `bound.py` has that.
"""

import functools
from collections.abc import Sequence

import numpy as np

from ocr_flops.cost.program import Program
from ocr_flops.cost.run_config import RunConfig
from ocr_flops.cost.stage_groups import StageGroup
from ocr_flops.spec.specs import PRODUCTS, HardwareSpec
from ocr_flops.timing.bound import bound_seconds

BLOCK = 2_048  # points whose contested operators are looked at together, so that they stay in the processor's cache
CEILINGS = ("matrix", "vector", "bandwidth", "launch")
TIME_COLUMNS = {"roofline_seconds": np.float64, "bound_seconds": np.float64, "ceiling": np.int64, "ceiling_margin": np.float64}


@functools.cache
def _compile(program: Program, hardware: HardwareSpec, dtype: str, launch_seconds: float, by_module: bool) -> tuple[np.ndarray, ...]:
    """A program's operators as seconds on one device; all modules are one unless by_module.

    Operators under one ceiling at all sizes are summed; only those whose ceiling depends on the sizes are looked at one by one.

    Returns:
        seconds of the former [module, ceiling, monomial], of the latter [ceiling (without launch), operator, monomial], and 1 where one of
        the latter belongs to a module, else 0 [module, operator].
    """
    modules = program.modules if by_module else ("",)
    seconds = operator_seconds(program, hardware, dtype)
    owner = np.array([[not by_module or operation.module == module for operation in program.operations] for module in modules], float)
    largest = (seconds[:, :, None] >= seconds[:, None]).all(axis=(2, 3))  # in every coefficient, so at every point
    ceiling = np.where(largest.any(axis=1), largest.argmax(axis=1), -1)
    settled = np.zeros((len(modules), len(CEILINGS), len(program.monomials)))
    for number in range(seconds.shape[1]):
        settled[:, number] = owner[:, ceiling == number] @ seconds[ceiling == number, number]
    settled[:, CEILINGS.index("launch")] = owner @ program.coefficients("operators") * launch_seconds
    merged: dict[tuple[bytes, bytes], np.ndarray] = {}
    for operator in np.flatnonzero(ceiling < 0):
        # Operators in the same proportions share their largest ceiling, so they are one operator with several times the cost.
        proportions = (seconds[operator] / seconds[operator].max()).round(12)
        key = proportions.tobytes(), owner[:, operator].tobytes()
        merged[key] = merged.get(key, 0.0) + seconds[operator]
    contested = np.stack(list(merged.values()), axis=1) if merged else np.zeros((seconds.shape[1], 0, len(program.monomials)))
    return settled, contested, np.array([np.frombuffer(owners) for _, owners in merged]).reshape(-1, len(modules)).T


def operator_seconds(program: Program, hardware: HardwareSpec, dtype: str) -> np.ndarray:
    """Seconds of every operator under the matrix, vector and bandwidth ceilings, as polynomials: [operator, ceiling, monomial].

    Raises:
        SpecError: the device has no peak for the precision of a matrix product.
    """
    flops, vector_peak = program.coefficients("tensor_flops"), hardware.vector_fp32_flops_per_second
    dtypes = [PRODUCTS.get(operation.matrix_itemsize, dtype) for operation in program.operations]
    peaks = [hardware.matrix_peak(one) if has_product else 1.0 for one, has_product in zip(dtypes, flops.any(axis=1), strict=True)]
    vector = program.coefficients("vector_flops") / vector_peak if vector_peak else np.zeros_like(flops)
    moved = program.coefficients("io_bytes") / hardware.memory_bandwidth_bytes_per_second
    return np.stack([flops / np.array(peaks)[:, None], vector, moved], axis=1)


def seconds_by_ceiling(
    group: StageGroup, config: RunConfig, hardware: HardwareSpec, launch_seconds: float = 0.0, by_module: bool = True
) -> np.ndarray:
    """Roofline seconds of a stage's points, per module (all as one unless by_module) and ceiling: [module, ceiling, point].

    In decode, each operator's seconds are linear in the step under every ceiling, so the largest of three lines is summed exactly over
    the steps between their crossings, without a loop over steps. `launch_seconds` are added for every operator executed.
    """
    settled, contested, owner = _compile(group.program, hardware, config.dtype, launch_seconds, by_module)
    values = group.monomial_values()
    seconds = settled @ values
    if not contested.shape[1]:
        return seconds
    points = values.shape[1]
    steps = None if group.steps is None else (group.steps, group.growing_steps, np.asarray(group.values["context"], float))
    last = values if steps is None else group.monomial_values(without="context")
    for start in range(0, points, BLOCK):
        block = slice(start, start + BLOCK)
        if steps is None:
            largest = _largest(contested @ values[:, block])
        else:
            largest = _sum_over_steps(contested, group, last[:, block], *(np.broadcast_to(one, points)[block] for one in steps))
        for ceiling, of_operators in enumerate(largest):
            seconds[:, ceiling, block] += owner @ of_operators
    return seconds


def _largest(lines: np.ndarray) -> np.ndarray:
    """The largest of lines [ceiling, operator, point] under its ceiling, 0 under the others."""
    return np.where(np.arange(len(lines), dtype=np.int8)[:, None, None] == _first_largest(lines), lines, 0.0)


def _first_largest(lines: np.ndarray) -> np.ndarray:
    """What `lines.argmax(axis=0)` is, for which NumPy takes five times as long where lines are few and long."""
    if lines[0].size < 100:
        return lines.argmax(axis=0)
    found, largest = np.zeros(lines.shape[1:], np.int8), lines[0]
    for number, line in enumerate(lines[1:], 1):
        found = np.where(line > largest, np.int8(number), found)
        largest = np.maximum(largest, line)
    return found


def _sum_over_steps(
    contested: np.ndarray, group: StageGroup, values: np.ndarray, steps: np.ndarray, growing_steps: np.ndarray, last: np.ndarray
) -> np.ndarray:
    """Sum over decode steps of the largest of three lines a + b·context: [ceiling, operator, point].

    Args:
        contested: seconds as of `_compile`.
        values: of the monomials, the context left out: [monomial, point].
        steps, growing_steps, last: of the points, and the context of the last step.
    """
    growing = np.array(["context" in monomial for monomial in group.program.monomials])
    base = contested[..., ~growing] @ values[~growing]
    total = _largest(base) * steps
    grows = contested[..., growing].any(axis=(0, 2))  # few operators
    base, slope = base[:, grows], contested[:, grows][..., growing] @ values[growing]
    before = last - growing_steps
    crossings = []
    for i, j in ((0, 1), (0, 2), (1, 2)):
        steeper = slope[i] - slope[j]
        with np.errstate(divide="ignore", invalid="ignore"):
            crossings.append(np.where(steeper != 0, np.floor((base[j] - base[i]) / steeper), before))
    edges = np.sort(np.clip(np.stack(crossings), before, last), axis=0)
    found, start = np.zeros_like(base), np.broadcast_to(before, base.shape[1:])
    for end in (*edges, last):
        middle = (start + 1 + end) / 2  # the mean context of the steps between two crossings
        found += _largest(base + slope * middle) * (end - start)
        start = end
    if (like_last := steps - growing_steps).any():
        found += _largest(base + slope * last) * like_last
    total[:, grows] = found
    return total


def time_columns(
    group: StageGroup, config: RunConfig, hardware: HardwareSpec, launch_seconds: float, modules: Sequence[str | None]
) -> dict[str, np.ndarray]:
    """The columns of `TIME_COLUMNS` at a stage's points for the modules wanted ([None]: the whole stage): each [module, point].

    `ceiling` is the index into CEILINGS of the one with most time, `ceiling_margin` its time over the next one's; infinite where there is
    no other.
    """
    by_module = modules != [None]
    seconds = seconds_by_ceiling(group, config, hardware, launch_seconds, by_module)
    if by_module:
        seconds = seconds[[group.program.modules.index(module) for module in modules]]
    seconds = seconds.swapaxes(0, 1)
    first = _first_largest(seconds)
    others = np.where(np.arange(len(CEILINGS), dtype=np.int8)[:, None, None] == first, 0.0, seconds).max(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (seconds.sum(axis=0), bound_seconds(group, config, hardware, modules), first, seconds.max(axis=0) / others)
    return dict(zip(TIME_COLUMNS, found, strict=True))
