"""Bars of time are the frame's seconds."""

import pytest

from ocr_flops.charts import time_by_module
from ocr_flops.charts.times import halves
from tests.support.drawing import assert_draws, headline


@pytest.mark.parametrize(("stages", "finding"), [
    (("vision", "prefill"), "1.13 s to the first token; 35 % of it in SAM global attention"),
    (("decode",), "4.21 s for all output tokens; 54 % of it in routed experts"),
])  # fmt: skip
def test_bars_of_time_are_the_frames_seconds(timings, stages, finding):
    timing = timings["sdpa"]
    chart = time_by_module(timing, stages)
    wholes = timing.stages.filter(timing.stages["stage"].is_in(stages))
    assert sum(bar["seconds"] for bar in chart.datasets["bars"]) == pytest.approx(wholes["roofline_seconds"].sum())
    assert [row["bound"] for row in chart.datasets["heads"]] == wholes["bound_seconds"].to_list()
    assert finding in headline(chart)


def test_stages_that_do_nothing_have_no_chart(timings, idle):
    assert list(halves(timings["sdpa"])) == ["time_to_first_token", "time_of_decode"]
    assert list(halves(idle)) == ["time_to_first_token"]
    assert_draws(time_by_module(idle, ("decode",)))


def test_measured_times_lie_over_the_bars_and_words_stand_behind_them(timings):
    timing = timings["sdpa"]
    rows = [{"stage": "vision", "module": None, "seconds": 2.0, "spread_seconds": 0.1, "origin": "measured here"}]
    rows += [{**rows[0], "module": "sam.mlp", "seconds": 0.5, "spread_seconds": None}]
    chart = time_by_module(timing, measured=rows)
    ends = {row["row"]: row for row in (*chart.datasets["heads"], *chart.datasets["bars"])}
    assert ends["vision|"]["end"] == 2.0 and ends["vision|SAM MLP"]["end"] == 0.5 and "◇ 2.00 s" in ends["vision|"]["text"]
    assert chart.params["room"] > 1.9 * 2.0 and "◇ measured here" in headline(chart)
    assert chart.template is not time_by_module(timing).template
