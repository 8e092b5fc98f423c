"""What the operators of a stage take at a device's peaks: of an estimate, and of the rows of records."""

import functools
from typing import NamedTuple

import numpy as np
import polars as pl

from ocr_flops.cost.program import Program
from ocr_flops.cost.stage_groups import StageGroup, group_stages
from ocr_flops.errors import SpecError
from ocr_flops.evidence.calibration.fit import Features
from ocr_flops.evidence.calibration.selection import SETTINGS, parse_attention, parse_workloads
from ocr_flops.spec.specs import DTYPE_BYTES, EngineSpec, HardwareSpec, ModelSpec
from ocr_flops.timing.bound import bound_seconds
from ocr_flops.timing.estimate import Estimate, estimate
from ocr_flops.timing.roofline import operator_seconds

# Rates that no device reaches, in the proportions of devices: ceilings for those whose own are not known.
NOMINAL = HardwareSpec("nominal", "no peaks known", "", "", tuple((dtype, 1e16) for dtype in DTYPE_BYTES), 1e15, 1e14, 1.0)


class StageCosts(NamedTuple):
    """What a stage costs at points, or at the rows of records.

    Args:
        operator_seconds, launches, stage: as in `Features`, a point being a row.
        bound_seconds: what no implementation undercuts [point]; zeros where the peaks are nominal.
        held_bytes: weights of the whole model and the cache at the stage's end [point].
        live_bytes: the largest live activations [point].
    """

    operator_seconds: np.ndarray
    launches: np.ndarray
    stage: np.ndarray
    bound_seconds: np.ndarray
    held_bytes: np.ndarray
    live_bytes: np.ndarray

    @property
    def features(self) -> Features:
        """What the fit knows of the points."""
        return Features(*self[:3])


def has_peaks(hardware: HardwareSpec, dtype: str) -> bool:
    """Whether a device has the peaks of matrix products in a dtype, and in fp32, which the router is computed in."""
    try:
        return all(hardware.matrix_peak(needed) for needed in (dtype, "fp32"))
    except SpecError:
        return False


def stage_costs(whole: Estimate, hardware: HardwareSpec, stage: str, number: int, experts_hit: np.ndarray | None = None) -> StageCosts:
    """Compute what a stage of an estimate takes at a device's peaks.

    Args:
        hardware: whose peaks.
        stage: one of the estimate's.
        number: of the stage in the fit.
        experts_hit: in a pass of the stage, over all layers, at each point (in decode the mean); None for those of the estimate.
    """
    config, points = whole.config, whole.workload.points
    weights = sum(config.parameters.values()) * config.itemsize
    found, positions = [], []
    hits = dict(whole.experts_hit) if experts_hit is None else {stage: experts_hit}
    for group in group_stages(config, whole.workload, (stage,), hits):
        where = np.arange(points) if group.where is None else group.where
        row = group.row(config, None, ("kv_cache_bytes", "peak_activation_bytes"))
        bound = 0.0 if hardware is NOMINAL else bound_seconds(group, config, hardware)[0]
        columns = (number, bound, weights + row["kv_cache_bytes"], row["peak_activation_bytes"])
        found.append(StageCosts(*_operators(group, hardware, config.dtype), *(np.broadcast_to(one, len(where)) for one in columns)))
        positions.append(where)
    return _join(found, positions, points)


def row_costs(
    rows: pl.DataFrame, model: ModelSpec, engine: EngineSpec, dtype: str, hardware: HardwareSpec, stages: tuple[str, ...]
) -> StageCosts:
    """Compute what the rows of records ran, in their order, with the experts that were hit where the record says.

    Args:
        rows: a row per record and stage, of `selection.select_rows`.
        hardware: whose peaks.
        stages: their order in the fit.
    """
    found, positions = [], []
    numbered = rows.with_row_index("position").with_columns(pl.col("experts_hit").is_not_null().alias("is_routed"))
    for (attention, cache, logits, stage, is_routed), group in numbered.group_by(*SETTINGS, "stage", "is_routed", maintain_order=True):
        options = {"engine": engine, "dtype": dtype, "cache": cache, "prefill_logits": logits, "stages": [stage]}
        whole = estimate(model, parse_workloads(group), parse_attention(attention), **options)
        hit = (group["experts_hit"] / (group["output_tokens"] if stage == "decode" else 1)).to_numpy() if is_routed else None
        found.append(stage_costs(whole, hardware, stage, stages.index(stage), hit))
        positions.append(group["position"].to_numpy())
    return _join(found, positions, rows.height)


def _join(found: list[StageCosts], positions: list[np.ndarray], points: int) -> StageCosts:
    """Join the costs of groups of points, each at its positions; zeros at points of no group."""
    most = max(one.operator_seconds.shape[1] for one in found)
    whole = StageCosts(np.zeros((3, most, points)), *(np.zeros(points, column.dtype) for column in found[0][1:]))
    for one, where in zip(found, positions, strict=True):
        whole.operator_seconds[:, : one.operator_seconds.shape[1], where] = one.operator_seconds
        for column, part in zip(whole[1:], one[1:], strict=True):
            column[where] = part
    return whole


def _operators(group: StageGroup, hardware: HardwareSpec, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Seconds at the peaks [ceiling, operator, point] and launches [point]; those of decode are its mean step's times the steps."""
    coefficients, launched = _compile(group.program, hardware, dtype)
    values = group.monomial_values()
    return coefficients @ values, launched @ values


@functools.cache
def _compile(program: Program, hardware: HardwareSpec, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a program's operators' seconds [ceiling, operator, monomial] and its launches [monomial].

    Operators in the same proportions at all sizes are one: under any efficiencies they share their largest ceiling.
    """
    merged: dict[bytes, np.ndarray] = {}
    for seconds in operator_seconds(program, hardware, dtype):
        if seconds.any():
            key = (seconds / seconds.max()).round(9).tobytes()
            merged[key] = merged.get(key, 0.0) + seconds
    return np.stack(list(merged.values()), axis=1), program.coefficients("operators").sum(axis=0)
