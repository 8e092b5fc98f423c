"""Timelines show every operator once, with the time that each lane takes, and say how busy the device is."""

import re

import polars as pl
import pytest

import ocr_flops as of
from ocr_flops.charts import stage_timeline, timeline
from ocr_flops.charts.timeline import merge_operators, timelines
from ocr_flops.timing.timeline import timeline as play
from tests.support.drawing import assert_draws, headline


def timed(model, gpu="h200", host=None, engine="transformers", **page):
    cost = of.estimate(model, of.Workload.from_grid(2, 3, output_tokens=8, **page), engine=engine)
    return cost.on(of.load_hardware(gpu), host=host)


def busy_words(chart):
    return re.search(r"device busy (\S+) % of it", headline(chart)).group(1)


@pytest.mark.parametrize(("gpu", "host"), [("h200", None), ("l4", None), ("h200", "graphs"), ("h200", "none")])
def test_the_title_says_the_stages_time_and_how_busy_the_device_is(model, gpu, host):
    timing = timed(model, gpu, host)
    for stage, seconds, share in timing.stages.select("stage", "expected_seconds", "device_busy_share").iter_rows():
        chart = stage_timeline(timing, stage)
        whole = seconds / 8 if stage == "decode" else seconds  # the steps differ by less than a percent here
        assert chart.params["total"] == pytest.approx(whole, rel=0.01) and float(busy_words(chart)) == pytest.approx(100 * share, abs=1)
        assert ("µs an operator" in headline(chart)) is (host is None or (host == "graphs" and stage != "decode"))
        assert_draws(chart)
    assert [*timelines(timing)] == ["timeline_vision", "timeline_prefill", "timeline_decode"]


@pytest.mark.parametrize("parts", [0, 200])
def test_merged_bars_keep_what_each_lane_works_and_waits(model, parts):
    operators = play(timed(model, engine="remote_code"), "prefill")
    least = parts and operators["kernel_end_seconds"].max() / parts
    bars = merge_operators(operators, least)
    for lane, work in (("host", "issue"), ("device", "kernel")):
        mine = bars.filter(lane=lane)
        worked = (operators[f"{work}_end_seconds"] - operators[f"{work}_start_seconds"]).sum()
        assert ((mine["end"] - mine["start"]) * mine["opacity"]).sum() == pytest.approx(worked)
        assert worked + mine["wait"].sum() == pytest.approx(operators[f"{work}_end_seconds"][-1])
        merged = mine.filter(pl.col("operator").str.contains(" operators, "))
        assert (mine.height == operators.height) is (parts == 0) is merged.is_empty()
        assert mine.height - merged.height + merged["operator"].str.extract(r"^(\d+)").cast(int).sum() == operators.height
        assert merged.is_empty() or (merged["end"] - merged["start"] - merged["wait"]).max() < 2 * least


def test_the_host_waits_where_a_result_is_read_and_at_the_end(model):
    timing = timed(model, "l4", engine="remote_code", batch_size=2)
    chart = stage_timeline(timing, "prefill")
    operators = play(timing, "prefill")
    waits = chart.datasets["waits"]
    assert 1 < len(waits) <= operators["synchronises"].sum() + 1
    whole = chart.params["total"] - (operators["issue_end_seconds"] - operators["issue_start_seconds"]).sum()
    assert sum(row["end"] - row["start"] for row in waits) == pytest.approx(whole, abs=1e-7)
    assert chart.template is stage_timeline(timing, "decode").template


def test_of_very_many_operators_the_first_are_drawn(model, monkeypatch):
    timing = timed(model, "l4", engine="remote_code", batch_size=3)
    share = timing.stages.filter(stage="vision")["device_busy_share"][0]
    monkeypatch.setattr(timeline, "PLAYED", 4_000)
    chart = stage_timeline(timing, "vision")
    assert "first 2,000 of" in headline(chart) and float(busy_words(chart)) == pytest.approx(100 * share, abs=0.5)
    assert "share a bar" in headline(chart) and len(chart.datasets["bars"][0]["kind"]) < 1_000


def test_a_bars_kind_names_its_operator(model):
    chart = stage_timeline(timed(model), "decode")
    bars, kinds = chart.datasets["bars"][0], chart.params["kinds"]
    names = [kinds[number] for number in bars["kind"]]
    assert names[0][0] == "host" and names[-1][3] == "sampling, bookkeeping" and bars["end"][-1] == pytest.approx(chart.params["total"])
    assert sum(lane == "device" and module == "lm_head" for lane, module, *_ in ((one[0], one[2]) for one in names)) >= 1
