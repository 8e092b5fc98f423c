"""What records say of a setting: laid over its charts, counted, and what is calibrated by them."""

from dataclasses import replace

import polars as pl
import pytest

import ocr_flops as of
from ocr_flops import charts
from ocr_flops.app import views
from ocr_flops.app.records_overlay import COUNTED, OnRecord
from ocr_flops.app.setting import Setting
from ocr_flops.charts import times
from ocr_flops.evidence.calibration import Calibration, Uncalibrated
from ocr_flops.evidence.records import records_frame
from ocr_flops.evidence.records.cache import Snapshot
from ocr_flops.measure.plan import POINT_FIELDS
from tests.support import synthetic

MODEL = of.load_model("deepseek_ocr")
SETTING = Setting(gpu="l4", output_tokens=16)
PAGES = [("tiny", (1, 1)), ("base", (1, 1)), ("gundam", (1, 2)), ("gundam", (2, 3)), ("gundam", (3, 3))]


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    """Records of an L4, with modules of the setting's point."""
    points = synthetic.workloads(pages=PAGES, batches=(1, 2))
    stages = synthetic.frame(points, MODEL, hardware="l4", attention=("sdpa", "eager")).with_columns(
        pl.lit("2.13.0").alias("torch"), pl.lit("5.23.0").alias("transformers")
    )
    empty = records_frame(tmp_path_factory.mktemp("none"), level="module", shipped=tmp_path_factory.mktemp("no"))[0]
    same = [pl.col(name) == getattr(SETTING.workload, name) for name in POINT_FIELDS]
    rows = []
    estimate = of.estimate(MODEL, SETTING.workload, "sdpa")
    for stage in stages.filter(*same, attention="sdpa").iter_rows(named=True):
        for module in estimate.on(SETTING.device).modules.filter(stage=stage["stage"]).iter_rows(named=True):
            flops = int(module["torch_flops"])
            figures = {"median_seconds": 2 * module["roofline_seconds"], "torch_flops_counted": flops, "analytic_torch_flops": flops}
            rows.append({name: stage.get(name) for name in empty.columns} | figures | {"module": module["module"]})
    counted = {name: int(row["torch_flops"]) for name, row in estimate.stage_numbers.items()}
    stages = stages.with_columns(
        pl.when(pl.all_horizontal(*same)).then(pl.col("stage").replace_strict(counted, return_dtype=pl.Int64)).alias(name)
        for name in ("torch_flops_counted", "analytic_torch_flops")
    )
    return Snapshot(stages, pl.DataFrame(rows, empty.schema, orient="row"), ())


def shown(snapshot, setting=SETTING):
    on_record = OnRecord(snapshot, MODEL, setting)
    return on_record, views.Results(MODEL, setting, (), on_record)


def datasets(chart):
    return chart.to_dict()["datasets"]


def test_times_lie_over_the_bars_of_the_same_point_and_attention(snapshot):
    on_record, found = shown(snapshot)
    rows = found.timed
    wholes = {row["stage"]: row["seconds"] for row in rows if row["module"] is None}
    mine = {name: getattr(SETTING.workload, name) for name in POINT_FIELDS}
    exact = snapshot.stages.filter(*(pl.col(name) == value for name, value in mine.items()), attention="sdpa")
    assert wholes == dict(exact.select("stage", "median_seconds").iter_rows()) and len(wholes) == 3
    first, after = list(times.halves(found.timings[0], rows).values())
    points = {point["row"]: point["seconds"] for point in datasets(first)["measured"]}
    assert points["vision|"] == wholes["vision"] and points["prefill|"] == wholes["prefill"] and len(points) > 10
    assert {point["row"].split("|")[0] for point in datasets(after)["measured"]} == {"decode"}
    words = " ".join(first.title.subtitle)
    assert "◇ measured on NVIDIA L4" in words and "recorded here" in words
    mlp = next(bar for bar in datasets(first)["ends"] if bar["row"] == "vision|SAM MLP")
    assert mlp["end"] == max(points["vision|SAM MLP"], mlp["seconds"]) and "◇" in mlp["text"]
    assert on_record.rows["origin"][0] == "measured on NVIDIA L4 (24 GB), 2026-01-02, torch 2.13.0, transformers 5.23.0; recorded here"
    assert len(on_record.rows) == len(PAGES) * 2 * 3 * 3  # every workload in this attention, three stages each


@pytest.mark.parametrize(
    "other", [{"gpu": "t4", "dtype": "fp16"}, {"dtype": "fp16"}, {"batch_size": 3}, {"attention": "flash"}, {"cache": "static"}]
)
def test_records_of_something_else_are_not_laid_over_its_times(snapshot, other):
    _, found = shown(snapshot, Setting(**{"gpu": "l4", "output_tokens": 16} | other))
    assert found.timed == [] and found.allocated == {}
    for chart in (charts.time_by_module(found.timings[0], measured=found.timed), charts.roofline(found.timings[0], found.timed)):
        assert datasets(chart).get("measured", []) == [] and not any("◇" in line for line in chart.title.subtitle)


def test_experts_that_run_otherwise_than_estimated_are_not_laid_over_times(snapshot):
    _, found = shown(replace(snapshot, stages=snapshot.stages.with_columns(pl.lit("eager").alias("experts"))))
    assert found.timed == [] and found.allocated == {}


def test_the_roofline_shows_what_was_attained(snapshot):
    _, found = shown(snapshot)
    points = {(point["stage"], point["name"]): point for point in datasets(charts.roofline(found.timings[0], found.timed))["measured"]}
    row = found.timings[0].modules.filter(stage="vision", module="sam.mlp").row(0, named=True)
    assert points["vision", "SAM MLP"]["attained"] == pytest.approx(row["total_flops"] / row["roofline_seconds"] / 2)
    assert points["vision", "SAM MLP"]["times"] == "2 times" and ("vision", "whole stage") in points
    assert ("vision", "CLIP embedding") not in points  # too small a part of the time


def test_memory_shows_what_was_allocated(snapshot):
    _, found = shown(snapshot)
    chart = charts.memory(found.estimates, SETTING.device, allocated=found.allocated)
    (point,) = datasets(chart)["measured"]
    assert (
        point["row"] == "vendor"
        and point["end"]
        == snapshot.stages.filter(*(pl.col(name) == getattr(SETTING.workload, name) for name in POINT_FIELDS), attention="sdpa")[
            "peak_allocated_bytes"
        ].max()
    )


def test_counts_lie_over_the_flops_whatever_the_device(snapshot):
    for setting in (SETTING, Setting(gpu="h200", output_tokens=16, attention="flash")):
        on_record, found = shown(snapshot, setting)
        assert 0 < len(on_record.counted) <= COUNTED
        points = {point["row"]: point for point in datasets(charts.flops_by_module(found.modules, found.beside))["points"]}
        assert points["vision|SAM MLP"]["difference"] == 0 and "NVIDIA L4" in points["vision|SAM MLP"]["measured"]
        assert len(points) > 15 and {row.split("|")[0] for row in points} == {"vision", "prefill", "decode"}


def test_figures_are_calibrated_by_the_device_shown(snapshot):
    on_record, found = shown(snapshot)
    said = on_record.calibrated(found.estimates[0])
    assert isinstance(on_record.calibration, Calibration)
    measured = {row["stage"]: row["seconds"] for row in found.timed if row["module"] is None}
    assert said.ttft_seconds.value == pytest.approx(measured["vision"] + measured["prefill"], rel=0.05)
    assert said.ttft_seconds.low <= said.ttft_seconds.value <= said.ttft_seconds.high
    other, _ = shown(snapshot, Setting(gpu="h200"))
    assert isinstance(other.calibration, Uncalibrated) and other.calibrated(found.estimates[0]) is None
    unknown, _ = shown(snapshot, Setting(gpu="t4"))  # without a bf16 peak
    assert isinstance(unknown.calibration, Uncalibrated) and unknown.calibration.reason


def test_times_rest_on_records_of_the_device_unless_set_otherwise(snapshot):
    """Everywhere a time of the page is: its own, those beside it, those of a plan."""
    on_record, found = shown(snapshot)
    host, efficiency = found.main_timing.host, found.main_timing.efficiency
    assert (host.name, efficiency.name) == ("records", "records") and "timed runs on NVIDIA L4" in found.time_basis
    truth = next(row["seconds"] / 16 for row in found.timed if row["module"] is None and row["stage"] == "decode")
    published = found.main.on(**SETTING.conditions).expected_tpot.value
    assert abs(found.main_timing.expected_tpot.value - truth) < abs(published - truth)
    for fields, hosts in (({"host": "eager"}, "eager"), ({"operator_us": 3.0}, "eager"), ({"matrix_efficiency": 0.5}, "records")):
        _, other = shown(snapshot, replace(SETTING, **fields))
        assert other.main_timing.host.name == hosts and other.main_timing.efficiency.bandwidth == efficiency.bandwidth
        assert (other.main_timing.efficiency.matrix.value == 0.5) is ("matrix_efficiency" in fields)
    _, changed = shown(snapshot, replace(SETTING, memory_bandwidth_bytes_per_second=1e12))
    assert changed.main_timing.efficiency.name == "published"
