"""Reports on a sweep: every number is the table's, every sentence true on odd sweeps, files where the manifest says."""

import json
import re

import polars as pl
import pytest

from ocr_flops.charts.run import charts, cut, rows_of_phase
from ocr_flops.charts.style import seconds, si
from ocr_flops.cli import main
from ocr_flops.reports.run import Report, html, markdown
from ocr_flops.sweeps.outputs import STAGES, Results, Table
from ocr_flops.sweeps.plan import load_sweep

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


def results(name, tmp_path=None):
    sweep = load_sweep(SWEEPS[name])
    return Results(tmp_path, sweep, {STAGES: Table(STAGES, ("point", "stage"), sweep.frame(0, sweep.points))})


@pytest.mark.parametrize("name", SWEEPS)
def test_every_sweep_has_a_report_that_is_whole(name):
    found = results(name)
    text = markdown(found, ("svg",))
    assert not re.search(r"\bNone\b|\bnan\b|\d{9}", text.split("## What was asked")[0]), text[:2000]
    assert text.startswith("# DeepSeek-OCR, a sweep: ") and "## Conventions" in text and "Compared before" in text
    images = re.findall(r"\(charts/(\w+)\.svg\)", text)
    report = Report(found, found_date())
    assert images == list(report.charts) and {"flops", "flop_split_log", "traffic", "weights", "kv_cache"} <= set(images)
    assert ("ttft" in images) is (name not in ("vendor, no device", "vision"))
    assert ("tpot" in images) is (name not in ("vendor, no device", "vision", "no output"))
    assert ("required_bandwidth_ttft" in images) is (name != "vision")


def found_date():
    from datetime import date

    return date(2026, 1, 2)


def test_findings_are_those_of_the_table():
    found = results("reference")
    frame, told = found.tables[STAGES].frame(), " ".join(Report(found, found_date()).findings)
    first = frame.filter(pl.col("stage").is_in(["vision", "prefill"])).group_by("point").agg(pl.col("roofline_seconds").sum())
    assert seconds(first["roofline_seconds"].min()) in told and seconds(first["roofline_seconds"].max()) in told
    known = frame.filter(pl.col("stage") == "vision")["vendor_supported"].sum()
    assert f"{known} of 106 points" in told
    by_mode = frame.filter(pl.col("image_tokens") == frame["image_tokens"].max()).group_by("attention").agg(pl.col("io_bytes").sum())
    moved = {str(mode): value for mode, value in by_mode.rows()}
    assert f"{si(moved['eager'] - moved['flash'], 'B')}" in told


def test_required_rates_are_work_over_the_target():
    found = results("reference")
    shown = cut(found.tables[STAGES].frames)
    chart = charts(shown, {"ttft": 0.25})["required_bandwidth_ttft"]
    rows = rows_of_phase(shown, "ttft", "io_bytes")
    assert max(row["value"] for row in chart.datasets["points"]) == 4 * max(row["value"] for row in rows)
    frame = shown.frame.filter(pl.col("stage").is_in(["vision", "prefill"])).group_by("point").agg(pl.col("io_bytes").sum())
    assert max(row["value"] for row in rows) == frame["io_bytes"].max()


def test_what_varies_besides_is_held_and_said():
    shown = cut(results("two GPUs, batches").tables[STAGES].frames)
    assert shown.axis == "image_tokens" and shown.held == {"batch_size": 1} and set(shown.frame["batch_size"]) == {1}
    assert set(shown.series) == {"attention", "hardware"} and shown.left_out == 0
    told = " ".join(Report(results("two GPUs, batches"), found_date()).findings)
    assert "Held at batch size 1, the smallest of the sweep" in told


def test_series_beyond_the_first_are_left_out_and_said():
    sweep = load_sweep(["workload.columns=2", "workload.rows=[1,2]", "attention=[eager,sdpa,flash]", "dtype=[bf16,fp16]", "cache=[dynamic,static]"])
    shown = cut(lambda: [sweep.frame(0, 10), sweep.frame(10, sweep.points)])
    assert shown.left_out == 6 and "6 more series" in shown.words
    assert shown.frame.select("attention", "dtype", "cache").unique().height == 6


def test_the_command_writes_all_of_it_and_lists_it(tmp_path, capsys):
    out = tmp_path / "run"
    command = ["sweep", "workload.columns=2", "workload.rows=[1,2]", "--out", str(out), "--format", "parquet,svg,png,md,html", "--ttft", "0.1"]
    assert main(command) == 0
    listed = {one["path"] for one in json.loads((out / "manifest.json").read_text())["files"]}
    assert {"report.md", "report.html", "charts/flops.svg", "charts/flops.png", "stages.parquet"} <= listed
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "TTFT 100 ms" in text and all((out / path).is_file() for path in re.findall(r"\]\((charts/[^)]*)\)", text))
    assert (out / "charts/flops.png").read_bytes().startswith(b"\x89PNG")
    assert main([*command, "--overwrite", "--tpot", "-1"]) == 2
    assert "--tpot: -1.0 is not a number of seconds above 0" in capsys.readouterr().err


def test_the_page_loads_nothing_from_anywhere():
    page = html(results("one point"), in_child=True)
    assert page.startswith("<!DOCTYPE html>") and "default-src 'none'" in page and "512 px view" in page


def test_what_the_real_model_said_is_in_the_report(tmp_path):
    out = tmp_path / "run"
    run = ["sweep", "model=tiny_test", "workload.columns=2", "workload.rows=1", "workload.output_tokens=1", "attention=eager", "measure=meta"]
    assert main([*run, "--out", str(out), "--format", "md"]) == 0
    text = (out / "report.md").read_text(encoding="utf-8")
    assert re.search(r"The real model ran beside this sweep: \d+ numbers in the table `measured`, all equal, as integers\.", text)
