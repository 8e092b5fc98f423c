"""One setting of the app: what its controls say, and what is estimated for it."""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import inf
from pathlib import Path
from typing import Any, Self

from ocr_flops.cost.run_config import known_modes
from ocr_flops.errors import SpecError, one_of
from ocr_flops.evidence.calibration.host_lane import measured_host
from ocr_flops.evidence.records.host_lane import list_host_lanes, read_host_lanes
from ocr_flops.reports.estimate_subject import Subject
from ocr_flops.spec.catalog import load_efficiency, load_engine, load_hardware, load_host, load_mode, load_model, names
from ocr_flops.spec.host import EFFICIENCIES, EfficiencySpec, HostSpec, Ranged
from ocr_flops.spec.specs import FP8, EngineSpec, HardwareSpec, ModelSpec
from ocr_flops.spec.workload import Workload, growing_outputs, neighbours
from ocr_flops.timing.estimate import Estimate, estimate
from ocr_flops.units import attention_words, counted, workload_label

SIDE_BY_SIDE = "all"
SOURCES = ("page", "grid")
PLAN_BATCHES = ("set", "best")
OWN_HOST = "engine"  # the host that the engine has by itself
FIGURES = ("matrix_flops_per_second", "vector_fp32_flops_per_second", "memory_bandwidth_bytes_per_second", "memory_bytes")
HOST_US = ("operator_us", "launch_us")
OWN_DTYPE = "dtype"  # the precision of the run
REACHED = tuple(f"{name}_efficiency" for name in EFFICIENCIES)


@dataclass(frozen=True)
class Setting:
    """What the controls say: a workload, what runs it, a device, and the targets of the plan.

    Args:
        model: of the group `model`. One that was learned takes the page by its own processor's rule; mode and grid are DeepSeek-OCR's.
        mode: a resolution mode.
        source: "page" where the page's size decides the grid, "grid" where `columns` and `rows` do; a mode without tiles ignores the grid.
        width_px, height_px: of the page.
        columns, rows: of the grid set by hand.
        prompt_tokens, output_tokens, batch_size: as in `Workload`.
        attention: an attention mode, or `SIDE_BY_SIDE`.
        engine, dtype, cache: as in `estimate`.
        gpu: a config of the group `hardware`.
        matrix_flops_per_second, vector_fp32_flops_per_second, memory_bandwidth_bytes_per_second, memory_bytes: figures that take the
            place of the device's own (the matrix peak is that of `dtype`); None leaves the device's.
        ttft_ms, tpot_ms: targets of the plan in milliseconds; None for none.
        price: of an hour of `gpu`, in any currency; None for none. The app has all in `prices`.
        host: what issues the operators, a config of the group `host`, or `OWN_HOST`.
        operator_us, launch_us: microseconds of the host for an operator and for a launch; None leaves the host's own.
        pages, gpus: to be done in the plan, and by how many devices of a kind.
        plan_batch: "set" where the plan takes the batch as set, "best" where it looks for each device's best.
        prices: of hours of devices by name, and their currency, as in "l4=0.8 h200=3.5 EUR"; they go before `price`.
        matrix_efficiency, vector_efficiency, bandwidth_efficiency: the part of a peak that kernels reach; None leaves those of the
            device's records, else those published.
        engine_weights, engine_cache: of an engine that serves, "fp8" for weights or cache in it, else `OWN_DTYPE`.

    Raises:
        SpecError: when what a value decides is read first, naming the field, the value and what is allowed.
    """

    mode: str = "gundam"
    source: str = "page"
    width_px: int = 1654
    height_px: int = 2339
    columns: int = 2
    rows: int = 3
    prompt_tokens: int = 10
    output_tokens: int = 256
    batch_size: int = 1
    attention: str = "vendor"
    engine: str = "transformers"
    dtype: str = "bf16"
    cache: str = "dynamic"
    gpu: str = "l4"
    matrix_flops_per_second: float | None = None
    vector_fp32_flops_per_second: float | None = None
    memory_bandwidth_bytes_per_second: float | None = None
    memory_bytes: float | None = None
    ttft_ms: float | None = 500.0
    tpot_ms: float | None = 20.0
    price: float | None = None
    host: str = OWN_HOST
    operator_us: float | None = None
    launch_us: float | None = None
    matrix_efficiency: float | None = None
    vector_efficiency: float | None = None
    bandwidth_efficiency: float | None = None
    engine_weights: str = OWN_DTYPE
    engine_cache: str = OWN_DTYPE
    pages: float = 1_000_000.0
    gpus: int = 1
    plan_batch: str = "set"
    prices: str = ""
    model: str = "deepseek_ocr"

    @cached_property
    def model_spec(self) -> ModelSpec:
        """The model's dimensions."""
        return load_model(self.model)

    @cached_property
    def workload(self) -> Workload:
        """The current point, as the model takes it."""
        return self.page_workload.for_page_rule(self.model_spec.page_rule)

    @property
    def page_workload(self) -> Workload:
        """The current point as DeepSeek-OCR takes it."""
        one_of("source", self.source, SOURCES)
        tokens = {"prompt_tokens": self.prompt_tokens, "output_tokens": self.output_tokens, "batch_size": self.batch_size}
        if self.source == "grid" and load_mode(self.mode).tile_px:
            return Workload.from_grid(self.columns, self.rows, self.mode, **tokens)
        return Workload.from_image(self.width_px, self.height_px, self.mode, **tokens)

    @cached_property
    def neighbours(self) -> Workload:
        """Columns of points to see the current one among, itself included; see `neighbours`."""
        return neighbours(self.workload, itself=True)

    @cached_property
    def lengths(self) -> Workload:
        """Columns of the current page at growing output lengths, past the current one."""
        return growing_outputs(self.workload)

    @property
    def attention_modes(self) -> tuple[str, ...]:
        """The modes to show: one, or all side by side."""
        return self.known_modes if self.attention == SIDE_BY_SIDE else (self.attention,)

    @property
    def known_modes(self) -> tuple[str, ...]:
        """The modes that take the precision and that the device has (no flash kernel takes fp32, or runs on a T4)."""
        try:
            device = load_hardware(self.gpu)
        except SpecError:
            device = None
        return known_modes(self.model_spec, self.dtype, device)

    @property
    def main_mode(self) -> str:
        """The mode that single figures are of: the one to show, or of several side by side the engine's own."""
        return "vendor" if self.attention == SIDE_BY_SIDE else self.attention

    @property
    def prefill_logits(self) -> str:
        """The positions for which the engine's `generate` computes logits."""
        return load_engine(self.engine).prefill_logits

    @cached_property
    def engine_spec(self) -> EngineSpec:
        """The engine with its options, where it is one that serves."""
        engine = load_engine(self.engine)
        if engine.block_tokens is None:
            return engine
        narrow = {"weights": self.engine_weights, "cache": self.engine_cache}
        return replace(engine, **{name: None if value == OWN_DTYPE else value for name, value in narrow.items()})

    @cached_property
    def known(self) -> Self:
        """The setting, under transformers where its engine is not known to run its model."""
        return replace(self, engine=Setting.engine) if self.instead else self

    @property
    def instead(self) -> str:
        """What is shown in the place of an engine that is not known to run the model, in a sentence; "" for one that is."""
        if not self.model_spec.learned or self.engine == Setting.engine:
            return ""
        unknown = f"{load_engine(self.engine).label} is not known to run {self.model_spec.label}"
        return f"{unknown}: all is of transformers' class, and Serving has no answer."

    @property
    def options(self) -> dict[str, Any]:
        """What runs the model, as keywords of `estimate` and `sweep`."""
        return {"engine": self.engine_spec, "dtype": self.dtype, "cache": self.cache}

    def estimate(self, model: ModelSpec, mode: str) -> Estimate:
        """The current point in one attention mode."""
        return estimate(model, self.workload, mode, **self.options)

    def estimates(self, model: ModelSpec) -> list[Estimate]:
        """The current point in every attention mode that is shown."""
        found = [self.estimate(model, mode) for mode in self.attention_modes]
        for one in found:
            one.stage_numbers  # noqa: B018  raises here what would be raised when a chart reads it
        return found

    def by_mode(self, model: ModelSpec) -> dict[str, Estimate]:
        """The current point in every one of `known_modes`, the most wasteful first."""
        return {mode: self.estimate(model, mode) for mode in self.known_modes}

    def subject(self, model: ModelSpec, hardware: HardwareSpec | None = None) -> Subject:
        """What a report on the current point is about; of several attention modes side by side the engine's own choice."""
        estimate = self.estimate(model, self.main_mode)
        return Subject(estimate, hardware, self.host_spec, self.efficiency) if hardware else Subject(estimate)

    @cached_property
    def hour_prices(self) -> tuple[dict[str, float], str]:
        """The price of an hour of every device that has one, and the currency, "" where none is given.

        Raises:
            SpecError: words that are neither a device's price, above 0, nor a currency.
        """
        found, currency = {self.gpu: self.price} if self.price is not None else {}, ""
        for word in self.prices.replace(",", " ").split():
            name, equals, number = word.partition("=")
            if not equals and word.isalpha() and not currency:
                currency = word.upper()
                continue
            name = one_of("prices", name.lower(), names("hardware")) if equals else name
            try:
                found[name] = float(number)
            except ValueError:
                raise SpecError(f"prices: {word!r} is neither a price, as in l4=0.8, nor a currency") from None
            if not 0 < found[name] < inf:
                raise SpecError(f"prices: {word!r} is not a price above 0")
        return found, currency

    @cached_property
    def hardware(self) -> HardwareSpec:
        """The device with the figures given for it, whether or not they give times: its memory needs no matrix peak.

        Raises:
            SpecError: an unknown device, or a figure that is not a number above 0.
        """
        given = {name: value for name in FIGURES if (value := getattr(self, name)) is not None}
        return load_hardware(self.gpu).edited(self.dtype, **given)

    def describe(self, model: ModelSpec, hardware: HardwareSpec | None) -> str:
        """What is run of which page, on what and where, in a line; for hardware None on no device."""
        run = f"{model.under(self.engine_spec)}, {attention_words(self.attention)}, {self.dtype}"
        page = f"{workload_label(self.workload)}, {counted(self.output_tokens, 'output token')}"
        return f"{model.label}, {page}; {run}; {hardware.label if hardware else 'no device'}"

    @cached_property
    def device(self) -> HardwareSpec:
        """`hardware`, which gives times.

        Raises:
            SpecError: as `hardware`, or no matrix peak for the precision, or no such attention kernel.
        """
        label, others = self.hardware.label, "" if self.model_spec.learned else f"choose {' or '.join(self.hardware.dtypes)}, or "
        if self.dtype not in self.hardware.dtypes:
            raise SpecError(f"{label} has no {self.dtype} figure: {others}enter one under 'edit its figures'")
        if self.engine_spec.weights and FP8 not in dict(self.hardware.matrix_flops_per_second):
            raise SpecError(f"{label} has no fp8 figure: choose weights in {self.dtype}")
        if self.attention in known_modes(self.model_spec, self.dtype) and self.attention not in self.known_modes:
            raise SpecError(f"{label} has no {self.attention} kernel: choose {' or '.join(self.known_modes)}")
        return self.hardware

    @cached_property
    def host_spec(self) -> HostSpec:
        """What issues the operators, with the figures given for it.

        Raises:
            SpecError: an unknown host, one that was not measured, or a figure that is not a number from 0 up.
        """
        given = {name: value for name in HOST_US if (value := getattr(self, name)) is not None}
        name = load_engine(self.engine).host if self.host == OWN_HOST else self.host
        return (_measured(self.engine, tuple(list_host_lanes())) if name == "measured" else load_host(name)).with_figures(**given)

    @cached_property
    def efficiency(self) -> EfficiencySpec:
        """What kernels reach of the device's peaks, with the parts given.

        Raises:
            SpecError: a part that is not a number from 0.001 to 1.
        """
        given = {name: getattr(self, field) for name, field in zip(EFFICIENCIES, REACHED, strict=True)}
        return replace(load_efficiency(), **{name: Ranged.exact(value) for name, value in given.items() if value is not None})

    def default(self, field: str) -> Ranged:
        """What one of `HOST_US` and `REACHED` is where nobody has set it, with its range and source."""
        unset = replace(self, **dict.fromkeys((*HOST_US, *REACHED)))
        return getattr(unset.host_spec, field) if field in HOST_US else getattr(unset.efficiency, field.removesuffix("_efficiency"))

    @cached_property
    def conditions(self) -> dict[str, Any]:
        """What times hold under without records, which `OnRecord.conditions` adds, as keywords of `Estimate.on`.

        Raises as `device`, `host_spec` and `efficiency`.
        """
        return {"hardware": self.device, "host": self.host_spec, "efficiency": self.efficiency}


@lru_cache(maxsize=16)
def _measured(engine: str, files: tuple[Path, ...]) -> HostSpec:
    """`measured_host` of the records in files, which never change: fitted once."""
    return measured_host(engine, read_host_lanes())
