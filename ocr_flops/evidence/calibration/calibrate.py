"""Records to calibration: selects the rows, fits them, cross-validates the fit, and finds what it identifies."""

import functools
from collections.abc import Mapping

import numpy as np
import polars as pl

from ocr_flops.evidence.calibration import cross_validation, identifiability
from ocr_flops.evidence.calibration.features import NOMINAL, has_peaks, row_costs
from ocr_flops.evidence.calibration.fit import Features, fit
from ocr_flops.evidence.calibration.memory import fit_workspace
from ocr_flops.evidence.calibration.result import RANGES, Calibration, Uncalibrated
from ocr_flops.evidence.calibration.selection import SETTINGS, most_recorded_device, select_rows
from ocr_flops.spec.catalog import load_engine, load_hardware, names
from ocr_flops.spec.specs import STAGES, EngineSpec, HardwareSpec, ModelSpec

LEAST_SIZES = 4  # different sizes of a stage: as many as it has unknowns
HOW_TO_MEASURE = "`ocr-flops measure` makes records, and `python -m ocr_flops.evidence.records.campaign` many of them"
SIZES = {"vision": "views and batch", "prefill": "context and batch", "decode": "context, output tokens and batch"}


class _ByIdentity:
    """A frame that equals itself alone, so that calibrations can be cached by it."""

    def __init__(self, frame: pl.DataFrame):
        self.frame = frame

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByIdentity) and self.frame is other.frame

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
    """Calibrate estimates by a device's records; a second call with the same frame object answers at once.

    Args:
        frame: of `records.records_frame`.
        model: whose records.
        hardware: the device by its figures, as its config has them; None: those of the records' device, where it has some.
        device: the device by its name in the frame; None: of those that are `hardware`, the one with most records.

    Raises:
        SpecError: an unknown engine.
    """
    return _calibrate(_ByIdentity(frame), model, hardware, device, dtype, load_engine(engine) if isinstance(engine, str) else engine)


@functools.lru_cache(maxsize=16)
def _calibrate(
    whole: _ByIdentity, model: ModelSpec, hardware: HardwareSpec | None, device: str | None, dtype: str, engine: EngineSpec
) -> Calibration | Uncalibrated:
    if hardware is not None and (hardware.name not in names("hardware") or load_hardware(hardware.name) != hardware):
        return Uncalibrated(f"{hardware.label}: nothing was measured on a device of such figures; take the changes back", {})
    name = None if hardware is None else hardware.name
    rows, left_out = select_rows(whole.frame, model, hardware=name, device=device, dtype=dtype, engine=engine)
    if rows.is_empty():
        where = device or (hardware.label if hardware is not None else most_recorded_device(whole.frame))
        return Uncalibrated(_why_none(where, f"{model.name}, engine {engine.name}, {dtype}", left_out), left_out)
    stages, missing = _calibrated_stages(rows)
    if not stages:
        return Uncalibrated(f"Too few records of {rows['device'][0]}: {'; '.join(missing.values())}. {HOW_TO_MEASURE}", left_out)
    if hardware is None and (name := rows["hardware"][0]) in names("hardware"):
        hardware = load_hardware(name)
    if hardware is not None and not has_peaks(hardware, dtype):
        hardware = None
    return _fit_device(rows.filter(pl.col("stage").is_in(stages)), model, engine, dtype, hardware, stages, missing, left_out)


def _fit_device(
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
    costs, seconds = row_costs(rows, model, engine, dtype, peaks, stages), rows["median_seconds"].to_numpy()
    features = costs.features
    fitted = fit(features, seconds, len(stages), None if hardware is not None else _expected_inefficiency(features, seconds))
    without = cross_validation.cross_validate(rows, features, seconds, fitted)
    outliers = np.abs(fitted.scaled_residuals(features, seconds)) >= 1
    shares = fitted.predict(features)[1][~outliers]
    efficiencies = identifiability.identify_efficiencies(fitted, shares, without.covariance, peaks, dtype, hardware is not None)
    errors = np.log(without.seconds / seconds)
    half_widths = {stage: cross_validation.half_width(errors[(rows["stage"] == stage).to_numpy()]) for stage in stages}
    bounds = None if hardware is None else costs.bound_seconds
    predictions = cross_validation.prediction_frame(rows, without.seconds, bounds, outliers, half_widths)
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
        covariance=identifiability.inflate_unidentified(without.covariance, efficiencies),
        half_widths=half_widths,
        efficiencies=efficiencies,
        launch_seconds=identifiability.identify_launches(fitted, shares, without.covariance, stages),
        records=rows["record_id"].n_unique(),
        workloads=int(cross_validation.number_groups(rows, cross_validation.WORKLOAD).max()) + 1,
        outliers=int(outliers.sum()),
        left_out=left_out,
        predictions=predictions,
        errors=cross_validation.error_frame(predictions),
        memory=fit_workspace(rows, costs.held_bytes + costs.live_bytes),
        ranges={name: (rows[name].min(), rows[name].max()) for name in RANGES},
        settings={name: tuple(sorted(rows[name].unique())) for name in SETTINGS},
    )


def _calibrated_stages(rows: pl.DataFrame) -> tuple[tuple[str, ...], dict[str, str]]:
    """The stages with enough records, and why the others have not."""
    cost, missing = cross_validation.number_costs(rows), {}
    for stage in cross_validation.COST:
        sizes = len(np.unique(cost[(rows["stage"] == stage).to_numpy()]))
        if sizes < LEAST_SIZES:
            words = "1 size" if sizes == 1 else f"{sizes or 'no'} sizes"
            missing[stage] = f"{stage} was measured at {words} ({SIZES[stage]}), at least {LEAST_SIZES} different ones are needed"
    return tuple(stage for stage in STAGES if stage not in missing), missing


def _why_none(device: str | None, what: str, left_out: Mapping[str, int]) -> str:
    """Why no record can be used."""
    if not left_out:
        return f"There are no records yet: {HOW_TO_MEASURE}"
    others = "; ".join(f"{count} {reason}" for reason, count in left_out.items())
    return f"No record of {device or 'any device'} with {what}. Left out: {others}. {HOW_TO_MEASURE}"


def _expected_inefficiency(features: Features, seconds: np.ndarray) -> float:
    """How much longer than at nominal peaks a stage takes."""
    return float(np.clip(np.median(seconds / features.operator_seconds.max(axis=0).sum(axis=0)), 10.0, 1e6))
