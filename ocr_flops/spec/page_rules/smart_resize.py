"""The rule of Qwen2-VL's image processor and its relatives: a page keeps its ratio, in whole patches, between two areas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ocr_flops.errors import SpecError
from ocr_flops.spec.page_rules.base import Column, PageRule, check_page

MOST_RATIO = 200


@dataclass(frozen=True)
class SmartResize(PageRule, name="smart_resize"):
    """`smart_resize`, as transformers' Qwen2-VL image processor has it.

    Args:
        patch_px: side of a patch.
        merge: patches on a side of one image token.
        least_px, most_px: the areas between which a page is brought, in pixels.
        marker_tokens: tokens around a page's image tokens, such as its begin and end.
        frames: pictures that the rule takes a page for; areas are of all of them.
    """

    patch_px: int
    merge: int
    least_px: int
    most_px: int
    marker_tokens: int = 2
    frames: int = 1

    def sizes(self, width_px: Column, height_px: Column) -> dict[str, Column]:
        width, height = check_page(width_px, height_px)
        unit = self.patch_px * self.merge
        if (np.maximum(width, height) > MOST_RATIO * np.minimum(width, height)).any():
            raise SpecError(f"image_width_px: a page more than {MOST_RATIO} times as long as wide is refused by the model's processor")
        rows, columns = (np.round(side / unit).astype(np.int64) * unit for side in (height, width))
        area, real = self.frames * rows * columns, self.frames * height * width
        shrink, grow = np.sqrt(real / self.most_px), np.sqrt(self.least_px / real)
        found = []
        for side, rounded in ((height, rows), (width, columns)):
            less = np.maximum(unit, np.floor(side / shrink / unit).astype(np.int64) * unit)
            more = np.ceil(side * grow / unit).astype(np.int64) * unit
            size = np.where(area > self.most_px, less, np.where(area < self.least_px, more, rounded)) // self.patch_px
            found.append(size if size.ndim else int(size))
        return {"patch_rows": found[0], "patch_columns": found[1]}

    def image_tokens(self, width_px: Column, height_px: Column) -> Column:
        sizes = self.sizes(width_px, height_px)
        return sizes["patch_rows"] * sizes["patch_columns"] // self.merge**2 + self.marker_tokens

    @property
    def limits(self) -> str:
        unit = (self.patch_px * self.merge) ** 2
        least, most = (-(-area // (unit * self.frames)) for area in (self.least_px, self.most_px))
        bounds = f"{least} to {most} image tokens: smaller pages are enlarged, larger ones reduced"
        return f"{bounds}; at most {MOST_RATIO} times as long as wide"
