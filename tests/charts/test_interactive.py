"""Charts with controls: every choice has its rows, exactly the estimate's, and its own finding."""

import re

import pytest

import ocr_flops as of
from ocr_flops.app.setting import Setting
from ocr_flops.charts.interactive import FIRST, explorer, grid_name, modes_by_stage
from ocr_flops.charts.savings import saved
from ocr_flops.charts.theme import MODULES
from ocr_flops.spec.workload import neighbours
from ocr_flops.units import seconds, si
from tests.support.drawing import assert_draws, texts

MODEL = of.load_model("deepseek_ocr")
L4 = of.load_hardware("l4")
SUBJECTS = {
    "on a device": Setting().subject(MODEL, L4),
    "without times": Setting(batch_size=4).subject(MODEL),
    "one view": Setting(mode="tiny").subject(MODEL, L4),
    "beyond": Setting(source="grid", columns=32, rows=32, batch_size=512, mode="gundam_m").subject(MODEL, L4),
    "no output": Setting(output_tokens=0).subject(MODEL, L4),
    "published code, fp32": Setting(engine="remote_code", dtype="fp32").subject(MODEL, of.load_hardware("h200")),
}


def grid_of(subject):
    return grid_name(subject.estimate.stages.row(0, named=True))


def both(subject):
    """The two charts of a subject."""
    device, grid = subject.hardware.label if subject.hardware else "", grid_of(subject)
    stages, modules = (
        subject.sweep(neighbours(subject.estimate.workload, itself=True)),
        subject.sweep(neighbours(subject.estimate.workload, itself=True), "module"),
    )
    return explorer(stages, modules, grid, subject.mode, device), modes_by_stage(stages, grid, device)


@pytest.fixture(scope="module")
def charts():
    return {name: both(subject) for name, subject in SUBJECTS.items()}


@pytest.mark.parametrize("name", SUBJECTS)
def test_the_charts_are_valid_and_draw(charts, name):
    for chart in charts[name]:
        assert_draws(chart)


@pytest.mark.parametrize("name", ["on a device", "without times", "one view"])
def test_rows_are_the_integers_of_an_estimate_for_every_choice(charts, name):
    subject, (chart, _) = SUBJECTS[name], charts[name]
    controls = {one["name"]: one["bind"]["options"] for one in chart.to_dict()["params"] if "bind" in one}
    rows = {(row["grid"], row["mode"], row["row"]): row for row in (*chart.datasets["bars"], *chart.datasets["heads"])}
    near, own = neighbours(subject.estimate.workload, itself=True), subject.estimate.workload
    assert controls["attention"] == list(subject.by_mode) and len(controls["grid"]) == near.points
    assert {key[0] for key in rows} == set(controls["grid"])
    for point in (0, near.points // 2, near.points - 1):
        grid = {
            side: int(value[point]) if hasattr(value := getattr(near, side), "__len__") else value
            for side in ("columns", "rows", "global_px")
        }
        for mode, estimate in subject.by_mode.items():
            one = estimate.with_workload(**grid, image_width_px=0, image_height_px=0)
            for (stage, module), numbers in (
                *one.module_numbers.items(),
                *(((stage, None), row) for stage, row in one.stage_numbers.items()),
            ):
                row = rows[grid_name(one.stages.row(0, named=True)), mode, f"{stage}|{MODULES[module][1] if module else ''}"]
                assert all(row[column] == numbers[column] for column in ("total_flops", "io_bytes", "peak_activation_bytes"))
    assert (grid_of(subject), subject.mode, "vision|") in rows and own.is_single


def test_choosing_changes_every_number_and_the_finding(charts):
    chart, _ = charts["on a device"]
    subject = SUBJECTS["on a device"]
    eager = subject.by_mode["eager"].with_workload(columns=3, rows=3, image_width_px=0, image_height_px=0)
    vision, timing = eager.stage_numbers["vision"], eager.on(L4)
    before, after = texts(chart), texts(chart, grid="3 × 3", attention="eager")
    assert f"eager on {L4.label}: {seconds(timing.expected_ttft.value)} to the first token" in after and "sdpa" in before
    for number in (si(vision["total_flops"]), si(vision["io_bytes"], "B"), si(vision["peak_activation_bytes"], "B")):
        assert number in after and number not in before


def test_decode_is_shown_for_a_token(charts):
    numbers = SUBJECTS["on a device"].estimate.stage_numbers["decode"]
    assert f"{si(numbers['io_bytes'] / 256, 'B')} a token" in texts(charts["on a device"][0])


def test_modes_are_compared_with_the_first_one(charts):
    _, chart = charts["on a device"]
    table = {mode: one.stage_numbers for mode, one in SUBJECTS["on a device"].by_mode.items()}
    moved = {mode: sum(row[stage]["io_bytes"] for stage in ("vision", "prefill")) for mode, row in table.items()}
    bars = {
        row["kind"]: row for row in chart.datasets["bars"] if (row["stage"], row["what"], row["grid"]) == (FIRST, "DRAM traffic", "2 × 3")
    }
    for mode, bar in bars.items():
        assert bar["value"] == si(moved[mode], "B")
        assert bar["end"] / bars["eager"]["end"] == pytest.approx(moved[mode] / moved["eager"])
    assert bars["flash"]["saved"] == saved(moved["flash"], moved["eager"]) and bars["flash"]["saved"] in texts(chart, 1000)
    peaks = {
        row["kind"]: row for row in chart.datasets["bars"] if (row["stage"], row["grid"]) == (FIRST, "2 × 3") and "peak" in row["what"]
    }
    assert peaks["sdpa"]["value"] == si(max(table["sdpa"][stage]["peak_activation_bytes"] for stage in ("vision", "prefill")), "B")
    same = modes_by_stage(Setting(engine="remote_code").subject(MODEL, L4).sweep(Setting().workload), "2 × 3", L4.label)
    # prefill and decode of the published mix are eager, and the peak of every mode's prefill is that of its logits
    assert sum(row["saved"] == "no change" for row in same.datasets["bars"] if row["kind"] == "vendor") == 6 and "(+" not in texts(same)


def test_without_output_tokens_there_is_no_decode(charts):
    for chart in charts["no output"]:
        assert not re.search(r"decode\b", texts(chart).lower()) and "output tokens" in texts(chart)


def test_modes_are_in_the_control_once_each():
    subject = Setting(engine="remote_code").subject(MODEL)
    assert list(subject.by_mode) == ["eager", "sdpa", "flash", "vendor"] and subject.mode == "vendor"
    assert list(Setting().subject(MODEL).by_mode) == ["eager", "sdpa", "flash"]
    assert list(SUBJECTS["published code, fp32"].by_mode) == ["eager", "sdpa", "vendor"]
