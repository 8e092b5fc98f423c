"""What a stage's operators take at the peaks: an estimate's, and those of records, as the table that `fit.py` reads."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import polars as pl

from ocr_flops.cost.polynomial import Monomial
from ocr_flops.cost.program import Program
from ocr_flops.cost.stage_groups import StageGroup, group_stages
from ocr_flops.errors import SpecError
from ocr_flops.evidence.calibration.cross_validation import COST, numbered
from ocr_flops.evidence.calibration.fit import Table
from ocr_flops.evidence.calibration.selection import attention_of, workload_of
from ocr_flops.spec.specs import DTYPE_BYTES, EngineSpec, HardwareSpec, ModelSpec
from ocr_flops.timing.estimate import Estimate, estimate
from ocr_flops.timing.roofline import _matrix, bound_seconds, operator_lines

RAN = ("attention", "cache", "prefill_logits")  # what rows pooled in a calibration may differ in, besides the workload
# Rates that no device reaches, in the proportions of devices: ceilings for those whose own are not known.
NOMINAL = HardwareSpec("nominal", "no peaks known", "", "", tuple((dtype, 1e16) for dtype in DTYPE_BYTES), 1e15, 1e14, 1.0)


class Costs(NamedTuple):
    """A stage's points.

    Args:
        operators: seconds at the peaks, equal operators together [ceiling, operator, point].
        launches: operators executed [point].
        bound_seconds: [point]; zeros where the peaks are not the device's own.
        held_bytes: weights of the whole model and the cache at the stage's end [point].
        live_bytes: the largest live activations [point].
    """

    operators: np.ndarray
    launches: np.ndarray
    bound_seconds: np.ndarray
    held_bytes: np.ndarray
    live_bytes: np.ndarray


class Rows(NamedTuple):
    """Records' rows, in the order of their frame: the table of `fit`, and [row] as in `Costs`."""

    table: Table
    bound_seconds: np.ndarray
    held_bytes: np.ndarray
    live_bytes: np.ndarray


def has_peaks(hardware: HardwareSpec, dtype: str) -> bool:
    """Whether a device's figures include the peaks of matrix products in a dtype, and in fp32, which the router is computed in."""
    try:
        return all(hardware.matrix_peak(needed) for needed in (dtype, "fp32"))
    except SpecError:
        return False


def costs(chosen: Estimate, hardware: HardwareSpec, stage: str) -> Costs:
    """What a stage of an estimate takes at a device's peaks."""
    config, points = chosen.config, chosen.workload.points
    found = group_stages(config, chosen.workload, (stage,), dict(chosen.experts_hit))
    most = max(len(_compiled(group.program, hardware, config.dtype)[1][0]) for group in found)
    weights = sum(config.parameters.values()) * config.itemsize
    whole = Costs(np.zeros((3, most, points)), *(np.zeros(points) for _ in Costs._fields[1:]))
    for group in found:
        where = np.arange(points) if group.where is None else group.where
        seconds, launches = _operators(group, hardware, config.dtype)
        whole.operators[:, : seconds.shape[1], where] = seconds
        whole.launches[where] = launches
        row = group.row(config, None, ("kv_cache_bytes", "peak_activation_bytes"))
        whole.held_bytes[where] = weights + row["kv_cache_bytes"]
        whole.live_bytes[where] = row["peak_activation_bytes"]
        if hardware is not NOMINAL:
            whole.bound_seconds[where] = bound_seconds(group, config, hardware)
    return whole


def table_of(found: Costs, stage: int, seconds: np.ndarray | None = None) -> Table:
    """A stage's points as rows.

    Args:
        found: of `costs`.
        stage: its number in the fit.
        seconds: measured [point]; ones where None.
    """
    _, operators, points = found.operators.shape
    flat = found.operators.transpose(0, 2, 1).reshape(3, -1)
    measured = np.ones(points) if seconds is None else seconds
    return Table(measured, np.arange(points), flat, operators * np.arange(points), found.launches, np.full(points, stage))


def rows_of(rows: pl.DataFrame, model: ModelSpec, engine: EngineSpec, dtype: str, hardware: HardwareSpec, stages: tuple[str, ...]) -> Rows:
    """What the rows of records ran.

    Args:
        rows: a row per record and stage, of `matching.usable`.
        model, engine, dtype: what ran.
        hardware: whose peaks.
        stages: their order in the fit.
    """
    ran = np.zeros(rows.height, np.int64)
    launches, bounds, held, live = (np.zeros(rows.height) for _ in range(4))
    runs: list[np.ndarray] = []
    for (attention, cache, logits, stage), group in rows.with_row_index("at").group_by(*RAN, "stage", maintain_order=True):
        at = group["at"].to_numpy()
        _, some, which = np.unique(numbered(group, COST[stage]), return_index=True, return_inverse=True)
        options = {"engine": engine, "dtype": dtype, "cache": cache, "prefill_logits": logits, "stages": [stage]}
        found = costs(estimate(model, workload_of(group[some]), attention_of(attention), **options), hardware, stage)
        ran[at] = len(runs) + which
        runs += list(found.operators.transpose(2, 0, 1))
        launches[at], bounds[at], held[at], live[at] = (column[which] for column in found[1:])
    first = np.cumsum([0, *(run.shape[1] for run in runs[:-1])])
    stage = np.array([stages.index(name) for name in rows["stage"]])
    table = Table(rows["median_seconds"].to_numpy(), ran, np.concatenate(runs, axis=1), first, launches, stage)
    return Rows(table, bounds, held, live)


@functools.cache
def _compiled(program: Program, hardware: HardwareSpec, dtype: str) -> tuple[tuple[Monomial, ...], np.ndarray, np.ndarray]:
    """A program's monomials, its operators' seconds [ceiling, operator, monomial] and its launches [monomial].

    Operators in the same proportions at all sizes are one: under any efficiencies they share their largest ceiling.
    """
    lines = operator_lines(program, hardware, dtype)
    launches = [operation.costs["operators"] for operation in program.operations]
    monomials = tuple(dict.fromkeys(monomial for terms in (*launches, *(line for three in lines for line in three)) for monomial in terms))
    column = {monomial: i for i, monomial in enumerate(monomials)}
    merged: dict[bytes, np.ndarray] = {}
    for three in lines:
        coefficients = np.zeros((len(three), len(monomials)))
        for ceiling, line in enumerate(three):
            for monomial, seconds in line.items():
                coefficients[ceiling, column[monomial]] = seconds
        if coefficients.any():
            key = (coefficients / coefficients.max()).round(9).tobytes()
            merged[key] = merged.get(key, 0) + coefficients
    launched = np.zeros(len(monomials))
    for terms in launches:
        for monomial, times in terms.items():
            launched[column[monomial]] += times
    return monomials, np.stack(list(merged.values()), axis=1), launched


def _operators(group: StageGroup, hardware: HardwareSpec, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Seconds [ceiling, operator, point] and launches [point]; those of decode are its mean step's times the steps."""
    monomials, coefficients, launched = _compiled(group.program, hardware, dtype)
    values = _matrix([group.summed(monomial) for monomial in monomials])
    return coefficients @ values, launched @ values
