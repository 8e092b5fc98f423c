"""The rule of Qwen2-VL's image processor and its relatives: a page keeps its ratio, in whole patches, between two areas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ocr_flops.errors import SpecError
from ocr_flops.spec.page_rules.base import Column, PageRule, check_page, plain

MOST_RATIO = 200


@dataclass(frozen=True)
class SmartResize(PageRule, name="smart_resize"):
    """`smart_resize` of transformers' image processors for Qwen2-VL, GLM-4.6V and PaddleOCR-VL.

    Args:
        patch_px: side of a patch.
        merge: patches on a side of one image token.
        least_px, most_px: the areas between which a page is brought, in pixels.
        marker_tokens: tokens around a page's image tokens, such as its begin and end.
        frames: pictures that the rule takes a page for; areas are of all of them.
        least_tokens: image tokens on a side, below which the class runs other operators, which were not learned.
        small_sides: what comes first where a side is below one token's: nothing ("kept", Qwen2-VL), both sides grow by one factor
            ("scaled", GLM-4.6V), or the height and then the width become one token's, the other side in proportion ("raised",
            PaddleOCR-VL).
    """

    patch_px: int
    merge: int
    least_px: int
    most_px: int
    marker_tokens: int = 2
    frames: int = 1
    small_sides: Literal["kept", "scaled", "raised"] = "kept"
    least_tokens: int = 1

    @property
    def unit_px(self) -> int:
        """Side of one image token in pixels."""
        return self.patch_px * self.merge

    def sizes(self, width_px: Column, height_px: Column) -> dict[str, Column]:
        if self.refuses(width_px, height_px).any():
            raise SpecError(f"image_width_px: {self.refusal}")
        return dict(zip(("patch_rows", "patch_columns"), map(plain, self._patches(width_px, height_px)), strict=True))

    @property
    def refusal(self) -> str:
        narrow = f"; one with a side below {self.least_tokens * self.unit_px} px, after it is resized, was not learned"
        long = f"a page more than {MOST_RATIO} times as long as wide is refused by the model's processor"
        return long + narrow * (self.least_tokens > 1)

    def refuses(self, width_px: Column, height_px: Column) -> np.ndarray:
        width, height = self._enlarged(*check_page(width_px, height_px))
        is_long = np.maximum(width, height) > MOST_RATIO * np.minimum(width, height)
        return is_long | (np.minimum(*self._patches(width_px, height_px)) < self.least_tokens * self.merge)

    def _patches(self, width_px: Column, height_px: Column) -> list[np.ndarray]:
        """Rows and columns of patches."""
        unit, (width, height) = self.unit_px, self._enlarged(*check_page(width_px, height_px))
        rows, columns = (np.round(side / unit).astype(np.int64) * unit for side in (height, width))
        area, real = self.frames * rows * columns, self.frames * height * width
        shrink, grow = np.sqrt(real / self.most_px), np.sqrt(self.least_px / real)
        found = []
        for side, rounded in ((height, rows), (width, columns)):
            less = np.maximum(unit, np.floor(side / shrink / unit).astype(np.int64) * unit)
            more = np.ceil(side * grow / unit).astype(np.int64) * unit
            found.append(np.where(area > self.most_px, less, np.where(area < self.least_px, more, rounded)) // self.patch_px)
        return found

    def _enlarged(self, width: np.ndarray, height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both sides after the first step, with the rounding of the processor."""
        unit = self.unit_px
        if self.small_sides == "scaled":
            scale = np.maximum(unit / height, unit / width)
            small = (width < unit) | (height < unit)
            return tuple(np.where(small, (side * scale).astype(np.int64), side) for side in (width, height))
        if self.small_sides == "raised":
            low = height < unit
            width = np.where(low, np.round(width * unit / height).astype(np.int64), width)
            height = np.where(low, unit, height)
            narrow = width < unit
            height = np.where(narrow, np.round(height * unit / width).astype(np.int64), height)
            return np.where(narrow, unit, width), height
        return width, height

    def tokens_of(self, sizes: dict[str, Column]) -> Column:
        return sizes["patch_rows"] * sizes["patch_columns"] // self.merge**2 + self.marker_tokens

    @property
    def limits(self) -> str:
        least, most = (-(-area // (self.unit_px**2 * self.frames)) for area in (self.least_px, self.most_px))
        bounds = f"about {least} to {most} image tokens of {self.unit_px} x {self.unit_px} px: smaller pages are enlarged, larger reduced"
        return f"{bounds}; at most {MOST_RATIO} times as long as wide"
