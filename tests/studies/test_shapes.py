"""Canonical shapes: the most square grid of every number of tiles."""

import numpy as np
import pytest

import ocr_flops as of
from ocr_flops.spec.tiling import choose_grid, rule_grids
from ocr_flops.studies.sweeps.shapes import shapes_frame


def test_every_number_of_tiles_has_its_most_square_grid():
    frame = shapes_frame(1, 1000)
    assert frame["tiles"].to_list() == list(range(1, 1001))
    for tiles, columns, rows in frame.select("tiles", "columns", "rows").iter_rows():
        assert columns * rows == tiles and columns <= rows
        assert not any(tiles % side == 0 for side in range(columns + 1, int(tiles**0.5) + 1))


@pytest.mark.parametrize("mode", ["gundam", "gundam_m"])
def test_tokens_are_those_of_the_workload(mode):
    frame = shapes_frame(1, 60, mode)
    for row in frame.iter_rows(named=True):
        workload = of.Workload.from_grid(row["columns"], row["rows"], mode)
        assert row["image_tokens"] == workload.image_tokens == row["global_tokens"] + row["tile_tokens"]
        assert (row["global_px"], row["tile_px"]) == (workload.global_px, workload.tile_px)
    assert frame["tile_tokens"][0] == 0  # one tile is no tile


def test_supported_shapes_are_those_that_the_vendor_cuts_their_image_into():
    frame = shapes_frame(1, 1000)
    chosen = np.stack(choose_grid(frame["image_width_px"].to_numpy(), frame["image_height_px"].to_numpy()), axis=1)
    cut = (chosen == frame.select("columns", "rows").to_numpy()).all(axis=1)
    assert frame["vendor_supported"].to_list() == cut.tolist()
    assert frame.filter("vendor_supported")["tiles"].to_list() == list(range(1, 10))
    assert {grid for grid in frame.filter("vendor_supported").select("columns", "rows").rows()} <= {(1, 1), *rule_grids()}


@pytest.mark.parametrize(
    ("arguments", "names"),
    [((0, 5), "min_tiles: 0"), ((6, 5), "max_tiles: 5"), ((1, 10_001), "max_tiles: 10001"), ((1, 5, "base"), "mode: 'base' has no tiles")],
)
def test_what_has_no_shapes(arguments, names):
    with pytest.raises(of.SpecError, match=names):
        shapes_frame(*arguments)
