"""Calibration: the known efficiencies of synthetic devices are found again, workloads are really left out, and nothing unidentifiable is claimed."""

import time
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import ocr_flops as of
from ocr_flops.evidence import records
from ocr_flops.evidence.calibration import Calibration, Uncalibrated, calibrate
from ocr_flops.evidence.calibration.cross_validation import WORKLOAD, half_width, number_costs
from ocr_flops.evidence.calibration.features import row_costs
from ocr_flops.evidence.calibration.selection import parse_attention, parse_workloads
from ocr_flops.measure import client
from ocr_flops.spec.catalog import load_engine
from ocr_flops.spec.workload import Workload
from tests.support import synthetic
from tests.support.timed import Inside, plan, recorded

POINTS = synthetic.workloads(synthetic.PAGES[::2], (1, 8), ((10, 16), (1500, 48)))
FEW = synthetic.workloads(synthetic.PAGES[::3], (1, 8), ((10, 16),))


@pytest.fixture(scope="module")
def noisy(model):
    """Records with 4 % of noise, and one row in sixteen four times too slow."""
    frame = synthetic.frame(POINTS, model, noise=0.04)
    wrong = np.arange(frame.height) % 16 == 7
    return frame.with_columns(median_seconds=pl.col("median_seconds") * np.where(wrong, 4.0, 1.0))


@pytest.fixture(scope="module")
def found(noisy, model):
    return calibrate(noisy, model)


@pytest.fixture
def page():
    return of.Workload.from_grid(2, 3, output_tokens=32)


def slower(frame, wrong, times):
    return frame.with_columns(median_seconds=pl.col("median_seconds") * pl.when(wrong).then(times).otherwise(1.0))


def test_efficiencies_and_launches_are_found_among_noise_and_outliers(found):
    matrix, _, bandwidth = found.efficiencies
    assert matrix.efficiency.value == pytest.approx(synthetic.EFFICIENCY["matrix"], rel=0.05)
    assert bandwidth.efficiency.value == pytest.approx(synthetic.EFFICIENCY["bandwidth"], rel=0.04)
    for one in (matrix, bandwidth):
        assert one.efficiency.low < synthetic.EFFICIENCY[one.ceiling] < one.efficiency.high < 1.1 * one.efficiency.low + 0.05
        assert one.rate.value == pytest.approx(one.efficiency.value * one.peak)
    for stage, seconds in synthetic.LAUNCH_SECONDS.items():
        assert found.launch_seconds[stage].value == pytest.approx(seconds, rel=0.05)
    assert found.fitted.launches == "added"
    assert found.hardware == of.load_hardware("h200") and found.records == 2 * len(POINTS) and found.workloads == len(POINTS)


def test_outliers_have_no_weight_and_are_named(found):
    wrong = np.arange(found.predictions.height) % 16 == 7
    assert found.predictions["outlier"].to_numpy()[wrong].all()
    assert found.outliers <= wrong.sum() + 2


def test_a_vector_ceiling_is_identified_where_it_binds_and_only_there(found, model):
    vector = found.efficiencies[1]
    assert (vector.efficiency, vector.rate) == (None, None)
    assert vector.reason == "binds in no record" and vector.largest_share < 0.005
    known = {"matrix": 0.6, "vector": 0.04, "bandwidth": 0.85}
    for one in calibrate(synthetic.frame(POINTS, model, efficiency=known, noise=0.02), model).efficiencies:
        assert one.efficiency.value == pytest.approx(known[one.ceiling], rel=0.08), one.ceiling


def test_launches_that_run_ahead(model):
    """Where launches hide behind operators, or operators behind launches, the kind is found, and both their figures."""
    launches = {"vision": 9e-6, "prefill": 8e-6, "decode": 11e-6}
    found = calibrate(synthetic.frame(POINTS, model, hidden=True, noise=0.02, launch_seconds=launches), model)
    assert found.fitted.launches == "hidden" and "run ahead" in found.launches
    for stage, seconds in launches.items():
        assert found.launch_seconds[stage].value == pytest.approx(seconds, rel=0.04)
    assert found.efficiencies[0].efficiency.value == pytest.approx(0.62, rel=0.06)


def test_launches_that_never_show_are_unidentifiable(model):
    """A batch so large that no launch is seen: no figure, instead of the least that the fit allows."""
    large = synthetic.workloads([("gundam", (2, 3)), ("large", (1, 1))], (64, 96, 128), ((10, 16),))
    assert calibrate(synthetic.frame(large, model, hidden=True), model).launch_seconds["vision"] is None


def test_rows_are_charged_for_the_experts_that_were_hit(model):
    """Of the record, where it says; expected ones in older records. In decode the mean of the steps is multiplied back."""
    rows, engine, hardware = synthetic.frame(FEW, model, attention=["sdpa"]), load_engine("transformers"), of.load_hardware("h200")

    def seconds(stage, rows):
        found = row_costs(rows, model, engine, "bf16", hardware, (stage,))
        return found.operator_seconds[2].sum(axis=0) * hardware.memory_bandwidth_bytes_per_second

    expert = 2 * 3 * 1280 * 896
    for stage, column in (("prefill", pl.lit(500)), ("decode", 70 * pl.col("output_tokens"))):
        chosen = rows.filter(stage=stage)
        for where in (pl.lit(True), pl.col("batch_size") == 8):  # all rows, or some of them
            routed = chosen.with_columns(pl.when(where).then(column).cast(pl.Int64).alias("experts_hit"))
            expected, hit = seconds(stage, chosen), seconds(stage, routed)
            numbers = of.estimate(model, parse_workloads(chosen), "sdpa").module_numbers[stage, "decoder.routed_experts"]
            charged = np.where(routed["experts_hit"].is_null(), numbers["weight_io_bytes"], routed["experts_hit"].fill_null(0) * expert)
            np.testing.assert_allclose(hit - expected, charged - numbers["weight_io_bytes"], atol=1)


def test_predictions_are_those_of_a_fit_without_the_workload(noisy, model, found):
    """Against calibrations of frames from which the workload, and what costs the same, are really missing."""
    cost = number_costs(noisy)
    for number in (0, 5, 13):
        mine = np.ones(noisy.height, bool)
        for name in WORKLOAD:
            mine &= (noisy[name] == getattr(POINTS[number], name)).to_numpy()
        without = calibrate(noisy.filter(~pl.Series(np.isin(cost, cost[mine]))), model)
        held = found.predictions.filter(pl.Series(mine))
        for row in held.to_dicts():
            estimate = of.estimate(model, POINTS[number], row["attention"])
            assert row["predicted_seconds"] == pytest.approx(without.predict(estimate).seconds[row["stage"]].value, rel=0.004)


def test_a_workload_does_not_predict_itself(model):
    """The only one of its kind, slow beyond what the others know: its error under cross-validation shows it."""
    frame = synthetic.frame(FEW, model)
    mine = (pl.col("global_px") == FEW[0].global_px) & (pl.col("batch_size") == 8)
    held = calibrate(slower(frame, mine, 1.2), model).predictions
    assert held.filter(mine)["ratio"].to_numpy() == pytest.approx(1 / 1.2, rel=0.03)
    assert held.filter(~mine)["ratio"].to_numpy() == pytest.approx(1, rel=0.05)


def test_a_page_measured_with_several_prompts_does_not_predict_its_own_vision(model):
    points = synthetic.workloads([("tiny", (1, 1)), ("small", (1, 1)), ("base", (1, 1)), ("large", (1, 1))], (1,), ((10, 4), (90, 4)))
    strange = (pl.col("global_px") == 640) & (pl.col("stage") == "vision")
    held = calibrate(slower(synthetic.frame(points, model, attention=("sdpa",)), strange, 1.15), model).predictions
    assert held.filter(strange)["ratio"].to_numpy() == pytest.approx(1 / 1.15, rel=0.04)


def test_errors_are_those_of_the_predictions(found):
    errors = {row["figure"]: row for row in found.errors.to_dicts()}
    assert set(errors) == {"vision", "prefill", "decode", "ttft"}
    ratios = found.predictions.filter(pl.col("stage") == "decode")["ratio"].to_numpy()
    assert errors["decode"]["median_error"] == pytest.approx(np.median(np.abs(ratios - 1))) and errors["decode"]["rows"] == len(ratios)
    assert errors["decode"]["within_15_percent"] == pytest.approx((np.abs(ratios - 1) <= 0.15).mean())
    both = (
        found.predictions.filter(pl.col("stage") != "decode")
        .group_by("record_id")
        .agg(pl.col("predicted_seconds", "measured_seconds").sum())
    )
    ratios = (both["predicted_seconds"] / both["measured_seconds"]).to_numpy()
    assert errors["ttft"]["median_error"] == pytest.approx(np.median(np.abs(ratios - 1)))


def test_the_half_width_that_holds_nine_in_ten():
    assert half_width(np.arange(-10, 0)) == 10 and half_width(np.arange(1, 20)) == 18 and half_width(np.array([0.3])) == 0.3


def test_calibrated_figures_are_the_devices_and_lie_in_their_interval(found, model, page):
    """At a point that was not measured, against the device itself."""
    truth = synthetic.frame([page], model, attention=("sdpa",))
    measured = dict(zip(truth["stage"], truth["median_seconds"], strict=True))
    point = found.predict(of.estimate(model, page, "sdpa"))
    for figure, wanted in (
        (point.ttft_seconds, measured["vision"] + measured["prefill"]),
        (point.tpot_seconds, measured["decode"] / page.output_tokens),
    ):
        assert figure.value == pytest.approx(wanted, rel=0.04) and figure.low < wanted < figure.high
        assert 1.05 < figure.high / figure.low < 1.6
    bound = of.estimate(model, page, "sdpa").on(found.hardware)
    assert point.bound_ttft_seconds == pytest.approx(bound.bound_ttft_seconds) and point.bound_ttft_seconds < point.ttft_seconds.low
    assert point.notes == ()


def test_never_below_the_bound(model, page):
    """Records faster than the device can be: intervals end at the bound."""
    wild = synthetic.frame(FEW, model, launch_seconds=dict.fromkeys(synthetic.LAUNCH_SECONDS, 0.0), noise=1.0)
    found = calibrate(wild.with_columns(median_seconds=pl.col("median_seconds") * 0.01), model)
    points = Workload.stack([*POINTS, *FEW])
    point = found.predict(of.estimate(model, points, "flash"))
    for stage, figure in point.seconds.items():
        bound = point.bound_seconds[stage]
        assert (figure.value >= bound).all() and (figure.low >= bound).all() and (figure.high >= figure.value).all()
    held = found.predictions
    assert (held["predicted_seconds"] >= held["bound_seconds"]).all() and (held["low_seconds"] >= held["bound_seconds"]).all()


def test_columns_are_their_points(found, model):
    whole = found.predict(of.estimate(model, Workload.stack(POINTS), "eager"))
    for number in (0, 7, len(POINTS) - 1):
        one = found.predict(of.estimate(model, POINTS[number], "eager"))
        for name in ("ttft_seconds", "tpot_seconds", "allocated_bytes", "reserved_bytes"):
            assert [column[number] for column in getattr(whole, name)] == pytest.approx(list(getattr(one, name)))
        assert whole.bound_tpot_seconds[number] == pytest.approx(one.bound_tpot_seconds)


def test_no_output_tokens_have_no_time_per_token(found, model, page):
    assert found.predict(of.estimate(model, replace(page, output_tokens=0))).tpot_seconds is None
    some = found.predict(of.estimate(model, replace(page, output_tokens=np.array([0, 8]))))
    assert np.isnan(some.tpot_seconds.value[0]) and some.tpot_seconds.value[1] > 0 and some.seconds["decode"].value[0] == 0


def test_an_estimate_without_a_stage(found, model, page):
    point = found.predict(of.estimate(model, page, stages=["decode"]))
    assert point.ttft_seconds is None and point.bound_ttft_seconds is None and point.tpot_seconds.value > 0


@pytest.mark.parametrize(
    ("changes", "options", "note"),
    [
        ({"batch_size": 200}, {}, "batch 200: 1 to 8 were measured"),
        ({"output_tokens": 5000}, {}, "5,000 output tokens: 16 to 48 were measured"),
        ({}, {"attention": "flash"}, "no record ran attention flash, only eager, sdpa"),
        ({}, {"cache": "static"}, "no record ran cache static, only dynamic"),
    ],
)
def test_what_no_record_has_is_noted(found, model, page, changes, options, note):
    assert note in found.predict(of.estimate(model, replace(page, **changes), **{"attention": "sdpa"} | options)).notes


def test_an_unidentified_ceiling_widens_the_interval(model):
    """Records of decode and vision at batch 1 show nothing of the matrix units, under which a large batch's prefill is."""
    small = synthetic.workloads([("tiny", (1, 1)), ("small", (1, 1)), ("base", (1, 1)), ("large", (1, 1))], (1,), ((10, 16),))
    slow = {stage: 60e-6 for stage in synthetic.LAUNCH_SECONDS}
    found = calibrate(synthetic.frame(small, model, launch_seconds=slow), model)
    assert found.efficiencies[0].efficiency is None
    point = found.predict(of.estimate(model, of.Workload.from_grid(3, 3, batch_size=64, output_tokens=16), "sdpa"))
    assert any("% of prefill is under the matrix ceiling, taken at its peak: it " in note for note in point.notes)
    assert point.seconds["prefill"].high > 1.4 * point.seconds["prefill"].value


@pytest.mark.parametrize(
    ("options", "message"),
    [({"dtype": "fp16"}, "^dtype: 'fp16' is not what .* choose bf16"), ({"engine": "remote_code"}, "^engine: 'remote_code' is not what")],
)
def test_an_estimate_of_something_else_is_an_error(found, model, page, options, message):
    with pytest.raises(of.SpecError, match=message):
        found.predict(of.estimate(model, page, **options))


def test_no_records_at_all(model):
    found = calibrate(synthetic.framed([]), model)
    assert isinstance(found, Uncalibrated) and found.reason.startswith("There are no records yet: `ocr-flops measure`")


def test_records_of_others_are_left_out_and_counted(model):
    good = synthetic.frame(FEW, model)
    others = [
        synthetic.frame(FEW[:3], model, hardware="l4"),
        synthetic.frame(FEW[:2], model, dtype="fp16", record_id="a"),
        synthetic.frame(FEW[:1], model, engine="remote_code", record_id="b"),
        synthetic.frame(FEW[:1], model, record_id="c").with_columns(model=pl.lit("other")),
        synthetic.frame(FEW[:1], model, state="failed", median_seconds=None, record_id="d"),
        synthetic.frame(FEW[:1], model, experts="eager", record_id="e"),
    ]
    found = calibrate(pl.concat([good, *others]), model, hardware=of.load_hardware("h200"))
    assert dict(found.left_out) == {
        "failed": 1,
        "of another model (other)": 1,
        "of another device (NVIDIA L4 (24 GB))": 6,
        "of another engine (remote_code)": 1,
        "of another precision (fp16)": 1,
        "with experts other than the estimate's grouped_mm (eager)": 1,
    }
    alone = calibrate(good, model)
    assert found.records == alone.records and found.efficiencies == alone.efficiencies
    none = calibrate(good, model, hardware=of.load_hardware("b200"))
    assert none.reason.startswith("No record of NVIDIA B200") and "16 of another device (NVIDIA H200 SXM (141 GB))" in none.reason
    assert "of another precision (bf16)" in calibrate(good, model, dtype="fp32").reason


def test_a_device_by_its_name(model):
    both = pl.concat([synthetic.frame(FEW, model), synthetic.frame(FEW[:6], model, hardware="l4")])
    assert calibrate(both, model).device == "NVIDIA H200 SXM (141 GB)"  # of most records
    assert calibrate(both, model, device="NVIDIA L4 (24 GB)").hardware.name == "l4"


def test_one_workload_is_too_few(model):
    found = calibrate(synthetic.frame(FEW[:1], model), model)
    assert isinstance(found, Uncalibrated) and found.reason.startswith("Too few records of NVIDIA H200")
    assert "vision was measured at 1 size (views and batch), at least 4 different ones are needed" in found.reason


def test_a_stage_measured_too_seldom_is_missing_alone(model):
    frame = synthetic.frame(FEW, model)
    few = frame.filter((pl.col("stage") != "decode") | (pl.col("record_id").str.ends_with("-0")))
    found = calibrate(few, model)
    assert found.stages == ("vision", "prefill") and "decode was measured at 1 size" in found.missing["decode"]
    point = found.predict(of.estimate(model, FEW[1], "sdpa"))
    assert point.tpot_seconds is None and point.ttft_seconds.value > 0 and found.missing["decode"] in point.notes


def test_edited_models_and_devices_have_no_records(model):
    frame, h200 = synthetic.frame(FEW, model), of.load_hardware("h200")
    edited = of.load_model("deepseek_ocr", ["model.towers.decoder.layers=6"])
    assert "of another model (deepseek_ocr)" in calibrate(frame, edited).reason
    changed = h200.edited("bf16", memory_bandwidth_bytes_per_second=1e12)
    assert calibrate(frame, model, hardware=changed).reason.startswith(
        "NVIDIA H200 SXM (141 GB) (changed: memory_bandwidth_bytes_per_second)"
    )


def test_a_device_without_figures_has_rates_but_no_efficiency_and_no_bound(model, page):
    frame = synthetic.frame(POINTS, model, noise=0.02).with_columns(hardware=pl.lit(None, pl.String), device=pl.lit("Some device"))
    found = calibrate(frame, model)
    h200, (matrix, _, bandwidth) = of.load_hardware("h200"), found.efficiencies
    assert found.hardware is None and matrix.efficiency is None and matrix.peak is None
    assert matrix.rate.value == pytest.approx(0.62 * h200.matrix_peak("bf16"), rel=0.08)
    assert bandwidth.rate.value == pytest.approx(0.8 * h200.memory_bandwidth_bytes_per_second, rel=0.05)
    truth = synthetic.frame([page], model, attention=("sdpa",))["median_seconds"]
    point = found.predict(of.estimate(model, page, "sdpa"))
    assert point.ttft_seconds.value == pytest.approx(truth[0] + truth[1], rel=0.05)
    assert (
        point.bound_seconds is None and point.bound_ttft_seconds is None and found.predictions["bound_seconds"].null_count() == frame.height
    )


def test_memory_learns_what_the_allocator_holds_beyond_the_estimate(found, model, page):
    estimate = of.estimate(model, page, "sdpa")
    point, memory = found.predict(estimate), found.memory
    assert memory.bytes == synthetic.WORKSPACE_BYTES and memory.reserved == pytest.approx(1.1)
    weights = estimate.footprint.weight_bytes
    rows = estimate.stage_numbers.values()
    wanted = max(weights + row["kv_cache_bytes"] + row["peak_activation_bytes"] for row in rows) + synthetic.WORKSPACE_BYTES
    assert point.allocated_bytes.value == wanted and point.reserved_bytes.value == pytest.approx(1.1 * wanted)
    assert memory.half_width_bytes == 0 and point.memory_reason is None


@pytest.mark.parametrize("source", ["traced", None])
def test_without_an_allocator_there_is_no_memory(model, page, source):
    found = calibrate(synthetic.frame(FEW, model, peak_source=source), model)
    point = found.predict(of.estimate(model, page))
    assert point.allocated_bytes is None and point.memory_reason.startswith("no record holds what an allocator had allocated")


def test_attention_of_a_record():
    assert parse_attention("sdpa").kernel("decoder") == "sdpa" and parse_attention("sdpa/eager/flash").kernel("clip") == "eager"


def test_the_same_frame_is_calibrated_once(noisy, model):
    found = calibrate(noisy, model)
    assert calibrate(noisy, model) is found
    assert calibrate(noisy.clone(), model) is not found


def test_a_point_is_fast(found, model, page):
    """Every step of a slider asks for one: 20 ms are allowed."""
    estimate = of.estimate(model, page, "sdpa")
    found.predict(estimate)
    took = []
    for _ in range(5):
        start = time.perf_counter()
        found.predict(estimate)
        took.append(time.perf_counter() - start)
    assert min(took) < 0.02


def test_measured_to_calibrated_on_cpu(tmp_path, monkeypatch, tiny):
    """The whole path: the real model timed, recorded, read and calibrated."""
    monkeypatch.setattr(client, "Worker", Inside)
    points = [Workload(px, prompt_tokens=prompt, output_tokens=1) for px, prompt in ((32, 3), (64, 9), (96, 20), (128, 40))]
    recorded(tmp_path, *points, chosen=plan("dtype=fp32", "attention=sdpa", probes=(), runs=2, warmup=0))
    frame, problems = records.records_frame(tmp_path, shipped=tmp_path / "none")
    found = calibrate(frame, tiny, dtype="fp32")
    assert not problems and isinstance(found, Calibration) and found.records == found.workloads == 4
    assert found.hardware is None and found.device == frame["device"][0]
    point = found.predict(of.estimate(tiny, points[1], "sdpa", dtype="fp32"))
    assert 0 < point.ttft_seconds.low < point.ttft_seconds.value < point.ttft_seconds.high
    assert 0 < point.tpot_seconds.low < point.tpot_seconds.value < point.tpot_seconds.high
    assert point.bound_ttft_seconds is None and point.allocated_bytes is None
