"""Records: what they say, and the frame that they are read as."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

import ocr_flops as of
from ocr_flops.evidence import records
from ocr_flops.evidence.records.record import new_id, point_key
from ocr_flops.measure import client
from ocr_flops.measure.events import PointFailed
from ocr_flops.measure.protocol import Point
from tests.support.timed import POINT, TILED, AtOnce, plan, recorded, results, served

NOTHING = Path("/nonexistent")
PROMISED = [
    "record_id",
    "measured_at",
    "state",
    "source",
    "path",
    "engine",
    "attention",
    "experts",
    "dtype",
    "device",
    "hardware",
    "host",
    "torch",
    "transformers",
    "ocr_flops",
    "image_width_px",
    "image_height_px",
    "global_px",
    "tile_px",
    "columns",
    "rows",
    "tiles",
    "image_tokens",
    "prompt_tokens",
    "context_tokens",
    "output_tokens",
    "batch_size",
    "mode",
    "prefill_logits",
    "cache",
    "stage",
    "runs",
    "median_seconds",
    "spread_seconds",
    "min_seconds",
    "torch_flops_counted",
    "peak_allocated_bytes",
    "peak_reserved_bytes",
    "mfu",
    "bandwidth_use",
]  # columns that calibration and charts read


@pytest.fixture(scope="module")
def made():
    """A record with everything, and one of another point."""
    plan_served, events = served()
    return [records.make_record(plan_served, point, result) for point, result in zip((POINT, TILED), results(events), strict=True)]


@pytest.fixture(scope="module")
def result():
    """What a worker says of a run whose times are known, on a device whose peaks are."""
    result = copy.deepcopy(results(served()[1])[0])
    ran = result.ran | {"device_name": "NVIDIA H200", "device": "cuda"}
    memory = {"idle_bytes": 4, "held_bytes": 5, "allocated_bytes": 70, "reserved_bytes": 90}
    stages = {"prefill": result.stages["prefill"] | {"seconds": [4.0, 1.0, 2.0], "memory": memory, "traced": None}}
    return replace(result, ran=ran, stages=stages)


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(client, "Worker", AtOnce)


def frame(where, **rest):
    return records.records_frame(where, shipped=NOTHING, **rest)


def test_a_record_says_everything(made):
    record = json.loads(json.dumps(made[1]))  # as read
    assert record["schema"] == records.SCHEMA and record["state"] == "done" and record["failure"] is None
    assert record["model"]["towers"]["sam"]["width"] == 96
    assert record["workload"]["tiles"] == 2 and record["workload"]["prompt_tokens"] == 3
    assert record["asked"]["attention"] == dict.fromkeys(("sam", "clip", "decoder"), "sdpa") and record["asked"]["cache"] == "dynamic"
    assert {"device_name", "torch", "transformers", "ocr_flops", "python", "clocks_before", "experts"} <= set(record["ran"])
    assert record["started"] < record["finished"] and record["host"]
    assert len(record["stages"]["vision"]["seconds"]) == 3 and "traced" not in record["stages"]["vision"]


def test_figures_of_a_known_device(result):
    record = records.make_record(plan("stages=[prefill]"), POINT, result)
    figures, h200 = record["derived"]["prefill"], of.load_hardware("h200")
    assert record["hardware"]["name"] == "h200" and record["hardware"]["matrix_flops_per_second"]["bf16"] == 989e12
    assert (figures["median_seconds"], figures["min_seconds"], figures["spread_seconds"], figures["runs"]) == (2.0, 1.0, 1.5, 3)
    assert figures["torch_flops_counted"] == figures["analytic_torch_flops"] > 0
    assert figures["mfu"] == figures["torch_flops_counted"] / 2 / 989e12
    assert figures["bandwidth_use"] == figures["io_bytes"] / 2 / h200.memory_bandwidth_bytes_per_second
    assert (figures["peak_allocated_bytes"], figures["peak_reserved_bytes"], figures["peak_source"]) == (70, 90, "allocator")
    assert sum(module["torch_flops_counted"] for module in figures["modules"].values()) == figures["torch_flops_counted"]


@pytest.mark.parametrize(("device", "dtype"), [("Abacus 9000", "bf16"), ("Tesla T4", "bf16")])
def test_a_figure_that_is_not_known_is_null(result, device, dtype):
    """A device without a config, and one whose config has no such peak, are recorded all the same."""
    result = replace(result, ran=result.ran | {"device_name": device})
    figures = records.make_record(plan("stages=[prefill]", f"dtype={dtype}"), POINT, result)["derived"]["prefill"]
    assert figures["mfu"] is None and figures["median_seconds"] == 2.0
    assert (figures["bandwidth_use"] is None) == (device == "Abacus 9000")


def test_traced_bytes_are_the_analytic_ones_but_for_the_experts_hit(made, tiny):
    """Which experts are hit is a question of data. The CPU's layer norms keep their statistics in bf16, other devices in fp32."""
    for record, point in zip(made, (POINT, TILED), strict=True):
        numbers = of.estimate(tiny, point, "sdpa")
        for stage, derived in record["derived"].items():
            assert derived["io_bytes_source"] == "traced" and derived["peak_source"] == "traced"
            for module, figures in derived["modules"].items():
                ours = numbers.module_numbers.get((stage, module), {}).get("io_bytes", 0)
                share = 0.5 if module == "decoder.routed_experts" else 0.02
                assert figures["io_bytes"] == pytest.approx(ours, rel=share), module
            row = numbers.stage_numbers[stage]
            peak = row["peak_activation_bytes"] + (row["kv_cache_bytes"] if stage != "vision" else 0)
            assert derived["peak_allocated_bytes"] == 2 * record["ran"]["parameters"] + peak


def test_the_experts_hit_are_recorded_where_they_were_seen(made, tmp_path):
    """Records of earlier versions have none, and are read all the same."""
    old = json.loads(json.dumps(made[1]))
    for figures in old["derived"].values():
        del figures["experts_hit"]
    for record in (made[0], old):
        records.write_record(record, tmp_path)
    seen = [made[0]["stages"][stage]["experts_hit"] for stage in ("prefill", "decode")]
    assert all(seen) and frame(tmp_path)[0].sort("columns", maintain_order=True)["experts_hit"].to_list() == [None, *seen, *[None] * 3]


def test_the_frame_has_the_promised_columns(made, tmp_path):
    for record in made:
        records.write_record(record, tmp_path)
    stages, problems = frame(tmp_path)
    assert problems == [] and stages.columns[: len(PROMISED)] == PROMISED
    assert stages.select("stage").to_series().to_list() == ["vision", "prefill", "decode"] * 2
    row = stages.row(3, named=True)
    assert (row["attention"], row["engine"], row["model"], row["source"], row["state"]) == (
        "sdpa",
        "transformers",
        "tiny_test",
        "user",
        "done",
    )
    assert (row["tiles"], row["columns"], row["rows"], row["runs"], row["experts"]) == (2, 2, 1, 3, "grouped_mm")
    assert Path(row["path"]).stem == row["record_id"] and row["hardware"] is None
    modules, _ = frame(tmp_path, level="module")
    assert [name for name in modules.columns if name != "module"] == stages.columns
    assert modules.filter(pl.col("module") == "sam.mlp").height == 2
    with pytest.raises(of.SpecError, match="^level: 'layer' is not one of stage, module"):
        records.records_frame(tmp_path, level="layer")


def test_an_empty_frame_has_the_same_columns_and_types(made, tmp_path):
    records.write_record(made[0], tmp_path / "full")
    for level in ("stage", "module"):
        assert frame(tmp_path / "none", level=level)[0].schema == frame(tmp_path / "full", level=level)[0].schema
    assert frame(tmp_path / "none")[0].is_empty()


def test_towers_of_different_modes_are_named(at_once, tmp_path):
    recorded(tmp_path, chosen=plan("attention.sam=eager", "stages=[prefill]", "attention.clip=sdpa", "attention.decoder=eager", probes=()))
    assert frame(tmp_path)[0]["attention"].to_list() == ["eager/sdpa/eager"]


def test_an_edited_model_is_not_taken_for_the_config(at_once, tmp_path):
    recorded(tmp_path, chosen=plan("model.towers.sam.mlp_width=64", "stages=[vision]", probes=()))
    assert frame(tmp_path)[0]["model"].to_list() == ["tiny_test (edited)"]


def test_a_failure_is_a_record_too(tmp_path):
    failed = records.make_record(plan(), POINT, PointFailed(0, Point(64, 0, 1, 1, 10, 2, 1), None, "out of memory", "Choose less.", "log"))
    records.write_record(failed, tmp_path)
    stages, problems = frame(tmp_path)
    assert problems == [] and stages["state"].to_list() == ["failed"] * 3 and stages["median_seconds"].null_count() == 3
    assert stages["failure"][0] == "out of memory (Choose less.)" and stages["device"][0] == "cpu"
    assert frame(tmp_path, level="module")[0].is_empty()


def test_shipped_records_are_marked(made, tmp_path):
    records.write_record(made[0], tmp_path / "shipped")
    records.write_record(made[1], tmp_path / "user")
    stages, _ = records.records_frame(tmp_path / "user", shipped=tmp_path / "shipped")
    assert stages["source"].to_list() == ["shipped"] * 3 + ["user"] * 3


def test_what_comes_with_the_package_can_be_read():
    assert records.records_frame(NOTHING)[1] == []


def test_ids_are_names_of_files_and_differ(monkeypatch):
    from datetime import UTC, datetime

    monkeypatch.setattr("socket.gethostname", lambda: "node/7 ü.cluster.org")
    now = datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
    one, two = new_id(now), new_id(now)
    assert one != two and one.startswith("20260102T030405.000006Z-node-7-") and "/" not in one and " " not in one


def test_a_key_is_of_what_was_measured(tiny):
    ran = {"device_name": "x", "torch": "1", "transformers": "2", "ocr_flops": "3"}
    base = point_key(plan(), POINT, ran)
    assert base == point_key(plan(), POINT, ran | {"started": "later"}) == point_key(plan(device="auto"), POINT, ran)
    others = [
        point_key(plan("dtype=fp16"), POINT, ran),
        point_key(plan("attention=eager"), POINT, ran),
        point_key(plan(runs=4), POINT, ran),
        point_key(plan("model.towers.sam.mlp_width=64"), POINT, ran),
        point_key(plan(), TILED, ran),
        point_key(plan(), POINT, ran | {"device_name": "y"}),
        point_key(plan(), POINT, ran | {"torch": "1.1"}),
    ]
    assert len({base, *others}) == 8
