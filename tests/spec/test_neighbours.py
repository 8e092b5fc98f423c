"""The points that charts show around one."""

from itertools import pairwise

import pytest

from ocr_flops.spec.tiling import rule_grids
from ocr_flops.spec.workload import Workload, growing_contexts, growing_outputs, neighbours


def grids_of(workload):
    return list(zip(workload.columns.tolist(), workload.rows.tolist(), strict=True))


@pytest.mark.parametrize("mode", ["gundam", "gundam_m"])
def test_neighbours_are_no_tiles_and_all_grids_of_the_rule(mode):
    beside = neighbours(Workload.from_image(1654, 2339, mode, batch_size=3))
    assert grids_of(beside) == [(1, 1), *rule_grids()]
    assert (beside.batch_size, beside.image_width_px) == (3, 0)


def test_beyond_the_rules_grids_there_are_some_on_the_way():
    far = Workload.from_grid(20, 25)
    assert neighbours(far).points == 23  # those of the rule alone
    grids = grids_of(neighbours(far, itself=True))
    assert grids[:23] == [(1, 1), *rule_grids()] and grids[-1] == (20, 25)
    between = grids[23:-1]
    assert 8 <= len(between) <= 16 and all(0 <= rows - columns <= 2 for columns, rows in between)
    tiles = [columns * rows for columns, rows in grids[22:]]
    assert tiles == sorted(set(tiles)) and max(after - before for before, after in pairwise(tiles)) < 0.15 * 500
    near = neighbours(Workload.from_grid(2, 5), itself=True)
    assert (near.columns[-1], near.rows[-1], near.points) == (2, 5, 24)


def test_neighbours_of_a_mode_without_tiles_are_those_without():
    assert list(neighbours(Workload.from_grid(mode="tiny")).global_px) == [512, 640, 1024, 1280]


def test_growing_contexts_begin_beyond_the_image():
    grown = growing_contexts(Workload.from_grid(2, 3))
    assert grown.context_tokens.tolist() == list(range(1024, 8 * 1024 + 1, 1024))


@pytest.mark.parametrize(("output_tokens", "most"), [(256, 2048), (5000, 10_000), (2**20, 2**20)])
def test_growing_outputs_pass_the_pages_own(output_tokens, most):
    grown = growing_outputs(Workload.from_grid(output_tokens=output_tokens)).output_tokens
    assert (grown[0], grown[-1], len(grown)) == (0, most, 17) and (grown[1:] > grown[:-1]).all()
