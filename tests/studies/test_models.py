"""Models side by side: the same text on the same page, and what each reads and writes of it."""

from dataclasses import replace

import pytest

import ocr_flops as of
from ocr_flops.cost.models import learned
from ocr_flops.spec.catalog import load_hardware, load_model
from ocr_flops.spec.reading import offered
from ocr_flops.spec.run_spec import load_run
from ocr_flops.studies import models
from ocr_flops.studies.models import PageText, compare_models, compared_models, cost_by_size, list_models, reading_words

BOTH = ("deepseek_ocr", "tiny_test")


def test_a_row_is_an_estimate_of_that_model():
    run = load_run(["hardware=l4", "attention=sdpa", "workload.batch_size=2"])
    frame = compare_models(run, BOTH, PageText(), price_per_hour=2.0)
    assert frame["model"].to_list() == ["tiny_test", "deepseek_ocr"]  # cheapest first
    row = frame.row(1, named=True)
    page = of.Workload.from_image(1654, 2339, output_tokens=596, batch_size=2)  # 3000 characters, 5.04 a token
    estimate = of.estimate(load_model("deepseek_ocr"), page, "sdpa")
    timing = estimate.on("l4")
    assert row["output_tokens"] == 596 and row["image_tokens"] == 903
    assert row["total_flops"] == sum(one["total_flops"] for one in estimate.stage_numbers.values()) // 2
    assert row["memory_bytes"] == estimate.footprint.total_bytes
    pages = timing.expected_pages_per_second
    assert row["expected_pages_per_second"] == pages.value and row["expected_page_seconds"] == 1 / pages.value
    assert row["cost_per_1000_pages"] == pytest.approx(2 * 1000 / pages.value / 3600)
    assert row["cost_low_per_1000_pages"] < row["cost_per_1000_pages"] < row["cost_high_per_1000_pages"]
    assert row["time_basis"] == timing.time_basis and row["reason"] is None


def test_crops_share_the_page_and_its_text():
    run, model = load_run(["workload.batch_size=3"]), load_model("deepseek_ocr")
    whole, cut = (PageText(crops={"deepseek_ocr": count}).workload(run, model) for count in (1, 6))
    assert (cut.batch_size, cut.image_height_px, cut.image_width_px) == (18, 2339 // 6, 1654)
    assert whole.output_tokens == 596 and cut.output_tokens == 100
    row = compare_models(run, ["deepseek_ocr"], PageText(crops={"deepseek_ocr": 6})).row(0, named=True)
    assert row["crops"] == 6 and row["image_tokens"] == 6 * cut.image_tokens and row["output_tokens"] == 600


def test_characters_of_a_token_are_given_known_or_assumed():
    page = PageText(per_token={"tiny_test": 2.5})
    assert page.characters_per_token(load_model("tiny_test")) == 2.5
    assert page.characters_per_token(load_model("deepseek_ocr")) == 5.04
    assert page.characters_per_token(load_model("glm_ocr")) == models.ASSUMED_PER_TOKEN
    words = reading_words(page, ["deepseek_ocr", "glm_ocr", "tiny_test", "paddleocr_vl"])
    assert (
        "5.04 for DeepSeek-OCR" in words
        and "5 (assumed) for GLM-OCR, PaddleOCR-VL" in words
        and "PaddleOCR-VL reads 20 strips a page" in words
    )


def test_a_page_that_does_not_fit_says_so():
    run = load_run(["hardware=l4", "workload.batch_size=512"])
    row = compare_models(run, ["deepseek_ocr"], PageText()).row(0, named=True)
    assert row["fits"] is False and row["reason"].startswith("does not fit: needs ")
    frame = compare_models(replace(run, hardware=load_hardware("l4")), BOTH, PageText(), price_per_hour=1.0)
    assert frame["model"].to_list() == ["tiny_test", "deepseek_ocr"] and frame["cost_per_1000_pages"][1] is None


def test_each_model_at_its_best_batch():
    run, page = load_run(["hardware=l4", "attention=sdpa"]), PageText(crops={"deepseek_ocr": 3})
    one, best = (compare_models(run, ["deepseek_ocr"], page, best_batch=wanted).row(0, named=True) for wanted in (False, True))
    assert one["batch_size"] == 1 < best["batch_size"] and best["reason"] is None and best["memory_bytes"] <= 24e9
    assert best["expected_pages_per_second"] > one["expected_pages_per_second"] and best["total_flops"] > 0
    again = compare_models(load_run(["hardware=l4", "attention=sdpa", f"workload.batch_size={best['batch_size']}"]), ["deepseek_ocr"], page)
    assert again.row(0, named=True) == best
    words = models.kernel_words(compare_models(load_run(["hardware=l4"]), ["got_ocr2", "glm_ocr"], page))
    assert "eager for GOT-OCR2" in words and "sdpa for GLM-OCR" in words


def test_sizes_are_the_pages_one_by_one():
    run = load_run(["hardware=l4"])
    frame = cost_by_size(run, BOTH, PageText(), (0.5, 1.0), price_per_hour=1.0)
    assert frame["width_px"].to_list() == [827, 1654] * 2
    one = compare_models(run, ["deepseek_ocr"], PageText(), price_per_hour=1.0).row(0, named=True)
    here = frame.row(1, named=True)
    assert here["expected_page_seconds"] == pytest.approx(one["expected_page_seconds"])
    assert here["cost_per_1000_pages"] == pytest.approx(one["cost_per_1000_pages"])
    assert here["expected_page_low_seconds"] < here["expected_page_seconds"] < here["expected_page_high_seconds"]


def test_the_list_has_every_model_but_the_one_for_tests():
    frame = list_models()
    assert tuple(frame["model"]) == offered("model") and "tiny_test" not in offered("model")
    rows = {row["model"]: row for row in frame.to_dicts()}
    assert {name for name, row in rows.items() if row["parameters"]} == set(compared_models())
    assert rows["glm_ocr"]["attention"] == "eager, sdpa" and "more were equal" in rows["glm_ocr"]["evidence"]
    tokens = dict(zip(frame["model"], frame["image_tokens"], strict=True))
    assert tokens["deepseek_ocr"] == 903 and tokens["glm_ocr"] == load_model("glm_ocr").learned.page_rule.image_tokens(1654, 2339)
    assert frame["limits"].null_count() == 0
    assert rows["glm_ocr"]["program"] == rows["deepseek_ocr"]["program"] == "shipped"


def test_a_known_model_without_a_program_is_not_learned_unasked(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(learned, "FOLDER", "nowhere")
    with pytest.raises(of.SpecError, match="^model: no program of glm_ocr is shipped; `ocr-flops learn glm_ocr` learns it here"):
        learned.find_program.__wrapped__(load_model("glm_ocr"))


def test_a_learned_model_stands_beside_the_others():
    run = load_run(["hardware=l4", "attention=sdpa"])
    frame = compare_models(run, ("deepseek_ocr", "glm_ocr"), PageText())
    rows = {row["model"]: row for row in frame.to_dicts()}
    assert rows["glm_ocr"]["image_tokens"] == 59 * 84 + 2 and rows["glm_ocr"]["output_tokens"] == 600
    assert rows["glm_ocr"]["attention"] == rows["deepseek_ocr"]["attention"] == "sdpa" and rows["glm_ocr"]["total_flops"] > 5e13
    sizes = cost_by_size(run, ("glm_ocr",), PageText(), (0.5, 1.0, 2.0))
    assert sizes["image_tokens"].to_list() == [
        load_model("glm_ocr").learned.page_rule.image_tokens(*one) for one in ((827, 1170), (1654, 2339), (3308, 4678))
    ]
    assert sizes["expected_page_seconds"].to_list()[1] == pytest.approx(rows["glm_ocr"]["expected_page_seconds"])


def test_another_engine_or_kernel_is_refused_in_a_sentence():
    row = compare_models(load_run(["attention=flash"]), ["glm_ocr"], PageText()).row(0, named=True)
    assert row["reason"].startswith("attention: 'flash' is not one of eager, sdpa")
