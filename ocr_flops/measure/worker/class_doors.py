"""How a class is handed pages: its arguments for pictures of given sizes, on `meta`, with grids that its code reads back on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ocr_flops.cost.learning.dimensions import DerivedSize, monomials_of
from ocr_flops.cost.polynomial import Monomial

Sizes = dict[str, int]
Inputs = dict[str, Any]
B: Monomial = ("batch",)
ONE_OR_ALL: list[Monomial] = [(), B]  # once a call, and for every page


@dataclass(frozen=True)
class Door:
    """How classes of one kind are handed pages.

    Args:
        inputs: arguments of `get_image_features` for a batch of equal pages, from the model, the batch and the sizes of a page.
        pages: sizes of pages to learn from, by the variant of their page rule.
        terms: of what vision costs, in two tiers: few, and where these do not suffice, more.
        features: of what prefill costs by the image's features.
        parts: derived quantities, from the model's config.
        keeps_masks: see `MixedDevices`.
        turns: of a point's sizes, how often a loop repeats in which what is alive does not grow alone, and the repeats in which it can be
            the most.
    """

    inputs: Callable[[Any, int, Sizes], Inputs]
    pages: Callable[[Any], dict[tuple[int, ...], list[Sizes]]]
    terms: tuple[list[Monomial], list[Monomial]]
    features: list[Monomial]
    parts: Callable[[Any], dict[str, DerivedSize]] = field(default=lambda config: {})
    keeps_masks: bool = False
    turns: Callable[[Sizes], tuple[int, Sequence[int]]] = field(default=lambda sizes: (0, (0,)))


def pixels(*shape: int) -> torch.Tensor:
    """Pixels without data."""
    return torch.empty(*shape, dtype=torch.bfloat16, device="meta")


def _merge(config: Any) -> int:
    return getattr(config.vision_config, "spatial_merge_size", None) or config.spatial_merge_size


def _patches(config: Any) -> dict[tuple[int, ...], list[Sizes]]:
    """Pages of several shapes, in whole image tokens."""
    merge = _merge(config)
    shapes = [(9, 13), (16, 11), (7, 8), (12, 12), (5, 14), (15, 6), (10, 17), (18, 9), (8, 16), (13, 5), (17, 16), (6, 6), (14, 19)]
    shapes += [(19, 10), (11, 7), (20, 15), (4, 11), (12, 18), (16, 20), (9, 5), (21, 8), (7, 22), (13, 13), (5, 9), (22, 12), (10, 4)]
    return {(): [{"patch_rows": merge * rows, "patch_columns": merge * columns} for rows, columns in shapes]}


def _merged_parts(config: Any) -> dict[str, DerivedSize]:
    return {f"merged_{name}": DerivedSize("floor", (f"patch_{name}",), _merge(config)) for name in ("rows", "columns")}


H, W = ("merged_rows",), ("merged_columns",)
MERGED = monomials_of(ONE_OR_ALL, [(), H], [(), W])
PATCH_TERMS = (
    [*MERGED, *monomials_of(ONE_OR_ALL, [H + H + W + W])],
    monomials_of([(), B, B + B], [(), H, H + H], [(), W, W + W]),
)


def _picture_parts(config: Any) -> dict[str, DerivedSize]:
    """Of all patches of a batch in one sequence, whose mask kernels want in rows of eight and their sums in blocks of 32."""
    patches = ("batch", "patch_columns", "patch_rows")
    cut = {
        "eighths": DerivedSize("ceil", patches, 8),
        "blocks": DerivedSize("ceil", patches, 32),
        "uneven": DerivedSize("uneven", patches, 8),
    }
    return _merged_parts(config) | cut


P = ("batch", "patch_columns", "patch_rows")
PAGE = ("patch_columns", "patch_rows")
PICTURE_TERMS = [
    *monomials_of(ONE_OR_ALL, [(), ("patch_rows",), ("patch_columns",), PAGE, PAGE + PAGE, H + W]),
    *(P + P, ("blocks",), (*P, "eighths")),
    *monomials_of([("uneven",)], [(), B, ("patch_rows",), ("patch_columns",), PAGE, P, P + P, (*P, "eighths")]),
]


def _odd_patches(config: Any) -> dict[tuple[int, ...], list[Sizes]]:
    """Pages of several shapes, also of patches that fill no whole image token."""
    pages = _patches(config)[()]
    odd = [
        {"patch_rows": one["patch_rows"] - number % 2, "patch_columns": one["patch_columns"] - number // 2 % 2}
        for number, one in enumerate(pages)
    ]
    return {(): pages[:9] + odd}


def _window_side(config: Any) -> int:
    """Patches on a side of a window."""
    return config.vision_config.window_size // config.vision_config.patch_size


def _window_parts(config: Any) -> dict[str, DerivedSize]:
    """Of attention in square windows: their number, the pairs of patches that share one, what is padded to whole ones, and the last one."""
    side, parts = _window_side(config), _merged_parts(config)
    for name in ("rows", "columns"):
        parts |= {
            f"window_{name}": DerivedSize("ceil", (f"merged_{name}",), side // _merge(config)),
            f"padded_{name}": DerivedSize("beyond", (f"merged_{name}",), side // _merge(config)),
            **{f"{kind}_{name}": DerivedSize(kind, (f"patch_{name}",), side) for kind in ("last", "before")},
            f"square_{name}": DerivedSize("squares", (f"patch_{name}",), side),
        }
    return parts


def _last_windows(sizes: Sizes) -> tuple[int, list[int]]:
    """Windows of all pages, one after the other, and the last ones of the last page of each size: whole ones, those at the right and at
    the lower edge, and the corner. Attention in them keeps what it returns, and beside it for a while what grows with their own patches."""
    rows, columns = sizes["window_rows"], sizes["window_columns"]
    count = sizes["batch"] * rows * columns
    return count, [count - 1 - up * columns - left for up in (min(1, rows - 1), 0) for left in (min(1, columns - 1), 0)]


def _windowed_pages(config: Any) -> dict[tuple[int, ...], list[Sizes]]:
    """Of few windows, in which a trace has thousands of operators, and at least a whole one: narrower pages run other operators."""
    side, eighths = _window_side(config), [(8, 8), (8, 14), (14, 8), (10, 8), (8, 18), (16, 16), (18, 12), (10, 10), (12, 18), (10, 16)]
    eighths += [(16, 10), (22, 8), (14, 20), (20, 14), (24, 8), (12, 12), (8, 22), (16, 24), (24, 16), (18, 10), (10, 20), (14, 14)]
    return {(): [{"patch_rows": side * rows // 8, "patch_columns": side * columns // 8} for rows, columns in eighths]}


WINDOWS, PADDED, SQUARES = (("window_columns", "window_rows"), ("padded_columns", "padded_rows"), ("square_columns", "square_rows"))
LAST, BEFORE, PATCHES = ([(f"{name}_rows",), (f"{name}_columns",)] for name in ("last", "before", "patch"))
OF_WINDOW = monomials_of([(), LAST[0]], [(), LAST[1]])  # patches of the last windows; a whole one has as many on all pages
BEFORE_WINDOW = [*monomials_of([(), BEFORE[0], LAST[0]], [PATCHES[1]]), *monomials_of([(), LAST[0]], [BEFORE[1]])]
WINDOW_SUMS = monomials_of(ONE_OR_ALL, [WINDOWS, PADDED, SQUARES])
WINDOW_TERMS = ([*PATCH_TERMS[0], *WINDOW_SUMS, *BEFORE_WINDOW, *OF_WINDOW, *(one + one for one in OF_WINDOW)],) * 2


def _grid(model: Any, batch: int, sizes: Sizes) -> Inputs:
    """Patches of all pages in one sequence, and a grid for each page."""
    vision, rows, columns = model.config.vision_config, sizes["patch_rows"], sizes["patch_columns"]
    channels = getattr(vision, "in_channels", None) or getattr(vision, "num_channels", 3)
    frames, px, count = getattr(vision, "temporal_patch_size", 1), vision.patch_size, batch * rows * columns
    is_paddle = model.config.model_type == "paddleocr_vl"
    patches = pixels(count, channels, px, px) if is_paddle else pixels(count, channels * frames * px * px)
    return {"pixel_values": patches, "image_grid_thw": torch.tensor([[1, rows, columns]] * batch)}


def _pictures(model: Any, batch: int, sizes: Sizes) -> Inputs:
    """Pictures of the page's own size, with that size beside them."""
    px = model.config.vision_config.patch_size
    height, width = sizes["patch_rows"] * px, sizes["patch_columns"] * px
    return {"pixel_values": pixels(batch, 3, height, width), "image_sizes": torch.tensor([[height, width]] * batch)}


def _tiles(model: Any, batch: int, sizes: Sizes) -> Inputs:
    """Tiles of all pages one after the other."""
    side = model.config.vision_config.image_size
    height, width = side if isinstance(side, list | tuple) else (side, side)
    return {"pixel_values": pixels(batch * sizes["tiles"], 3, height, width)}


def _masked_tiles(model: Any, batch: int, sizes: Sizes) -> Inputs:
    """Tiles of each page, and which of them are there."""
    tiles, side = sizes["tiles"], model.config.vision_config.image_size
    return {"pixel_values": pixels(batch, tiles, 3, side, side), "pixel_attention_mask": torch.ones(batch, tiles, dtype=torch.bool)}


def _view_and_tiles(model: Any, batch: int, sizes: Sizes) -> Inputs:
    """A view of each page and, where there are any, its tiles."""
    tiles = sizes["tiles"]
    is_second = model.config.model_type == "deepseek_ocr2"
    found: Inputs = {"pixel_values": pixels(batch * sizes.get("pages", 1), 3, *[sizes.get("global_px", 1024)] * 2)}
    if tiles:
        tile_px = sizes.get("tile_px", 768 if is_second else 640)
        found |= {"pixel_values_local": pixels(batch * tiles, 3, tile_px, tile_px), "num_local_patches": [tiles] * batch}
        if not is_second:
            found["patches_grid"] = [[sizes["tile_columns"], sizes["tile_rows"]]] * batch
    return found


def _numbers_of_tiles(config: Any) -> dict[tuple[int, ...], list[Sizes]]:
    """One tile, and several: kernels of a single picture differ."""
    return {(0,): [{"tiles": 1}], (1,): [{"tiles": tiles} for tiles in (2, 3, 5, 4, 7, 6, 9)]}


def _grids_of_tiles(config: Any) -> dict[tuple[int, ...], list[Sizes]]:
    """No tiles, one column of them, several columns: the last are put in order by a copy."""
    several = [(1, 2), (2, 2), (2, 3), (3, 2), (1, 5), (3, 3), (2, 5), (4, 2)]
    shapes = {(0, 0): [(1, 1)], (1, 0): [(rows, 1) for rows in (2, 3, 5, 4, 7)], (1, 1): several}
    return {
        variant: [{"tile_rows": rows, "tile_columns": columns, "tiles": rows * columns * (rows * columns > 1)} for rows, columns in grids]
        for variant, grids in shapes.items()
    }


def _requests(config: Any) -> dict[tuple[int, ...], list[Sizes]]:
    """A page in each request, with and without tiles, or several, which have none."""
    found = {variant: [page | {"pages": 1} for page in pages] for variant, pages in _grids_of_tiles(config).items()}
    return found | {(2, 0): [found[0, 0][0] | {"pages": pages} for pages in (2, 3, 5, 4, 7)]}


def _last_joins(sizes: Sizes) -> tuple[int, list[int]]:
    """Joins of parts of pages, and a last one of all pages, which follows as if it were one more: of few pages that before takes more."""
    joins = (2 + sizes["tiled"]) * sizes["batch"] * sizes["pages"]
    return joins + 1, [joins - 1, joins]


def doors_of_views(views: Sequence[Sequence[int]]) -> Door:
    """The door of DeepSeek-OCR's own class for views of other sizes, each of a global side and one of tiles (0 for none) in pixels.

    Variants are the view, and of tiles whether they stand in one column or in several.
    """

    def pages(config: Any) -> dict[tuple[int, ...], list[Sizes]]:
        found = {}
        for view, tile in views:
            px = {"global_px": view, "tile_px": tile}
            for (_, several), grids in _grids_of_tiles(config).items():
                tiled = [px | page for page in grids if bool(page["tiles"]) == bool(tile)]
                found |= {(view, tile, several): tiled} if tiled else {}
        return found

    features = monomials_of(ONE_OR_ALL, [(), (FEATURES,)])
    return Door(_view_and_tiles, pages, (GRID_TERMS,) * 2, features)


def _tiles_or_none(config: Any) -> dict[tuple[int, ...], list[Sizes]]:
    return {(0,): [{"tiles": 0}], (1,): [{"tiles": tiles} for tiles in (2, 3, 5, 4, 6)]}


FEATURES = "image_features"  # of a page
T, ROWS, COLUMNS = ("tiles",), ("tile_rows",), ("tile_columns",)
TILE_TERMS = monomials_of(ONE_OR_ALL, [(), T]), monomials_of([(), B, B + B], [(), T, T + T])
TILES = monomials_of(ONE_OR_ALL, [(), T])
TILED = {"tiled": DerivedSize("any", ("tiles",), 1)}
PAGES = ("pages",)  # in one request
GRID_FEATURES = monomials_of(ONE_OR_ALL, [(), T, ("tile_rows", "tiled"), PAGES])
GRID_TERMS = monomials_of(ONE_OR_ALL, [(), ROWS], [(), COLUMNS])
REQUEST_TERMS = [*GRID_TERMS, *monomials_of(ONE_OR_ALL, [PAGES])]
REQUEST_PARTS = TILED | {  # masks of kernels that want rows of a multiple of eight; see `CudaAttention`
    f"{how}_{name}": DerivedSize(kind, (name,), 8)
    for name in ("tokens", "context")
    for how, kind in (("padded", "ceil"), ("uneven", "uneven"))
}

PATCH_GRID = Door(_grid, _patches, PATCH_TERMS, MERGED, _merged_parts)
DOORS = {
    "glm_ocr": PATCH_GRID,
    "paddleocr_vl": PATCH_GRID,
    "qwen2_5_vl": Door(_grid, _windowed_pages, WINDOW_TERMS, MERGED, _window_parts, turns=_last_windows),
    "lighton_ocr": Door(_pictures, _odd_patches, (PICTURE_TERMS,) * 2, MERGED, _picture_parts),
    "got_ocr2": Door(_tiles, lambda config: {(0,): [{"tiles": 1}]}, TILE_TERMS, TILES),
    "qianfan_ocr": Door(_tiles, _numbers_of_tiles, TILE_TERMS, TILES),
    "granite_docling": Door(_masked_tiles, _numbers_of_tiles, TILE_TERMS, TILES, keeps_masks=True),
    "deepseek_ocr2": Door(_view_and_tiles, _tiles_or_none, TILE_TERMS, TILES),
    "unlimited_ocr": Door(
        *(_view_and_tiles, _requests, (REQUEST_TERMS,) * 2, GRID_FEATURES, lambda config: REQUEST_PARTS), turns=_last_joins
    ),
}
