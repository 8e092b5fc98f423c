"""The app without a browser: the whole notebook run from a link, as a user could open it. What a tab shows is in test_tabs.py."""

import importlib.util
from html import unescape
from types import SimpleNamespace

import marimo as mo
import pytest

import ocr_flops as of
from ocr_flops.app import links, served, views
from ocr_flops.app.links import Link
from ocr_flops.app.setting import Setting
from ocr_flops.app.tabs import compare, corpus, models, plan, spot_check
from ocr_flops.measure.job_queue import QUEUE
from ocr_flops.spec import documents
from ocr_flops.spec.catalog import notebook_dir
from tests.support.kernel import KernelPage

PATH = notebook_dir() / "what_if.py"
SIGNS = {  # what only this tab shows
    "Overview": "tensor FLOPs; ",
    "Tiling": "tiles and a global view",
    "Sweep": "image tokens cost",
    "Roofline": "of roofline time is bound by",
    "Timeline": "of it: the host issues",
    "Memory": "the KV cache holds",
    "Savings": "less than eager in vision",
    "Compare": "Pin the current setting",
    "Models": "blocks a page for PaddleOCR-VL",
    "Which mode": "Edit distance on English pages",
    "Plan": "holds at most batch",
    "Corpus": "8 of them take",
    "Serving": "in flight on each",
    "Spot check": "Run the real model",
    "Measured": "Time the real model here",
    "Table": "tensor GFLOPs",
    "Export": "Make the HTML report",
    "Method": "How these numbers are made",
}
DRAWN = ("Plan", "Which mode", "Overview", "Tiling", "Sweep", "Roofline", "Timeline", "Memory", "Savings", "Compare", "Models")
EVERY_SETTING = (
    Setting("tiny"),
    Setting("gundam_m", source="grid", columns=32, rows=32),
    Setting(attention="all", dtype="fp32"),
    Setting(engine="remote_code", attention="flash", batch_size=512),
    Setting(output_tokens=0, prompt_tokens=0),
    Setting(width_px=16, height_px=8000),
    Setting(gpu="t4", dtype="fp16", cache="static"),
    Setting(gpu="mi300x", batch_size=512),
    Setting(mode="tiny", source="grid", columns=100, rows=50, prompt_tokens=2**20, output_tokens=2**20),
)
PINS = (("with <b>flash</b>", Setting(attention="flash")), ("other GPU", Setting(gpu="h200")))


@pytest.fixture(scope="module")
def notebook():
    spec = importlib.util.spec_from_file_location("what_if", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def show(notebook, setting=None, tab="Overview", pins=(), **definitions):
    """Runs the app as a link opens it: what the page and its charts say as one text, and its definitions."""
    link = Link(setting or Setting(), tab, pins)
    outputs, found = notebook.app.run(defs={"link": link} | definitions)
    assert {"link", *definitions} <= found.keys()
    texts = [mo.as_html(output).text for output in outputs if output is not None]
    titles = [" ".join(chart["signals"]["title_lines"]) for chart in found["charts"].charts]
    return "\n".join(texts + titles), found


def test_the_app_begins_with_the_default_setting(notebook):
    page, found = show(notebook)
    assert found["setting"] == Setting() == found["results"].setting and "<strong>903</strong>" in page
    assert set(found["TABS"]) == set(SIGNS) and found["tab"] == "Overview" and found["tick"] is None


@pytest.mark.parametrize("tab", SIGNS)
def test_every_tab_shows_something_of_its_own(notebook, tab):
    page, found = show(notebook, tab=tab)
    for name, sign in SIGNS.items():
        assert (sign in page) is (name == tab) or (tab == "Export" and name in DRAWN), (name, sign)  # which names charts
    assert bool(found["charts"].charts) is (tab in DRAWN)


def test_a_setting_draws(notebook):
    check_setting(notebook, EVERY_SETTING[3], "Savings")
    check_setting(notebook, EVERY_SETTING[-1], "Memory")


@pytest.mark.verification
@pytest.mark.parametrize("tab", DRAWN)
@pytest.mark.parametrize("setting", EVERY_SETTING, ids=str)
def test_every_setting_draws(notebook, setting, tab):
    check_setting(notebook, setting, tab)


def check_setting(notebook, setting, tab):
    page, found = show(notebook, setting, tab)
    assert found["results"].estimates and (found["charts"].charts or "No chart:" in page) and "no result" not in page


def test_pages_are_grouped_again_for_other_pages_alone(notebook):
    assert notebook.corpus_grouped.refs - {"corpus", "of", "SpecError"} == {"corpus_source", "model", "tab"}


def test_a_setting_without_result_is_a_callout(notebook):
    check_callout(notebook, Setting(attention="flash", dtype="fp32"), "Roofline", "flash kernels take bf16 or fp16")


def test_a_chart_that_is_refused_leaves_the_headline(notebook, monkeypatch):
    def refuses(results):
        raise of.SpecError("rows: too many")

    monkeypatch.setitem(views.VIEWS, "Memory", refuses)
    page, found = show(notebook, tab="Memory")
    assert "This tab has no chart" in page and "rows: too many" in page and "<strong>903</strong>" in page and not found["charts"].charts


@pytest.mark.verification
@pytest.mark.parametrize("tab", SIGNS)
@pytest.mark.parametrize(("setting", "message"), [
    (Setting(attention="flash", dtype="fp32"), "flash kernels take bf16 or fp16"),
    (Setting(batch_size=10**5), "batch_size: 100000"),
    (Setting(source="grid", columns=10**6), "columns"),
])  # fmt: skip
def test_a_setting_without_result_is_a_callout_on_every_tab(notebook, setting, message, tab):
    check_callout(notebook, setting, tab, message)


def check_callout(notebook, setting, tab, message):
    page, found = show(notebook, setting, tab)
    assert "This setting has no result" in page and message in page
    assert found["results"] is None and found["page"].results is None and not found["charts"].charts


def test_a_link_sets_every_control(notebook):
    setting = Setting("gundam_m", "grid", 800, 600, 40, 9, 0, 5001, 33, "flash", "remote_code", "fp16", "static", "h200", 1.5e15, None, 4e12, None, None, 7.25, None, "graphs", 9.5, 0.0, 0.55, 0.29, None, prices="h200=3.5")  # fmt: skip
    link = links.read(links.write(Link(setting, "Savings", PINS)), SIGNS)
    page, found = show(notebook, link.setting, link.tab, link.pins)
    assert found["setting"] == setting and found["tab"] == "Savings" and found["get_pins"]() == PINS
    assert "less than eager" in page


def test_a_hostile_link_is_a_notice_and_the_defaults(notebook):
    link = links.read({"mode": "<script>x</script>", "rows": "-3"})
    page = unescape(mo.as_html(notebook.problem("The link was not used as a whole.", *link.notices)).text)  # JSON in an attribute
    assert link.setting == Setting() and "-3" in page and "&lt;script&gt;" in page and "u003cscript" not in page


def test_a_page_of_a_document_is_the_pages_size(notebook):
    page = notebook.session.Session()
    page.document = documents.Document("paper.pdf", "pt", ((612.0, 792.0), (792.0, 612.0)))
    stub = {"page": page, "source": SimpleNamespace(value="file"), "pdf_inputs": []}
    controls = {"mode": SimpleNamespace(value="gundam"), "served": {}, "upload": None, "upload_inputs": []}
    others = (notebook.state.defs | notebook.setting_controls.defs) - {*stub, *controls}
    rest = {name: value for name, value in show(notebook)[1].items() if name in others}
    for number, size, notice in ((2, 1584, False), (3, 1654, True)):
        pdf = SimpleNamespace(value={"number": number, "dpi": 144})
        shown, found = show(notebook, **stub, **controls, **rest, pdf=pdf)
        assert found["setting"].width_px == size and ("size was not used" in shown) is notice


def test_a_run_that_has_ended_slows_the_clock(notebook, monkeypatch):
    asked = []
    monkeypatch.setattr(QUEUE, "jobs", tuple)
    rest = {
        "cancel": mo.ui.button(),
        "get_arrived": lambda: None,
        "set_arrived": lambda value: None,
        "tick": mo.ui.refresh(),
        "tab": "Measured",
    }
    for live, every, wanted in ((True, "0.5s", []), (False, "3s", []), (False, "0.5s", [5])):
        job = SimpleNamespace(is_live=live, id=7, results=(), failure=None)
        page = SimpleNamespace(job=None if live else job, refused=None, arrived=None)
        asked.clear()
        notebook.progress.run(**rest, page=page, every=every, get_asked=lambda: 4, set_asked=asked.append)
        assert asked == wanted, (live, every)


def test_a_gpu_without_a_figure_says_so_and_costs_stay(notebook):
    page, found = show(notebook, Setting(gpu="t4"), "Memory")
    assert "There are no times" in page and "choose fp16" in page and "TTFT" not in page
    assert found["results"].timings == [] and found["charts"].charts


def test_times_are_those_of_the_device_chosen(notebook):
    page, found = show(notebook, Setting(gpu="h200"), "Roofline")
    results = found["results"]
    assert results.timings[0].hardware.name == "h200" and "On NVIDIA H200" in page
    assert results.timings[0].ttft_seconds == results.estimates[0].on(of.load_hardware("h200")).ttft_seconds


def test_times_are_those_of_the_host_and_the_efficiencies_chosen(notebook):
    page, found = show(notebook, Setting(gpu="h200", host="graphs", operator_us=9.5, bandwidth_efficiency=0.5))
    shown, l4 = found["results"].timings[0], of.load_hardware("h200")
    assert "decode replayed as CUDA graphs: 9.5 µs an operator" in page and "bandwidth 0.5" in page
    assert shown.expected_tpot.value < found["results"].estimates[0].on(l4).expected_tpot.value / 2


ANSWERED = {  # what computes a tab beside its charts
    "Plan": (plan, "plan"),
    "Serving": (served, "serve"),
    "Corpus": (corpus, "make_plan"),
    "Models": (models, "compared_models"),
    "Compare": (compare, "compare"),
    "Spot check": (spot_check, "spot_check"),
}
STEP_MESSAGES = 20  # of a step on a tab that has charts alone


@pytest.fixture
def computed(monkeypatch):
    """Tabs whose answers were computed, each with the batch that it was of."""
    found = []
    for tab, (module, name) in ANSWERED.items():
        compute = getattr(module, name)

        def spy(results, *rest, tab=tab, compute=compute):
            found.append((tab, results.setting.batch_size))
            return compute(results, *rest)

        monkeypatch.setattr(module, name, spy)
    return found


def test_answers_are_computed_once_and_of_the_setting_that_is_shown(computed):
    page = KernelPage(PATH, tab="Spot check", batch_size="2")
    try:
        assert computed == [("Spot check", 2)]
        for tab, batch in zip(("Serving", "Plan", "Models", "Spot check"), (2, 3, 4, 6), strict=True):
            page.open("Overview")
            page.set(page["workload"].elements["batch_size"], page["workload"].elements["batch_size"].steps.index(batch))
            assert len(page.sent) <= STEP_MESSAGES
            computed.clear()
            page.open(tab)
            assert computed.count((tab, batch)) == 1 and {found for _, found in computed} == {batch}
        for tab, control in (("Models", page["model_inputs"].elements["characters"]), ("Plan", page["targets"].elements["ttft_ms"])):
            page.open(tab)
            computed.clear()
            page.set(control, 400)
            assert computed == [(tab, 6)]
    finally:
        page.close()
