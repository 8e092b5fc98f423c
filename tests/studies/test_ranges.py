"""Overrides with several values: lists, ranges, and what is neither."""

import pytest

from ocr_flops.errors import SpecError
from ocr_flops.studies.sweeps.ranges import read_values, split_overrides


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1:5", [1, 2, 3, 4, 5]),
        ("0:10:4", [0, 4, 8]),
        ("0:8:4", [0, 4, 8]),
        ("5:1:-2", [5, 3, 1]),
        ("7:7", [7]),
        ("[1,4,16]", [1, 4, 16]),
        ("[ 1, 4:6 ,16:48:16]", [1, 4, 5, 6, 16, 32, 48]),
        ("[eager,sdpa]", ["eager", "sdpa"]),
        ("['eager',null]", ["eager", None]),
        ("[3e12,3.5e12]", [3e12, 3.5e12]),
        ("[true,false]", [True, False]),
    ],
)
def test_values(text, found):
    assert list(read_values("key", text)) == found


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[]", "empty"),
        ("5:1", "has no values"),
        ("1:5:0", "has no values"),
        ("[1,2,1]", "1 is named twice"),
        ("[1:4,3]", "3 is named twice"),
        ("1:99999999", "more than 10,000,000"),
        ("many", "neither a list"),
    ],
)
def test_no_values(text, names):
    with pytest.raises(SpecError, match=f"^key: .*{names}"):
        read_values("key", text)


def test_split_keeps_single_values_and_takes_the_later_of_two():
    plain, axes = split_overrides(
        ["sweep=product", "workload.columns=1:3", "attention=eager", "attention=[eager,sdpa]", "stages=[vision]", "dtype=[bf16]"]
    )
    assert plain == ["sweep=product", "stages=[vision]"]
    assert {key: tuple(axis) for key, axis in axes.items()} == {
        "workload.columns": (1, 2, 3),
        "attention": ("eager", "sdpa"),
        "dtype": ("bf16",),
    }
    assert split_overrides(["workload.columns=1:3", "workload.columns=2"]) == (["workload.columns=2"], {})


def test_dimensions_that_are_lists_stay_lists():
    assert split_overrides(["model.towers.sam.global_layers=[1,2]", "engine.runnable_attention=[eager]"])[1] == {}
