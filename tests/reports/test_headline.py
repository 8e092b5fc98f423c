"""The headline figures: what they say, and that their HTML shows all of it as text."""

import pytest

import ocr_flops as of
from ocr_flops.app.setting import Setting
from ocr_flops.reports.headline import Card, headline_cards
from ocr_flops.reports.html import cards_html
from ocr_flops.units import seconds, si

TIMES = ("first token (TTFT)", "per token (TPOT)", "pages a day", "fits the GPU")


def shown(model, **values):
    setting = Setting(**values)
    (estimate,) = setting.estimates(model)
    return estimate, estimate.on(setting.device)


def by_label(*args):
    return {one.label.partition(",")[0]: one for one in headline_cards(*args)}


def test_values_are_those_of_the_estimate_on_the_device(model):
    estimate, timing = shown(model)
    found = by_label(estimate, timing)
    assert found["first token (TTFT)"].value == seconds(timing.expected_ttft.value)
    assert found["per token (TPOT)"].value == seconds(timing.expected_tpot.value)
    assert found["pages a day"].value == si(timing.expected_pages_per_day.value)
    assert found["device busy"].value == f"{100 * timing.device_busy_share:.0f} %"
    assert found["memory"].value == si(estimate.footprint.total_bytes, "B")
    assert found["FLOPs"].value == si(sum(row["total_flops"] for row in estimate.stage_numbers.values())) == "4.60 T"
    assert found["image tokens"].value == "903" and found["image tokens"].caption == "2 × 3 tiles + page"
    assert found["weights"].value == "6.67 GB"
    for figure in (timing.ttft_seconds, timing.bound_ttft_seconds):
        assert seconds(figure) in found["first token (TTFT)"].explanation


@pytest.mark.parametrize("gpu", ["l4", "h200", "mi300x", "rtx_4090"])
@pytest.mark.parametrize("batch_size", [1, 64, 512])
def test_captions_have_the_range_and_explanations_what_it_rests_on(model, gpu, batch_size):
    estimate, timing = shown(model, gpu=gpu, batch_size=batch_size)
    found = by_label(estimate, timing)
    for label, figure in (("first token (TTFT)", timing.expected_ttft), ("per token (TPOT)", timing.expected_tpot)):
        assert found[label].caption == f"{seconds(figure.low)} to {seconds(figure.high)}"
        assert timing.time_basis in found[label].explanation
    bound = {"matrix": "matrix-bound", "vector": "vector-bound", "bandwidth": "memory-bound"}[timing.binding_ceilings["decode"]]
    assert bound in found["per token (TPOT)"].explanation
    assert timing.time_basis in found["pages a day"].explanation
    exact = by_label(estimate, estimate.on(timing.hardware, host="none", efficiency="peak"))
    assert exact["first token (TTFT)"].caption == "exactly" and exact["first token (TTFT)"].value == seconds(timing.ttft_seconds)


def test_what_does_not_fit_is_an_alarm(model):
    for batch_size, fits in ((1, True), (512, False)):
        estimate, timing = shown(model, batch_size=batch_size)
        found = by_label(estimate, timing)
        spare = abs(timing.hardware.memory_bytes - estimate.footprint.total_bytes)
        assert found["fits the GPU"].value == ("yes" if fits else "NO")
        assert found["fits the GPU"].caption == f"{si(spare, 'B')} {'spare' if fits else 'too much'}"
        assert [label for label, one in found.items() if one.alarm] == ([] if fits else ["fits the GPU"])


def test_the_boundary_fits(model):
    estimate, _ = shown(model)
    exactly = Setting(memory_bytes=float(estimate.footprint.total_bytes))
    assert by_label(estimate, estimate.on(exactly.device))["fits the GPU"].caption == "0 B spare"


def test_without_output_there_is_no_time_per_token(model):
    estimate, timing = shown(model, output_tokens=0)
    assert by_label(estimate, timing)["per token (TPOT)"][1:3] == ("–", "no output tokens")


def test_without_a_device_there_are_costs_alone(model):
    estimate, timing = shown(model)
    costs = by_label(estimate)
    assert not set(TIMES) & set(costs)
    assert by_label(estimate, timing) == {label: by_label(estimate, timing)[label] for label in (*TIMES, "device busy")} | costs


def test_a_device_without_times_still_has_its_memory(model):
    setting = Setting(gpu="v100_pcie")
    (estimate,) = setting.estimates(model)
    found = by_label(estimate, None, setting.hardware)
    assert set(TIMES) & set(found) == {"fits the GPU"} and found["fits the GPU"].value == "yes"
    assert "NVIDIA V100 PCIe (16 GB) has 16.0 GB" in found["fits the GPU"].explanation
    with pytest.raises(
        of.SpecError, match="^NVIDIA V100 PCIe \\(16 GB\\) has no bf16 figure: choose fp16 or fp32, or enter one under 'edit its"
    ):
        setting.device  # noqa: B018
    given = Setting(gpu="v100_pcie", matrix_flops_per_second=1e14)
    assert given.device == given.hardware and by_label(estimate, estimate.on(given.device)).keys() >= set(TIMES)


@pytest.mark.parametrize(
    "values",
    [{}, {"mode": "tiny"}, {"mode": "gundam_m", "source": "grid", "columns": 32, "rows": 32, "batch_size": 512}, {"output_tokens": 0},
     {"prompt_tokens": 0, "output_tokens": 0}, {"engine": "remote_code", "attention": "flash"}],
)  # fmt: skip
def test_cards_are_short_and_readable(model, values):
    for one in headline_cards(*shown(model, **values)):
        assert all(one[:4]) and max(map(len, one[:3])) <= 28, one
        assert not any(mark in " ".join(one[:4]) for mark in ("nan", "inf", "None", "<", "0000000"))


def test_a_number_too_large_is_refused(model):
    scenario = Setting(source="grid", columns=100, rows=100, batch_size=65_536, output_tokens=1_000_000)
    with pytest.raises(of.SpecError, match="exceeds 2\\^62"):
        headline_cards(scenario.estimate(model, "eager"))


def test_html_has_every_card_as_text_and_marks_an_alarm(model):
    odd = '<img src="x" onerror=alert(1)>'
    cards = [*headline_cards(*shown(model, batch_size=512)), Card(odd, odd, odd, odd)]
    html = cards_html(cards).replace("\N{NO-BREAK SPACE}", " ")
    assert type(html) is str  # marimo sends no other kind of text
    assert html.count("<strong>") == len(cards) and html.count('class="alarm"') == 1 and "<img" not in html
    assert all(f"<strong>{one.value}</strong> <span>{one.caption}</span>" in html for one in cards[:-1])
    assert html.count("data-tooltip=") == 0 and cards_html(cards, tooltip="data-tooltip").count("data-tooltip=") == len(cards)
