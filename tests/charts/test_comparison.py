"""Settings side by side, and shares by part of the model."""

import re
from types import SimpleNamespace

import pytest

import ocr_flops as of
from ocr_flops.charts import comparison, shares
from ocr_flops.charts.theme import MODULES
from ocr_flops.units import change, seconds, si
from tests.support.drawing import assert_draws, headline, texts


def compared(label, estimate, timing):
    return SimpleNamespace(label=label, estimate=estimate, timing=timing)


def test_every_setting_stands_with_its_difference_from_the_first(by_mode, timings, model):
    settings = [compared(mode, by_mode[mode], timings[mode]) for mode in ("sdpa", "eager", "flash")]
    settings.append(compared("no times", of.estimate(model, of.Workload.from_grid(1, 1), "sdpa"), None))
    chart = comparison(settings)
    panels = {row["start"]: row["text"] for row in chart.datasets["panels"]}
    assert list(panels.values()) == ["first token", "per token", "pages a day", "device memory"] and chart.params["rows"] == [
        "sdpa",
        "eager",
        "flash",
        "no times",
    ]
    memory = {bar["row"]: bar["all"] for bar in chart.datasets["bars"] if bar["what"] == "device memory"}
    assert memory == {one.label: f"{one.estimate.footprint.total_bytes / 1e9:.3g} GB" for one in settings}
    first = {row["row"]: row for row in chart.datasets["ends"] if row["end"] < 1}
    sdpa, flash = (timings[mode].expected_ttft.value for mode in ("sdpa", "flash"))
    assert not timings["eager"].fits
    assert [row["text"] for row in first.values()] == [seconds(sdpa), "–", seconds(flash), "no figure"]
    assert first["flash"]["end"] / first["sdpa"]["end"] == pytest.approx(flash / sdpa)
    differences = {row["row"]: row["text"] for row in chart.datasets["differences"] if row["end"] < 1}
    pages = {row["row"]: row["text"] for row in chart.datasets["ends"] if 2 <= row["end"] < 3}
    assert pages == {
        "sdpa": si(timings["sdpa"].expected_pages_per_day.value),
        "eager": "–",
        "flash": si(timings["flash"].expected_pages_per_day.value),
        "no times": "no figure",
    }
    memory = [row["text"] for row in chart.datasets["differences"] if row["end"] >= 3]
    assert memory[1] == "does not fit" and memory[2].startswith("−")
    assert differences == {"sdpa": "", "eager": "does not fit", "flash": change(flash, sdpa), "no times": ""}
    assert headline(chart).startswith("eager instead of sdpa: device memory ")
    assert chart.title.subtitle[0].startswith(f"flash instead of sdpa: first token {seconds(sdpa)} → {seconds(flash)} (")
    assert "pin it" in headline(comparison(settings[:1]))
    assert_draws(chart)


def test_a_multiple_is_named_as_one(by_mode, timings):
    small = timings["sdpa"].estimate.with_workload(batch_size=1)
    chart = comparison([compared("one", small, small.on("l4")), compared("eight", by_mode["sdpa"], timings["sdpa"])])
    times = [timings["sdpa"].expected_ttft.value, small.on("l4").expected_ttft.value]
    assert f"× {times[0] / times[1]:.3g}" in [row["text"] for row in chart.datasets["differences"]]


@pytest.mark.parametrize(("mode", "output_tokens", "is_timed"), [("gundam", 256, True), ("gundam", 0, True), ("tiny", 64, False)])
def test_shares_are_those_of_the_modules(model, l4, mode, output_tokens, is_timed):
    estimate = of.estimate(model, of.Workload.from_image(1654, 2339, mode, output_tokens=output_tokens), "sdpa")
    chart = shares(estimate, estimate.on(l4) if is_timed else None)
    rows = chart.datasets["bars"]
    for row in {bar["row"] for bar in rows}:
        bars = [bar for bar in rows if bar["row"] == row]
        assert bars[0]["start"] == 0 and bars[-1]["end"] == pytest.approx(1)
    assert any(bar["measure"] == "expected time" for bar in rows) is is_timed
    assert any(bar["phase"] == "each output token" for bar in rows) is bool(output_tokens)
    numbers = estimate.module_numbers
    wanted = sum(row["total_flops"] for (stage, module), row in numbers.items() if stage != "decode" and MODULES[module][0] == "SAM")
    whole = sum(row["total_flops"] for (stage, _), row in numbers.items() if stage != "decode")
    bar = next(bar for bar in rows if (bar["family"], bar["measure"]) == ("SAM", "FLOPs"))
    assert bar["end"] - bar["start"] == pytest.approx(wanted / whole)


def test_the_title_of_shares_names_the_largest_part_of_each_phase(timings):
    timing = timings["sdpa"]
    decode = [row for row in timing.modules.to_dicts() if row["stage"] == "decode"]
    widest = max(decode, key=lambda row: row["expected_seconds"])
    part = widest["expected_seconds"] / timing.stages.filter(stage="decode")["expected_seconds"][0]
    words = headline(shares(timing.estimate, timing))
    assert f"{MODULES[widest['module']][1]}: {100 * part:.0f} % of TPOT" in words and "of TTFT" in words


@pytest.mark.parametrize(("width", "fits"), [(300, False), (1600, True)])
def test_shares_are_written_where_they_fit(timings, width, fits):
    written = [int(part) for part in re.findall(r"(\d+) %", texts(shares(timings["sdpa"].estimate, timings["sdpa"]), width))]
    assert any(part <= 6 for part in written) is fits and any(part >= 40 for part in written)


def test_bars_of_a_learned_model_are_whole(l4):
    estimate = of.estimate("glm_ocr", of.Workload.from_image(1654, 2339, output_tokens=16))
    chart = shares(estimate, estimate.on(l4))
    ends = {bar["row"]: bar["end"] for bar in chart.datasets["bars"]}
    assert {"vision encoder", "between steps"} <= {*chart.params["families"]}
    assert len(ends) == 6 and all(end == pytest.approx(1) for end in ends.values())
