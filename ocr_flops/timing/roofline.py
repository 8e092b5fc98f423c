"""Costs times hardware: seconds under three ceilings (matrix units, vector units, memory bandwidth), and which one binds.

Two times, never confused. `roofline_seconds` sums over operators the largest of what each ceiling allows (Williams et al., Roofline, 2009,
per operator): nothing overlaps and no cache is reused. `bound_seconds` is, per stage, the largest of what the ceilings allow for the work
that no implementation avoids; only this one is a bound.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ocr_flops.cost.polynomial import Monomial
from ocr_flops.cost.program import Program, dominates
from ocr_flops.cost.run_config import RunConfig
from ocr_flops.cost.stage_groups import KV_MODULE, StageGroup
from ocr_flops.spec.workload import Column

if TYPE_CHECKING:
    from ocr_flops.spec.specs import HardwareSpec

CEILINGS = ("matrix", "vector", "bandwidth", "launch")
Line = dict[Monomial, float]


@dataclass(frozen=True, eq=False)
class _Compiled:
    """A program's operators as seconds on one device.

    Operators of which one ceiling is the largest whatever the sizes are summed per module; only the contested ones are looked at one by
    one. The last axis of the coefficients runs over monomials.

    Args:
        modules: labels, in the order of the first axis of `settled`.
        monomials: those without the context of a decode step, then the same times the context.
        settled: seconds per [module, ceiling, monomial].
        contested: seconds per [ceiling (without launch), operator, monomial].
        owner: 1 where a contested operator [operator] belongs to a module [module], else 0.
    """

    modules: tuple[str, ...]
    monomials: tuple[Monomial, ...]
    settled: np.ndarray
    contested: np.ndarray
    owner: np.ndarray

    def as_one(self) -> _Compiled:
        """The whole program as a single module."""
        ones = np.ones((1, self.contested.shape[1]))
        return _Compiled(("",), self.monomials, self.settled.sum(axis=0, keepdims=True), self.contested, ones)


@functools.cache
def _compile(program: Program, hardware: HardwareSpec, dtype: str, launch_seconds: float, by_module: bool) -> _Compiled:
    if not by_module:
        return _compile(program, hardware, dtype, launch_seconds, True).as_one()
    monomials = tuple(
        dict.fromkeys(monomial for operation in program.operations for terms in operation.costs.values() for monomial in terms)
    )
    column = {monomial: i for i, monomial in enumerate(monomials)}
    settled = np.zeros((len(program.modules), len(CEILINGS), len(monomials)))
    merged: dict[tuple, np.ndarray] = {}
    for operation, lines in zip(program.operations, operator_lines(program, hardware, dtype), strict=True):
        owner, costs = program.modules.index(operation.module), operation.costs
        for monomial, launches in costs["operators"].items():
            settled[owner, CEILINGS.index("launch"), column[monomial]] += launches * launch_seconds
        winner = next((i for i, line in enumerate(lines) if all(dominates(line, other) for other in lines)), None)
        if winner is not None:
            for monomial, seconds in lines[winner].items():
                settled[owner, winner, column[monomial]] += seconds
            continue
        coefficients = np.zeros((len(lines), len(monomials)))
        for i, line in enumerate(lines):
            for monomial, seconds in line.items():
                coefficients[i, column[monomial]] = seconds
        # Equal operators share their largest ceiling, so they are one operator with several times the cost.
        key = (owner, (coefficients / coefficients.max()).round(12).tobytes())
        merged[key] = merged.get(key, 0) + coefficients
    contested = np.stack(list(merged.values()), axis=1) if merged else np.zeros((3, 0, len(monomials)))
    owner = np.array([[float(of == module) for of, _ in merged] for module in range(len(program.modules))]).reshape(
        len(program.modules), -1
    )
    return _Compiled(program.modules, monomials, settled, contested, owner)


def _scaled(terms: dict[Monomial, int], factor: float) -> Line:
    return {monomial: value * factor for monomial, value in terms.items()}


def operator_lines(program: Program, hardware: HardwareSpec, dtype: str) -> list[tuple[Line, Line, Line]]:
    """Seconds of every operator under the matrix, vector and bandwidth ceilings, as polynomials."""
    vector_peak = hardware.vector_fp32_flops_per_second
    lines = []
    for operation in program.operations:
        costs = operation.costs
        matrix_peak = hardware.matrix_peak("fp32" if operation.matrix_itemsize == 4 else dtype) if costs["tensor_flops"] else 1.0
        lines.append(
            (
                _scaled(costs["tensor_flops"], 1 / matrix_peak),
                _scaled(costs["vector_flops"], 1 / vector_peak) if vector_peak else {},
                _scaled(costs["io_bytes"], 1 / hardware.memory_bandwidth_bytes_per_second),
            )
        )
    return lines


def seconds_by_ceiling(
    group: StageGroup, config: RunConfig, hardware: HardwareSpec, launch_seconds: float = 0.0, by_module: bool = True
) -> np.ndarray:
    """Roofline seconds of a stage's points, per module and ceiling: an array [module, ceiling, point].

    In decode, each operator's seconds are linear in the step under every ceiling, so the largest of three lines is summed exactly over
    the steps between their crossings, without a loop over steps.

    Args:
        group: a stage.
        config: what runs.
        hardware: the device.
        launch_seconds: added for every operator executed.
        by_module: otherwise all modules are one.
    """
    compiled = _compile(group.program, hardware, config.dtype, launch_seconds, by_module)
    values = _matrix([group.summed(monomial) for monomial in compiled.monomials])
    seconds = compiled.settled @ values
    if compiled.contested.shape[1]:
        spent = _once(compiled.contested @ values) if group.steps is None else _over_steps(compiled, group)
        for ceiling in range(len(spent)):
            seconds[:, ceiling] += compiled.owner @ spent[ceiling]
    return seconds


def _matrix(columns: list[Column]) -> np.ndarray:
    """Columns (or ints) as a float matrix [column, point]."""
    return np.stack(np.broadcast_arrays(*(np.atleast_1d(np.asarray(column, np.float64)) for column in columns)))


def _once(lines: np.ndarray) -> np.ndarray:
    """The largest of the lines, credited to the ceiling it belongs to: [ceiling, operator, point]."""
    winner = lines.argmax(axis=0)
    return np.where(np.arange(len(lines))[:, None, None] == winner, lines, 0.0)


def _over_steps(compiled: _Compiled, group: StageGroup) -> np.ndarray:
    """Sum over decode steps of the largest of three lines a + b·context: [ceiling, operator, point]."""
    growing = np.array(["context" in monomial for monomial in compiled.monomials])
    rest = [tuple(name for name in monomial if name != "context") for monomial in compiled.monomials]
    values = _matrix([group.last(monomial) for monomial in rest])
    base, slope = compiled.contested[..., ~growing] @ values[~growing], compiled.contested[..., growing] @ values[growing]
    last = np.atleast_1d(np.asarray(group.values["context"], np.float64))
    before = last - np.atleast_1d(np.asarray(group.steps, np.float64))
    crossings = []
    for i, j in ((0, 1), (0, 2), (1, 2)):
        steeper = slope[i] - slope[j]
        with np.errstate(divide="ignore", invalid="ignore"):
            crossings.append(np.where(steeper != 0, np.floor((base[j] - base[i]) / steeper), before))
    edges = np.sort(np.clip(np.stack(crossings), before, last), axis=0)
    spent = np.zeros((len(base), *edges[0].shape))  # base and slope may be those of all points
    start = np.broadcast_to(before, edges[0].shape)
    for end in (*edges, np.broadcast_to(last, edges[0].shape)):
        steps = end - start
        middle = (start + 1 + end) / 2  # the mean context of these steps
        lines = base + slope * middle
        spent += _once(lines) * steps
        start = end
    return spent


def bound_seconds(group: StageGroup, config: RunConfig, hardware: HardwareSpec, module: str | None = None) -> np.ndarray:
    """The largest of three times that no implementation of this stage (or module) avoids: [point].

    Matrix FLOPs, causally discounted in the decoder, at the matrix peak; vector FLOPs at the vector peak; and compulsory bytes at the
    memory bandwidth: the weights used once per pass, the cache once, and for a stage its input and output once.
    """
    columns = ("tensor_flops", "vector_flops", "weight_io_bytes", "weight_bytes")
    row = {name: np.asarray(value, np.float64) for name, value in group.row(config, module, columns).items()}
    times = [(row["tensor_flops"] - _causal_saving(group, config, module)) / hardware.matrix_peak(config.dtype)]
    if hardware.vector_fp32_flops_per_second:
        times.append(row["vector_flops"] / hardware.vector_fp32_flops_per_second)
    passes = 1 if group.steps is None else group.steps
    moved = np.minimum(row["weight_io_bytes"], row["weight_bytes"] * passes)  # gathers and routing may read less than all
    moved = (
        moved + (_cache_bytes(group, config) if module in (None, KV_MODULE) else 0) + (_edge_bytes(group, config) if module is None else 0)
    )
    times.append(moved / hardware.memory_bandwidth_bytes_per_second)
    return np.atleast_1d(np.maximum.reduce(np.broadcast_arrays(*times)))


def _causal_saving(group: StageGroup, config: RunConfig, module: str | None) -> Column:
    """Matrix FLOPs of prefill's scores above the diagonal: 4·layers·width·batch·(tokens² − tokens·(tokens + 1) / 2)."""
    if group.stage != "prefill" or module not in (None, KV_MODULE):
        return 0
    decoder = config.model.tower("decoder")
    tokens = group.values["tokens"]
    return 4.0 * decoder.layers * decoder.width * group.values["batch"] * (tokens * (tokens - 1) // 2)


def _cache_bytes(group: StageGroup, config: RunConfig) -> Column:
    """The cache once: written in prefill, read by every decode step."""
    if group.stage == "vision":
        return 0
    tokens = group.values["tokens"] if group.stage == "prefill" else group.context_sum
    return 1.0 * tokens * group.values["batch"] * config.kv_bytes_per_token


def _edge_bytes(group: StageGroup, config: RunConfig) -> Column:
    """A stage's input and output once: pixels, image features, logits."""
    workload, itemsize, batch = group.workload, config.itemsize, group.workload.batch_size
    features = 1.0 * workload.image_tokens * config.model.tower("projector").output_width * itemsize * batch
    if group.stage == "vision":
        channels = config.model.tower("sam").channels
        return features + 1.0 * batch * channels * (workload.global_px**2 + workload.tiles * workload.tile_px**2) * itemsize
    rows = group.steps if group.stage == "decode" else group.values["tokens"] if config.prefill_logits == "all" else 1
    logits = 1.0 * rows * batch * config.model.tower("decoder").vocabulary * itemsize
    return logits + (features if group.stage == "prefill" else 0)


def time_columns(
    group: StageGroup, config: RunConfig, hardware: HardwareSpec, launch_seconds: float, modules: Sequence[str | None]
) -> dict[str, np.ndarray]:
    """Time columns of a stage's points for the modules wanted ([None]: the whole stage): each [point, module].

    Columns: roofline_seconds, bound_seconds, ceiling (index into CEILINGS of the one with most time), ceiling_margin (its time over the
    next one's; infinite where there is no other).
    """
    by_module = modules != [None]
    spent = seconds_by_ceiling(group, config, hardware, launch_seconds, by_module)
    chosen = np.stack([spent[group.program.modules.index(module)] for module in modules]) if by_module else spent
    ordered = np.sort(chosen, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        margin = ordered[:, -1] / ordered[:, -2]
    bounds = np.stack([np.broadcast_to(bound_seconds(group, config, hardware, module), chosen.shape[-1:]) for module in modules])
    return {
        "roofline_seconds": chosen.sum(axis=1).T,
        "bound_seconds": bounds.T,
        "ceiling": chosen.argmax(axis=1).T,
        "ceiling_margin": margin.T,
    }
