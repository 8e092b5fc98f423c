"""Savings are the differences of the frames."""

import json

import pytest

import ocr_flops as of
from ocr_flops.charts import savings, savings_by_tiles
from ocr_flops.charts.savings import saved
from ocr_flops.timing.hidden_savings import hidden_saving
from ocr_flops.units import seconds
from tests.support.drawing import assert_draws, headline


def test_savings_are_the_differences_of_the_frames(by_mode, timings):
    chart = savings(by_mode, timings)
    bars = {(bar["what"], bar["stage"], bar["kind"]): bar for bar in chart.datasets["bars"]}
    for stage in ("vision", "prefill", "decode"):
        rows = {mode: one.stage_numbers[stage] for mode, one in by_mode.items()}
        for what, column in (("DRAM traffic", "io_bytes"), ("peak activation memory", "peak_activation_bytes")):
            base = bars[what, stage, "eager"]
            for mode in ("sdpa", "flash"):
                bar = bars[what, stage, mode]
                assert bar["saved"] == saved(rows[mode][column], rows["eager"][column])
                length = (bar["end"] - bar["start"]) / (base["end"] - base["start"])
                assert length == pytest.approx(rows[mode][column] / rows["eager"][column])
        inner = next(row for row in chart.datasets["fixed"] if row["row"] == f"{stage}|flash")
        fixed = rows["flash"]["weight_io_bytes"] + rows["flash"]["kv_io_bytes"]
        assert inner["end"] / bars["DRAM traffic", stage, "flash"]["end"] == pytest.approx(fixed / rows["flash"]["io_bytes"])
    words = headline(chart)
    first, last = (seconds(timings[mode].expected_ttft.value) for mode in ("eager", "flash"))
    assert f"flash moves 551 GB (80 %) less than eager in vision; to the first token an expected {last} instead of {first}" in words
    assert hidden_saving(timings["eager"], timings["flash"], ("vision", "prefill")).describe("the time to first token") in words
    for lane, what in (("device", "device time"), ("expected", "expected time")):
        assert bars[what, "vision", "flash"]["value"] == seconds(timings["flash"].lane_seconds("vision", lane)[0])
    assert "Matrix FLOPs are the same in every mode" in words and "Modelled: flash" in words
    assert "flash saves 0.65 % of its bytes" in words  # decode
    texts = {text["row"]: text["text"] for text in chart.datasets["bars"] if text["end"] < 1}
    assert texts["vision|sdpa"] == "266 GB (−424 GB, −61 %)" and texts["decode|flash"] == "1.26 TB (as sdpa)"


def test_what_was_traced_is_laid_over_its_bars(by_mode):
    """At the end of the bar where the real model moved and held what was computed, and as far beyond it as it did more."""
    row = {"measured_io_bytes": 300, "analytic_io_bytes": 200, "measured_peak_bytes": 7, "analytic_peak_bytes": 7, "ran": "the real model"}
    chart = savings(by_mode, traced={"sdpa": {"vision": row}, "vendor": {"vision": row}})
    bars = {bar["what"]: bar for bar in chart.datasets["bars"] if bar["row"] == "vision|sdpa"}
    moved, held = chart.datasets["measured"]
    assert (moved["row"], moved["value"], moved["origin"]) == ("vision|sdpa", "300 B", "traced: the real model")
    ends = [
        (point["end"] - bars[point["what"]]["start"]) / (bars[point["what"]]["end"] - bars[point["what"]]["start"])
        for point in (moved, held)
    ]
    assert ends == [pytest.approx(1.5), pytest.approx(1.0)] and "◇ traced: the real model" in headline(chart)
    assert_draws(chart)


def test_words_leave_out_the_difference_where_a_panel_is_narrow(by_mode, timings):
    chart, bare = savings(by_mode, timings), savings(by_mode)
    longest = max(chart.datasets["bars"], key=lambda row: len(row["text"]))
    assert longest["text"].count(", ") == 1 and "," not in longest["brief"] and longest["brief"].endswith(" %)")
    assert "width < least" in json.dumps(chart.template.spec) and 800 < chart.params["least"] < 1200  # four panels
    assert bare.params["least"] < chart.params["least"] and bare.template is chart.template
    assert_draws(bare)


def test_words_of_savings():
    assert saved(65e9, 100e9) == "−35.0 GB, −35 %"
    assert saved(100, 100) == "no change" and saved(5, 0) == "" and saved(3, 2) == "+1 B, +50 %"


def test_savings_by_tiles_compares_the_vision_stage(tiles, model):
    chart, peaks = savings_by_tiles(tiles, tiles=6), savings_by_tiles(tiles, "peak_activation_bytes")
    points = {(point["mode"], point["x"]): point for point in chart.datasets["points"]}
    assert {count for _, count in points} == {0, 2, 6} and chart.datasets["mark"][0]["x"] == 6 and peaks.datasets["mark"] == []
    for mode in ("eager", "sdpa", "flash"):
        assert points[mode, 6]["value"] == of.estimate(model, of.Workload.from_grid(3, 2), mode).stage_numbers["vision"]["io_bytes"]
    assert points["eager", 2]["value"] > points["sdpa", 2]["value"] > points["flash", 2]["value"]
    assert "Each tile adds" in headline(chart) and "With 6 tiles" in headline(peaks)
    assert [end["text"].count("%") for end in chart.datasets["ends"]] == [0, 1, 1]
    assert_draws(peaks)
