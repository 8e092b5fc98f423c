"""The tab Serving: controls change the answer, what is wrong is told in the page, the command is there to be copied."""

import marimo as mo
import pytest

from ocr_flops.app import views
from ocr_flops.app.served import FLYING, RATE, Load, drawn, provenance_of, serve
from ocr_flops.app.setting import Setting
from ocr_flops.app.tabs import serving
from ocr_flops.errors import SpecError


def served(model, setting=Setting(), **changed):  # noqa: B008  it is frozen
    return serve(views.evaluate(model, setting), {**serving.serving_controls().value, "load": FLYING, **changed})


def test_controls_change_the_answer(model):
    base = served(model).chosen
    assert served(model, concurrency=4).chosen.pages_per_day.value < base.pages_per_day.value
    assert served(model, replicas=8).chosen.pages_per_day.value == pytest.approx(8 * base.pages_per_day.value)
    assert served(model, Setting(output_tokens=2048)).chosen.pages_per_day.value < base.pages_per_day.value
    assert served(model, Setting(gpu="h200")).chosen.pages_per_day.value > base.pages_per_day.value
    assert served(model, load=RATE, rate=50).chosen.is_stable is False
    assert served(model, Setting(operator_us=90.0, engine="vllm")).chosen.ttft_seconds.value > base.ttft_seconds.value


def test_a_link_keeps_its_numbers_and_an_engine_chooses_whether_it_bans(model):
    controls = serving.serving_controls(Load(concurrency=100, rate=7.0)).value
    assert (controls["concurrency"], controls["rate"]) == (100, 7.0)
    assert serving.serving_controls(Load(concurrency=2000)).value["concurrency"] == 2000
    assert [served(model, engine=engine).chosen.options.ngram_ban for engine in ("vllm", "sglang")] == [True, False]
    assert served(model, engine="sglang", ngram_ban=True).chosen.options.ngram_ban


def test_the_page_has_sentences_charts_a_table_and_the_command(model):
    found = served(model)
    assert [one.hardware.name for one in found.servers] == ["l4", "a100_40gb", "h100_sxm"] and len(drawn(found)) == 3
    assert "pages a day" in mo.as_html(serving.answer(found)).text and "rests on" in mo.as_html(serving.numbers(found)).text
    assert "NVIDIA L4" in provenance_of(found) and "pages a day" in provenance_of(found) and provenance_of(None) == ""
    assert "data-copy='vllm serve deepseek-ai/DeepSeek-OCR" in serving.command(found).text
    assert "python -m sglang.launch_server" in serving.command(served(model, engine="sglang")).text
    promised = mo.as_html(serving.promised(served(model, others=""), 0.5)).text
    assert "Limited by a p95 first token within 500 ms." in promised and "data-copy='vllm serve" in promised
    assert "with 64 in flight the largest part of a step is" in " ".join(drawn(found)[1].title.text)


@pytest.mark.parametrize(
    ("setting", "changed", "message"),
    [
        (Setting(memory_bytes=7e9), {}, "are missing"),
        (Setting(output_tokens=0), {}, "output_tokens of at least 1"),
        (Setting(model="glm_ocr", engine="vllm"), {}, "no engine that serves is known to run GLM-OCR"),
        (Setting(gpu="t4", dtype="fp16"), {"max_num_batched_tokens": "1024"}, None),
    ],
)
def test_what_is_wrong_is_told_in_the_page(model, setting, changed, message):
    found = served(model, setting, **changed)
    if message is None:
        return
    assert isinstance(found, SpecError) and message in str(found)
    assert drawn(found) == () and serving.numbers(found).text == "" and serving.command(found).text == ""
    assert "It is not served." in mo.as_html(serving.answer(found)).text


def test_a_gpu_that_does_not_run_it_is_named_beside_the_others(model):
    found = served(model, others="t4, <b>")
    assert [one.hardware.name for one in found.servers] == ["l4"] and len(found.refused) == 2
    assert "<b>" not in mo.as_html(serving.answer(found)).text
