"""The subject of a report: one estimate on a device, and the attention modes, grids and lengths that it is compared with."""

from dataclasses import dataclass, replace
from functools import cached_property

import polars as pl

from ocr_flops.cost.run_config import RunConfig, known_modes
from ocr_flops.errors import SpecError
from ocr_flops.spec.host import EfficiencySpec, HostSpec
from ocr_flops.spec.specs import HardwareSpec
from ocr_flops.spec.workload import Workload
from ocr_flops.timing.estimate import Estimate, sweep
from ocr_flops.timing.timing import Timing


@dataclass(frozen=True, eq=False)
class Subject:
    """One estimate and what it is compared with; numbers are computed when they are first read.

    Args:
        estimate: of one point.
        hardware: a device; None for no times.
        host, efficiency: as in `Estimate.on`.

    Raises:
        SpecError: the estimate has columns of points, or the device has no peak for the precision or no such attention kernel.
    """

    estimate: Estimate
    hardware: HardwareSpec | None = None
    host: HostSpec | None = None
    efficiency: EfficiencySpec | None = None

    def __post_init__(self) -> None:
        if not self.estimate.workload.is_single:
            raise SpecError(f"estimate: {self.estimate.workload.points} points; a report is about one")
        if self.hardware:
            self.hardware.matrix_peak(self.estimate.config.dtype)
            self.estimate.on(self.hardware)

    @cached_property
    def timing(self) -> Timing | None:
        """The estimate on the device."""
        return self.timings[self.mode] if self.timings else None

    @cached_property
    def by_mode(self) -> dict[str, Estimate]:
        """The point in every attention mode there is for its precision and device, the one with the most DRAM traffic first.

        The engine's own mix, and one set tower by tower, are among them where they differ from all the others.
        """
        config = self.estimate.config
        *known, own = (
            RunConfig.resolve(config.model, name, config.engine, config.dtype, config.cache, config.prefill_logits).attention
            for name in (*known_modes(config.model, config.dtype, self.hardware), "vendor")
        )
        specs = {spec.name: spec for spec in known}
        for spec in (own, config.attention):
            if spec.kernels not in [known.kernels for known in specs.values()]:
                specs[spec.name] = spec
        return {name: replace(self.estimate, config=replace(config, attention=spec)) for name, spec in specs.items()}

    @cached_property
    def timings(self) -> dict[str, Timing] | None:
        """Every mode on the device."""
        if self.hardware is None:
            return None
        return {name: one.on(self.hardware, host=self.host, efficiency=self.efficiency) for name, one in self.by_mode.items()}

    @cached_property
    def mode(self) -> str:
        """The estimate's mode by its name in `by_mode`: on an engine that runs sdpa by itself, "vendor" is "sdpa"."""
        kernels = self.estimate.config.attention.kernels
        return next(name for name, one in self.by_mode.items() if one.config.attention.kernels == kernels)

    @property
    def busy_stages(self) -> list[str]:
        """The stages that do any work: without output tokens, decode does none."""
        return [stage for stage, row in self.estimate.stage_numbers.items() if row["io_bytes"]]

    def modelled_stages(self, mode: str) -> list[str]:
        """The stages of a mode of `by_mode` whose numbers cannot be counted and traced on the real model."""
        return [stage for stage in self.estimate.chosen_stages if self.by_mode[mode].config.evidence(stage) == "modelled"]

    @property
    def distinct_in_vision(self) -> list[str]:
        """The modes of `by_mode` that differ in vision, one for all that have the same kernels there."""
        found = {}
        for name, one in self.by_mode.items():
            found.setdefault(tuple(pair for pair in one.config.attention.kernels if pair[0] != "decoder"), name)
        return list(found.values())

    def sweep(self, workloads: Workload, level: str = "stage") -> pl.DataFrame:
        """Many points in every mode of `by_mode`, on the device if there is one; a row per stage, or per stage and module."""
        config, modes = self.estimate.config, [one.config.attention for one in self.by_mode.values()]
        options = {name: getattr(config, name) for name in ("engine", "dtype", "cache", "prefill_logits")}
        options |= {"hardware": self.hardware, "host": self.host, "efficiency": self.efficiency}
        return sweep(config.model, workloads, modes, level=level, stages=self.estimate.chosen_stages, **options)
