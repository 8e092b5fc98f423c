"""What a model's own processor makes of a page: sizes that its program's polynomials are in, and the tokens of its prompt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from ocr_flops.errors import SpecError
from ocr_flops.spec.tiling import MAX_SIDE_PX

Column = int | np.ndarray
ONE_PAGE = "workload.pages: several in one request are known of Unlimited-OCR alone; give other models a request a page"
PAGE_RULES: dict[str, type[PageRule]] = {}


class PageRule(ABC):
    """The rule by which a processor cuts or resizes a page. A subclass is a frozen dataclass of the processor's settings, defined with its
    name, `class SmartResize(PageRule, name="smart_resize")`, and named by a model's YAML.

    All methods are pure, of ints or int64 columns of one length, and exact for every page that they do not refuse.
    """

    name: ClassVar[str]
    refusal: ClassVar[str] = ""  # why pages are refused

    def __init_subclass__(cls, name: str = "") -> None:
        if name:
            cls.name = name
            PAGE_RULES[name] = cls

    @abstractmethod
    def sizes(self, width_px: Column, height_px: Column) -> dict[str, Column]:
        """What the class is handed of a page, by name: all that the costs of vision and prefill depend on besides batch and prompt.

        Names are the program's dimensions: `patch_rows` and `patch_columns` (of one picture, before any merging), `tiles` (pictures of one
        size cut from the page, a thumbnail among them where it has that size), `tile_rows` and `tile_columns` (their grid, 1 x 1 for none).

        Raises:
            SpecError: a page that the processor refuses, with the limit.
        """

    def with_pages(self, sizes: dict[str, Column], pages: Column) -> dict[str, Column]:
        """The `sizes` of a request of some pages, all alike.

        Raises:
            SpecError: several, where the model is not known to take them.
        """
        if np.any(pages != 1):
            raise SpecError(ONE_PAGE)
        return sizes

    def refuses(self, width_px: Column, height_px: Column) -> np.ndarray:
        """Whether the processor refuses a page, by `refusal`; none, for most models."""
        return np.zeros(np.shape(width_px), bool)

    @abstractmethod
    def tokens_of(self, sizes: dict[str, Column]) -> Column:
        """Tokens that the processor puts into the prompt for a page of these `sizes`: placeholders, line breaks, separators, and tile
        markers."""

    def image_tokens(self, width_px: Column, height_px: Column) -> Column:
        """`tokens_of` a page."""
        return self.tokens_of(self.sizes(width_px, height_px))

    def variant(self, sizes: dict[str, Column]) -> tuple[Column, ...]:
        """What decides which operators vision runs, besides the sizes' values in its polynomials: pages that differ in it have programs of
        their own. Nothing, for most models."""
        return ()

    @property
    @abstractmethod
    def limits(self) -> str:
        """Limits in words, for people: the least and most pixels and tokens, and what becomes of pages beyond them."""


def check_page(width_px: Column, height_px: Column) -> tuple[np.ndarray, np.ndarray]:
    """Both sides of pages as int64 arrays.

    Raises:
        SpecError: a side below 1 px or above 1 000 000 px.
    """
    sides = []
    for name, value in (("image_width_px", width_px), ("image_height_px", height_px)):
        side = np.asarray(value, np.int64)
        wrong = (side < 1) | (side > MAX_SIDE_PX)
        if wrong.any():
            raise SpecError(f"{name}: {int(side[wrong].flat[0])} is not a whole number of pixels from 1 to {MAX_SIDE_PX}")
        sides.append(side)
    return sides[0], sides[1]


def plain(column: np.ndarray) -> Column:
    """An int for one page, the column for many."""
    return column if np.ndim(column) else int(column)
