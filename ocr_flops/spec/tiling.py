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
    ratios, closest = _closest_grids(grids or rule_grids())
    ratio, area = width / height, width * height
    right = np.clip(np.searchsorted(ratios, ratio), 1, len(ratios) - 1)
    below, above = (abs(ratio - ratios[place]) for place in (right - 1, right))
    place = 2 * right - 2 + (below >= above) + (below > above)
    halves = 0.5 * tile_px * tile_px * closest[1:, :, 0] * closest[1:, :, 1]
    turn = sum((area > half[place] for half in halves), start=0 * place)
    tiled = (width > untiled_up_to_px) | (height > untiled_up_to_px)
    columns, rows = (np.where(tiled, closest[turn, place, side], 1) for side in (0, 1))
    return (int(columns[0]), int(rows[0])) if is_one else (columns, rows)


@cache
def _closest_grids(grids: tuple[tuple[int, int], ...]) -> tuple[np.ndarray, np.ndarray]:
    """Aspect ratios of grids in order, infinity behind them, and the grids closest to a page [turn, place, columns and rows].

    An even place is a ratio's, an odd one where two are equally close; later turns are larger grids, the last one over again.
    """
    ratios = sorted({columns / rows for columns, rows in grids})
    near = [ratios[place // 2 : place // 2 + 1 + place % 2] for place in range(2 * len(ratios) - 1)]
    closest = [[grid for grid in grids if grid[0] / grid[1] in some] for some in near]
    turns = max(map(len, closest))
    return np.array([*ratios, np.inf]), np.array([some + some[-1:] * (turns - len(some)) for some in closest]).swapaxes(0, 1)


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
