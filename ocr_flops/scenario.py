"""One setting of the app: what its controls say, and what is estimated for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ocr_flops.config import load_engine, load_mode, modes
from ocr_flops.estimates import Estimate, estimate
from ocr_flops.specs import ATTENTION_MODES, ModelSpec, one_of
from ocr_flops.tiling import vendor_grids
from ocr_flops.workload import Workload

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
        """Columns of points to see the current one among: no tiles and the 22 vendor grids, or the modes without tiles."""
        if load_mode(self.mode).tile_px:
            columns, rows = np.array([(1, 1), *vendor_grids()]).T
            return Workload.from_grid(columns, rows, self.mode, **self._tokens)
        return Workload.stack([Workload.from_grid(1, 1, mode, **self._tokens) for mode in modes() if not mode.tile_px])

    @cached_property
    def lengths(self) -> Workload:
        """Columns of the current page at growing output lengths, past the current one."""
        most = max(2048, 2 * self.output_tokens)
        return replace(self.workload, output_tokens=np.linspace(0, most, 17).astype(np.int64))

    @property
    def attention_modes(self) -> tuple[str, ...]:
        """The modes to show: one, or all side by side (no flash kernel takes fp32)."""
        if self.attention != SIDE_BY_SIDE:
            return (self.attention,)
        return tuple(mode for mode in ATTENTION_MODES if (mode, self.dtype) != ("flash", "fp32"))

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

    def by_mode(self, model: ModelSpec) -> dict[str, Estimate]:
        """The current point in every attention mode there is for its precision, the most wasteful first."""
        return {mode: self.estimate(model, mode) for mode in replace(self, attention=SIDE_BY_SIDE).attention_modes}
