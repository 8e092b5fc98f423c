"""Charts of sweeps: what runs along them, what separates their lines, and numbers that are the table's."""

import json
from functools import cache
from itertools import pairwise

import polars as pl
from polars.testing import assert_frame_equal

from ocr_flops.charts.sweep import summary as summaries
from ocr_flops.charts.sweep import sweep_charts
from ocr_flops.charts.sweep.summary import name_views, summarize_sweep
from ocr_flops.charts.sweep.wording import Wording
from ocr_flops.studies.sweeps.plan import load_sweep
from ocr_flops.studies.sweeps.results import STAGES, TARGETS
from ocr_flops.units import si
from tests.support.sweep_results import results_in_parts, results_named, results_of


@cache
def summary_named(name):
    return summarize_sweep(results_named(name))


@cache
def charts_named(name):
    return sweep_charts(summary_named(name), TARGETS)


def test_required_rates_are_work_over_the_target():
    chart = sweep_charts(summary_named("reference"), {"ttft": 0.25})["required_bandwidth_ttft"]
    frame = results_named("reference").tables[STAGES].frame().filter(pl.col("stage").is_in(["vision", "prefill"]))
    assert (
        max(row["value"] for row in chart.datasets["points"]) == 4 * frame.group_by("point").agg(pl.col("io_bytes").sum())["io_bytes"].max()
    )


def test_numbers_that_vary_besides_are_held():
    found = summary_named("two GPUs, batches")
    assert found.layout.axis == "image_tokens" and found.layout.held == {"batch_size": (1,)} and set(found.points["batch_size"]) == {1}
    assert set(found.layout.columns) == {"attention", "hardware"} and found.left_out == 0 and found.count == 22 * 6


def test_a_further_axis_is_shown_at_its_ends_and_its_middle():
    results = results_of(load_sweep(["workload.columns=1:3", "workload.output_tokens=0:1000:100", "hardware=l4"]))
    found = summarize_sweep(results)
    assert found.layout.axis == "image_tokens" and found.layout.held == {"output_tokens": (0, 500, 1000)}
    assert "output_tokens" in found.layout.columns and len(found.series) == 3 and found.count == 9 and found.total == 33


def test_one_page_and_one_token_are_named_so():
    words = Wording(summarize_sweep(results_of(load_sweep(["workload.columns=1:1", "workload.batch_size=1:4:3", "hardware=l4"]))))
    assert {words.name_place(row) for row in words.summary.points.to_dicts()} == {"1 page in a batch", "4 pages in a batch"}


def test_resolutions_are_named_places():
    found = summary_named("modes")
    assert (
        list(found.layout.resolutions.values()) == ["tiny", "small", "base", "large", "gundam", "gundam_m"]
        and Wording(found).axis == "resolution"
    )
    points = charts_named("modes")["kv_cache"].datasets["points"]
    sizes = results_named("modes").tables[STAGES].frame().group_by("mode").agg(pl.col("kv_cache_bytes").max())
    assert {point["where"]: point["value"] for point in points} == {str(mode): size for mode, size in sizes.rows()}
    assert [point["where"] for point in points] == list(found.layout.resolutions.values())


def test_what_is_the_same_everywhere_is_bars_and_lines_alike_are_one():
    charts = charts_named("two GPUs, batches")
    assert [bar["row"] for bar in charts["weights"].datasets["bars"]] == ["vision", "prefill = decode"]
    largest = summary_named("two GPUs, batches").most("kv_cache_bytes")["kv_cache_bytes"]
    assert {end["text"] for end in charts["kv_cache"].datasets["ends"]} == {si(largest, "B")}
    assert "logarithmic" in json.dumps(charts["ttft"].to_dict()) and len(charts["ttft"].datasets["ends"]) == 6  # very different GPUs
    assert "logarithmic" not in json.dumps(charts_named("modes")["ttft"].to_dict())


def test_only_what_matters_to_a_measure_is_said_of_a_point():
    found = summary_named("two GPUs, batches")
    row = found.most("io_bytes")
    assert Wording(found).name_point(row, "io_bytes") == "1,263 image tokens (eager)"  # on either GPU
    row = found.most("ttft.roofline_seconds")
    assert Wording(found).name_point(row, "ttft.roofline_seconds") == "1,263 image tokens (eager, l4)"


def test_words_at_the_ends_of_lines_are_not_over_each_other():
    for name in ("reference", "two GPUs, batches"):
        for chart in charts_named(name).values():
            places = sorted(end["y"] for end in chart.datasets.get("ends", []))
            assert all(below - above >= 14.9 for above, below in pairwise(places)) and (not places or 0 <= places[0] <= places[-1] <= 340)


def test_series_beyond_the_first_are_left_out():
    choices = ["attention=[eager,sdpa,flash]", "dtype=[bf16,fp16]", "cache=[dynamic,static]"]
    found = summarize_sweep(results_of(load_sweep(["workload.columns=2", "workload.rows=[1,2]", *choices])))
    assert found.left_out == 6 and "6 more series" in " ".join(Wording(found).omissions)
    assert found.points.select("attention", "dtype", "cache").unique().height == 6
    assert found.series[0] == ("eager", "bf16", "dynamic")


def test_a_sweep_in_parts_is_summarized_as_in_one(tmp_path):
    sweep = load_sweep(["sweep=vendor", "workload.output_tokens=1:300", "attention=[eager,flash]", "hardware=h200"])
    one, several = summarize_sweep(results_of(sweep)), summarize_sweep(results_in_parts(sweep, tmp_path, 5_000))
    assert_frame_equal(one.lines, several.lines, check_exact=False, rel_tol=1e-12)  # sums of expected seconds round by chunks of points
    assert one.layout.held == {} and one.has_ranges
    assert one.extremes.select("point").equals(several.extremes.select("point"))
    rows = pl.col("stage") == "decode", pl.col("attention").cast(pl.String) == "eager", pl.col("image_tokens") == 483
    numbers = sweep.stages_frame().filter(*rows)["io_bytes"]
    place = one.lines.filter((pl.col("series attention") == "eager") & (pl.col("x") == 483))
    assert [place[f"decode.io_bytes{end}"].item() for end in ("<", "", ">")] == [numbers.min(), numbers.median(), numbers.max()]
    assert place["n"].item() == len(numbers)


def test_of_a_long_sweep_some_points_are_kept_and_the_ends_of_all(tmp_path, monkeypatch):
    monkeypatch.setattr(summaries, "KEPT", 500)
    sweep = load_sweep(["sweep=vendor", "workload.output_tokens=1:300", "attention=[eager,flash]"])
    found = summarize_sweep(results_in_parts(sweep, tmp_path, 5_000))
    assert found.every == 27 and 0.7 * 500 < found.points.height < 1.3 * 500 and found.count == sweep.points
    assert found.points.group_by("attention").len()["len"].n_unique() == 1  # a point under every kernel, or under none
    assert found.points["output_tokens"].n_unique() > 150
    assert found.most("total_flops")["output_tokens"] == 300


def test_a_page_without_views_is_whole():
    assert name_views({"global_px": 0, "tiles": 0}) == "whole page"
