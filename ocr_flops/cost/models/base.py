"""What a model pipeline is: how its stages are recorded, and what their symbolic dimensions are at the points of a workload."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from ocr_flops.cost.polynomial import Dim
from ocr_flops.cost.run_config import PIPELINES, RunConfig
from ocr_flops.cost.tape import Tape
from ocr_flops.spec.specs import AttentionSpec, ModelSpec
from ocr_flops.spec.workload import Column, Workload


class LeastWork(NamedTuple):
    """What no implementation of a module avoids: matrix FLOPs, vector FLOPs, and elements that it reads or writes in memory."""

    matrix_flops: Dim = 0
    vector_flops: Dim = 0
    elements: Dim = 0


class Pipeline(ABC):
    """The stages of a family of models. A subclass is defined with its name, `class Mine(Pipeline, name="mine")`, and found by it."""

    def __init_subclass__(cls, name: str = "") -> None:
        if name:
            PIPELINES.add(name, cls())

    def check(self, config: RunConfig) -> None:  # noqa: B027  most run everything
        """Refuses, by a SpecError, a configuration that this pipeline cannot run."""

    def choose_kernels(self, model: ModelSpec, resolved: AttentionSpec, chosen: AttentionSpec) -> AttentionSpec:
        """The kernels that run: as resolved for the engine, unless the model lacks what nobody asked for."""
        return resolved

    def attention_modes(self, model: ModelSpec, there: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the attention modes there are that a model has."""
        return there

    def kv_bytes_per_token(self, config: RunConfig) -> int:
        """KV cache of one token: 2 · layers · heads · head_dim · bytes."""
        decoder = config.model.language_model
        return 2 * decoder.layers * decoder.heads * decoder.head_dim * (1 if config.engine.cache else config.itemsize)

    @abstractmethod
    def view_sizes(self, workload: Workload) -> tuple[Column, ...]:
        """What decides which operators vision runs, besides the dimensions: points that differ in it run different programs."""

    @abstractmethod
    def trained_sizes(self, model: ModelSpec) -> tuple[int, ...]:
        """The same for the view that the vision towers were trained for."""

    @abstractmethod
    def record(self, tape: Tape, config: RunConfig, stage: str, is_one: bool, sizes: tuple[int, ...]) -> None:
        """Records a stage: vision, prefill of the language model, both in one call, or one decode step.

        Args:
            stage: "vision", "prefill", "call" (both of them) or "decode"; of engines that serve also "chunk" (`served_passes`).
            is_one: whether the batch is a single page.
            sizes: those of `view_sizes`, where vision takes part.
        """

    @abstractmethod
    def dimensions(
        self, config: RunConfig, stage: str, sizes: tuple[int, ...], workload: Workload, experts_hit: Column | None, step: Column
    ) -> dict[str, Column]:
        """The values of a stage's symbolic dimensions.

        Args:
            config, stage, sizes: as of `record`.
            workload: points that run the same operators.
            experts_hit: experts hit, summed over layers; None for the expected number.
            step: of decode, from 1.
        """

    def kept_outputs(self, model: ModelSpec, outputs: Column) -> Column:
        """How many of so many output tokens, the newest, decode attends to and keeps beside the context: all, but for a window."""
        window = self.window(model)
        if not window:
            return outputs
        return np.minimum(outputs, window) if isinstance(outputs, np.ndarray) else min(outputs, window)

    def window(self, model: ModelSpec) -> int:
        """The most output tokens that decode attends to and keeps; 0 for all."""
        return 0

    @abstractmethod
    def input_bytes(self, config: RunConfig, workload: Workload) -> Column:
        """Bytes of the pixels, which whoever calls `generate` holds to its end."""

    @abstractmethod
    def least_work(self, model: ModelSpec, stage: str, sizes: tuple[int, ...]) -> dict[str | None, LeastWork]:
        """The work of a stage (in decode of a step) that no implementation avoids, by module, in the dimensions of `dimensions`.

        Under None stands what is no module's: the stage's input and output. Modules without any such work may lack.

        Args:
            stage, sizes: as of `record`.
        """
