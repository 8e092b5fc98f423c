"""What a Workload accepts, resolves and refuses; one point and columns of points are the same."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_flops.errors import SpecError
from ocr_flops.spec.specs import Mode
from ocr_flops.spec.workload import LIMITS, MAX_CONTEXT_TOKENS, MAX_TILES, Workload

NUMERIC = [field.name for field in fields(Workload)[:-2]]
POINT = {"global_px": 1024, "tile_px": 640, "columns": 2, "rows": 3, "image_width_px": 1654, "image_height_px": 2339}


@pytest.mark.parametrize(("mode", "image_tokens"), [("tiny", 73), ("small", 111), ("base", 273), ("large", 421)])
def test_published_tokens(mode, image_tokens):
    page = Workload.from_image(1654, 2339, mode)
    assert (page.image_tokens, page.tiles, page.context_tokens) == (image_tokens, 0, image_tokens + 10)


def test_gundam_page():
    page = Workload.from_image(1654, 2339)
    assert (page.columns, page.rows, page.tiles) == (2, 3, 6)
    assert page.image_tokens == 16 * 17 + 1 + 30 * 21 == 903
    assert (page.prompt_tokens, page.output_tokens, page.batch_size, page.mode) == (10, 256, 1, "gundam")
    assert Workload.from_grid(2, 1).context_tokens == 493


def test_gundam_m_cuts_1024_px_tiles():
    page = Workload.from_image(1654, 2339, "gundam_m")
    assert (page.global_px, page.tile_px) == (1280, 1024)
    assert page.image_tokens == 421 + (16 * page.rows) * (16 * page.columns + 1)


def test_small_images_are_not_tiled():
    page = Workload.from_image(640, 200)
    assert (page.columns, page.rows, page.tiles, page.image_tokens) == (1, 1, 0, 273)


def test_a_grid_given_is_the_grid_of_an_image():
    page, grid = Workload.from_image(1654, 2339, output_tokens=7), Workload.from_grid(columns=2, rows=3, output_tokens=7)
    assert all(getattr(page, name) == getattr(grid, name) for name in NUMERIC if not name.startswith("image"))
    assert (grid.image_width_px, grid.image_height_px) == (0, 0)


def test_a_mode_of_ones_own():
    page = Workload.from_grid(2, 2, Mode("mine", "Mine", 768, 320))
    assert (page.mode, page.image_tokens) == ("mine", 12 * 13 + 1 + 10 * 11)


@pytest.mark.parametrize(
    "bad", [2.0, "3", None, True, np.float64(2), np.bool_(True), [1, 2.5], np.array([1.5]), np.array([[1]]), np.array([], np.int64)]
)
@pytest.mark.parametrize("name", NUMERIC)
def test_wrong_types(name, bad):
    with pytest.raises(SpecError, match=f"^{name}: "):
        Workload(**{**POINT, name: bad})


@pytest.mark.parametrize(("name", "limits"), LIMITS.items())
def test_limits(name, limits):
    least, greatest = limits
    for bad in (least - 1, greatest + 1, -(2**60), 2**60):
        for value in (bad, np.array([POINT.get(name, 1), bad])):
            with pytest.raises(SpecError, match=f"^{name}: {bad} is not a whole number from {least} to {greatest}$"):
                Workload(**{**POINT, name: value})


@pytest.mark.parametrize("name", [name for name in LIMITS if name != "pages"])  # of which a model without a rule takes one
def test_limits_themselves_are_allowed(name):
    for limit in LIMITS[name]:
        assert getattr(Workload(**{**POINT, "columns": 1, "rows": 1, name: limit}), name) == limit


@pytest.mark.parametrize("name", ["global_px", "tile_px"])
def test_views_are_whole_patches(name):
    with pytest.raises(SpecError, match=rf"^{name}: 1000 is not a multiple of 16"):
        Workload(**{**POINT, name: 1000})
    with pytest.raises(SpecError, match=rf"^{name}: 641 is not a multiple of 16"):
        Workload(**{**POINT, name: np.array([640, 641])})


@pytest.mark.parametrize("mode", ["tiny", "small", "base", "large"])
def test_a_grid_on_a_mode_without_tiles(mode):
    assert Workload.from_grid(1, 1, mode).tiles == 0
    with pytest.raises(SpecError, match=f"^columns x rows: 2 x 3 on mode '{mode}', which has no tiles; only 1 x 1"):
        Workload.from_grid(2, 3, mode)
    with pytest.raises(SpecError, match="^columns x rows: 1 x 4 "):
        Workload.from_grid(np.array([1, 1]), np.array([1, 4]), mode)


@pytest.mark.parametrize(("columns", "rows"), [(0, 3), (3, 0), (-1, 1)])
def test_a_grid_of_nothing(columns, rows):
    with pytest.raises(SpecError, match=r"^(columns|rows): (0|-1) is not a whole number from 1"):
        Workload.from_grid(columns, rows)


def test_too_many_tiles_or_tokens():
    with pytest.raises(SpecError, match=rf"^tiles \(columns x rows\): 10100 .* to {MAX_TILES}$"):
        Workload.from_grid(101, 100)
    with pytest.raises(SpecError, match=rf"^context_tokens .*: \d+ .* to {MAX_CONTEXT_TOKENS}$"):
        Workload.from_grid(100, 100, Mode("huge", "Huge", 1024, 16_384))


@pytest.mark.parametrize("mode", ["gundam", "base"])
@pytest.mark.parametrize("size", [(0, 100), (100, 0), (-5, 5), (1_000_001, 5), (1.5, 5)])
def test_images_that_cannot_be(size, mode):
    with pytest.raises(SpecError, match=r"^(width|height)_px: .* is not a whole number of pixels from 1 to"):
        Workload.from_image(*size, mode)


def test_an_unknown_mode():
    with pytest.raises(SpecError, match="^workload: 'gundamm' is not one of base, gundam, gundam_m, large, small, tiny$"):
        Workload.from_image(100, 100, "gundamm")


def test_columns_of_different_lengths():
    with pytest.raises(SpecError, match="^columns of different lengths: columns 2, batch_size 3$"):
        Workload.from_grid(columns=np.array([1, 2]), batch_size=np.array([1, 2, 3]))


def test_points():
    assert (Workload.from_grid().points, Workload.from_grid().is_single) == (1, True)
    many = Workload.from_grid(rows=np.arange(1, 6))
    assert (many.points, many.is_single) == (5, False)


def test_stack_keeps_points_in_order():
    base, pages = Workload.from_image(500, 500, "base"), Workload.from_image(np.array([1654, 700]), np.array([2339, 700]))
    both = Workload.stack([base, pages])
    assert both.tiles.tolist() == [0, 6, 4]
    assert both.global_px.tolist() == [1024, 1024, 1024]
    assert both.mode == ""
    assert Workload.stack([base]) is base


points = st.fixed_dictionaries(
    {
        "width_px": st.integers(1, 20_000),
        "height_px": st.integers(1, 20_000),
        "prompt_tokens": st.integers(0, 100_000),
        "output_tokens": st.integers(0, 100_000),
        "batch_size": st.integers(1, 512),
    }
)


@settings(max_examples=60, deadline=None)
@given(st.lists(points, min_size=1, max_size=6), st.sampled_from(["tiny", "base", "gundam", "gundam_m"]))
def test_columns_hold_what_single_points_hold(rows, mode):
    many = Workload.from_image(mode=mode, **{name: np.array([row[name] for row in rows]) for name in rows[0]})
    assert many.points == len(rows)
    for index, row in enumerate(rows):
        one = Workload.from_image(mode=mode, **row)
        for name in (*NUMERIC, "tiles", "image_tokens", "context_tokens"):
            single = getattr(one, name)
            assert type(single) is int
            assert np.broadcast_to(getattr(many, name), len(rows))[index] == single
