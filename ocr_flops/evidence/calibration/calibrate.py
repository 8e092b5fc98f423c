"""Records -> calibration: which rows, the fit, its errors on workloads left out, and what it can tell at all."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import polars as pl

from ocr_flops.evidence.calibration import identifiability
from ocr_flops.evidence.calibration.calibrated import Uncalibrated
from ocr_flops.evidence.calibration.cross_validation import COST, WORKLOAD, costs_of, held_out, numbered, reach
from ocr_flops.evidence.calibration.features import NOMINAL, RAN, has_peaks, rows_of
from ocr_flops.evidence.calibration.fit import Table, fit
from ocr_flops.evidence.calibration.memory import workspace
from ocr_flops.evidence.calibration.result import RANGES, Calibration
from ocr_flops.evidence.calibration.selection import most, usable
from ocr_flops.spec.catalog import load_engine, load_hardware, names
from ocr_flops.spec.specs import STAGES, EngineSpec, HardwareSpec, ModelSpec

LEAST = 4  # different sizes of a stage: as many as it has unknowns
MAKING = "`ocr-flops measure` makes records, and `python -m ocr_flops.measure.campaign` many of them"
SIZES = {"vision": "views and batch", "prefill": "context and batch", "decode": "context, output tokens and batch"}


class _Same:
    """A frame that equals itself alone, so that answers can be kept by it."""

    def __init__(self, frame: pl.DataFrame):
        self.frame = frame

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.frame is other.frame

    def __hash__(self) -> int:
        return id(self.frame)


def calibrate(
    frame: pl.DataFrame,
    model: ModelSpec,
    *,
    hardware: HardwareSpec | None = None,
    device: str | None = None,
    dtype: str = "bf16",
    engine: str | EngineSpec = "transformers",
) -> Calibration | Uncalibrated:
    """What a device's records say of it; asked again with the same frame object, it answers at once.

    Args:
        frame: of `records.frame`.
        model: whose records.
        hardware: the device by its figures, as its config has them; None: those of the records' device, where it has some.
        device: the device by its name in the frame; None: of those that are `hardware`, the one with most records.
        dtype, engine: what ran.

    Raises:
        SpecError: an unknown engine.
    """
    return _calibrated(_Same(frame), model, hardware, device, dtype, load_engine(engine) if isinstance(engine, str) else engine)


@functools.lru_cache(maxsize=16)
def _calibrated(
    same: _Same, model: ModelSpec, hardware: HardwareSpec | None, device: str | None, dtype: str, engine: EngineSpec
) -> Calibration | Uncalibrated:
    if hardware is not None and (hardware.name not in names("hardware") or load_hardware(hardware.name) != hardware):
        return Uncalibrated(f"Figures of {hardware.label} were changed, and nothing was measured on such a device: take them back", {})
    config = None if hardware is None else hardware.name
    rows, left_out = usable(same.frame, model, hardware=config, device=device, dtype=dtype, engine=engine)
    if rows.is_empty():
        where = device or (hardware.label if hardware is not None else most(same.frame))
        return Uncalibrated(_nothing(where, f"{model.name}, engine {engine.name}, {dtype}", left_out), left_out)
    stages, missing = _stages(rows)
    if not stages:
        return Uncalibrated(f"Too few records of {rows['device'][0]}: {'; '.join(missing.values())}. {MAKING}", left_out)
    rows = rows.filter(pl.col("stage").is_in(stages))
    if hardware is None and (name := rows["hardware"][0]) in names("hardware"):
        hardware = load_hardware(name)
    if hardware is not None and not has_peaks(hardware, dtype):
        hardware = None
    return _fitted(rows, model, engine, dtype, hardware, stages, missing, left_out)


def _fitted(
    rows: pl.DataFrame,
    model: ModelSpec,
    engine: EngineSpec,
    dtype: str,
    hardware: HardwareSpec | None,
    stages: tuple[str, ...],
    missing: Mapping[str, str],
    left_out: Mapping[str, int],
) -> Calibration:
    peaks = NOMINAL if hardware is None else hardware
    found = rows_of(rows, model, engine, dtype, peaks, stages)
    fitted = fit(found.table, len(stages), None if hardware is not None else _slower(found.table))
    without = held_out(rows, found.table, fitted)
    weights = fitted.weights(found.table)
    shares = fitted.shares(found.table)[weights > 0]
    ceilings = identifiability.ceilings(fitted, shares, without.covariance, peaks, dtype, hardware is not None)
    apart = np.log(without.seconds / found.table.seconds)
    within = {stage: reach(apart[(rows["stage"] == stage).to_numpy()]) for stage in stages}
    held = identifiability.table(rows, without.seconds, None if hardware is None else found.bound_seconds, weights, within)
    return Calibration(
        model=model,
        engine=engine,
        dtype=dtype,
        device=rows["device"][0],
        hardware=hardware,
        peaks=peaks,
        stages=stages,
        missing=missing,
        fitted=fitted,
        covariance=identifiability.doubted(without.covariance, ceilings),
        reach=within,
        ceilings=ceilings,
        launch_seconds=identifiability.launches(fitted, shares, without.covariance, stages),
        records=rows["record_id"].n_unique(),
        workloads=int(numbered(rows, WORKLOAD).max()) + 1,
        outliers=int((weights == 0).sum()),
        left_out=left_out,
        held_out=held,
        errors=identifiability.errors(held),
        memory=workspace(rows, found.held_bytes + found.live_bytes),
        ranges={name: (rows[name].min(), rows[name].max()) for name in RANGES},
        ran={name: tuple(sorted(rows[name].unique())) for name in RAN},
    )


def _stages(rows: pl.DataFrame) -> tuple[tuple[str, ...], dict[str, str]]:
    """The stages with enough records, and why the others have not."""
    count = dict.fromkeys(STAGES, 0)
    cost = costs_of(rows)
    for stage in COST:
        count[stage] = len(np.unique(cost[(rows["stage"] == stage).to_numpy()]))
    missing = {stage: _few(stage, found) for stage, found in count.items() if found < LEAST}
    return tuple(stage for stage in STAGES if stage not in missing), missing


def _few(stage: str, found: int) -> str:
    """Why a stage cannot be told."""
    sizes = "1 size" if found == 1 else f"{found or 'no'} sizes"
    return f"{stage} was measured at {sizes} ({SIZES[stage]}), at least {LEAST} different ones are needed"


def _nothing(device: str | None, what: str, left_out: Mapping[str, int]) -> str:
    """Why no record can be used."""
    if not left_out:
        return f"There are no records yet: {MAKING}"
    others = "; ".join(f"{count} {reason}" for reason, count in left_out.items())
    return f"No record of {device or 'any device'} with {what}. Left out: {others}. {MAKING}"


def _slower(table: Table) -> float:
    """How much longer than at nominal peaks a stage takes."""
    at_peaks = np.add.reduceat(table.operators.max(axis=0), table.first)[table.ran]
    return float(np.clip(np.median(table.seconds / at_peaks), 10.0, 1e6))
