"""Settings side by side: the figures are those of the estimates, differences are against the first."""

from dataclasses import replace

import pytest

import ocr_flops as of
from ocr_flops import charts
from ocr_flops.app import comparison
from ocr_flops.app.setting import Setting
from ocr_flops.app.views import Results
from ocr_flops.charts.theme import MODULES

MODEL = of.load_model("deepseek_ocr")
EAGER = Setting(attention="eager")
SETTINGS = {"now": EAGER, "flash": replace(EAGER, attention="flash"), "H200": replace(EAGER, gpu="h200", batch_size=8)}


def found(settings=None):
    return comparison.compared(MODEL, settings or SETTINGS)[0]


def test_figures_are_those_of_the_estimate_and_differences_are_exact():
    frame = comparison.frame(found())
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


def test_what_cannot_be_compared_is_told_once_and_the_rest_is():
    shown, problems = comparison.compared(
        MODEL, {"now": EAGER, "T4": Setting(gpu="t4", attention="all"), "wrong": Setting(attention="flash", dtype="fp32")}
    )
    assert [one.label for one in shown] == ["now", "T4, eager", "T4, sdpa", "T4, flash"]
    assert [problem.split(" has no ")[0] for problem in problems] == ["T4", "wrong"]
    frame = comparison.frame(shown)
    assert frame["ttft_seconds"][1] is None and frame["total_flops_difference"][1] == 0
    table = comparison.comparison_table(shown)
    assert table["T4, eager"][0] == "–" and len(charts.comparison(shown).datasets["bars"]) > 4


@pytest.mark.parametrize(("changed", "words"), [
    ({"columns": 9}, "the same"), ({"price": 3.0}, "the same"), ({"batch_size": 1024}, "batch size 1 → 1,024"),
    ({"source": "grid", "width_px": 7}, "source page → grid"), ({"memory_bytes": 8e10}, "memory bytes as published → 8e+10"),
])  # fmt: skip
def test_changes_in_words(changed, words):
    assert comparison.in_words(replace(EAGER, **changed), EAGER) == words


def test_the_chart_shows_every_setting_with_its_difference():
    chart = charts.comparison(found())
    said = {(row["row"], round(row["end"])): row["text"] for row in chart.datasets["differences"]}
    assert {row["row"] for row in chart.datasets["bars"]} == set(SETTINGS)
    assert any(text.startswith("−") for (row, _), text in said.items() if row == "flash")
    assert "Against now" in " ".join(chart.title.text) and "× 8" in [row["text"] for row in chart.datasets["differences"]]
    assert "pin it" in " ".join(charts.comparison(found({"now": EAGER})).title.text)


def test_the_table_has_numbers_and_differences():
    table = comparison.comparison_table(found())
    memory = dict(zip(table[""], table["flash"], strict=True))["memory needed"]
    assert table.columns == ["", "now", "flash", "H200"] and memory.startswith("6.93 GB (−2.2") and memory.endswith("25 %)")


@pytest.mark.parametrize("setting", [Setting(), Setting(output_tokens=0), Setting(mode="tiny", attention="flash"), Setting(gpu="t4")])
def test_shares_are_those_of_the_modules(setting):
    shown = Results(MODEL, setting)
    chart = charts.shares(shown.estimates[0], shown.timings[0] if shown.timings else None)
    rows = chart.datasets["bars"]
    for row in {bar["row"] for bar in rows}:
        bars = [bar for bar in rows if bar["row"] == row]
        assert bars[0]["start"] == 0 and bars[-1]["end"] == pytest.approx(1)
    assert any(bar["measure"] == "time" for bar in rows) is bool(shown.timings)
    assert any(bar["phase"] == "each output token" for bar in rows) is bool(setting.output_tokens)
    numbers = shown.estimates[0].module_numbers
    wanted = sum(row["total_flops"] for (stage, module), row in numbers.items() if stage != "decode" and MODULES[module][0] == "SAM")
    whole = sum(row["total_flops"] for (stage, _), row in numbers.items() if stage != "decode")
    bar = next(bar for bar in rows if (bar["family"], bar["measure"]) == ("SAM", "FLOPs"))
    assert bar["end"] - bar["start"] == pytest.approx(wanted / whole)


def test_the_title_of_shares_names_the_largest_part_of_each_phase():
    shown = Results(MODEL, EAGER)
    stages = shown.timings[0].modules.to_dicts()
    text = " ".join(charts.shares(shown.estimates[0], shown.timings[0]).title.text)
    decode = [row for row in stages if row["stage"] == "decode"]
    widest = max(decode, key=lambda row: row["roofline_seconds"])
    part = widest["roofline_seconds"] / sum(row["roofline_seconds"] for row in decode)
    assert f"{MODULES[widest['module']][1]}: {100 * part:.0f} % of TPOT" in text and "of TTFT" in text
