"""Expected times rest on a device's records where there are any: nearer to what it does, said so, and only where nobody chose otherwise."""

import json
import math

import pytest

import ocr_flops as of
from ocr_flops import cli
from ocr_flops.evidence.calibration import calibrate
from ocr_flops.evidence.calibration.conditions import fitted_conditions, with_records
from ocr_flops.reports.estimate_settings import find_overrides
from ocr_flops.reports.estimate_subject import Subject
from ocr_flops.spec.catalog import load_efficiency, load_host
from ocr_flops.spec.run_spec import load_run
from ocr_flops.spec.specs import STAGES
from ocr_flops.timing.estimate import estimate_run, time_run
from tests.support import synthetic

POINTS = synthetic.workloads(synthetic.PAGES[::3], (1, 8), ((10, 16), (500, 32)))
H200 = "NVIDIA H200 SXM (141 GB)"


@pytest.fixture
def recorded(tmp_path, monkeypatch, model):
    """Records of an H200, made by the user."""
    monkeypatch.setenv("OCR_FLOPS_RECORDS", str(tmp_path))
    synthetic.written(synthetic.frame(POINTS, model, attention=("sdpa",), noise=0.02), tmp_path)


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("hardware", ["h200", "l4"])
def test_with_records_expected_times_are_nearer_to_what_the_device_does(model, hardware, hidden):
    """At points that no record has; where launches are hidden the lanes also see the host idle while the last kernels run."""
    options = {"hardware": hardware, "attention": ("sdpa",), "hidden": hidden, "launch_seconds": dict.fromkeys(STAGES, 9e-6)}
    conditions = fitted_conditions(calibrate(synthetic.frame(POINTS, model, noise=0.02, **options), model))
    assert conditions["host"].waits is not hidden and conditions["host"].operator_us.value == pytest.approx(9, rel=0.02)
    for batch in (1, 32):
        page = of.Workload.from_grid(2, 2, prompt_tokens=900, output_tokens=100, batch_size=batch)
        truth = dict(synthetic.frame([page], model, **options).select("stage", "median_seconds").iter_rows())
        estimate, device = of.estimate(model, page, "sdpa"), of.load_hardware(hardware)
        for stage, true in truth.items():
            fitted, published = (
                abs(math.log(estimate.on(device, **chosen).lane_seconds(stage, "expected")[0] / true)) for chosen in (conditions, {})
            )
            assert fitted < published and fitted < 0.25, (stage, batch)


def test_what_records_do_not_identify_stays_as_published(model):
    found = fitted_conditions(calibrate(synthetic.frame(POINTS, model), model))
    efficiency, host = found["efficiency"], found["host"]
    assert efficiency.vector == load_efficiency().vector and "vector as published, as it binds in no record" in efficiency.describe()
    low, value, high = efficiency.matrix.low, efficiency.matrix.value, efficiency.matrix.high
    assert low < value < high and value == pytest.approx(synthetic.EFFICIENCY["matrix"], rel=0.05)
    assert efficiency.matrix.source == f"32 timed runs on {H200}, transformers in bf16"
    assert (host.operator_us.low, host.operator_us.high) == pytest.approx((5, 7), rel=0.01)  # from vision to decode
    assert host.launch_us.high == 0 and host.step_us == load_host().step_us
    large = synthetic.workloads([("gundam", (2, 3)), ("large", (1, 1))], (64, 96, 128), ((10, 16),))
    never = calibrate(synthetic.frame(large, model, hidden=True), model)
    assert ("host" in fitted_conditions(never)) is any(never.launch_seconds.values())


def test_a_run_rests_on_records_of_its_device_unless_it_chooses_otherwise(recorded):
    run = with_records(load_run(["hardware=h200"]))
    assert (run.host.name, run.efficiency.name) == ("records", "records") and with_records(run).efficiency == run.efficiency
    assert with_records(load_run(["hardware=h200", "efficiency=records"])).efficiency == run.efficiency
    for others in (["hardware=l4"], ["hardware=h200", "dtype=fp16"], ["hardware=h200", "engine=remote_code"], []):
        assert with_records(other := load_run(others)) is other
    chosen = load_run(["hardware=h200", "host.operator_us=3", "efficiency.matrix=0.5"])
    assert with_records(chosen) is chosen and chosen.efficiency.vector == load_efficiency().vector
    published = with_records(load_run(["hardware=h200", "efficiency=published"]))
    assert published.efficiency == load_efficiency() and published.host == run.host
    given = with_records(load_run(["hardware=h200", "efficiency=records", "efficiency.matrix=0.5"])).efficiency
    assert given.matrix.value == 0.5 and given.bandwidth == run.efficiency.bandwidth


def test_without_records_nothing_changes_and_records_cannot_be_chosen(model):
    for overrides in (["hardware=h200"], ["hardware=h200", "host=graphs", "efficiency=peak"]):
        assert with_records(run := load_run(overrides)) is run
    with pytest.raises(of.SpecError, match="efficiency=records: There are no records yet: .*; or choose efficiency=published or peak"):
        with_records(load_run(["hardware=h200", "efficiency=records"]))
    with pytest.raises(of.SpecError, match="efficiency: 'records' has no figures yet"):
        of.estimate(model, of.Workload.from_grid(1, 1)).on(of.load_hardware("h200"), efficiency="records")


def test_commands_rest_on_records_and_say_so(recorded, capsys):
    def said(*arguments):
        assert cli.main([*arguments, "workload=base"]) == 0
        return capsys.readouterr().out

    text = said("estimate", "hardware=h200")
    assert f"efficiencies from 16 timed runs on {H200}" in text and f"host of 16 timed runs on {H200}" in text
    assert "timed runs" not in said("estimate", "hardware=h200", "host=eager", "efficiency=published")
    devices = {one["hardware"]: one for one in json.loads(said("plan", "--format", "json"))["devices"]}
    own, others = (
        {one["hardware"]: one for one in json.loads(said("plan", "--format", "json", *chosen))["devices"]}
        for chosen in (["hardware=h200"], ["host=eager", "efficiency=published"])
    )
    assert devices["h200"] == own["h200"] != others["h200"] and devices["l4"] == others["l4"]


@pytest.mark.parametrize("chosen", [[], ["host=eager"], ["efficiency=published"], ["efficiency=records", "efficiency.matrix=0.5"]])
def test_a_reports_command_repeats_its_times(recorded, chosen):
    run = with_records(load_run(["hardware=h200", *chosen]))
    estimate = estimate_run(run)
    again = with_records(load_run(find_overrides(Subject(estimate, run.hardware, run.host, run.efficiency))))
    assert time_run(again, estimate).stages.equals(time_run(run, estimate).stages)
