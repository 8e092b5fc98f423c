"""What runs, resolved: model, engine, attention and precision, and the compiled operators of its stages."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ocr_flops.cost.blocks.attention import Kernel, attention_modes, find_kernel
from ocr_flops.cost.engines.base import ENGINES, Engine
from ocr_flops.cost.program import Program
from ocr_flops.cost.registry import Registry
from ocr_flops.cost.tape import Tape
from ocr_flops.errors import SpecError, one_of
from ocr_flops.spec.catalog import load_attention, load_engine, names
from ocr_flops.spec.specs import CACHES, CALL, DTYPE_BYTES, FP8, PAGED, PREFILL_LOGITS, AttentionSpec, EngineSpec, HardwareSpec, ModelSpec

PIPELINES: Registry[Any] = Registry(
    "model.pipeline", "ocr_flops.cost.models"
)  # of `models.base.Pipeline`, which needs what is defined here


@dataclass(frozen=True)
class RunConfig:
    """Everything that a cost depends on besides the workload, resolved.

    Args:
        model, engine: what runs.
        attention: the kernel of every tower, with a name for frames.
        dtype: "bf16", "fp16" or "fp32".
        cache: "dynamic" or "static".
        prefill_logits: "all" or "last".

    Raises:
        SpecError: an unknown choice, a name without a class, or a kernel that does not take the precision.
    """

    model: ModelSpec
    engine: EngineSpec
    attention: AttentionSpec
    dtype: str = "bf16"
    cache: str = "dynamic"
    prefill_logits: str = "last"

    def __post_init__(self) -> None:
        one_of("dtype", self.dtype, DTYPE_BYTES)
        one_of("cache", self.cache, (PAGED,) if self.engine.block_tokens else CACHES)
        one_of("prefill_logits", self.prefill_logits, PREFILL_LOGITS)
        ENGINES.find(self.engine.name)
        PIPELINES.find(self.model.pipeline)
        self.pipeline.check(self)
        for spec in self.model.attention_towers:
            kernel = self.kernel(spec.tower)
            if self.dtype not in kernel.dtypes:
                taken = " or ".join(kernel.dtypes)
                raise SpecError(f"attention: {kernel.name} kernels take {taken}, not dtype = {self.dtype}; use eager or sdpa")

    @cached_property
    def _hash(self) -> int:
        return hash((self.model, self.engine, self.attention, self.dtype, self.cache, self.prefill_logits))

    def __hash__(self) -> int:
        """Computed once: programs are looked up by their configuration at every point."""
        return self._hash

    @classmethod
    @functools.cache
    def resolve(
        cls, model: ModelSpec, attention: str | AttentionSpec, engine: str | EngineSpec, dtype: str, cache: str, prefill_logits: str | None
    ) -> RunConfig:
        """A configuration from names or specs, with the engine's own choice wherever one is left open."""
        if isinstance(engine, str):
            engine = load_engine(engine)
        if isinstance(attention, str):
            attention = load_attention(attention)
        cache = PAGED if engine.block_tokens else cache
        chosen = PIPELINES.find(model.pipeline).choose_kernels(model, attention.resolved(model, engine), attention)
        return cls(model, engine, chosen, dtype, cache, prefill_logits or engine.prefill_logits)

    @cached_property
    def engine_code(self) -> Engine:
        """What the engine executes."""
        return ENGINES.find(self.engine.name).with_options(self.engine)

    @cached_property
    def pipeline(self) -> Any:
        """What the model's stages execute."""
        return PIPELINES.find(self.model.pipeline)

    def kernel(self, tower: str) -> Kernel:
        """The attention kernel of a tower."""
        return find_kernel(self.attention.kernel(tower))

    def obstacle(self, hardware: HardwareSpec) -> str | None:
        """Why a device does not run this, with what it does run; None where it does."""
        if self.engine.weights and FP8 not in dict(hardware.matrix_flops_per_second):
            return f"no {FP8} figure, and products of fp8 weights in another precision are not modelled: use engine.weights=null"
        if self.dtype not in hardware.dtypes:
            if self.model.learned:
                return f"no {self.dtype}, in which alone {self.model.label} was learned"
            return f"no {self.dtype}: use dtype={' or '.join(hardware.dtypes)}"
        missing = (kernel.name for spec in self.model.attention_towers if not (kernel := self.kernel(spec.tower)).runs_on(hardware))
        if (name := next(missing, None)) is None:
            return None
        others = f"attention={' or '.join(attention_modes(self.dtype, hardware))}"
        if not self.engine.block_tokens:
            return f"no {name} kernel: use {others}"
        runs = {one: all(find_kernel(kernel).runs_on(hardware) for _, kernel in load_engine(one).kernels) for one in names("engine")}
        unable, able = (" and ".join(one for one in runs if runs[one] is runs_there) for runs_there in (False, True))
        return f"no {name} kernel, which {unable} take unless {others} is given; {able} run there, in batches"

    def obstacle_field(self, hardware: HardwareSpec) -> str:
        """The key that an obstacle is about."""
        return "engine.weights" if self.engine.weights and FP8 not in dict(hardware.matrix_flops_per_second) else "attention"

    def evidence(self, stage: str) -> str:
        """Whether a stage's cost can be counted and traced on the real model here ("runnable") or not ("modelled")."""
        if self.engine.modelled:
            return "modelled"
        *encoders, decoder = [spec.tower for spec in self.model.attention_towers]
        towers = encoders if stage == "vision" else [decoder]
        real = all(self.attention.kernel(tower) in self.engine.runnable_kernels(tower) for tower in towers)
        real &= stage == "vision" or self.cache == "dynamic"
        real &= stage != "prefill" or self.engine.chooses_logits or self.prefill_logits == self.engine.prefill_logits
        return "runnable" if real else "modelled"

    @property
    def itemsize(self) -> int:
        """Bytes per element of weights and activations, but for what an engine has in fp8."""
        return DTYPE_BYTES[self.dtype]

    @property
    def least_itemsize(self) -> int:
        """The fewest bytes per element of anything that is moved."""
        return 1 if self.engine.weights or self.engine.cache else self.itemsize

    @property
    def weight_itemsize(self) -> int:
        """Bytes per element of the linear layers' weights."""
        return 1 if self.engine.weights else self.itemsize

    @property
    def kv_bytes_per_token(self) -> int:
        """KV cache of one token, in all layers."""
        return self.pipeline.kv_bytes_per_token(self)

    def _trained_program(self, stage: str) -> Program:
        """A stage's operators at the view that vision was trained for, for what does not depend on the workload."""
        return stage_program(self, stage, True, self.pipeline.trained_sizes(self.model) if stage in ("vision", CALL) else ())

    def weight_bytes(self, stage: str, module: str | None = None) -> int:
        """Bytes of a module's parameters; for a stage those of all modules it uses."""
        sizes = self._trained_program(stage).weight_bytes
        return sum(sizes.values()) if module is None else sizes.get(module, 0)

    @property
    def model_bytes(self) -> int:
        """Bytes of the whole model's parameters."""
        return sum({**self._trained_program("vision").weight_bytes, **self._trained_program("prefill").weight_bytes}.values())

    @property
    def parameters(self) -> dict[str, int]:
        """Parameters per module of the whole model."""
        return {**self._trained_program("vision").parameters, **self._trained_program("prefill").parameters}

    @property
    def layer_parameters(self) -> dict[tuple[str, int | None], int]:
        """The same per module and layer (None outside layers)."""
        return {**self._trained_program("vision").layer_parameters, **self._trained_program("prefill").layer_parameters}


def known_modes(model: ModelSpec, dtype: str, hardware: HardwareSpec | None = None) -> tuple[str, ...]:
    """The attention modes of `attention_modes` that a model has."""
    return PIPELINES.find(model.pipeline).attention_modes(model, attention_modes(dtype, hardware))


@functools.cache
def stage_program(config: RunConfig, stage: str, is_one: bool, sizes: tuple[int, ...] = ()) -> Program:
    """The compiled operators of a stage; arguments as of `Pipeline.record`."""
    tape = Tape(config.itemsize)
    config.pipeline.record(tape, config, stage, is_one, sizes)
    return Program(tape)
