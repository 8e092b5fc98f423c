"""Bars of time are the frame's seconds."""

import pytest

import ocr_flops as of
from ocr_flops.charts import time_by_module
from ocr_flops.charts.times import HOST, halves
from ocr_flops.units import seconds
from tests.support.drawing import assert_draws, headline

SHOWN = ("expected_seconds", "expected_low_seconds", "expected_high_seconds", "roofline_seconds", "bound_seconds")


@pytest.mark.parametrize("gpu", ["l4", "h200"])
@pytest.mark.parametrize("stages", [("vision", "prefill"), ("decode",)])
def test_bars_of_time_are_the_frames_expected_seconds(by_mode, gpu, stages):
    timing = by_mode["sdpa"].on(of.load_hardware(gpu))
    chart = time_by_module(timing, stages)
    wholes = timing.stages.filter(timing.stages["stage"].is_in(stages))
    for stage, whole, low, high, peaks, bound in wholes.select("stage", *SHOWN).iter_rows():
        bars = [bar for bar in chart.datasets["bars"] if bar["stage"] == stage]
        assert sum(bar["end"] - bar["start"] for bar in bars) == pytest.approx(whole)
        head = next(row for row in chart.datasets["heads"] if row["stage"] == stage)
        assert [head[name] for name in ("seconds", "low", "high", "peaks", "bound")] == [whole, low, high, peaks, bound]
        hosts = sum(bar["end"] - bar["start"] for bar in bars if bar["kind"] == HOST)
        issued = timing.modules.filter(stage=stage)["expected_host_seconds"].sum()
        own = whole - timing.modules.filter(stage=stage)["expected_seconds"].sum()
        assert hosts == pytest.approx(issued + own)
    total = wholes["expected_seconds"].sum()
    assert seconds(total) in headline(chart) and "11 (8 to 16) µs an operator" in headline(chart)
    assert_draws(chart)


def test_published_times_of_the_device_and_its_host_lie_over_decode(model):
    page = of.Workload.from_image(1654, 2339, output_tokens=100)
    drawn = {}
    for gpu, host in (("rtx_5090", None), ("rtx_5090", "graphs"), ("l4", None)):
        timing = of.estimate(model, page, engine="remote_code").on(of.load_hardware(gpu), host=host)
        drawn[gpu, host] = halves(timing)["time_of_decode"]
    (point,) = drawn["rtx_5090", None].datasets["measured"]
    assert 0.98 < point["seconds"] < 1.11 and "published" in headline(drawn["rtx_5090", None])
    assert drawn["rtx_5090", "graphs"].datasets["measured"] == drawn["l4", None].datasets["measured"] == []


def test_stages_that_do_nothing_have_no_chart(timings, idle):
    assert list(halves(timings["sdpa"])) == ["time_to_first_token", "time_of_decode"]
    assert list(halves(idle)) == ["time_to_first_token"]
    assert_draws(time_by_module(idle, ("decode",)))


def test_measured_times_lie_over_the_bars_and_words_stand_behind_them(timings):
    timing = timings["sdpa"]
    rows = [{"stage": "vision", "module": None, "seconds": 2.0, "spread_seconds": 0.1, "origin": "measured here"}]
    rows += [{**rows[0], "module": "sam.mlp", "seconds": 0.5, "spread_seconds": None}]
    chart = time_by_module(timing, measured=rows)
    ends = {row["row"]: row for row in (*chart.datasets["heads"], *chart.datasets["ends"])}
    assert ends["vision|"]["end"] == 2.0 and ends["vision|SAM MLP"]["end"] == 0.5 and "◇ 2.00 s" in ends["vision|"]["text"]
    assert chart.params["room"] > 1.9 * 2.0 and "◇ measured here" in headline(chart)
    assert chart.template is not time_by_module(timing).template
