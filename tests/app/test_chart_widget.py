"""Charts that stay, on Python's side: what is sent at first, and what a step sends. How they are drawn: tests/browser."""

import gc
import re
import threading
import weakref

import pytest

import ocr_flops as of
from ocr_flops.app import views
from ocr_flops.app.chart_widget import LIBRARY, ChartWidget
from ocr_flops.app.setting import Setting
from ocr_flops.app.tabs import compare, models


@pytest.fixture
def widget():
    """A widget, and the names of the traits that it sends after it is made."""
    made, sent = ChartWidget(), []
    made.observe(lambda change: sent.append(change.name), ["templates", "view", "charts"])
    return made, sent


def drawn(model, view="Overview", **values):
    return views.VIEWS[view](views.Results(model, Setting(**values)))


@pytest.mark.parametrize("values", [{}, {"mode": "tiny"}, {"attention": "all"}, {"gpu": "t4"}, {"output_tokens": 0}])
def test_every_view_is_sent_as_it_is_drawn(model, widget, values):
    results = views.Results(model, Setting(**values))
    for name, view in views.VIEWS.items():
        charts = view(results)
        widget[0].show(charts, name)
        assert [one["datasets"] for one in widget[0].charts] == [chart.datasets for chart in charts]
        assert [one["signals"] for one in widget[0].charts] == [chart.signals for chart in charts]
        assert {one["template"] for one in widget[0].charts} == set(widget[0].templates) and widget[0].view == name


def test_a_step_sends_no_template(model, widget):
    widget[0].show(drawn(model), "overview")
    widget[1].clear()
    widget[0].show(drawn(model, output_tokens=512, batch_size=8, gpu="h200"), "overview")
    assert widget[1] == ["charts"] and widget[0].charts[1]["name"] == "ocr_flops_overview_2"
    widget[1].clear()
    widget[0].show(drawn(model, view="Savings"), "savings")
    assert set(widget[1]) == {"templates", "view", "charts"}
    widget[0].show(())
    assert widget[0].charts == [] and widget[0].templates == {}


def test_what_is_saved_says_where_it_comes_from(model):
    below = views.Results(model, Setting(gpu="h200", attention="all", dtype="fp16")).provenance
    assert all(
        words in below for words in ("2 × 3 tiles", "256 output", "attention all, fp16", "NVIDIA H200", f"ocr_flops {of.__version__}")
    )
    assert ChartWidget(drawn(model), "overview", below).below == below
    learned = Setting(model="glm_ocr", engine="vllm")
    assert "vllm, GlmOcrForConditionalGeneration class" in views.Results(learned.model_spec, learned).provenance


def test_charts_of_several_settings_or_models_name_them_all(model):
    below = compare.provenance_of(views.Results(model, Setting()), (("other", Setting(gpu="h200", model="glm_ocr")),))
    assert "other: GLM-OCR, " in below and "now: " in below and "gpu h200 → l4" in below and "deepseek_ocr" in below
    inputs = models.models_controls().value | {"models": ["glm_ocr"]}
    both = views.Results(model, Setting(plan_batch="best"))
    best, by_size = ChartWidget(models.models_chart(both, inputs), "models", models.provenance_of(both, inputs)).charts
    assert all(words in best["below"] for words in ("GLM-OCR. ", "characters", "NVIDIA L4", "most pages a day that fits"))
    assert "characters, batch 1;" in by_size["below"]


def test_a_template_has_no_rows_and_no_values(model, widget):
    widget[0].show(drawn(model), "overview")
    for template in widget[0].templates.values():
        assert template["datasets"] == {} and template["width"] == "container"
        assert not {one["name"] for one in template["params"]} & set(widget[0].charts[0]["signals"])


def test_the_script_comes_along_or_from_a_server(monkeypatch):
    monkeypatch.setattr(ChartWidget, "library", None)  # which a server of an earlier test may have set
    script = ChartWidget()._esm
    assert len(script) > 500_000 and "window.vegaEmbed" in script and "export default" in script
    assert not re.search(r"""(?:\bfrom|\bimport)\s*\(?\s*["'`][^"'`]*//""", script), "nothing is loaded from elsewhere"
    assert not re.search(r"<script|esm\.sh|jsdelivr|unpkg", script)
    monkeypatch.setattr(ChartWidget, "library", LIBRARY)
    assert len(ChartWidget()._esm) < 12_900 and LIBRARY in ChartWidget()._esm


def test_what_is_not_allowed_is_said_when_it_is_read(model):
    with pytest.raises(of.SpecError, match="prompt_tokens: -1"):
        drawn(model, prompt_tokens=-1)
    results = views.Results(model, Setting(gpu="t4"))
    assert "bf16" in results.without_times and results.device is None and results.timings == [] and results.estimates


def test_of_a_session_that_is_over_nothing_is_kept(monkeypatch):
    """Of every visit a server kept all that its page had computed, 2 MB: in ipywidgets' list of widgets, and in marimo's of what shows them."""

    def visit():
        widget = ChartWidget()
        shown[id(widget)] = widget
        weakref.finalize(widget, shown.pop, id(widget))

    monkeypatch.setattr(ChartWidget, "library", LIBRARY)
    shown = {}
    session = threading.Thread(target=visit)
    session.start()
    session.join()
    widgets = [*map(weakref.ref, shown.values())]
    widgets.append(weakref.ref(widgets[0]().layout))
    ChartWidget()
    gc.collect()
    assert not shown and [one() for one in widgets] == [None, None]
