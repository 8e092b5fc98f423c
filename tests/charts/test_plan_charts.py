"""Pages a day: against batch and output length, and against published accuracy by mode."""

from dataclasses import replace

import pytest

import ocr_flops as of
from ocr_flops.app import views
from ocr_flops.app.setting import Setting
from ocr_flops.evidence.published import read_accuracy


@pytest.fixture(scope="module")
def model():
    return of.load_model()


def drawn(model, view, **values):
    return views.VIEWS[view](views.evaluate(model, Setting(**values)))


def test_pages_a_day_are_those_of_the_timing_and_end_at_the_largest_batch(model):
    by_batch, by_length = drawn(model, "Plan", batch_size=2)
    rows = {row["at"]: row for row in by_batch.datasets["rows"]}
    pages = Setting(batch_size=2).estimate(model, "vendor").on(of.load_hardware("l4")).expected_pages_per_second
    assert [rows[2][name] for name in ("pages", "low", "high")] == pytest.approx([86_400 * one for one in pages[:3]])
    assert max(rows) == 18 and by_batch.datasets["mark"][0]["at"] == 2 and "holds at most 18. Band" in " ".join(by_batch.title.subtitle)
    lengths = [row["pages"] for row in by_length.datasets["rows"]]
    assert lengths == sorted(lengths, reverse=True)


def test_words_of_models_without_resolution_modes_and_of_devices_that_hold_more_than_is_drawn(model):
    glm, windowed = (Setting(model=name, output_tokens=1) for name in ("glm_ocr", "unlimited_ocr"))
    said = {view: " ".join(views.VIEWS[view](views.evaluate(glm.model_spec, glm))[-1].title.subtitle) for view in ("Sweep", "Memory")}
    assert "The page at 11 sizes, 413 × 584 to" in said["Sweep"] and "1 output tokens" not in said["Sweep"]
    assert said["Memory"].startswith("page of 1654 × 2339 px, 4,968 context tokens")
    assert "so that the cache stops growing" in views.VIEWS["Memory"](views.evaluate(windowed.model_spec, windowed))[1].title.subtitle[-1]
    assert "holds at most 1,922" in drawn(model, "Plan", mode="tiny", gpu="h200", output_tokens=1)[0].title.subtitle[0]


def test_what_does_not_fit_has_no_pages_a_day(model):
    by_batch, *others = drawn(model, "Plan", batch_size=64)
    assert not others and not by_batch.datasets["mark"] and " with batch 64" not in " ".join(by_batch.title.text)
    assert not drawn(model, "Plan", batch_size=64, gpu="t4")


def test_accuracy_is_as_published_and_pages_a_day_are_ours(model):
    (chart,) = drawn(model, "Which mode")
    rows = {(row["mode"], row["kind"]): row for row in chart.datasets["rows"]}
    assert rows["Tiny", "English"]["distance"] == 0.386 and rows["Gundam-M", "Chinese"]["distance"] == 0.157
    assert rows["Gundam", "English"]["ratio"] == f"{256 / 856:.2g}" and rows["Small", "English"]["ratio"] == "2.6"
    assert "about 97 % of the text within 10 of them, about 60 % near 20" in " ".join(chart.title.subtitle)
    assert "of 700 to 800 text tokens: Tiny 93.8 %, Small 97.3 %" in " ".join(
        drawn(model, "Which mode", output_tokens=736)[0].title.subtitle
    )
    assert "arXiv 2510.18234v1" in " ".join(chart.title.subtitle)
    served = of.serving(model, Setting(mode="tiny").workload, "l4").pages_per_day
    assert [rows["Tiny", "English"][name] for name in ("pages", "low", "high")] == list(served[:3])
    assert rows["Tiny", "English"]["pages"] > 9 * rows["Gundam-M", "English"]["pages"], "served, modes differ"
    assert "under transformers, UnlimitedOcr class: Tiny 31.9 k a day; Gundam-M 26.6 k a day" in " ".join(chart.title.subtitle)
    (crowded,) = drawn(model, "Which mode", batch_size=32)
    assert "; Gundam-M does not fit" in " ".join(crowded.title.subtitle)
    (cut,) = drawn(model, "Which mode", gpu="h100_sxm")
    assert "One CPU thread that cuts pages limits Tiny," in " ".join(cut.title.subtitle)
    (beyond,) = views.which_mode(views.Results(model, Setting("tiny", source="grid", columns=10**5)))
    assert views.why_not(views.Results(model, Setting(gpu="none")), "Which mode") is None
    assert "No result (columns: 100000 is not a whole number from 1 to 10000): Gundam, Gundam-M" in beyond.title.subtitle


def test_where_no_engine_serves_the_modes_are_those_of_the_settings_engine_page_by_page(model):
    setting = Setting(gpu="t4", dtype="fp16", batch_size=8)
    (chart,) = drawn(model, "Which mode", gpu="t4", dtype="fp16", batch_size=8)
    words = " ".join(chart.title.subtitle)
    assert (
        "page by page under transformers" in words
        and "has no flash kernel, which sglang and vllm take unless attention=eager or sdpa is given" in words
    )
    assert "pages a day, page by page" in str(chart.template.spec)
    alone = replace(setting, mode="tiny", batch_size=1).estimate(model, "vendor").on(of.load_hardware("t4")).expected_pages_per_day
    assert [chart.datasets["rows"][0][name] for name in ("pages", "low", "high")] == pytest.approx(alone[:3])
    (less,) = drawn(model, "Which mode", gpu="t4", dtype="fp32")
    assert "No result (does not fit): Large, Gundam-M" in less.title.subtitle and len(less.datasets["names"]) == 4
    full = views.Results(model, Setting(engine="vllm", memory_bytes=7e9))
    assert not views.which_mode(full) and "vLLM (modelled) serves the page in no mode here" in views.why_not(full, "Which mode")


def test_published_accuracy_is_whole():
    found = read_accuracy()
    assert list(found["omnidocbench"]) == ["tiny", "small", "base", "large", "gundam", "gundam_m"]
    assert sum(row["pages"] for row in found["fox"]) == 100, "the paper's hundred pages"
