"""The talk's charts have the estimates' numbers and grow with the screen."""

import json
from dataclasses import replace

import numpy as np
import pytest

import ocr_flops as of
from ocr_flops.charts import shares, slides, theme, tiling_picture
from ocr_flops.spec.workload import growing_contexts
from ocr_flops.units import seconds

MODES = ("eager", "sdpa", "flash")


def test_an_enlarged_chart_fills_its_place_in_units_of_the_screen_with_the_same_rows(timings):
    chart = shares(timings["sdpa"].estimate, timings["sdpa"])
    large = slides.enlarged(chart)
    spec = large.to_dict()
    assert large.datasets is chart.datasets and (spec["height"], spec["width"]) == ("container", "container")
    small = chart.template.spec["config"]["axis"]["labelFontSize"]
    assert spec["config"]["axis"]["labelFontSize"] == {"expr": f"{round(slides.FACTOR * small, 2)} * unit"}
    assert spec["params"][:2] == slides.SCREEN and theme.INK not in json.dumps(spec) and spec["title"] == {"text": ""}
    assert slides.enlarged(shares(timings["eager"].estimate)).template is large.template


def test_no_colour_of_the_tiling_means_a_stage_it_is_not():
    from ocr_flops.charts.tiling import PAD, PAGE, TILE, VIEW

    swapped = slides.enlarged(tiling_picture(of.Workload.from_grid(2, 3)), {PAGE: PAD, VIEW: TILE})
    assert {box["colour"] for box in swapped.datasets["boxes"]} == {PAD, TILE}


def test_twice_the_tokens_is_twice_the_tokens(model, by_mode):
    workload = by_mode["eager"].workload
    frame = of.sweep(model, growing_contexts(workload), MODES, level="module", stages=["prefill"])
    times = slides.doubling(frame)
    assert 3.5 < times["eager"] < 4 and 1.9 < times["flash"] < 2.1
    twice = replace(workload, prompt_tokens=np.array([4096, 8192]) - workload.image_tokens)
    moved = of.estimate(model, twice, "eager", stages=["prefill"]).module_numbers["prefill", "decoder.attention"]["io_bytes"]
    assert times["eager"] == moved[1] / moved[0]
    ends = slides.attention_traffic(frame, 913).datasets["ends"]
    assert len(ends) == 2 and ends[1]["text"].startswith("sdpa, flash: ")


def test_modes_are_compared_with_the_first(by_mode, timings):
    texts = slides.moved_and_held(by_mode).datasets["ends"]
    assert texts[0]["text"] == "770 GB" and texts[3]["text"] == "19.9 GB"
    rows = slides.first_token(timings).datasets
    expected = [bar["end"] for bar in rows["bars"] if bar["kind"] == "prefill"]
    assert expected[1] / expected[0] == pytest.approx(timings["flash"].expected_ttft.value / timings["sdpa"].expected_ttft.value)
    assert [row["text"] for row in rows["ends"][:1]] == ["–"], "no time of eager, which does not fit"
    needs = {row["row"]: row["text"] for row in rows["differences"][3:]}
    assert needs["eager"] == "does not fit" and needs["sdpa"].startswith("−12.9 GB")
    ends = {bar["row"]: bar["end"] for bar in rows["bars"] if bar["kind"] == "peak activations"}
    assert ends["flash"] < ends["sdpa"] < rows["limits"][0]["start"] < ends["eager"]


def test_an_output_token_moves_its_part_of_decode(by_mode, timings):
    assert sum(slides.token_traffic(by_mode["flash"]).values()) == pytest.approx(by_mode["flash"].stage_numbers["decode"]["io_bytes"] / 256)
    rows = slides.one_token(timings).datasets
    assert [row["text"] for row in rows["ends"][3:]] == ["–", *(seconds(timings[mode].expected_tpot.value) for mode in ("sdpa", "flash"))]
    assert [row["text"] for row in rows["differences"][3:5]] == ["does not fit", ""]
