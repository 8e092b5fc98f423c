"""What a model pipeline is: how its stages are recorded, and what their symbolic dimensions are at the points of a workload."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ocr_flops.cost.run_config import PIPELINES, RunConfig
from ocr_flops.cost.tape import Tape
from ocr_flops.spec.specs import ModelSpec
from ocr_flops.spec.workload import Column, Workload


class Pipeline(ABC):
    """The stages of a family of models. A subclass is defined with its name, `class Mine(Pipeline, name="mine")`, and found by it."""

    def __init_subclass__(cls, name: str = "") -> None:
        if name:
            PIPELINES.add(name, cls())

    @abstractmethod
    def view_sizes(self, workload: Workload) -> tuple[Column, ...]:
        """What decides which operators vision runs, besides the dimensions: points that differ in it run different programs."""

    @abstractmethod
    def trained_sizes(self, model: ModelSpec) -> tuple[int, ...]:
        """The same for the view that the vision towers were trained for."""

    @abstractmethod
    def record(self, tape: Tape, config: RunConfig, stage: str, is_one: bool, sizes: tuple[int, ...]) -> None:
        """Records a stage: vision, prefill of the language model, or one decode step.

        Args:
            tape: takes the operators.
            config: what runs.
            stage: "vision", "prefill" or "decode".
            is_one: whether the batch is a single page.
            sizes: those of `view_sizes`, for vision.
        """

    @abstractmethod
    def dimensions(
        self, config: RunConfig, stage: str, sizes: tuple[int, ...], workload: Workload, experts_hit: Column | None
    ) -> dict[str, Column]:
        """The values of a stage's symbolic dimensions; in decode those of the last step.

        Args:
            config, stage, sizes: as of `record`.
            workload: points that run the same operators.
            experts_hit: experts hit, summed over layers; None for the expected number.
        """
