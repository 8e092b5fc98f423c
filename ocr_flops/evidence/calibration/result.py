"""What a device's records say of it, and of an estimate: a third time beside the roofline's and the bound, and memory as allocated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ocr_flops.errors import SpecError
from ocr_flops.evidence.calibration.calibrated import Banded, Calibrated, Reached
from ocr_flops.evidence.calibration.cross_validation import DEVIATIONS
from ocr_flops.evidence.calibration.features import RAN, Costs, costs, table_of
from ocr_flops.evidence.calibration.fit import Fit
from ocr_flops.evidence.calibration.memory import Workspace
from ocr_flops.evidence.calibration.selection import words_of
from ocr_flops.spec.specs import EngineSpec, HardwareSpec, ModelSpec

if TYPE_CHECKING:
    from ocr_flops.timing.estimate import Estimate

RANGES = {  # of workloads: column, and its words
    "global_px": "global view of {} px",
    "tiles": "{} tiles",
    "context_tokens": "context of {} tokens",
    "output_tokens": "{} output tokens",
    "batch_size": "batch {}",
}
TOLD = 0.02  # a part of the time below which nothing is said of it


@dataclass(frozen=True, eq=False)
class Calibration:
    """What a device's records say of it.

    Args:
        model, engine, dtype: what ran.
        device: its name.
        hardware: its figures; None where they are not known: rates are then reached, of no peak.
        peaks: what the fit divides by: the device's, or nominal ones.
        stages: those fitted, in the order of the fit's launches.
        missing: why a stage is not among them.
        fitted: the fit.
        covariance: of its logarithms.
        reach: half the width of a band of each stage, in natural logarithms of seconds, from held-out errors.
        ceilings: what is reached of each.
        launch_seconds: of an operator in each stage, with its 90 % range; None where launches never show there.
        records, workloads: how many were used.
        outliers: rows of a stage that lie so far off that the fit gives them no weight.
        left_out: why records were not used, and how many.
        held_out: a row per record and stage: `record_id`, `measured_at`, `attention`, the workload's columns, `stage`, `measured_seconds`,
            `predicted_seconds` (by a fit without this workload), `low_seconds`, `high_seconds`, `bound_seconds` (null without peaks),
            `ratio` (predicted over measured), `outlier`.
        errors: a row per figure (the stages, "ttft"): `figure`, `rows`, `median_error`, `p90_error`, `within_15_percent`.
        memory: what the allocator holds beyond the estimate, or why that is not known.
        ranges: least and largest of what was measured, of `RANGES`.
        ran: attention modes, caches and logits measured.
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
    reach: Mapping[str, float]
    ceilings: tuple[Reached, ...]
    launch_seconds: Mapping[str, Banded | None]
    records: int
    workloads: int
    outliers: int
    left_out: Mapping[str, int]
    held_out: pl.DataFrame
    errors: pl.DataFrame
    memory: Workspace | str
    ranges: Mapping[str, tuple[int, int]]
    ran: Mapping[str, tuple[str, ...]]

    @property
    def launches(self) -> str:
        """How launches enter, in words."""
        return {
            "added": "launches add to the time of operators",
            "hidden": "launches run ahead of operators: a stage takes the longer of the two",
        }[self.fitted.launches]

    def at(self, estimate: Estimate) -> Calibrated:
        """The calibrated figures of an estimate, of one point or of columns; never below its bound.

        Args:
            estimate: of the model, engine and precision that were calibrated.

        Raises:
            SpecError: it is of another.
        """
        config, workload = estimate.config, estimate.workload
        for name, given in (("model", config.model), ("engine", config.engine), ("dtype", config.dtype)):
            if given != getattr(self, name):
                called = [getattr(one, "name", one) for one in (given, getattr(self, name))]
                raise SpecError(f"{name}: {called[0]!r} is not what {self.device} was calibrated for; choose {called[1]}")
        notes = [self.missing[stage] for stage in estimate.chosen_stages if stage in self.missing]
        notes += [*self._beyond(estimate)]
        seconds, bounds, needed = {}, {}, []
        taken = "taken at its peak" if self.hardware else "whose rate is guessed"
        for stage in estimate.chosen_stages:
            if stage not in self.stages:
                continue
            found = costs(estimate, self.peaks, stage)
            seconds[stage], shares = self._timed(stage, found)
            bounds[stage] = found.bound_seconds
            needed.append((found.held_bytes, found.live_bytes))
            for ceiling, part in zip(self.ceilings, shares.T, strict=False):
                if ceiling.reason and part.max() > TOLD:
                    notes.append(
                        f"{100 * part.max():.0f} % of {stage} is under the {ceiling.ceiling} ceiling, {taken}: it {ceiling.reason}"
                    )
        allocated, reserved, reason = self._memory(needed)
        single = workload.is_single
        return Calibrated(
            {stage: _plain(one, single) for stage, one in seconds.items()},
            None if self.hardware is None else {stage: float(one[0]) if single else one for stage, one in bounds.items()},
            workload.output_tokens,
            None if allocated is None else _plain(allocated, single),
            None if reserved is None else _plain(reserved, single),
            reason,
            tuple(notes),
        )

    def _timed(self, stage: str, found: Costs) -> tuple[Banded, np.ndarray]:
        """Seconds of a stage [point], and the shares of the fit's parameters in them [point, parameter]."""
        table = table_of(found, self.stages.index(stage))
        runs = found.launches > 0  # no output token: no decode
        with np.errstate(invalid="ignore"):
            value, shares = self.fitted.seconds(table) * runs, np.where(runs[:, None], self.fitted.shares(table), 0.0)
        apart = np.sqrt(self.reach[stage] ** 2 + DEVIATIONS**2 * np.einsum("ni,ij,nj->n", shares, self.covariance, shares))
        bound = found.bound_seconds
        return Banded(*(np.maximum(one, bound) for one in (value, value * np.exp(-apart), value * np.exp(apart)))), shares

    def _memory(self, needed: list[tuple[np.ndarray, np.ndarray]]) -> tuple[Banded | None, Banded | None, str | None]:
        """Allocated and reserved bytes [point], or why there are none."""
        if isinstance(self.memory, str) or not needed:
            return None, None, self.memory if isinstance(self.memory, str) else "no stage of this estimate was measured"
        workspace, reach = self.memory.bytes, self.memory.reach_bytes
        held = np.max([one for one, _ in needed], axis=0)
        whole = np.max([one + live for one, live in needed], axis=0)
        allocated = Banded(*(np.maximum(held, whole + beyond) for beyond in (workspace, workspace - reach, workspace + reach)))
        if self.memory.reserved is None:
            return allocated, None, None
        ratios = [max(1.0, self.memory.reserved + beyond) for beyond in (0.0, -self.memory.reserved_reach, self.memory.reserved_reach)]
        return allocated, Banded(*(one * ratio for one, ratio in zip(allocated, ratios, strict=True))), None

    def _beyond(self, estimate: Estimate) -> list[str]:
        """What no record has of an estimate, in words."""
        config, words = estimate.config, []
        for name, value in zip(RAN, (words_of(config.attention), config.cache, config.prefill_logits), strict=True):
            if value not in self.ran[name]:
                words.append(f"no record ran {name.replace('_', ' ')} {value}, only {', '.join(self.ran[name])}")
        for name, text in RANGES.items():
            values, (least, most) = np.atleast_1d(getattr(estimate.workload, name)), self.ranges[name]
            for value in {int(values.min()), int(values.max())}:
                if not least <= value <= most:
                    measured = f"{least:,} to {most:,} were" if least < most else f"only {least:,} was"
                    words.append(f"{text.format(f'{value:,}')}: {measured} measured")
        return words


def _plain(banded: Banded, single: bool) -> Banded:
    return Banded(*(float(one[0]) for one in banded)) if single else banded
