"""What a device's records say of it, and of an estimate: times and memory with intervals, beside the roofline and the bound."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import polars as pl

from ocr_flops.errors import SpecError
from ocr_flops.evidence.calibration.cross_validation import DEVIATIONS
from ocr_flops.evidence.calibration.features import StageCosts, stage_costs
from ocr_flops.evidence.calibration.fit import Fit
from ocr_flops.evidence.calibration.memory import Workspace
from ocr_flops.evidence.calibration.selection import SETTINGS, attention_name
from ocr_flops.spec.specs import EngineSpec, HardwareSpec, ModelSpec
from ocr_flops.timing.estimate import Estimate

RANGES = {  # of workloads: column, and its words
    "global_px": "global view of {} px",
    "tiles": "{} tiles",
    "context_tokens": "context of {} tokens",
    "output_tokens": "{} output tokens",
    "batch_size": "batch {}",
}
LEAST_SHARE = 0.02  # of a stage's time that an unidentified ceiling must take for a note
Number = float | np.ndarray


class Interval(NamedTuple):
    """A figure with the interval in which nine of ten measurements should lie; floats, or a column each."""

    value: Number
    low: Number
    high: Number

    def __add__(self, other: Self) -> Self:
        """Add the ends: the errors of both have one cause."""
        return Interval(*(mine + its for mine, its in zip(self, other, strict=True)))

    def divide(self, divisor: Number) -> Self | None:
        """Divide by a number; None, or NaN in columns, where it is zero."""
        if not isinstance(divisor, np.ndarray):
            return Interval(*(one / divisor for one in self)) if divisor else None
        return Interval(*(np.divide(one, divisor, out=np.full(len(divisor), np.nan), where=divisor > 0) for one in self))


class Efficiency(NamedTuple):
    """What a device reaches of a ceiling.

    Args:
        ceiling: "matrix", "vector" or "bandwidth".
        efficiency: part of the peak reached, with its 90 % interval; None where the peak is not known or the part unidentifiable.
        rate: what is reached, in FLOP/s or B/s; None where it is unidentifiable.
        peak: the device's figure; None where it has none.
        largest_share: the largest part of the time of any record that is under this ceiling.
        reason: why it is unidentifiable; None where it is not.
    """

    ceiling: str
    efficiency: Interval | None
    rate: Interval | None
    peak: float | None
    largest_share: float
    reason: str | None


@dataclass(frozen=True)
class Uncalibrated:
    """No calibration.

    Args:
        reason: why, and what to do.
        left_out: why records could not be used, and how many.
    """

    reason: str
    left_out: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class CalibratedEstimate:
    """An estimate's calibrated figures; each is a float for one point, a column for many.

    Args:
        seconds: of every stage that was calibrated.
        bound_seconds: of the same stages; None where the device's peaks are not known.
        output_tokens: of the estimate.
        allocated_bytes, reserved_bytes: what the device's allocator holds at most; None where `memory_reason` says why.
        memory_reason: why there is no memory.
        notes: what these figures rest on that no record shows.
    """

    seconds: Mapping[str, Interval]
    bound_seconds: Mapping[str, Number] | None
    output_tokens: Number
    allocated_bytes: Interval | None
    reserved_bytes: Interval | None
    memory_reason: str | None
    notes: tuple[str, ...]

    @property
    def ttft_seconds(self) -> Interval | None:
        """Time to first token: vision and prefill."""
        return self.seconds["vision"] + self.seconds["prefill"] if {"vision", "prefill"} <= set(self.seconds) else None

    @property
    def tpot_seconds(self) -> Interval | None:
        """Mean time per output token; None without any."""
        return self.seconds["decode"].divide(self.output_tokens) if "decode" in self.seconds else None

    @property
    def bound_ttft_seconds(self) -> Number | None:
        """What no implementation undercuts for the time to first token."""
        if self.bound_seconds is None or self.ttft_seconds is None:
            return None
        return self.bound_seconds["vision"] + self.bound_seconds["prefill"]

    @property
    def bound_tpot_seconds(self) -> Number | None:
        """What no implementation undercuts for the mean time per output token."""
        if self.bound_seconds is None or "decode" not in self.bound_seconds:
            return None
        bound = Interval(*[self.bound_seconds["decode"]] * 3).divide(self.output_tokens)
        return None if bound is None else bound.value


@dataclass(frozen=True, eq=False)
class Calibration:
    """What a device's records say of it.

    Args:
        device: its name.
        hardware: its figures; None where they are not known: rates are then reached, of no peak.
        peaks: what the fit divides by: the device's, or nominal ones.
        stages: those fitted, in the order of the fit's launches.
        missing: why a stage is not among them.
        covariance: of its parameters, inflated where they are unidentifiable.
        half_widths: half the width of the interval of each stage, in natural logarithms of seconds, from cross-validation.
        efficiencies: of each ceiling.
        launch_seconds: of an operator in each stage, with its 90 % interval; None where launches never show there.
        records, workloads: how many were used.
        outliers: rows of a stage that lie so far off that the fit gives them no weight.
        left_out: why records were not used, and how many.
        predictions: by leave-one-out cross-validation, a row per record and stage: `record_id`, `measured_at`, `attention`, the columns of
            the workload, `stage`, `measured_seconds`, `predicted_seconds` (by a fit without this workload), `low_seconds`,
            `high_seconds`, `bound_seconds` (null without peaks), `ratio` (predicted over measured), `outlier`.
        errors: of the predictions, a row per figure (the stages, "ttft"): `figure`, `rows`, `median_error`, `p90_error`,
            `within_15_percent`.
        memory: what the allocator holds beyond the estimate, or why that is not known.
        ranges: least and largest of what was measured, of `RANGES`.
        settings: attention modes, caches and logits measured.
    """

    model: ModelSpec
    engine: EngineSpec
    dtype: str
    device: str
    hardware: HardwareSpec | None
    peaks: HardwareSpec
    stages: tuple[str, ...]
    missing: Mapping[str, str]
    fitted: Fit
    covariance: np.ndarray
    half_widths: Mapping[str, float]
    efficiencies: tuple[Efficiency, ...]
    launch_seconds: Mapping[str, Interval | None]
    records: int
    workloads: int
    outliers: int
    left_out: Mapping[str, int]
    predictions: pl.DataFrame
    errors: pl.DataFrame
    memory: Workspace | str
    ranges: Mapping[str, tuple[int, int]]
    settings: Mapping[str, tuple[str, ...]]

    @property
    def launches(self) -> str:
        """How launches enter, in words."""
        return {
            "added": "launches add to the time of operators",
            "hidden": "launches run ahead of operators: a stage takes the longer of the two",
        }[self.fitted.launches]

    def predict(self, estimate: Estimate) -> CalibratedEstimate:
        """Return the calibrated figures of an estimate, of one point or of columns; never below its bound.

        Args:
            estimate: of the model, engine and precision that were calibrated.

        Raises:
            SpecError: it is of another.
        """
        config, is_single = estimate.config, estimate.workload.is_single
        for name, given in (("model", config.model), ("engine", config.engine), ("dtype", config.dtype)):
            if given != (own := getattr(self, name)):
                given, own = (getattr(one, "name", one) for one in (given, own))
                raise SpecError(f"{name}: {given!r} is not what {self.device} was calibrated for; choose {own}")
        notes = [self.missing[stage] for stage in estimate.chosen_stages if stage in self.missing] + self._extrapolations(estimate)
        stages = [stage for stage in estimate.chosen_stages if stage in self.stages]
        costs = {stage: stage_costs(estimate, self.peaks, stage, self.stages.index(stage)) for stage in stages}
        seconds = {}
        for stage, found in costs.items():
            seconds[stage], shares = self._stage_seconds(stage, found)
            notes += self._unidentified(stage, shares)
        allocated, reserved, reason = self._memory(list(costs.values()))

        def plain(figure: Interval | None) -> Interval | None:
            return Interval(*(float(one[0]) for one in figure)) if is_single and figure is not None else figure

        bounds = {stage: float(found.bound_seconds[0]) if is_single else found.bound_seconds for stage, found in costs.items()}
        return CalibratedEstimate(
            {stage: plain(one) for stage, one in seconds.items()},
            None if self.hardware is None else bounds,
            estimate.workload.output_tokens,
            plain(allocated),
            plain(reserved),
            reason,
            tuple(notes),
        )

    def _stage_seconds(self, stage: str, costs: StageCosts) -> tuple[Interval, np.ndarray]:
        """Seconds of a stage [point], and the shares of the fit's parameters in them [point, parameter]."""
        runs = costs.features.launches > 0  # without output tokens there is no decode
        with np.errstate(invalid="ignore", divide="ignore"):
            value, shares = self.fitted.predict(costs.features)
        value, shares = value * runs, np.where(runs[:, None], shares, 0.0)
        variance = np.einsum("ni,ij,nj->n", shares, self.covariance, shares)
        width = np.sqrt(self.half_widths[stage] ** 2 + DEVIATIONS**2 * variance)
        return Interval(*(np.maximum(value * np.exp(way * width), costs.bound_seconds) for way in (0, -1, 1))), shares

    def _unidentified(self, stage: str, shares: np.ndarray) -> list[str]:
        """Notes on unidentified ceilings that take a part of a stage's time."""
        taken = "taken at its peak" if self.hardware else "whose rate is guessed"
        return [
            f"{100 * part.max():.0f} % of {stage} is under the {one.ceiling} ceiling, {taken}: it {one.reason}"
            for one, part in zip(self.efficiencies, shares.T, strict=False)
            if one.reason and part.max() > LEAST_SHARE
        ]

    def _memory(self, costs: list[StageCosts]) -> tuple[Interval | None, Interval | None, str | None]:
        """Allocated and reserved bytes [point], or why there are none."""
        if isinstance(self.memory, str) or not costs:
            return None, None, self.memory if isinstance(self.memory, str) else "no stage of this estimate was measured"
        held = np.max([one.held_bytes for one in costs], axis=0)
        whole = np.max([one.held_bytes + one.live_bytes for one in costs], axis=0)
        beyond = (self.memory.bytes + way * self.memory.half_width_bytes for way in (0, -1, 1))
        allocated = Interval(*(np.maximum(held, whole + one) for one in beyond))
        if self.memory.reserved is None:
            return allocated, None, None
        ratios = (max(1.0, self.memory.reserved + way * self.memory.reserved_half_width) for way in (0, -1, 1))
        return allocated, Interval(*(one * ratio for one, ratio in zip(allocated, ratios, strict=True))), None

    def _extrapolations(self, estimate: Estimate) -> list[str]:
        """Notes on what no record has of an estimate."""
        config, notes = estimate.config, []
        for name, value in zip(SETTINGS, (attention_name(config.attention), config.cache, config.prefill_logits), strict=True):
            if value not in self.settings[name]:
                notes.append(f"no record ran {name.replace('_', ' ')} {value}, only {', '.join(self.settings[name])}")
        for name, text in RANGES.items():
            values, (least, most) = np.atleast_1d(getattr(estimate.workload, name)), self.ranges[name]
            measured = f"{least:,} to {most:,} were" if least < most else f"only {least:,} was"
            outside = [value for value in {int(values.min()), int(values.max())} if not least <= value <= most]
            notes += [f"{text.format(f'{value:,}')}: {measured} measured" for value in outside]
        return notes
