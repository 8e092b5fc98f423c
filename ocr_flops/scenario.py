"""One setting of the app: what its controls say, and what is estimated for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import isqrt

import numpy as np

from ocr_flops.config import load_engine, load_mode, modes
from ocr_flops.estimates import Estimate, estimate
from ocr_flops.specs import ATTENTION_MODES, ModelSpec, one_of
from ocr_flops.tiling import MAX_TILES, vendor_grids
from ocr_flops.workload import Workload

SIDE_BY_SIDE = "all"
SOURCES = ("page", "grid")
STEPS = 12  # from the vendor's largest grids to one beyond them


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


def neighbours(workload: Workload, itself: bool = False) -> Workload:
    """Columns of points around one: no tiles and the 22 vendor grids, or the views of all modes without tiles; by size.

    Args:
        workload: one point.
        itself: whether it is among them where its grid or its view is none of these, with grids on the way to it: costs grow with the
            square of its tokens, and a straight line to it would hide that.
    """
    free = replace(workload, image_width_px=0, image_height_px=0)
    if not workload.tile_px:
        sides = {mode.global_px for mode in modes() if not mode.tile_px} | ({workload.global_px} if itself else set())
        return replace(free, global_px=np.array(sorted(sides)), mode="")
    grids = [(1, 1), *vendor_grids()]
    if itself and (workload.columns, workload.rows) not in grids:
        grids += [*_between(workload.tiles), (workload.columns, workload.rows)]
    columns, rows = np.array(grids).T
    return replace(free, columns=columns, rows=rows)


def _between(tiles: int) -> list[tuple[int, int]]:
    """Nearly square grids (columns, rows) between the vendor's and a number of tiles, at even distances."""
    wanted = np.linspace(MAX_TILES, tiles, STEPS + 1)[1:-1].astype(int).tolist()
    found = dict.fromkeys((isqrt(count), count // isqrt(count)) for count in wanted)
    return [grid for grid in found if MAX_TILES < grid[0] * grid[1] < tiles]


def contexts(workload: Workload) -> Workload:
    """Columns of a page at eight contexts, evenly spaced from the first multiple of 1024 tokens that holds its image: prompts that grow."""
    step = -(-workload.image_tokens // 1024) * 1024
    return replace(workload, prompt_tokens=step * np.arange(1, 9) - workload.image_tokens)


def lengths(workload: Workload) -> Workload:
    """Columns of one page at growing output lengths, past its own."""
    most = max(2048, 2 * workload.output_tokens)
    return replace(workload, output_tokens=np.linspace(0, most, 17).astype(np.int64))
