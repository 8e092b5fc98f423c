"""One setting of the app: what its controls say, and what is estimated for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from ocr_flops.errors import one_of
from ocr_flops.reports.estimate_subject import Subject
from ocr_flops.spec import load_engine, load_mode
from ocr_flops.spec.neighbours import lengths, neighbours
from ocr_flops.spec.specs import HardwareSpec, ModelSpec, attention_modes
from ocr_flops.spec.workload import Workload
from ocr_flops.timing.estimate import Estimate, estimate

SIDE_BY_SIDE = "all"
SOURCES = ("page", "grid")
@dataclass(frozen=True)
class Scenario:
    """What the controls say.

    A page's size counts where `source` is "page", a grid where it is "grid"; a mode without tiles ignores the grid.

    Raises:
        SpecError: on `workload` and `estimates`, naming the field, the value and what is allowed.
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

    @property
    def _tokens(self) -> dict[str, int]:
        return {"prompt_tokens": self.prompt_tokens, "output_tokens": self.output_tokens, "batch_size": self.batch_size}

    @cached_property
    def workload(self) -> Workload:
        """The current point."""
        one_of("source", self.source, SOURCES)
        if self.source == "grid" and load_mode(self.mode).tile_px:
            return Workload.from_grid(self.columns, self.rows, self.mode, **self._tokens)
        return Workload.from_image(self.width_px, self.height_px, self.mode, **self._tokens)

    @cached_property
    def neighbours(self) -> Workload:
        """Columns of points to see the current one among, itself included; see `neighbours`."""
        return neighbours(self.workload, itself=True)

    @cached_property
    def lengths(self) -> Workload:
        """Columns of the current page at growing output lengths, past the current one."""
        return lengths(self.workload)

    @property
    def attention_modes(self) -> tuple[str, ...]:
        """The modes to show: one, or all side by side (no flash kernel takes fp32)."""
        if self.attention != SIDE_BY_SIDE:
            return (self.attention,)
        return attention_modes(self.dtype)

    @property
    def prefill_logits(self) -> str:
        """The positions for which the engine's `generate` computes logits."""
        return load_engine(self.engine).prefill_logits

    def estimates(self, model: ModelSpec) -> list[Estimate]:
        """The current point in every attention mode that is shown."""
        found = [self.estimate(model, mode) for mode in self.attention_modes]
        for one in found:
            one.stage_numbers  # noqa: B018  raises here what would be raised when a chart reads it
        return found

    def estimate(self, model: ModelSpec, mode: str) -> Estimate:
        """The current point in one attention mode."""
        return estimate(model, self.workload, mode, engine=self.engine, dtype=self.dtype, cache=self.cache)

    def subject(self, model: ModelSpec, hardware: HardwareSpec | None = None) -> Subject:
        """What a report on the current point is about; of several attention modes side by side the engine's own choice."""
        return Subject(self.estimate(model, "vendor" if self.attention == SIDE_BY_SIDE else self.attention), hardware)

    def by_mode(self, model: ModelSpec) -> dict[str, Estimate]:
        """The current point in every attention mode there is for its precision, the most wasteful first."""
        return {mode: self.estimate(model, mode) for mode in replace(self, attention=SIDE_BY_SIDE).attention_modes}


