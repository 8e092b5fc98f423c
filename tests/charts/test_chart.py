"""A chart is a template with rows, a title and values; what a setting changes is not in the template."""

import json

import pytest

import ocr_flops as of
from ocr_flops import charts
from ocr_flops.app.setting import Setting
from ocr_flops.app.views import VIEWS, Results
from ocr_flops.charts.chart import MIME, SUBTITLE, TITLE
from tests.support.drawing import assert_draws

MODEL = of.load_model("deepseek_ocr")
SETTINGS = {
    "page": {},
    "side by side": {"attention": "all"},
    "fp32": {"attention": "all", "dtype": "fp32"},
    "one view": {"mode": "tiny"},
    "beyond": {"source": "grid", "columns": 10, "rows": 7, "mode": "gundam_m"},
    "huge": {"source": "grid", "columns": 32, "rows": 32, "batch_size": 512},
    "no output": {"output_tokens": 0},
    "published code": {"engine": "remote_code"},
    "no times": {"gpu": "t4"},
}


@pytest.fixture(scope="module")
def drawn():
    """Every chart of every view, by setting and view."""
    found = {name: Results(MODEL, Setting(**fields)) for name, fields in SETTINGS.items()}
    return {(name, view): draw(results) for name, results in found.items() for view, draw in VIEWS.items()}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_chart_is_valid_and_draws(drawn, name):
    for view in VIEWS:
        for chart in drawn[name, view]:
            assert_draws(chart)


def test_charts_follow_the_theme(drawn):
    for chart in (chart for found in drawn.values() for chart in found):
        spec = chart.to_dict()
        assert spec["config"]["background"] == "transparent" and spec["width"] == "container"
        assert not {"labelColor", "titleColor"} & set(json.dumps(spec["config"]).split('"'))


def test_settings_share_templates(drawn):
    """Only whether there is decode, how many modes and bars stand side by side and what a mode is compared with make another template."""
    for view in VIEWS:
        for one, other in (("page", "one view"), ("beyond", "huge")):
            both = zip(drawn[one, view], drawn[other, view], strict=False)
            assert all(first.template is second.template and first.template.key == second.template.key for first, second in both), view
    keys = {chart.template.key for found in drawn.values() for chart in found}
    assert len(keys) == len({id(chart.template) for found in drawn.values() for chart in found})


def test_what_is_embedded_takes_title_and_values_as_signals(drawn):
    chart, other = drawn["page", "Overview"][0], drawn["huge", "Overview"][0]
    spec = chart.embedded()
    assert spec["title"]["text"] == {"expr": TITLE} and spec["title"]["subtitle"] == {"expr": SUBTITLE}
    assert {one["name"]: one["value"] for one in spec["params"]} == chart.signals
    assert (
        chart.signals[TITLE] == chart.title.text
        and chart.signals.keys() == other.signals.keys()
        and chart.datasets.keys() == other.datasets.keys()
    )
    assert chart.signals != other.signals


def test_marimo_and_jupyter_get_the_same_chart(drawn):
    chart = drawn["page", "Overview"][0]
    assert json.dumps(chart._repr_mimebundle_()[MIME]) == chart._mime_()[1] == json.dumps(chart.to_dict())


def test_a_chart_costs_little_once_its_template_is_there(benchmark):
    modules = of.estimate(MODEL, Setting().workload, "sdpa").modules
    benchmark(lambda: charts.flops_by_module(modules)._mime_())
