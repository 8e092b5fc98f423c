"""What runs, resolved: model, engine, attention and precision, and the compiled operators of its stages."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from ocr_flops.cost.blocks.attention import KERNELS
from ocr_flops.cost.models import stages as stage_tapes
from ocr_flops.cost.program import Program
from ocr_flops.errors import SpecError, one_of
from ocr_flops.spec.specs import CACHES, DTYPE_BYTES, PREFILL_LOGITS, AttentionSpec, EngineSpec, ModelSpec


@dataclass(frozen=True)
class RunConfig:
    """Everything that a cost depends on besides the workload, resolved.

    Args:
        model, engine: what runs.
        attention: the mode of every tower, with a name for frames.
        dtype: "bf16", "fp16" or "fp32".
        cache: "dynamic" or "static".
        prefill_logits: "all" or "last".
    """

    model: ModelSpec
    engine: EngineSpec
    attention: AttentionSpec
    dtype: str = "bf16"
    cache: str = "dynamic"
    prefill_logits: str = "last"

    def __post_init__(self) -> None:
        one_of("dtype", self.dtype, DTYPE_BYTES)
        one_of("cache", self.cache, CACHES)
        one_of("prefill_logits", self.prefill_logits, PREFILL_LOGITS)
        kernels = [one_of(f"attention.{tower}", kernel, KERNELS) for tower, kernel in self.attention.kernels]
        if self.dtype == "fp32" and "flash" in kernels:
            raise SpecError("attention: flash kernels take bf16 or fp16, not dtype = fp32; use eager or sdpa")

    @classmethod
    @functools.cache
    def resolve(
        cls, model: ModelSpec, attention: str | AttentionSpec, engine: str | EngineSpec, dtype: str, cache: str, prefill_logits: str | None
    ) -> RunConfig:
        """A config from names or specs, with the engine's own choice wherever one is left open."""
        if isinstance(engine, str):
            from ocr_flops.spec.catalog import load_engine

            engine = load_engine(engine)
        if isinstance(attention, str):
            from ocr_flops.spec.catalog import load_attention

            attention = load_attention(attention)
        return cls(model, engine, attention.resolved(model, engine), dtype, cache, prefill_logits or engine.prefill_logits)

    def evidence(self, stage: str) -> str:
        """Whether a stage's cost can be counted and traced on the real model here ("runnable") or not ("modelled")."""
        engine, towers = self.engine, ("sam", "clip") if stage == "vision" else ("decoder",)
        real = all(self.attention.kernel(tower) in engine.runnable_kernels(tower) for tower in towers)
        real &= stage == "vision" or self.cache == "dynamic"
        real &= stage != "prefill" or engine.chooses_logits or self.prefill_logits == engine.prefill_logits
        return "runnable" if real else "modelled"

    @property
    def itemsize(self) -> int:
        """Bytes per element of weights and activations."""
        return DTYPE_BYTES[self.dtype]

    @property
    def kv_bytes_per_token(self) -> int:
        """KV cache of one token: 2 · layers · heads · head_dim · bytes."""
        decoder = self.model.tower("decoder")
        return 2 * decoder.layers * decoder.heads * decoder.head_dim * self.itemsize

    def stage_parameters(self, stage: str) -> dict[str, int]:
        """Parameters of the modules a stage uses; they do not depend on the workload."""
        return self._stage_program(stage).parameters

    def _stage_program(self, stage: str) -> Program:
        """A stage's operators at any workload."""
        if stage == "vision":
            return vision_program(self, self.model.tower("sam").image_px, 0, True)
        return (prefill_program if stage == "prefill" else decode_program)(self, True)

    def weight_bytes(self, stage: str, module: str | None = None) -> int:
        """Bytes of a module's parameters; for a stage those of all modules it uses."""
        parameters = self.stage_parameters(stage)
        return (sum(parameters.values()) if module is None else parameters.get(module, 0)) * self.itemsize

    @property
    def parameters(self) -> dict[str, int]:
        """Parameters per module of the whole model."""
        return {**self.stage_parameters("vision"), **self.stage_parameters("prefill")}

    @property
    def layer_parameters(self) -> dict[tuple[str, int | None], int]:
        """The same per module and layer (None outside layers)."""
        return {**self._stage_program("vision").layer_parameters, **self._stage_program("prefill").layer_parameters}


@functools.cache
def vision_program(config: RunConfig, global_px: int, tile_px: int, is_one: bool) -> Program:
    """The compiled vision stage for views of these sides."""
    return Program(stage_tapes.vision(config.model, config.engine, config.attention, config.itemsize, global_px, tile_px, is_one))


@functools.cache
def prefill_program(config: RunConfig, is_one: bool) -> Program:
    """The compiled prefill."""
    return Program(
        stage_tapes.prefill(config.model, config.engine, config.attention, config.itemsize, is_one, config.cache, config.prefill_logits)
    )


@functools.cache
def decode_program(config: RunConfig, is_one: bool) -> Program:
    """One compiled decode step."""
    return Program(stage_tapes.decode(config.model, config.engine, config.attention, config.itemsize, is_one, config.cache))
