"""Pieces of the app's panels, without a browser."""

import marimo as mo
import polars as pl
import pytest

from ocr_flops.app.setting import Setting
from ocr_flops.app.tabs import controls, headline
from ocr_flops.app.tabs.elements import plain_table
from ocr_flops.app.views import VIEWS, Shown
from ocr_flops.spec.workload import LIMITS


def test_a_table_has_dashes_and_wraps_long_texts():
    frame = pl.DataFrame({"short": ["a", None], "long": ["x" * 60, "y"], "number": [1.5, None]})
    table = plain_table(frame)
    assert table.data["short"].to_list() == ["a", "–"] and "data-wrapped-columns='[&quot;long&quot;]'" in mo.as_html(table).text


def test_the_prompt_field_has_its_limits():
    prompt, *_ = controls.text(Setting())
    assert (prompt.start, prompt.stop) == LIMITS["prompt_tokens"]
    most, *_ = controls.text(Setting(prompt_tokens=LIMITS["prompt_tokens"][1]))
    assert most.value == LIMITS["prompt_tokens"][1]


def test_the_upload_button_is_short():
    *_, upload = controls.page(Setting())
    text = mo.as_html(upload).text
    assert "image or PDF" in text and "choose an image" not in text and "Only its size" in text


@pytest.mark.parametrize("gpu", ["v100_pcie", "t4"])
def test_a_gpu_without_a_figure_keeps_fit_and_memory(model, gpu):
    shown = Shown(model, Setting(gpu=gpu))
    assert shown.device is None and shown.timings == [] and shown.hardware.memory_bytes == 16e9
    assert "has no bf16 figure: choose fp16 or fp32, or enter one under 'edit its figures'" in shown.without_times
    assert "_" not in shown.without_times  # no key of a config
    _, shares, memory = VIEWS["Overview"](shown)
    assert memory.datasets["line"][0]["text"] == "memory: 16.0 GB" and "fits NVIDIA" in " ".join(memory.title.text).replace("Fits", "fits")
    assert "Without a device" not in " ".join(shares.title.subtitle)
    assert VIEWS["Memory"](shown)[0].datasets["line"]


def test_figures_that_are_none_leave_no_device(model):
    shown = Shown(model, Setting(memory_bytes=-1.0))
    assert shown.device is None and shown.hardware is None and "memory_bytes" in shown.without_times and VIEWS["Overview"](shown)


def test_the_cards_of_such_a_gpu_say_whether_it_fits(model):
    class NoRecords:
        def calibrated(self, estimate):
            return None

    html = headline.headline(Shown(model, Setting(gpu="v100_pcie")), {"numbers": 1, "rows": []}, NoRecords()).text
    assert "fits the GPU" in html and "8.38 GB spare" in html
