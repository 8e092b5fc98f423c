"""Tile grids against `get_optimal_tiled_canvas` of transformers, token counts against the published ones."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from ocr_flops.errors import SpecError
from ocr_flops.spec import tiling

RANDOM_SIZES = 120_000
GREATEST_PX = 6000


@pytest.fixture(scope="module")
def vendor_grid():
    """The rule as transformers ships it, with the vendor's 640 px rule before it: (width, height, tile) -> (columns, rows)."""
    from transformers.models.deepseek_ocr2.image_processing_pil_deepseek_ocr2 import get_optimal_tiled_canvas

    uncached = get_optimal_tiled_canvas.__wrapped__

    def grid(width_px, height_px, tile_px):
        if width_px <= 640 and height_px <= 640:
            return 1, 1
        return uncached((height_px, width_px), (tile_px, tile_px), 2, 9)

    return grid


def random_sizes():
    sizes = np.random.default_rng(20250).integers(1, GREATEST_PX + 1, (RANDOM_SIZES, 2))
    assert len(np.unique(sizes, axis=0)) > 100_000
    return sizes


def midpoints():
    """Rational midpoints between neighbouring aspect ratios of the 22 grids."""
    ratios = sorted({Fraction(columns, rows) for columns, rows in tiling.rule_grids()})
    return [(low + high) / 2 for low, high in pairwise(ratios)]


def midpoint_sizes():
    """Every midpoint as integer sizes, small to large, and their neighbours by one pixel."""
    sizes = []
    for middle in midpoints():
        smallest = max(middle.numerator, middle.denominator)
        scales = {1, 2, 3, 5, 7, *(max(1, side // smallest) for side in (641, 900, 1280, 2000, 3333, GREATEST_PX, 100_000, 1_000_000))}
        for scale in scales:
            width, height = middle.numerator * scale, middle.denominator * scale
            sizes += [(width + dx, height + dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if width + dx and height + dy]
    sizes = np.array(sizes)
    return sizes[(sizes <= tiling.MAX_SIDE_PX).all(axis=1)]


def structured_sizes():
    """Multiples of 80 px (areas that are exactly half a grid's), thin strips, and both sides of each grid's half area."""
    steps = np.arange(80, GREATEST_PX + 1, 80)
    ends = np.array([1, 2, 3, 13, 84, 639, 640, 641, 1023, 1024, 1025, GREATEST_PX, tiling.MAX_SIDE_PX])
    lattice = [np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2) for side in (steps, ends)]
    half_areas = [
        (side, max(1, int(0.5 * tile**2 * columns * rows) // side + more))
        for tile in (640, 1024)
        for columns, rows in tiling.rule_grids()
        for side in range(300, 2400, 35)
        for more in (0, 1)
    ]
    return np.concatenate([*lattice, half_areas])


SIZES = {"random": random_sizes, "midpoints": midpoint_sizes, "structured": structured_sizes}


@pytest.mark.parametrize("tile_px", [640, 1024])
@pytest.mark.parametrize("kind", SIZES)
def test_columns_equal_the_vendors_rule(vendor_grid, kind, tile_px):
    sizes = SIZES[kind]()
    columns, rows = tiling.choose_grid(sizes[:, 0], sizes[:, 1], tile_px)
    expected = np.array([vendor_grid(width, height, tile_px) for width, height in sizes.tolist()])
    wrong = np.flatnonzero((columns != expected[:, 0]) | (rows != expected[:, 1]))
    assert not len(wrong), f"{len(wrong)} of {len(sizes)}, first {sizes[wrong[:3]].tolist()} is {expected[wrong[:3]].tolist()}"


def test_scalars_equal_the_columns():
    sizes = np.concatenate([random_sizes()[:3000], midpoint_sizes()[::3], structured_sizes()[::7]])
    columns, rows = tiling.choose_grid(sizes[:, 0], sizes[:, 1])
    scalars = [tiling.choose_grid(width, height) for width, height in sizes.tolist()]
    assert scalars == list(zip(columns.tolist(), rows.tolist(), strict=True))
    assert all(type(side) is int for grid in scalars[:10] for side in grid)


def test_one_side_may_be_a_column():
    columns, rows = tiling.choose_grid(np.array([700, 1654, 5000]), 2339)
    assert list(zip(columns.tolist(), rows.tolist(), strict=True)) == [tiling.choose_grid(width, 2339) for width in (700, 1654, 5000)]


def test_all_22_grids_are_chosen():
    columns, rows = tiling.choose_grid(*random_sizes().T)
    assert set(zip(columns.tolist(), rows.tolist(), strict=True)) == {(1, 1), *tiling.rule_grids()}
    assert len(tiling.rule_grids()) == 22


def test_float64_decides_what_is_a_tie(vendor_grid):
    """13/84 lies in the middle of 1/7 and 1/6 as a rational, but not as float64."""
    assert Fraction(13, 84) in midpoints()
    assert abs(13 / 84 - 1 / 7) != abs(13 / 84 - 1 / 6)
    for scale in (10, 50, 70):
        assert tiling.choose_grid(13 * scale, 84 * scale) == vendor_grid(13 * scale, 84 * scale, 640)


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((640, 640), (1, 1)),
        ((1, 1), (1, 1)),
        ((640, 1), (1, 1)),  # both sides at most 640 px: no tiles, whatever the ratio
        ((641, 640), (2, 2)),
        ((640, 641), (2, 2)),
        ((641, 1), (9, 1)),
        ((1654, 2339), (2, 3)),
        ((2339, 1654), (3, 2)),  # A4 at 200 dpi
        ((1357, 1357), (2, 2)),
        ((1358, 1358), (3, 3)),  # 3 x 3 only above half its area
    ],
)
def test_known_sizes(size, grid, vendor_grid):
    assert tiling.choose_grid(*size) == grid == vendor_grid(*size, 640)


def test_area_does_not_wrap_in_narrow_integers():
    sides = np.array([60_000, 900], np.int32), np.array([50_000, 900], np.int32)
    assert [side.tolist() for side in tiling.choose_grid(*sides)] == [side.tolist() for side in tiling.choose_grid(*np.int64(sides))]
    small = np.array([200], np.uint8)
    assert tiling.choose_grid(small, small, untiled_up_to_px=0)[0] == tiling.choose_grid(200, 200, untiled_up_to_px=0)[0]


@pytest.mark.parametrize("bad", [0, -1, 1_000_001, 2**70, 640.0, 2.5, float("nan"), True, "640", None, np.array([], np.int64)])
@pytest.mark.parametrize("name", ["width_px", "height_px"])
def test_a_size_that_no_image_has(name, bad):
    with pytest.raises(SpecError, match=rf"^{name}: .* is not a whole number of pixels from 1 to 1000000$"):
        tiling.choose_grid(**{"width_px": 1000, "height_px": 1000, name: bad})


def test_the_first_wrong_size_of_a_column_is_named():
    with pytest.raises(SpecError, match=r"^height_px: -7 "):
        tiling.choose_grid(1000, np.array([5, -7, 0]))


def test_columns_of_different_lengths():
    with pytest.raises(SpecError, match="width_px 3, height_px 2"):
        tiling.choose_grid(np.array([1, 2, 3]), np.array([1, 2]))


@pytest.mark.parametrize(("view_px", "tokens"), [(512, 73), (640, 111), (1024, 273), (1280, 421)])
def test_published_tokens_of_a_single_view(view_px, tokens):
    assert tiling.global_tokens(view_px) == tokens


@pytest.mark.parametrize(
    ("tile_px", "columns", "rows", "tokens"),
    [
        (640, 2, 3, 30 * 21),  # 3 rows of 10 x 10 queries, 2 beside each other, a newline after each of 30 rows
        (640, 2, 1, 10 * 21),
        (640, 1, 2, 20 * 11),
        (1024, 3, 3, 48 * 49),
        (640, 1, 1, 0),
        (0, 1, 1, 0),
    ],
)
def test_tokens_of_tiles(tile_px, columns, rows, tokens):
    assert tiling.tile_tokens(tile_px, columns, rows) == tokens


def test_queries_round_up():
    assert [tiling.queries(px) for px in (16, 64, 80, 640, 656, 1024)] == [1, 1, 2, 10, 11, 16]
    assert tiling.global_tokens(np.array([512, 1280])).tolist() == [73, 421]
    assert tiling.tile_tokens(640, np.array([1, 2]), np.array([1, 3])).tolist() == [0, 630]
