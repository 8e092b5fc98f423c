"""The tab Corpus: groups answer every control, a table that was sent is read, and what is wrong is told in the page."""

from types import SimpleNamespace

import marimo as mo
import pytest

from ocr_flops.app import views
from ocr_flops.app.links import Link
from ocr_flops.app.setting import Setting
from ocr_flops.app.tabs import corpus
from ocr_flops.app.tabs.controls import target_controls
from ocr_flops.errors import SpecError
from ocr_flops.spec.catalog import load_model
from ocr_flops.studies.corpus.lengths import DEFAULT_TOKENS
from ocr_flops.studies.corpus.sources import demo_table
from ocr_flops.timing.serving.steady import ENGINE


@pytest.fixture(scope="module")
def groups():
    return corpus.read_groups({"source": corpus.DEMO})


def asked(setting=Setting(), **changed):  # noqa: B008  it is frozen
    return {**corpus.question_controls(Link(setting)).value, "engine": setting.engine, **changed}


def planned(model, groups, setting=Setting(), **changed):  # noqa: B008
    return corpus.make_plan(views.evaluate(model, setting), groups, asked(setting, **changed))


def test_the_demonstration_is_the_same_every_time():
    assert demo_table().equals(demo_table()) and len(demo_table()) == 100_000


def test_controls_change_the_plan(model, groups):
    base = planned(model, groups)
    assert planned(model, groups, mode="base").best["gpu_hours"] < base.best["gpu_hours"]
    assert planned(model, groups, output_tokens=1536).best["gpu_hours"] > 1.5 * base.best["gpu_hours"]
    assert planned(model, groups, gpus=16).best["hours"] == base.best["hours"] / 2
    assert planned(model, groups, loops=5).best["gpu_hours"] > base.best["gpu_hours"]
    assert [row["hardware"] for row in planned(model, groups, names="l4, H200").plans.to_dicts()] == ["h200", "l4"]
    (priced, other) = planned(model, groups, Setting(prices="h200=50 l4=0.5"), names="l4, H200 l4").plans.to_dicts()
    assert priced["cost"] == 0.5 * priced["gpu_hours"] and other["cost"] == 50 * other["gpu_hours"]
    served = [planned(model, groups, Setting(engine="vllm"), preprocess_workers=threads).fastest for threads in (1, 32)]
    assert served[0]["limited_by"] == "preprocessing" and served[1]["gpu_hours"] < served[0]["gpu_hours"]
    assert planned(model, groups, Setting(attention="eager", operator_us=40.0)).best["gpu_hours"] > base.best["gpu_hours"]


def test_the_defaults_are_those_of_the_command(model, groups):
    found = corpus.question_controls(Link()).value
    assert (found["engine"], found["output_tokens"]) == (ENGINE, DEFAULT_TOKENS)
    run = planned(model, groups, engine=ENGINE).run
    assert (run.engine.name, run.cache) == (ENGINE, "paged")


def test_another_engine_than_the_sidebars_takes_nothing_that_was_chosen_for_that(model, groups):
    left = Setting(gpu="h200", attention="eager", engine_weights="fp8", engine_cache="fp8")
    assert planned(model, groups, left, engine=ENGINE).plans.equals(planned(model, groups, engine=ENGINE).plans)
    assert corpus.question_controls(Link(corpus_engine="sglang")).value["engine"] == "sglang"


def test_a_learned_model_has_groups_of_its_own():
    model = load_model("glm_ocr")
    found = planned(model, corpus.read_groups({"source": corpus.MIX, "mix": "a4@200:900,1080x1920:100"}, model.page_rule))
    assert found.groups["pages"].to_list() == [100, 900] and found.best
    assert "90 % of 1,000 pages are of 18,001 to 20,000 patches" in corpus.drawn(found)[1].title.text[0]


def test_a_tiled_mode_has_grids_of_its_own(model, groups):
    assert planned(model, groups, mode="gundam_m").groups.height != planned(model, groups).groups.height


def test_a_table_that_was_sent(model):
    sent = SimpleNamespace(name="pages.csv", contents=b"width,height,output_tokens\n1654,2339,700\n800,600,20\n0,1,1\n")
    found = planned(model, corpus.read_groups({"source": corpus.TABLE, "table": [sent]}))
    assert (found.pages, sum(found.refused.values()), found.totals["output_tokens"]) == (2, 1, 720)
    assert "Left out: 1 page, " in mo.as_html(corpus.answer(found)).text


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"source": corpus.MIX, "mix": "b9:3"}, "'b9:3' is not FORMAT@DPI:PAGES or WxH:PAGES"),
        ({"source": corpus.TABLE, "table": []}, "no table yet"),
        ({"source": corpus.TABLE, "table": [SimpleNamespace(name="x.doc", contents=b"")]}, "'x.doc' is no table"),
        ({"source": corpus.TABLE, "table": [SimpleNamespace(name="x.parquet", contents=b"no")]}, "x.parquet cannot be read"),
    ],
)
def test_pages_that_cannot_be_read_are_named(chosen, message):
    with pytest.raises(SpecError, match=message.replace(".", r"\.")):
        corpus.read_groups(chosen)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"prices": "l4=x"}, "neither a price"), ({"names": "<b>=1"}, "hardware"), ({"names": ""}, "hardware: none given")],
)
def test_what_is_wrong_is_told_in_the_page(model, groups, values, message):
    found = planned(model, groups, Setting(prices=values.pop("prices", "")), **values)
    assert isinstance(found, SpecError) and message in str(found)
    assert corpus.drawn(found) == () and corpus.numbers(found).text == ""
    assert "There is no plan." in mo.as_html(corpus.answer(found)).text and "<b>=" not in mo.as_html(corpus.answer(found)).text


def test_the_page_has_controls_charts_and_tables(model, groups):
    found, source = planned(model, groups), corpus.source_controls({})
    fields = dict(corpus.question_controls(Link()).elements)
    prices = target_controls(Setting(prices="l4=0.75")).elements["prices"]
    shown, learned = (mo.as_html(corpus.controls(source, fields, prices, one)).text for one in (model, load_model("glm_ocr")))
    assert "endless pages" in shown and "l4=0.75" in shown
    assert "resolution mode" in shown and "endless pages" in learned and "resolution mode" not in learned
    assert len(corpus.drawn(found)) == 2
    assert "In 2 days: all pages take " in mo.as_html(corpus.answer(found, 2)).text and "all pages take" not in corpus.answer(found).text
    assert "8 of them take" in mo.as_html(corpus.answer(found)).text and "Expected times rest on" in mo.as_html(corpus.numbers(found)).text
