"""Image size -> tile grid -> views and image tokens, by the tile rule of DeepSeek-OCR's published code."""

from __future__ import annotations

from functools import cache
from itertools import product
from math import isqrt, prod

import numpy as np

from ocr_flops.errors import SpecError

PATCHES_PER_QUERY_PX = 64  # a query (image token) covers 64 x 64 px: 16 px patches, two stride-2 convolutions
MIN_TILES, MAX_TILES = 2, 9
MAX_SIDE_PX = 1_000_000


@cache
def rule_grids(min_tiles: int = MIN_TILES, max_tiles: int = MAX_TILES) -> tuple[tuple[int, int], ...]:
    """All (columns, rows) grids of min_tiles..max_tiles tiles that the tile rule chooses from, 22 by default.

    They stand in the order in which the rule settles ties: by the number of tiles, then by columns.
    Source: `get_all_supported_aspect_ratios` of transformers' DeepSeek-OCR 2 image processor, `find_closest_aspect_ratio` of the
    published code.
    """
    grids = product(range(1, max_tiles + 1), repeat=2)
    return tuple(sorted((grid for grid in grids if min_tiles <= prod(grid) <= max_tiles), key=prod))


def square_grids(most: int = 1000) -> list[tuple[int, int]]:
    """For every tile count from 2 to most, its most square grid (columns, rows), columns <= rows."""
    narrow = ((tiles, max(side for side in range(1, isqrt(tiles) + 1) if tiles % side == 0)) for tiles in range(2, most + 1))
    return [(columns, tiles // columns) for tiles, columns in narrow]


def choose_grid(width_px, height_px, tile_px: int = 640, untiled_up_to_px: int = 640, grids: tuple[tuple[int, int], ...] | None = None):
    """The tile grid (columns, rows) that the published code cuts an image into; (1, 1) means no tiles.

    Among grids, the 22 of DeepSeek-OCR where None, the closest float64 aspect ratio wins; on an exact tie the later (larger) one, if the
    image's area exceeds half the grid's. No tiles when both sides are at most `untiled_up_to_px`. Image sizes are ints or int64 arrays of
    one length, and so are grids.

    Raises:
        SpecError: a side below 1 px or above 1 000 000 px, or columns of different lengths.
    """
    width, height = _side("width_px", width_px), _side("height_px", height_px)
    if len({len(width), len(height)} - {1}) > 1:
        raise SpecError(f"columns of different lengths: width_px {len(width)}, height_px {len(height)}")
    is_one = np.ndim(width_px) == np.ndim(height_px) == 0
    width, height, where = (int(width[0]), int(height[0]), _where) if is_one else (width, height, np.where)
    ratio, area = width / height, width * height
    grids = grids or rule_grids()
    chosen, least = 0 * area, np.inf + 0 * area
    for number, (columns, rows) in enumerate(grids):
        difference = abs(ratio - columns / rows)
        large_enough = area > 0.5 * tile_px * tile_px * columns * rows
        chosen = where((difference < least) | ((difference == least) & large_enough), number, chosen)
        least = where(difference < least, difference, least)
    untiled = (width <= untiled_up_to_px) & (height <= untiled_up_to_px)
    chosen = where(untiled, len(grids), chosen)
    columns, rows = (np.array(side)[chosen] for side in zip(*grids, (1, 1), strict=True))
    return (int(columns), int(rows)) if is_one else (columns, rows)


def _where(condition, one, other):
    """`numpy.where` of a single condition, which Python decides faster."""
    return one if condition else other


def _side(name: str, given) -> np.ndarray:
    """One side of the images as an int64 array, in which their areas cannot wrap."""
    side = np.atleast_1d(np.asarray(given))
    wrong = (side < 1) | (side > MAX_SIDE_PX) if side.dtype.kind in "iu" and side.size else np.ones(side.shape, bool)
    if wrong.any() or not side.size:
        value = repr(side[wrong].tolist()[0]) if side.size else "an empty column"
        raise SpecError(f"{name}: {value} is not a whole number of pixels from 1 to {MAX_SIDE_PX}")
    return side.astype(np.int64)


def queries(view_px):
    """Image tokens along one side of a square view of view_px pixels: ceil(view_px / 64)."""
    return -(-view_px // PATCHES_PER_QUERY_PX)


def global_tokens(view_px):
    """Tokens of the global view: q rows of q queries and a newline, and one separator: q·(q + 1) + 1."""
    side = queries(view_px)
    return side * (side + 1) + 1


def tile_tokens(tile_px, columns, rows):
    """Tokens of the tiles laid out as one picture, a newline after each row of queries: (q·rows)·(q·columns + 1); 0 without tiles."""
    side = queries(tile_px)
    return (side * rows) * (side * columns + 1) * (columns * rows > 1)
