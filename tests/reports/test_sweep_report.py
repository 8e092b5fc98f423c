"""Reports on sweeps: whole on odd sweeps, every number the table's, what is left out named."""

import re
from datetime import date
from functools import cache

import polars as pl
import pytest
from PIL import Image

from ocr_flops.cli import main
from ocr_flops.measure import client
from ocr_flops.reports.sweep_report import SweepReport
from ocr_flops.studies.sweeps.plan import load_sweep
from ocr_flops.studies.sweeps.results import STAGES
from ocr_flops.units import seconds, si
from tests.support.sweep_results import SWEEPS, results_named, results_of
from tests.support.timed import Inside


@cache
def report(name):
    return SweepReport(results_named(name), date(2026, 1, 2))


CHOSEN = "two GPUs, batches", "published code", "vendor, no device"


@pytest.mark.parametrize("name", [*CHOSEN, *(pytest.param(name, marks=pytest.mark.verification) for name in SWEEPS if name not in CHOSEN)])
def test_every_sweep_has_a_report_that_is_whole(name):
    text = report(name).markdown("svg")
    assert not re.search(r"\bNone\b|\bnan\b|\d{9}", text.split("## Settings")[0]), text[:2000]
    assert text.startswith("# DeepSeek-OCR, a sweep") and "2026-01-02" in text
    images = re.findall(r"\(charts/(\w+)\.svg\)", text)
    assert images == list(report(name).charts) and {"flops", "flop_split_log", "traffic", "weights", "kv_cache"} <= set(images)
    assert ("ttft" in images) is (name not in ("vendor, no device", "vision"))
    assert ("tpot" in images) is (name not in ("vendor, no device", "vision", "no output"))
    assert ("required_bandwidth_ttft" in images) is (name != "vision")
    assert "![" not in report(name).markdown()


def test_findings_are_those_of_the_table():
    found = report("reference")
    frame, words = found.results.tables[STAGES].frame(), found.findings
    first = frame.filter(pl.col("stage").is_in(["vision", "prefill"])).group_by("point").agg(pl.col("expected_seconds").sum())
    assert seconds(first["expected_seconds"].min()) in words and seconds(first["expected_seconds"].max()) in words
    known = frame.filter(pl.col("stage") == "vision")["vendor_supported"].sum()
    assert f"{known} of 106 points" in words
    largest = frame.filter(pl.col("image_tokens") == frame["image_tokens"].max()).group_by("attention").agg(pl.col("io_bytes").sum())
    moved = {str(attention): value for attention, value in largest.rows()}
    assert si(moved["eager"] - moved["flash"], "B") in words


def test_the_table_has_the_numbers_of_the_points():
    lines = report("modes").markdown().splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("| views"))
    heads, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[begin : begin + 8] if "---" not in line)
    frame = report("modes").results.tables[STAGES].frame().group_by("mode", maintain_order=True).agg(pl.col("total_flops").sum())
    assert [(row[heads.index("resolution")], row[heads.index("FLOPs")]) for row in rows] == [
        (str(mode), si(flops)) for mode, flops in frame.rows()
    ]


def test_numbers_that_vary_besides_are_held_and_named():
    words = report("two GPUs, batches").findings
    assert "Held at batch size 1" in words and f"about {22 * 6} of {22 * 12} points" in words


def test_what_is_left_out_is_named(tmp_path):
    Image.new("L", (800, 600)).save(tmp_path / "a<img src=x>.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    found = SweepReport(results_of(load_sweep(["sweep=images", f"sweep.images={tmp_path}"])))
    assert "**1 is left out**" in found.markdown() and re.search(r"\| left out \| .*b\.png: neither an image", found.markdown())
    assert "a&lt;img src=x&gt;.png, page 1" in found.html() and "<img src=x" not in found.html()


def test_the_page_loads_nothing_from_anywhere():
    page = report("one point").html(in_child=True)
    assert page.startswith("<!DOCTYPE html>") and "default-src 'none'" in page and "512 px view" in page
    assert re.findall(r'class="chart" id="(\w+)"', page) == list(report("one point").charts)


def test_what_the_real_model_said_is_in_the_report(tmp_path, monkeypatch):
    monkeypatch.setattr(client, "Worker", Inside)
    overrides = ["model=tiny_test", "workload.columns=2", "workload.rows=1", "workload.output_tokens=1", "attention=eager", "measure=meta"]
    assert main(["sweep", *overrides, "--out", str(tmp_path / "run"), "--format", "md"]) == 0
    text = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert re.search(r"The real model ran beside 1 of 1 points\*\*: \d+ numbers .*, all equal, as integers\.", text)
