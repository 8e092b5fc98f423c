"""Cost of a workload, stage by stage and module by module: `estimate()` for one point, `sweep()` for many."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ocr_flops.parts import Part, parts
from ocr_flops.program import COSTS
from ocr_flops.setup import Setup
from ocr_flops.specs import STAGES, AttentionSpec, EngineSpec, ModelSpec, SpecError, one_of
from ocr_flops.workload import Column, Workload

if TYPE_CHECKING:
    import polars as pl

LIMIT = 2**62
SUMS = {"total_flops": ("tensor_flops", "vector_flops"), "io_bytes": ("weight_io_bytes", "activation_io_bytes", "kv_io_bytes")}
KV_MODULE = "decoder.attention"
Row = dict[str, Column]


class Footprint(NamedTuple):
    """Memory a run needs, in bytes: weights, KV cache at the end, the largest live activations of any stage, and their sum."""

    weight_bytes: Column
    kv_cache_bytes: Column
    peak_activation_bytes: Column
    total_bytes: Column


@dataclass(frozen=True, eq=False)
class Estimate:
    """The cost of a workload under a setup. Numbers are computed when they are first read; frames are built when first read.

    Args:
        setup: what runs.
        workload: one point, or columns of points.
        chosen_stages: the stages wanted.
        experts_hit: experts hit over all layers by stage, where they are known (else expected ones).
    """

    setup: Setup
    workload: Workload
    chosen_stages: tuple[str, ...] = STAGES
    experts_hit: tuple[tuple[str, int], ...] = ()

    @cached_property
    def _parts(self) -> list[Part]:
        return parts(self.setup, self.workload, self.chosen_stages, dict(self.experts_hit))

    @cached_property
    def stage_numbers(self) -> dict[str, Row]:
        """Every cost column of every stage: ints for one point, int64 columns for many."""
        numbers = {stage: self._gather(stage) for stage in self.chosen_stages}
        self._guard(numbers)
        return numbers

    @cached_property
    def module_numbers(self) -> dict[tuple[str, str], Row]:
        """Every cost column of every module of every stage."""
        self.stage_numbers  # noqa: B018  a module is no larger than its stage, which is guarded
        modules = dict.fromkeys((part.stage, module) for part in self._parts for module in part.program.modules)
        return {(stage, module): self._gather(stage, module) for stage, module in modules}

    def _gather(self, stage: str, module: str | None = None) -> Row:
        """Cost columns of a stage or of one module in it, put together from its parts."""
        numbers: Row = {}
        for part in self._parts:
            if part.stage == stage and (module is None or module in part.program.modules):
                for column, value in self._costs(part, module).items():
                    if part.where is None:
                        numbers[column] = value
                    else:
                        numbers.setdefault(column, np.zeros(self.workload.points, np.int64))[part.where] = value
        numbers["weight_bytes"] = self._weight_bytes(stage, module)
        numbers["kv_cache_bytes"] = self._kv_cache_bytes(stage) if module in (None, KV_MODULE) else 0
        return {column: numbers[column] for column in COLUMNS}

    def _costs(self, part: Part, module: str | None) -> Row:
        costs = part.program.costs(module)
        row = {cost: part.cost(costs[cost]) for cost in COSTS}
        for total, addends in SUMS.items():
            row[total] = sum((row[addend] for addend in addends), 0)
        row["peak_activation_bytes"] = part.peak(module)
        return row

    def _weight_bytes(self, stage: str, module: str | None) -> int:
        programs = [part.program for part in self._parts if part.stage == stage]
        parameters = {name: count for program in programs for name, count in program.parameters.items()}
        return (sum(parameters.values()) if module is None else parameters.get(module, 0)) * self.setup.itemsize

    def _kv_cache_bytes(self, stage: str) -> Column:
        """The cache at the end of a stage."""
        if stage == "vision":
            return 0
        tokens = self.workload.context_tokens + (self.workload.output_tokens if stage == "decode" else 0)
        return tokens * self.workload.batch_size * self.setup.kv_bytes_per_token

    def _guard(self, numbers: dict[str, Row]) -> None:
        """Refuses results beyond 2^62: NumPy wraps silently, so columns are checked at a corner in Python ints, then in floats."""
        if not self.workload.is_single:
            corner = Estimate(self.setup, self.workload.corner(), self.chosen_stages)
            try:
                corner.stage_numbers  # noqa: B018
                return
            except SpecError:
                floats = Estimate(self.setup, self.workload.as_floats(), self.chosen_stages)
                numbers = {stage: floats._gather(stage) for stage in self.chosen_stages}
        for stage, row in numbers.items():
            for column, value in row.items():
                too_large = value > LIMIT
                if np.any(too_large):
                    point = f" at point {int(np.argmax(too_large))}" if np.ndim(too_large) else ""
                    raise SpecError(f"{column} of {stage}{point} exceeds 2^62; lower the grid, the tokens or the batch size")

    @property
    def footprint(self) -> Footprint:
        """Memory the whole run needs."""
        weight = sum(self.setup.parameters.values()) * self.setup.itemsize
        kv = self._kv_cache_bytes("decode" if "decode" in self.chosen_stages else self.chosen_stages[-1])
        peaks = [row["peak_activation_bytes"] for row in self.stage_numbers.values()]
        peak = max(peaks) if self.workload.is_single else np.maximum.reduce(np.broadcast_arrays(*peaks))
        return Footprint(weight, kv, peak, weight + kv + peak)

    @cached_property
    def stages(self) -> pl.DataFrame:
        """One row per point and stage."""
        from ocr_flops.frames import stage_frame

        return stage_frame(self)

    @cached_property
    def modules(self) -> pl.DataFrame:
        """One row per point, stage and module."""
        from ocr_flops.frames import module_frame

        return module_frame(self)


COLUMNS = ("tensor_flops", "vector_flops", "total_flops", "torch_flops", "operators", "weight_io_bytes", "activation_io_bytes",
           "kv_io_bytes", "io_bytes", "weight_bytes", "kv_cache_bytes", "peak_activation_bytes")


def estimate(model: ModelSpec, workload: Workload, attention: str | AttentionSpec = "vendor", *, engine: str | EngineSpec = "transformers",
             dtype: str = "bf16", cache: str = "dynamic", prefill_logits: str | None = None, stages: Iterable[str] = STAGES,
             experts_hit: dict[str, int] | None = None) -> Estimate:
    """The cost of a workload.

    Args:
        model: from `load_model`.
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
    chosen = tuple(one_of("stages", stage, STAGES) for stage in stages)
    if not chosen:
        raise SpecError(f"stages: empty; choose from {', '.join(STAGES)}")
    setup = Setup.resolve(model, attention, engine, dtype, cache, prefill_logits)
    return Estimate(setup, workload, chosen, tuple((experts_hit or {}).items()))


def sweep(model: ModelSpec, workloads: Workload | Sequence[Workload], attention: str | AttentionSpec | Sequence[str | AttentionSpec] = "vendor",
          *, level: str = "stage", **options) -> pl.DataFrame:
    """The cost of many workloads in one or several attention modes.

    Args:
        model: from `load_model`.
        workloads: a list of points, or one Workload of columns.
        attention: one mode or several.
        level: "stage" for a row per stage, "module" for a row per stage and module.
        **options: as in `estimate`.

    Returns:
        a frame ordered by attention mode, point, stage (and module).
    """
    import polars as pl

    one_of("level", level, ("stage", "module"))
    points = workloads if isinstance(workloads, Workload) else Workload.stack(list(workloads))
    modes = [attention] if isinstance(attention, str | AttentionSpec) else list(attention)
    results = [estimate(model, points, mode, **options) for mode in modes]
    return pl.concat([result.stages if level == "stage" else result.modules for result in results])
