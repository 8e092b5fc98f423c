"""Rules that cut a page into square tiles on the grid closest to its ratio, beside a view or a thumbnail of the whole page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ocr_flops.spec.page_rules.base import Column, PageRule, check_page, plain
from ocr_flops.spec.tiling import choose_grid, global_tokens, queries, rule_grids, tile_tokens


def grid_sizes(width: np.ndarray, height: np.ndarray, tile_px: int, untiled_up_to_px: int, grids: tuple) -> tuple[Column, Column]:
    """Columns and rows of the grid for each page, as `choose_grid` has them; (1, 1) where there are no tiles."""
    width, height = np.broadcast_arrays(width, height)
    grid = choose_grid(width.reshape(-1), height.reshape(-1), tile_px, untiled_up_to_px, grids)
    return tuple(plain(side.reshape(width.shape)) for side in grid)


@dataclass(frozen=True)
class TilesBesideView(PageRule, name="tiles_beside_view"):
    """The tile rule of the DeepSeek-OCR family: tiles of one size beside a view of the whole page, which is padded to a square.

    Args:
        tile_px, view_px: sides of a tile and of the view; an image token covers 64 x 64 px of either.
        least_tiles, most_tiles: of the grids that the rule chooses from; no page has tiles where the most is below the least.
        line_breaks: whether each row of image tokens ends with a token of its own; one separator stands at the end in any case.
        several_pages: whether a request may have several pages, which then have views alone.

    Source: `_preprocess` and `replace_image_token` of transformers' processors for DeepSeek-OCR-2 and Unlimited-OCR.
    """

    tile_px: int
    view_px: int
    most_tiles: int
    least_tiles: int = 2
    line_breaks: bool = False
    several_pages: bool = False

    def sizes(self, width_px: Column, height_px: Column) -> dict[str, Column]:
        width, height = check_page(width_px, height_px)
        grids = rule_grids(self.least_tiles, self.most_tiles) or ((1, 1),)
        columns, rows = grid_sizes(width, height, self.tile_px, self.tile_px, grids)
        return {"tiles": columns * rows * (columns * rows > 1), "tile_rows": rows, "tile_columns": columns}

    def with_pages(self, sizes: dict[str, Column], pages: Column) -> dict[str, Column]:
        if not self.several_pages:
            return super().with_pages(sizes, pages)
        is_one = 1 * (pages == 1)
        grid = {name: 1 + (sizes[name] - 1) * is_one for name in ("tile_rows", "tile_columns")}
        return {"tiles": sizes["tiles"] * is_one, **grid, "pages": pages}

    def tokens_of(self, sizes: dict[str, Column]) -> Column:
        if self.line_breaks:
            tiles = tile_tokens(self.tile_px, sizes["tile_columns"], sizes["tile_rows"])
            return (global_tokens(self.view_px) + tiles) * sizes.get("pages", 1)
        return queries(self.view_px) ** 2 + queries(self.tile_px) ** 2 * sizes["tiles"] + 1

    def variant(self, sizes: dict[str, Column]) -> tuple[Column, ...]:
        tiled = 1 * (sizes["tiles"] > 0) + 2 * (sizes.get("pages", 1) > 1)
        return (tiled, 1 * (sizes["tile_columns"] > 1)) if self.line_breaks else (tiled,)  # rows of several columns are gathered by a copy

    @property
    def limits(self) -> str:
        view = f"a view of {self.view_px} px"
        if self.most_tiles < self.least_tiles:
            return view
        tiles = f"{self.least_tiles} to {self.most_tiles} tiles of {self.tile_px} px, to whose grid pages are resized"
        several = "; of several pages in one request views alone" if self.several_pages else ""
        return f"{view} and {tiles}; pages of at most {self.tile_px} px a side have no tiles{several}"


@dataclass(frozen=True)
class TilesWithThumbnail(PageRule, name="tiles_with_thumbnail"):
    """The tile rule of InternVL and GOT-OCR2: tiles of one size and, where there are several, the whole page as one more.

    Args:
        tile_px: side of a tile and of the thumbnail; the page is resized to the grid, its ratio only nearly kept.
        tile_tokens: image tokens of one tile.
        most_tiles: of the grids that the rule chooses from, the thumbnail not among them; 1 for the page as one tile.
        most_side: of tiles along a side, where a tokenizer has no markers for more.
        markers: what stands around image tokens: a begin and an end around the page ("page"), or a marker and a position before each tile,
            a line break after each row of tiles and, around a thumbnail, two markers and its name ("tiles").

    Source: transformers' processors for GOT-OCR2, Qianfan-OCR and Granite-Docling; line breaks are counted as one token each, also two
    that follow each other, as a tokenizer with byte pairs has them.
    """

    tile_px: int
    tile_tokens: int
    most_tiles: int
    most_side: int = 0
    markers: Literal["page", "tiles"] = "page"

    def sizes(self, width_px: Column, height_px: Column) -> dict[str, Column]:
        width, height = check_page(width_px, height_px)
        most = self.most_side or self.most_tiles
        grids = tuple(grid for grid in rule_grids(1, self.most_tiles) if max(grid) <= most)
        columns, rows = grid_sizes(width, height, self.tile_px, 0, grids)
        return {"tiles": columns * rows + (columns * rows > 1), "tile_rows": rows, "tile_columns": columns}

    def tokens_of(self, sizes: dict[str, Column]) -> Column:
        tokens = self.tile_tokens * sizes["tiles"]
        if self.markers == "page":
            return tokens + 2
        return tokens + 2 * sizes["tile_rows"] * sizes["tile_columns"] + sizes["tile_rows"] + 3 * (sizes["tiles"] > 1)

    def variant(self, sizes: dict[str, Column]) -> tuple[Column, ...]:
        return (1 * (sizes["tiles"] > 1),)

    @property
    def limits(self) -> str:
        if self.most_tiles == 1:
            tokens = self.image_tokens(1, 1)
            return f"always {tokens} image tokens: pages are resized to {self.tile_px} x {self.tile_px} px, their ratio is lost"
        side = f", at most {self.most_side} along a side" if self.most_side else ""
        return f"1 to {self.most_tiles} tiles of {self.tile_px} px{side}, to whose grid pages are resized; a thumbnail beside several"
