"""Reports on a sweep: every number is the table's, every sentence true on odd sweeps, files where the manifest says."""

import json
import re
from datetime import date
from functools import cache
from itertools import pairwise

import polars as pl
import pytest
from PIL import Image

from ocr_flops.charts.sweep import charts
from ocr_flops.charts.sweep.reading import shown as read_twice
from ocr_flops.charts.sweep.wording import where
from ocr_flops.cli import main
from ocr_flops.reports.sweep_report import SweepReport
from ocr_flops.studies.sweeps.plan import load_sweep
from ocr_flops.studies.sweeps.results import STAGES, Results, Table, cases_frame
from ocr_flops.units import seconds, si

SWEEPS = {
    "reference": ["sweep=reference", "attention=[eager,flash]", "hardware=h200"],
    "vendor, no device": ["sweep=vendor", "attention=vendor"],
    "modes": ["sweep=modes", "hardware=l4"],
    "one point": ["workload=tiny", "hardware=l4"],
    "no output": ["sweep=vendor", "workload.output_tokens=0", "hardware=l4"],
    "vision": ["sweep=vendor", "stages=[vision]", "hardware=l4"],
    "two GPUs, batches": ["sweep=vendor", "hardware=[l4,h200]", "workload.batch_size=[1,8]", "attention=[eager,sdpa,flash]"],
    "published code": ["sweep=vendor", "engine=remote_code", "attention=[eager,flash]", "hardware=l4"],
    "lengths": ["workload.columns=2", "workload.rows=3", "workload.output_tokens=0:512:128", "hardware=l4"],
}


@cache
def report(name):
    return report_of(load_sweep(SWEEPS[name]))


def report_of(sweep):
    return SweepReport(Results(None, sweep, {STAGES: Table(STAGES, sweep.stages_frame())}), date(2026, 1, 2))


@pytest.mark.parametrize("name", SWEEPS)
def test_every_sweep_has_a_report_that_is_whole(name):
    found = report(name)
    text = found.markdown("svg")
    assert not re.search(r"\bNone\b|\bnan\b|\d{9}", text.split("## What was asked")[0]), text[:2000]
    assert text.startswith("# DeepSeek-OCR, a sweep") and "## Conventions" in text and "Compared before" in text
    images = re.findall(r"\(charts/(\w+)\.svg\)", text)
    assert images == list(found.charts) and {"flops", "flop_split_log", "traffic", "weights", "kv_cache"} <= set(images)
    assert ("ttft" in images) is (name not in ("vendor, no device", "vision"))
    assert ("tpot" in images) is (name not in ("vendor, no device", "vision", "no output"))
    assert ("required_bandwidth_ttft" in images) is (name != "vision")


def test_findings_are_those_of_the_table():
    found = report("reference")
    frame, told = found.results.tables[STAGES].frame(), " ".join(found.findings)
    first = frame.filter(pl.col("stage").is_in(["vision", "prefill"])).group_by("point").agg(pl.col("roofline_seconds").sum())
    assert seconds(first["roofline_seconds"].min()) in told and seconds(first["roofline_seconds"].max()) in told
    known = frame.filter(pl.col("stage") == "vision")["vendor_supported"].sum()
    assert f"{known} of 106 points" in told
    by_mode = frame.filter(pl.col("image_tokens") == frame["image_tokens"].max()).group_by("attention").agg(pl.col("io_bytes").sum())
    moved = {str(mode): value for mode, value in by_mode.rows()}
    assert f"{si(moved['eager'] - moved['flash'], 'B')}" in told


def test_required_rates_are_work_over_the_target():
    found = report("reference")
    chart = charts(found.shown, {"ttft": 0.25})["required_bandwidth_ttft"]
    frame = (
        found.results.tables[STAGES]
        .frame()
        .filter(pl.col("stage").is_in(["vision", "prefill"]))
        .group_by("point")
        .agg(pl.col("io_bytes").sum())
    )
    assert max(row["value"] for row in chart.datasets["points"]) == 4 * frame["io_bytes"].max()


def test_what_varies_besides_is_held_and_said():
    found = report("two GPUs, batches")
    shown = found.shown
    assert shown.axis == "image_tokens" and shown.held == {"batch_size": 1} and set(shown.points["batch_size"]) == {1}
    assert set(shown.series) == {"attention", "hardware"} and shown.left_out == 0
    told = " ".join(found.findings)
    assert "Held at batch size 1, one of the values of the sweep" in told and f"about {22 * 6} of {22 * 12} points" in told


def drawn(shown, name):
    return charts(shown, {"ttft": 0.5, "tpot": 0.02})[name]


def test_resolution_modes_are_named_places():
    found = report("modes")
    shown = found.shown
    assert list(shown.names.values()) == ["tiny", "small", "base", "large", "gundam", "gundam_m"] and shown.axis_name == "resolution mode"
    points = drawn(shown, "kv_cache").datasets["points"]
    assert [point["where"] for point in points] == list(shown.names.values())
    frame = found.results.tables[STAGES].frame().group_by("mode").agg(pl.col("kv_cache_bytes").max())
    sizes = {str(mode): size for mode, size in frame.rows()}
    assert {point["where"]: point["value"] for point in points} == sizes


def test_what_is_the_same_everywhere_is_bars_and_lines_alike_are_one():
    shown = report("two GPUs, batches").shown
    weights, times = drawn(shown, "weights"), drawn(shown, "ttft")
    assert [bar["row"] for bar in weights.datasets["bars"]] == ["vision", "prefill = decode"]
    assert {end["text"].split(":")[0] for end in drawn(shown, "kv_cache").datasets["ends"]} == {si(max_of(shown, "kv_cache_bytes"), "B")}
    assert "logarithmic" in json.dumps(times.template.spec) and len(times.datasets["ends"]) == 6  # two GPUs differ by orders of magnitude
    assert "logarithmic" not in json.dumps(drawn(report("modes").shown, "ttft").template.spec)


def max_of(shown, measure):
    return shown.most(measure)[measure]


def test_only_what_matters_to_a_measure_is_said_of_a_point():
    shown = report("two GPUs, batches").shown
    row = shown.most("io_bytes")
    assert where(shown, row, "io_bytes") == "1,263 image tokens (eager)"  # on either GPU
    row = shown.most("ttft.roofline_seconds")
    assert where(shown, row, "ttft.roofline_seconds") == "1,263 image tokens (eager, l4)"


def test_words_at_the_ends_of_lines_stand_apart():
    for name in ("reference", "two GPUs, batches"):
        shown = report(name).shown
        for chart in charts(shown, {"ttft": 0.5, "tpot": 0.02}).values():
            places = sorted(end["y"] for end in chart.datasets.get("ends", []))
            assert all(below - above >= 14.9 for above, below in pairwise(places)) and (not places or 0 <= places[0] <= places[-1] <= 340)


def test_what_was_asked_names_what_is_left_out(tmp_path):
    Image.new("L", (800, 600)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    sweep = load_sweep(["sweep=images", f"sweep.images={tmp_path}"])
    text = report_of(sweep).markdown()
    assert (
        "**1 is left out** of what was asked" in text
        and re.search(r"left out: .*b\.png: neither an image", text)
        and "| a.png, page 1 |" in text
    )


def parts(sweep, size):
    return lambda: [sweep.stages_frame(first, min(first + size, sweep.points)) for first in range(0, sweep.points, size)]


def test_series_beyond_the_first_are_left_out_and_said():
    sweep = load_sweep(
        ["workload.columns=2", "workload.rows=[1,2]", "attention=[eager,sdpa,flash]", "dtype=[bf16,fp16]", "cache=[dynamic,static]"]
    )
    shown = read_twice(parts(sweep, 10), cases_frame(sweep), sweep.points_per_case)
    assert shown.left_out == 6 and "6 more series" in " ".join(shown.part)
    assert shown.points.select("attention", "dtype", "cache").unique().height == 6


def test_a_sweep_in_parts_is_shown_as_in_one():
    sweep = load_sweep(["sweep=vendor", "workload.output_tokens=1:300", "attention=[eager,flash]", "hardware=h200"])
    one, several = (read_twice(parts(sweep, size), cases_frame(sweep), sweep.points_per_case) for size in (10**6, 1_000))
    order = ["series attention", "x"]
    assert one.lines.sort(order).equals(several.lines.sort(order)) and one.held == {} and one.spread
    frame = sweep.stages_frame().filter(pl.col("stage") == "decode")
    place = one.lines.filter((pl.col("series attention") == "eager") & (pl.col("x") == 483))
    of_place = frame.filter((pl.col("attention").cast(str) == "eager") & (pl.col("image_tokens") == 483))["io_bytes"]
    assert place["decode.io_bytes<"].item() == of_place.min() and place["decode.io_bytes>"].item() == of_place.max()
    assert place["decode.io_bytes"].item() == of_place.median() and place["n"].item() == len(of_place)
    assert several.most("io_bytes")["io_bytes"] == one.most("io_bytes")["io_bytes"]


def test_of_a_long_sweep_some_points_are_kept_and_the_ends_of_all(monkeypatch):
    monkeypatch.setattr("ocr_flops.charts.sweep.reading.KEPT", 500)
    sweep = load_sweep(["sweep=vendor", "workload.output_tokens=1:300", "attention=[eager,flash]"])
    shown = read_twice(parts(sweep, 1_000), cases_frame(sweep), sweep.points_per_case)
    assert shown.every == 27 and 0.7 * 500 < shown.points.height < 1.3 * 500 and shown.count == sweep.points
    by_mode = shown.points.group_by("attention").len()
    assert by_mode["len"].n_unique() == 1  # a point under every mode, or under none
    assert shown.points["output_tokens"].n_unique() > 150  # not the same few values of every stretch
    assert shown.most("total_flops")["output_tokens"] == 300


def test_the_page_loads_nothing_from_anywhere():
    page = report("one point").html(in_child=True)
    assert page.startswith("<!DOCTYPE html>") and "default-src 'none'" in page and "512 px view" in page


def test_what_the_real_model_said_is_in_the_report(tmp_path):
    out = tmp_path / "run"
    run = [
        "sweep",
        "model=tiny_test",
        "workload.columns=2",
        "workload.rows=1",
        "workload.output_tokens=1",
        "attention=eager",
        "measure=meta",
    ]
    assert main([*run, "--out", str(out), "--format", "md"]) == 0
    text = (out / "report.md").read_text(encoding="utf-8")
    assert re.search(r"The real model ran beside 1 of 1 points\*\*: \d+ numbers in the table `measured`, all equal, as integers\.", text)
