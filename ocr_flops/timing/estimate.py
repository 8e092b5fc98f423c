"""Cost and time of a workload: `estimate()` for one point or columns of points, `sweep()` for several attention modes in one frame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocr_flops.cost.estimate import Cost
from ocr_flops.cost.run_config import RunConfig
from ocr_flops.cost.stage_groups import COLUMNS
from ocr_flops.errors import SpecError, one_of
from ocr_flops.spec.catalog import load_efficiency, load_hardware, load_host, load_model
from ocr_flops.spec.host import EfficiencySpec, HostSpec
from ocr_flops.spec.run_spec import RunSpec, check_mode_keys
from ocr_flops.spec.specs import STAGES, AttentionSpec, EngineSpec, HardwareSpec, ModelSpec
from ocr_flops.spec.workload import Workload
from ocr_flops.timing.timing import Timing

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, eq=False)
class Estimate(Cost):
    """The cost of a workload, which a device turns into time; see `Cost` for its numbers and frames."""

    def __repr__(self) -> str:
        config = self.config
        return f"Estimate({config.model.label}, {config.engine.name}, {config.attention.name}, {config.dtype}; {self.workload!r})"

    def on(
        self,
        hardware: str | HardwareSpec,
        launch_seconds: float = 0.0,
        *,
        host: str | HostSpec | None = None,
        efficiency: str | EfficiencySpec | None = None,
    ) -> Timing:
        """The same cost as time on a device.

        Args:
            hardware: a name as `load_hardware` takes, or what it returns.
            launch_seconds: added to roofline seconds for every operator executed.
            host: what issues the operators, "none", "eager", "graphs" or a `HostSpec`; the engine's own by default.
            efficiency: what kernels reach of the device's peaks, "published" (the default), "peak" or an `EfficiencySpec`.

        Raises:
            SpecError: an unknown name, or an attention kernel that the device does not have.
        """
        hardware = load_hardware(hardware) if isinstance(hardware, str) else hardware
        if not isinstance(hardware, HardwareSpec):
            raise SpecError(f"hardware: {hardware!r} is no name of a device and no HardwareSpec; of several devices: ocr_flops.plan")
        obstacle = self.config.obstacle(hardware)
        if obstacle and self.config.dtype in hardware.dtypes:
            raise SpecError(f"{self.config.obstacle_field(hardware)}: {hardware.label} has {obstacle}")
        return Timing(self, hardware, *self.find_lanes(host, efficiency), launch_seconds)

    def find_lanes(self, host: str | HostSpec | None, efficiency: str | EfficiencySpec | None) -> tuple[HostSpec, EfficiencySpec]:
        """What issues the operators and what kernels reach; arguments as in `on`.

        Raises:
            SpecError: an unknown name, or figures of records that were not filled in.
        """
        if not isinstance(host, HostSpec):
            host = load_host(self.config.engine.host if host is None else host)
        if host.name == "measured" and not (host.operator_us.high or host.module_us.high):
            raise SpecError(
                f"host: 'measured' has no figures; hand over of.measured_host({self.config.engine.name!r}), or choose none, eager or graphs"
            )
        if not isinstance(efficiency, EfficiencySpec):
            efficiency = load_efficiency(efficiency or "published")
        if efficiency.name == "records" and efficiency == load_efficiency("records"):
            raise SpecError("efficiency: 'records' has no figures yet; hand over those of a calibration, or choose published or peak")
        return host, efficiency


def estimate(
    model: str | ModelSpec,
    workload: Workload,
    attention: str | AttentionSpec = "vendor",
    *,
    engine: str | EngineSpec = "transformers",
    dtype: str = "bf16",
    cache: str = "dynamic",
    prefill_logits: str | None = None,
    stages: Iterable[str] = STAGES,
    experts_hit: dict[str, int] | None = None,
) -> Estimate:
    """The cost of a workload.

    Args:
        model: from `load_model`, or its name.
        workload: one point, or columns of points.
        attention: "vendor", "eager", "sdpa", "flash", or an `AttentionSpec` for a mode per tower.
        engine: "transformers", "remote_code", or an `EngineSpec`.
        dtype: "bf16", "fp16" or "fp32".
        cache: "dynamic" (grows by concatenation) or "static".
        prefill_logits: "all" positions or the "last" one; by default what the engine's `generate` computes.
        stages: those of "vision", "prefill", "decode" that are wanted.
        experts_hit: experts hit over all layers, by stage, where a routing is known; the expected number otherwise.

    Raises:
        SpecError: an unknown name, flash in fp32, or a result beyond 2^62.
    """
    model = load_model(model) if isinstance(model, str) else model
    for name, value, kind in (("model", model, ModelSpec), ("workload", workload, Workload)):
        if not isinstance(value, kind):
            raise SpecError(f"{name}: {value!r} is no {kind.__name__}")
    chosen = tuple(one_of("stages", stage, STAGES) for stage in stages)
    if not chosen:
        raise SpecError(f"stages: empty; choose from {', '.join(STAGES)}")
    check_mode_keys(model, [f"workload={workload.mode}"] * bool(workload.mode))
    config = RunConfig.resolve(model, attention, engine, dtype, cache, prefill_logits)
    workload = workload.for_page_rule(model.page_rule)
    return Estimate(config, workload, chosen, tuple((experts_hit or {}).items()))


def sweep(
    model: str | ModelSpec,
    workloads: Workload | Sequence[Workload],
    attention: str | AttentionSpec | Sequence[str | AttentionSpec] = "vendor",
    *,
    level: str = "stage",
    columns: Sequence[str] = COLUMNS,
    hardware: str | HardwareSpec | Sequence[str | HardwareSpec] | None = None,
    launch_seconds: float = 0.0,
    host: str | HostSpec | None = None,
    efficiency: str | EfficiencySpec | None = None,
    **options,
) -> pl.DataFrame:
    """The cost of many workloads in one or several attention modes.

    Args:
        model: from `load_model`, or its name.
        workloads: a list of points, or one Workload of columns.
        attention: one mode or several.
        level: "stage" for a row per stage, "module" for a row per stage and module.
        columns: cost columns wanted, all by default; fewer are faster and take less memory.
        hardware: one device or several; adds the time columns.
        launch_seconds, host, efficiency: as in `Estimate.on`.
        **options: as in `estimate`.

    Returns:
        a frame ordered by device, attention mode, point, stage (and module).
    """
    import polars as pl

    one_of("level", level, ("stage", "module"))
    points = workloads if isinstance(workloads, Workload) else Workload.stack(list(workloads))
    modes = [attention] if isinstance(attention, str | AttentionSpec) else list(attention)
    for column in columns:
        one_of("columns", column, COLUMNS)
    results = [estimate(model, points, mode, **options) for mode in modes]
    if hardware is not None:
        devices = [hardware] if isinstance(hardware, str | HardwareSpec) else hardware
        results = [one.on(device, launch_seconds, host=host, efficiency=efficiency) for device in devices for one in results]
    return pl.concat([one.frame(level, columns) for one in results])


def time_run(run: RunSpec, estimate: Estimate) -> Timing | None:
    """An estimate on the device, the host and the efficiencies that a command line chose; None where it chose no device."""
    return estimate.on(run.hardware, host=run.host, efficiency=run.efficiency) if run.hardware else None


def estimate_run(run: RunSpec, workload: Workload | None = None) -> Estimate:
    """The cost of the workload that a command line chose, or of another one, with everything else as chosen."""
    options = {name: getattr(run, name) for name in ("engine", "dtype", "cache", "prefill_logits", "stages")}
    return estimate(run.model, run.workload if workload is None else workload, run.attention, **options)
