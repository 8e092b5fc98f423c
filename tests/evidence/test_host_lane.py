"""The host fitted to records of its lane, and those records in their folder."""

import msgspec
import pytest

import ocr_flops as of
from ocr_flops.evidence.calibration.conditions import with_records
from ocr_flops.evidence.calibration.host_lane import fit_host, measured_host
from ocr_flops.evidence.records.host_lane import FOLDER, HostLane, read_host_lanes
from ocr_flops.evidence.records.store import write_record
from ocr_flops.spec.catalog import load_host
from ocr_flops.spec.run_spec import load_run

COUNTS = {"vision": {"sam.mlp": (60, 36), "clip.mlp": (168, 72)}, "decode": {"decoder.attention": (234, 48), "decoder.router": (44, 11)}}
VALUES = {"model": "tiny_test", "experts": "eager", "dtype": "fp32", "prefill_logits": "last", "device_name": "Abacus 9000"}
VERSIONS = {"torch": "2.13.0", "transformers": "5.20.0", "ocr_flops": "1.0", "python": "3.12"}


def record(engine="transformers", day="01", operator_us=6.0, module_us=3.0, slower=1.0):
    """What a host of these figures would be recorded as; vision takes longer by a factor."""

    def stage(name):
        factor = 1e-6 * (slower if name == "vision" else 1.0)
        modules = {
            module: {"operators": operators, "module_calls": calls, "seconds": factor * (operator_us * operators + module_us * calls)}
            for module, (operators, calls) in COUNTS[name].items()
        }
        sums = {key: sum(one[key] for one in modules.values()) for key in ("operators", "module_calls", "seconds")}
        times = {"median_seconds": sums["seconds"] * 1.05, "wall_seconds": sums["seconds"] * 1.1, "spread_seconds": 0.0}
        return sums | times | {"passes": 5, "modules": modules}

    rest = {"threads": 1, "load": [0.0, None], "runs": 5, "warmup": 1, "attention": {"sam": "sdpa", "clip": "sdpa", "decoder": "sdpa"}}
    head = {"schema": 1, "record_id": f"202601{day}", "kind": FOLDER, "finished": f"2026-01-{day}T00:00:00+00:00", "engine": engine}
    return head | VALUES | VERSIONS | rest | {"stages": {name: stage(name) for name in COUNTS}}


def lane(**rest):
    return msgspec.convert(record(**rest), HostLane)


def test_a_fit_recovers_the_figures():
    fit = fit_host(lane())
    assert fit.operator_us[:3] == pytest.approx((6, 6, 6.3)) and fit.module_us[:3] == pytest.approx((3, 3, 3.15))
    assert "Abacus 9000" in fit.operator_us.source and "2026-01-01" in fit.operator_us.source


def test_the_range_holds_every_stage():
    slow = lane(slower=1.5)
    fit = fit_host(slow)
    for stage in slow.stages.values():
        low, high = (fit.seconds(stage) * bound / fit.operator_us.value for bound in (fit.operator_us.low, fit.operator_us.high))
        assert low <= stage.seconds * (1 + 1e-9) and stage.median_seconds <= high * (1 + 1e-9)


def test_the_newest_record_of_the_engine_counts(tmp_path):
    for one in (record(day="01"), record(day="02", operator_us=8.0), record("remote_code", "03", 9.0)):
        write_record(one, tmp_path / "mine" / FOLDER)
    write_record(record(day="09", operator_us=1.0), tmp_path / "shipped" / FOLDER)
    records = read_host_lanes(tmp_path / "mine", tmp_path / "shipped")
    host = measured_host("transformers", records)
    assert host.name == "measured" and host.operator_us.value == pytest.approx(8) and host.launch_us == load_host("measured").launch_us
    assert measured_host("remote_code", records).operator_us.value == pytest.approx(9)
    other = measured_host("vllm", records)
    assert other.operator_us.value == pytest.approx(9) and "remote_code" in other.label


def test_shipped_records_agree_and_predict_the_other_class(tmp_path):
    """Two of transformers' class on one machine within 10 %; fitted to them, a decode step of the published code within 25 %."""
    records = read_host_lanes(tmp_path)
    first, second = (one for one in records if one.engine == "transformers")
    for stage, one in first.stages.items():
        assert one.seconds == pytest.approx(second.stages[stage].seconds, rel=0.1)
    (published,) = (one.stages["decode"] for one in records if one.engine == "remote_code")
    for one in (first, second):
        assert fit_host(one).seconds(published) == pytest.approx(published.seconds, rel=0.25)


def test_without_a_record_it_says_what_to_run(tmp_path):
    assert read_host_lanes(tmp_path, tmp_path) == []
    with pytest.raises(of.SpecError, match=r"^host=measured: .* run ocr-flops measure --lane host"):
        measured_host("transformers", [])


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "broken.json").write_text('{"schema": 1}')
    with pytest.raises(of.SpecError, match=r"broken\.json: damaged"):
        read_host_lanes(tmp_path, tmp_path)


def test_a_run_with_a_measured_host_has_the_records_figures_but_those_it_gives():
    run = with_records(load_run(["host=measured", "host.launch_us=1"]))
    assert run.host.launch_us.value == 1 and run.host.operator_us == measured_host().operator_us
    eager = load_run(["host=eager"])
    assert with_records(eager) is eager
