"""The rule of Pixtral's image processor: a page as it is, in whole patches, reduced where a side is longer than the longest edge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ocr_flops.errors import SpecError
from ocr_flops.spec.page_rules.base import Column, PageRule, check_page, plain


@dataclass(frozen=True)
class LongestEdge(PageRule, name="longest_edge"):
    """`get_resize_output_image_size` of transformers' Pixtral image processor, as LightOnOCR uses it.

    Args:
        patch_px: side of a patch.
        merge: patches on a side of one image token; a row or column of patches that does not fill one is dropped after the vision tower.
        longest_px: a longer side is reduced to it, the other in proportion; nothing is enlarged beyond whole patches.
        marker_tokens: tokens around a page's image tokens.
    """

    patch_px: int
    merge: int
    longest_px: int
    marker_tokens: int = 0

    def sizes(self, width_px: Column, height_px: Column) -> dict[str, Column]:
        rows, columns = self._patches(width_px, height_px)
        if (np.minimum(rows, columns) < self.merge).any():
            raise SpecError(f"image_width_px: {self.refusal}")
        return {"patch_rows": plain(rows), "patch_columns": plain(columns)}

    @property
    def refusal(self) -> str:
        least = (self.merge - 1) * self.patch_px + 1
        return f"a page with a side below {least} px, where needed after it is reduced, is refused by the model: no image token is left"

    def refuses(self, width_px: Column, height_px: Column) -> np.ndarray:
        return np.minimum(*self._patches(width_px, height_px)) < self.merge

    def _patches(self, width_px: Column, height_px: Column) -> tuple[np.ndarray, np.ndarray]:
        width, height = check_page(width_px, height_px)
        ratio = np.maximum(height / self.longest_px, width / self.longest_px)
        sides = (np.where(ratio > 1, np.floor(side / ratio).astype(np.int64), side) for side in (height, width))
        return tuple((side - 1) // self.patch_px + 1 for side in sides)

    def tokens_of(self, sizes: dict[str, Column]) -> Column:
        return (sizes["patch_rows"] // self.merge) * (sizes["patch_columns"] // self.merge) + self.marker_tokens

    @property
    def limits(self) -> str:
        unit, most = self.patch_px * self.merge, (-(-self.longest_px // self.patch_px) // self.merge) ** 2
        return f"at most {most} image tokens of {unit} x {unit} px: sides longer than {self.longest_px} px are reduced, nothing is enlarged"
