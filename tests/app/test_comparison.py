"""Settings side by side: the figures are those of the estimates, differences are against the first."""

import re
from dataclasses import replace

import pytest

import ocr_flops as of
from ocr_flops.app import comparison
from ocr_flops.app.setting import Setting

MODEL = of.load_model("deepseek_ocr")
EAGER = Setting(attention="eager")
SETTINGS = {"now": EAGER, "flash": replace(EAGER, attention="flash"), "H200": replace(EAGER, gpu="h200", batch_size=8)}


def found(settings=None):
    return comparison.compare_settings(MODEL, settings or SETTINGS)[0]


def test_figures_are_those_of_the_estimate_and_differences_are_exact():
    frame = comparison.comparison_frame(found())
    eager, flash = (of.estimate(MODEL, EAGER.workload, mode) for mode in ("eager", "flash"))
    row = frame.row(1, named=True)
    assert row["setting"] == "flash" and row["changes"] == "attention eager → flash"
    moved = [sum(stage["io_bytes"] for stage in one.stage_numbers.values()) for one in (flash, eager)]
    assert row["io_bytes"] == moved[0] and row["io_bytes_difference"] == moved[0] - moved[1] < 0
    assert row["total_bytes_difference"] == flash.footprint.total_bytes - eager.footprint.total_bytes
    assert row["ttft_seconds"] == flash.on(of.load_hardware("l4")).ttft_seconds
    assert row["tensor_flops_difference"] == 0 and frame["tensor_flops"].dtype.is_integer()
    assert all(value in (0, None) for name, value in frame.row(0, named=True).items() if name.endswith("_difference"))


def test_all_modes_side_by_side_become_one_each():
    labels = [one.label for one in found({"now": Setting(attention="all"), "fp32": Setting(attention="all", dtype="fp32")})]
    assert labels == ["now, eager", "now, sdpa", "now, flash", "fp32, eager", "fp32, sdpa"]


def test_a_pin_of_an_engine_that_does_not_run_its_model_is_shown_as_the_controls_are():
    pin = Setting(model="glm_ocr", engine="vllm")
    (first, now), problems = comparison.compare_pins(pin.model_spec, pin.known, [("pin", pin)])
    assert first.figures == now.figures and problems == [f"pin: {pin.instead}"]
    assert comparison.change_words(pin.known, pin) == "the same"


def test_what_cannot_be_compared_is_told_once_and_the_rest_is():
    shown, problems = comparison.compare_settings(
        MODEL, {"now": EAGER, "T4": Setting(gpu="t4", attention="all"), "wrong": Setting(attention="flash", dtype="fp32")}
    )
    assert [one.label for one in shown] == ["now", "T4, eager", "T4, sdpa"]
    assert [problem.split(" has no ")[0] for problem in problems] == ["T4", "wrong"]
    frame = comparison.comparison_frame(shown)
    assert frame["ttft_seconds"][1] is None and frame["total_flops_difference"][1] == 0
    table = comparison.comparison_table(shown)
    assert table["T4, eager"][0] == "–"


@pytest.mark.parametrize(("changed", "words"), [
    ({"columns": 9}, "the same"), ({"price": 3.0}, "the same"), ({"batch_size": 1024}, "batch size 1 → 1,024"),
    ({"source": "grid", "width_px": 7}, "source page → grid"), ({"memory_bytes": 8e10}, "memory bytes as published → 8e+10"),
])  # fmt: skip
def test_changes_in_words(changed, words):
    assert comparison.change_words(replace(EAGER, **changed), EAGER) == words


def test_a_pin_is_called_by_what_it_changes_against_the_first():
    assert comparison.short_name(EAGER) == "l4, gundam 2×3, eager"
    changed = replace(EAGER, attention="flash", batch_size=8, output_tokens=512, dtype="fp16")
    assert comparison.short_name(changed, EAGER) == "output tokens 512, batch 8, flash, fp16"
    assert comparison.short_name(EAGER, EAGER) == comparison.short_name(EAGER)
    learned = replace(EAGER, model="glm_ocr", mode="tiny", attention="vendor")  # which has no modes
    assert comparison.short_name(learned, EAGER) == "the engine's own, glm_ocr" and comparison.short_name(learned) == "l4, glm_ocr"
    assert comparison.change_words(replace(learned, mode="large"), learned) == "the same"


def test_a_pin_called_baseline_is_what_all_others_are_compared_with():
    pins = (("flash", SETTINGS["flash"]), ("Baseline", SETTINGS["H200"]))
    assert [one.label for one in comparison.compare_pins(MODEL, EAGER, pins)[0]] == ["Baseline", "now", "flash"]
    assert [one.label for one in comparison.compare_pins(MODEL, EAGER, pins[:1])[0]] == ["flash", "now"]


def test_the_table_has_numbers_and_differences():
    table = comparison.comparison_table(found())
    memory = dict(zip(table[""], table["flash"], strict=True))["memory needed"]
    assert table.columns == ["", "now", "flash", "H200"] and memory.startswith("6.94 GB (−2.2") and memory.endswith("25\u00a0%)")
    assert re.fullmatch(r"467 ms \(\d+ ms to \d+ ms\)", table["now"][0])
