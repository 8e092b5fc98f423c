"""Settings of engines that serve: every chart is drawn, options reach the estimate, nothing runs them here."""

import pytest

import ocr_flops as of
from ocr_flops.app import links, runs, views
from ocr_flops.app.setting import Setting
from ocr_flops.app.views import VIEWS


@pytest.mark.parametrize(
    "values",
    [
        {"engine": "vllm"},
        {"engine": "sglang", "attention": "all"},
        {"engine": "vllm", "cache": "static", "output_tokens": 5, "gpu": "h200"},
    ],
)
def test_every_view_of_an_engine_that_serves(values):
    model = of.load_model("deepseek_ocr")
    results = views.evaluate(model, Setting(**values))
    assert all(view(results) is not None for view in VIEWS.values())
    assert results.main.config.cache == "paged" and set(results.main.stages["evidence"]) == {"modelled"}


def test_options_in_fp8_come_from_a_link_and_need_a_device_that_has_it():
    model = of.load_model("deepseek_ocr")
    setting = links.read({"engine": "vllm", "engine_weights": "fp8", "engine_cache": "fp8", "gpu": "l40s"}).setting
    results = views.evaluate(model, setting)
    assert results.main.config.engine.title == "vllm weights=fp8 cache=fp8" and results.without_times is None
    without = views.evaluate(model, Setting(engine="vllm", engine_weights="fp8", gpu="a10"))
    assert without.without_times == "NVIDIA A10 (24 GB) has no fp8 figure: choose weights in bf16"
    plain = views.evaluate(model, Setting(engine_weights="fp8"))
    assert plain.main.config.engine.weights is None, "transformers has no such option"


def test_nothing_here_runs_an_engine_that_serves():
    with pytest.raises(of.SpecError, match="^engine: vllm is modelled, as read in its sources: nothing here runs, counts or times it"):
        runs.find_source("vllm")
