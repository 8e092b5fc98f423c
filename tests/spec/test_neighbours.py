from itertools import pairwise

import pytest

import ocr_flops as of
from ocr_flops.app.setting import SIDE_BY_SIDE, Setting
from ocr_flops.spec.neighbours import neighbours
from ocr_flops.spec.tiling import rule_grids

MODEL = of.load_model("deepseek_ocr")


def grid(scenario):
    return scenario.workload.columns, scenario.workload.rows


def test_the_grid_comes_from_the_page_or_from_the_hand():
    assert grid(Setting()) == grid(Setting(source="page", columns=9, rows=1)) == (2, 3)
    assert grid(Setting(source="grid", columns=9, rows=1)) == (9, 1)


def test_a_mode_without_tiles_ignores_the_grid():
    assert Setting(mode="base", source="grid", columns=9, rows=1).workload.tiles == 0


@pytest.mark.parametrize("mode", ["gundam", "gundam_m"])
def test_neighbours_are_no_tiles_and_all_grids_of_the_rule(mode):
    beside = Setting(mode=mode, batch_size=3).neighbours
    assert list(zip(beside.columns, beside.rows, strict=True)) == [(1, 1), *rule_grids()]
    assert beside.batch_size == 3


def test_beyond_the_vendors_grids_there_are_some_on_the_way():
    near = Setting(source="grid", columns=20, rows=25).neighbours
    grids = list(zip(near.columns.tolist(), near.rows.tolist(), strict=True))
    assert grids[:23] == [(1, 1), *rule_grids()] and grids[-1] == (20, 25)
    between = grids[23:-1]
    assert 8 <= len(between) <= 16 and all(0 <= rows - columns <= 2 for columns, rows in between)
    tiles = [columns * rows for columns, rows in grids[22:]]
    assert tiles == sorted(set(tiles)) and max(after - before for before, after in pairwise(tiles)) < 0.15 * 500
    short = Setting(source="grid", columns=2, rows=5).neighbours
    assert (short.columns[-1], short.rows[-1], short.points) == (2, 5, 24)
    assert neighbours(Setting(source="grid", columns=20, rows=25).workload).points == 23  # those of the vendor alone


def test_neighbours_of_a_mode_without_tiles_are_those_without():
    assert list(Setting(mode="tiny").neighbours.global_px) == [512, 640, 1024, 1280]


def test_attention_modes_side_by_side():
    assert Setting(attention=SIDE_BY_SIDE).attention_modes == ("eager", "sdpa", "flash")
    assert Setting(attention=SIDE_BY_SIDE, dtype="fp32").attention_modes == ("eager", "sdpa")
    assert [found.config.attention.name for found in Setting(attention=SIDE_BY_SIDE).estimates(MODEL)] == ["eager", "sdpa", "flash"]
    assert Setting(attention="vendor").attention_modes == ("vendor",)


def test_the_numbers_are_those_of_estimate():
    (one,) = Setting(
        width_px=1000,
        height_px=3000,
        prompt_tokens=20,
        output_tokens=7,
        batch_size=2,
        attention="eager",
        engine="remote_code",
        dtype="fp16",
    ).estimates(MODEL)
    page = of.Workload.from_image(1000, 3000, "gundam", prompt_tokens=20, output_tokens=7, batch_size=2)
    assert one.stage_numbers == of.estimate(MODEL, page, "eager", engine="remote_code", dtype="fp16").stage_numbers


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"source": "grid", "columns": 0}, "columns: 0"),
        ({"prompt_tokens": -1}, "prompt_tokens: -1"),
        ({"prompt_tokens": None}, "prompt_tokens: None"),
        ({"prompt_tokens": 1.5}, "prompt_tokens: 1.5"),
        ({"width_px": 0}, "width_px: 0"),
        ({"mode": "huge"}, "huge"),
        ({"source": "web"}, "source: 'web'"),
        ({"attention": "flash", "dtype": "fp32"}, "flash"),
        ({"attention": "fast"}, "fast"),
        ({"batch_size": 65_536, "prompt_tokens": 1_000_000}, "2\\^62"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_it(wrong, message):
    with pytest.raises(of.SpecError, match=message):
        Setting(**wrong).estimates(MODEL)
