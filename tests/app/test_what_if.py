"""The app without a browser: cells run with other values than the sliders', as a user could set them."""

import importlib.util
import json
import subprocess
import sys
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import marimo as mo
import pytest

import ocr_flops as of
from ocr_flops.app import links, views
from ocr_flops.app.links import Link
from ocr_flops.app.setting import Setting
from ocr_flops.app.store import STORE
from ocr_flops.evidence import records
from ocr_flops.evidence.records.cache import LIBRARY, Shelf
from ocr_flops.evidence.verify import counter_audit
from ocr_flops.measure.failures import Failure
from ocr_flops.measure.job import Job, Stage
from ocr_flops.measure.job_queue import QUEUE
from ocr_flops.spec import documents
from ocr_flops.spec.catalog import notebook_dir
from ocr_flops.units import seconds
from tests.support import synthetic
from tests.support.images import encoded, png_header
from tests.support.results import result

PATH = notebook_dir() / "what_if.py"
CONTROLS = {  # cells and what they define; a test that sets one sets all of its cell
    "mode_controls": ("mode", "source"),
    "page_controls": ("width_px", "height_px", "upload", "page_inputs"),
    "grid_controls": ("columns", "rows", "grid_inputs"),
    "text_controls": ("prompt_tokens", "output_tokens", "batch_size", "text_inputs"),
    "software_controls": ("attention", "engine", "dtype", "cache", "software_inputs"),
    "gpu_controls": ("gpu", "gpu_inputs"),
    "plan_controls": ("ttft_ms", "tpot_ms", "price"),
    "document_controls": ("page_number", "dpi", "document_inputs"),
    "tabs": ("tab",),
    "method_controls": ("chapter", "chapter_inputs"),
}
INPUTS = {"page_inputs": {"page": [], "file": []}, "document_inputs": []}  # what the sidebar shows
DEFAULTS = {
    "mode": "gundam", "source": "page", "width_px": 1654, "height_px": 2339, "upload": (), "columns": 2, "rows": 3, "prompt_tokens": 10,
    "output_tokens": 256, "batch_size": 1, "attention": "vendor", "engine": "transformers", "dtype": "bf16", "cache": "dynamic", "gpu": "l4", "ttft_ms": 500.0, "tpot_ms": 20.0, "price": None,
    "page_number": 1, "dpi": 200, "tab": "Overview", "chapter": "How these numbers are made",
}  # fmt: skip
TABS = (
    "Overview",
    "Tiling",
    "Sweep",
    "Roofline",
    "Memory",
    "Savings",
    "Compare",
    "Plan",
    "Spot check",
    "Measured",
    "Table",
    "Export",
    "Method",
)
CHART_TABS = TABS[:6]


@pytest.fixture(scope="module")
def notebook():
    spec = importlib.util.spec_from_file_location("what_if", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def show(notebook, state=None, **values):
    """Runs the whole app with some controls set, and returns what the page shows as one text, and its definitions."""
    stubs = {}
    for names in CONTROLS.values():
        if set(names) & set(values):
            stubs |= {name: SimpleNamespace(value=values.get(name, DEFAULTS[name])) for name in names if name in DEFAULTS}
            stubs |= {name: INPUTS.get(name, []) for name in names if name not in DEFAULTS}
    assert set(values) <= set(stubs), "a control that the app does not have"
    outputs, found = notebook.app.run(defs=stubs | (state or {}))
    assert set(stubs) <= set(found)
    return "\n".join(mo.as_html(output).text for output in outputs if output is not None), found


def file(content, name="page.png"):
    return (SimpleNamespace(name=name, contents=content),)


def test_the_controls_are_those_of_the_app(notebook):
    _, found = notebook.app.run()
    for names in CONTROLS.values():
        for name in names:
            assert name in found
            if name in DEFAULTS:
                value = found[name].value
                assert len(value) == 0 if name == "upload" else value == DEFAULTS[name], name
    assert found["setting"] == Setting()


def test_headline_figures_are_those_of_the_estimate(notebook):
    page, _ = show(notebook)
    stages = of.estimate(of.load_model(), of.Workload.from_image(1654, 2339)).stage_numbers
    assert f"<strong>{sum(row['total_flops'] for row in stages.values()) / 1e12:.2f} T</strong>" in page
    assert "<strong>903</strong>" in page and "<strong>6.67 GB</strong>" in page


@pytest.mark.parametrize("tab", TABS)
def test_every_tab_shows_something_of_its_own(notebook, tab):
    page, _ = show(notebook, tab=tab)
    signs = [
        "tensor FLOPs (matrix units)",
        "tiles and a global view",
        "image tokens cost",
        "of the time is bound by",
        "the KV cache holds",
        "less than eager in vision",
        "Pin the current setting",
        "holds at most batch",
        "Run the vendor model",
        "Time the real model here",
        "tensor GFLOPs",
        "Make the HTML report",
        "How these numbers are made",
    ]
    for name, sign in zip(TABS, signs, strict=True):
        assert (sign in page) is (name == tab), (name, sign)


@pytest.mark.parametrize("values", [
    {"mode": "tiny"}, {"mode": "gundam_m", "source": "grid", "columns": 32, "rows": 32}, {"attention": "all", "dtype": "fp32"},
    {"engine": "remote_code", "attention": "flash", "batch_size": 512}, {"output_tokens": 0, "prompt_tokens": 0},
    {"width_px": 16, "height_px": 8000}, {"gpu": "t4", "dtype": "fp16", "cache": "static"}, {"gpu": "mi300x", "batch_size": 512},
])  # fmt: skip
@pytest.mark.parametrize("tab", [*CHART_TABS, "Compare"])
def test_every_setting_draws(notebook, values, tab):
    page, found = show(notebook, tab=tab, **values)
    assert found["shown"].estimates and "vegalite" in page and "no result" not in page


@pytest.mark.parametrize(("values", "message"), [
    ({"prompt_tokens": -1}, "prompt_tokens: -1"), ({"prompt_tokens": None}, "prompt_tokens: None"), ({"prompt_tokens": 2.5}, "2.5"),
    ({"source": "grid", "columns": 0, "rows": 3}, "columns: 0"), ({"width_px": 0}, "width_px: 0"), ({"height_px": -5}, "height_px: -5"),
    ({"attention": "flash", "dtype": "fp32"}, "flash kernels take bf16 or fp16"), ({"output_tokens": 10**9}, "output_tokens"),
])  # fmt: skip
@pytest.mark.parametrize("tab", TABS)
def test_a_wrong_value_is_a_callout_on_every_tab(notebook, values, message, tab):
    page, found = show(notebook, tab=tab, **values)
    assert "This setting has no result" in page and message in page
    assert found["shown"] is None and "vegalite" not in page


def test_an_image_sets_the_page_size(notebook):
    _, found = show(notebook, source="file", upload=file(encoded("JPEG", (1200, 300)), "scan.jpg"))
    assert (found["setting"].width_px, found["setting"].height_px) == (1200, 300)
    assert (found["setting"].workload.columns, found["setting"].workload.rows) == (4, 1)


@pytest.mark.parametrize(("content", "message"), [
    (b"just text", "neither an image nor a PDF"), (png_header(10_000, 10_000), "more than 89 megapixels"), (png_header(0, 9), "image"),
    (b"", "neither an image nor a PDF"), (b"%PDF-1.7 and then nothing", "not a PDF that can be read"),
])  # fmt: skip
def test_a_bad_image_is_a_callout_and_the_page_keeps_its_size(notebook, content, message):
    page, found = show(notebook, source="file", upload=file(content, "notes.png"))
    assert "The file was not used" in page and message in page and "Vision is" in page
    assert (found["setting"].width_px, found["setting"].height_px) == (1654, 2339)


def test_a_bad_file_after_a_good_one_keeps_the_good_ones_size(notebook):
    good = documents.read_document(encoded("PNG", (1200, 300)), "good.png")
    page, found = show(notebook, states(document=good), source="file", upload=file(b"text", "notes.png"))
    assert "The file was not used" in page and found["setting"].width_px == 1200


def test_a_pdf_sets_the_size_of_the_page_chosen(notebook):
    document = documents.Document("paper.pdf", "pt", ((612.0, 792.0), (792.0, 612.0)))
    _, found = show(notebook, states(document=document), source="file", page_number=2, dpi=144)
    assert (found["setting"].width_px, found["setting"].height_px) == (1584, 1224)
    page, found = show(notebook, states(document=document), source="file", page_number=3)
    assert "size was not used" in page and "1 to 2" in page and found["setting"].width_px == 1654


def states(**values):
    """The cell that holds the session's state, with some of it set."""
    getters = {"document": None, "pins": (), "asked": 0, "arrived": 0, "refused": None} | values
    setter = mo.state(None)[1]
    stubs = {"owner": "me", "presses": {"go": 0, "pin": 0, "audit": 0, "time": 0}}
    for name, value in getters.items():
        stubs |= {f"get_{name}": mo.state(value)[0], f"set_{name}": setter}
    return stubs


@pytest.fixture
def store():
    STORE.clear()
    yield STORE
    STORE.clear()


def test_measured_points_stay_while_controls_change(notebook, store):
    store.add(of.load_model(), result(Setting()))
    for values in ({}, {"batch_size": 4}, {"source": "grid", "columns": 5, "rows": 1}, {"engine": "remote_code"}, {"attention": "flash"}):
        for tab in ("Overview", "Sweep"):
            page, _ = show(notebook, tab=tab, **values)
            assert "measured: transformers, UnlimitedOcr class" in page, (values, tab)


def test_results_are_judged(notebook, store):
    page, _ = show(notebook, tab="Spot check")
    assert "Nothing has been measured" in page
    store.add(of.load_model(), result(Setting()))
    good, _ = show(notebook, tab="Spot check")
    assert "as integers." in good and "danger" not in good
    store.add(of.load_model(), result(Setting(batch_size=2), off=1))
    bad, _ = show(notebook, tab="Spot check")
    assert "differ." in bad and "danger" in bad
    store.clear()
    store.add(of.load_model(), result(Setting(), missed=["_grouped_mm"]))
    unseen, _ = show(notebook, tab="Spot check")
    assert "Not seen by torch" in unseen and "_grouped_mm" in unseen


class FakeQueue:
    """A queue whose only job is in the state given."""

    def __init__(self, job=None):
        self.job, self.asked, self.cancelled = job, [], []

    def submit(self, request, *, label, owner, on_result=lambda message: None):
        if self.job is not None:
            raise of.SpecError("spot check: one is still running")
        self.asked.append((json.loads(request.to_json()), label, owner))
        on_result(result(Setting()))

    def latest(self, owner):
        return self.job

    def jobs(self):
        return (self.job,) if self.job and self.job.is_live else ()

    def cancel(self, number):
        self.cancelled.append(number)


def a_job(state, failure=None, results=(), position=0):
    stages = (Stage("torch", None, "done", 1, 1, 2.5), Stage("vision", 0, "running", 0, 1, 0.4), Stage("vision", 1, "waiting", 0, 1, 0))
    return Job(7, "2 × 3 <tiles>", "me", state, position, 1, 3, "vision of point 1", stages, 0.0, 3.0, results, failure)


@pytest.fixture
def queue(monkeypatch):
    def install(job=None):
        fake = FakeQueue(job)
        for name in ("submit", "latest", "jobs", "cancel"):
            monkeypatch.setattr(QUEUE, name, getattr(fake, name))
        return fake

    return install


def test_a_failed_run_says_why_and_what_to_do_and_what_is_kept(notebook, queue):
    queue(a_job("failed", Failure("out of memory", "choose meta"), results=(1, 2)))
    page, _ = show(notebook)
    assert "The run ended early: out of memory." in page and "choose meta" in page and "2 results that came before are kept" in page


def test_a_run_that_has_ended_slows_the_clock(notebook, queue):
    asked = []
    setters = {"get_asked": lambda: 4, "set_asked": asked.append, "get_arrived": lambda: None, "set_arrived": lambda value: None}
    rest = {"cancel": SimpleNamespace(value=False), "owner": "me", "get_refused": lambda: None, "tick": mo.ui.refresh()}
    for state, every, wanted in (("running", "0.5s", []), ("done", "3s", []), ("done", "0.5s", [5])):
        queue(a_job(state))
        asked.clear()
        notebook.progress.run(**setters, **rest, every=every)
        assert asked == wanted, (state, every)


def test_a_run_shows_its_stages_and_can_be_cancelled(notebook, queue):
    queue(a_job("running"))
    page, found = show(notebook)
    assert "vision of point 1" in page and '<li class="running">vision 0.4 s</li>' in page and "2 × 3 &lt;tiles&gt;" in page
    assert page.count('<li class="waiting">') == 0 and found["tick"] is not None and "Vision is 7" in page
    queue(a_job("waiting", position=1))
    assert "1 in line" in show(notebook)[0]
    queue()
    assert show(notebook)[1]["tick"] is None


def press(notebook, shown=True, **values):
    setting = Setting(engine="remote_code", dtype="fp16")
    refused = []
    asked = {"device": SimpleNamespace(value="meta"), "scope": SimpleNamespace(value="current point"), "go": SimpleNamespace(value=1)}
    notebook.submit.run(
        **asked | values, setting=setting, shown=views.Shown(of.load_model(), setting) if shown else None, owner="me", presses={"go": 0},
        get_asked=lambda: 0, set_asked=lambda value: None, set_refused=refused.append,
    )  # fmt: skip
    return refused


def test_the_button_runs_the_point_shown_and_keeps_what_comes(notebook, queue, store):
    fake = queue()
    assert press(notebook) == [None]
    asked, label, owner = fake.asked[0]
    assert asked["prefill_logits"] == "all" and asked["dtype"] == "fp16" and asked["device"] == "meta" and owner == "me"
    assert asked["workloads"][0] | {"columns": 2, "rows": 3, "output_tokens": 3} == asked["workloads"][0] and label.startswith(
        "2 × 3 tiles"
    )
    assert len(store.frames()) == 1


def test_the_button_asks_once_a_press_and_never_for_a_setting_without_result(notebook, queue, store):
    fake = queue()
    press(notebook, go=SimpleNamespace(value=0))
    press(notebook, shown=False)
    assert fake.asked == []
    press(notebook, scope=SimpleNamespace(value="all vendor grids"))
    assert len(fake.asked[0][0]["workloads"]) == 23 and fake.asked[0][1] == "23 points, gundam"


def test_a_run_that_is_refused_says_why(notebook, queue):
    queue(a_job("running"))
    assert press(notebook) == ["spot check: one is still running"]
    page, _ = show(notebook, states(refused="spot check: one is still running"))
    assert "The run was not started." in page and "one is still running" in page


PINS = (("with <b>flash</b>", Setting(attention="flash")), ("other GPU", Setting(gpu="h200")))


def test_pins_are_compared_with_the_controls(notebook):
    page, _ = show(notebook, states(pins=PINS), tab="Compare", attention="eager")
    assert "Against now" in page and "attention eager → flash" in page and "<b>flash" not in page
    assert "gpu=h200" in page and "tab=Compare" in page
    none, _ = show(notebook, tab="Compare")
    assert "pin it, then change a control" in none and "remove" not in none


def pin(notebook, setting=None, name="", pins=(), pressed=1):
    kept = []
    setting = setting or Setting()
    notebook.pinned.run(
        presses={"pin": 0}, pin=SimpleNamespace(value=pressed), new_name=SimpleNamespace(value=name), setting=setting, shown=views.Shown(of.load_model(), setting),
        get_pins=lambda: pins, set_pins=kept.append,
    )  # fmt: skip
    return kept


@pytest.mark.parametrize(("name", "pins", "stored"), [
    ("", (), "gundam 2×3, vendor, batch 1, l4"), ("mine", PINS, "mine"), ("now", (), "now 2"), ("other GPU", PINS, "other GPU 2"),
])  # fmt: skip
def test_the_pin_button_keeps_the_setting_under_a_name_of_its_own(notebook, name, pins, stored):
    assert pin(notebook, name=name, pins=pins) == [(*pins, (stored, Setting()))]
    assert pin(notebook, pressed=0) == []
    assert pin(notebook, pins=tuple((str(number), Setting()) for number in range(8))) == []


def linked(notebook, **query):
    """The app opened by a link."""
    outputs, found = notebook.app.run(defs={"link": links.read(query, TABS)})
    return "\n".join(mo.as_html(output).text for output in outputs if output is not None), found


def test_a_link_sets_every_control(notebook):
    setting = Setting(
        "gundam_m",
        "grid",
        800,
        600,
        40,
        9,
        0,
        5001,
        33,
        "flash",
        "remote_code",
        "fp16",
        "static",
        "h200",
        1.5e15,
        None,
        4e12,
        None,
        None,
        7.25,
        3.5,
    )
    page, found = linked(notebook, **links.write(Link(setting, "Savings", PINS)))
    assert found["setting"] == setting and found["tab"].value == "Savings" and found["get_pins"]() == PINS
    assert "less than eager" in page


def test_a_hostile_link_is_a_notice_and_the_defaults(notebook):
    page = mo.as_html(
        notebook.problem("The link was not used as a whole.", *links.read({"mode": "<script>x</script>", "rows": "-3"}).notices)
    ).text
    told = unescape(page)  # JSON in an attribute
    assert "&lt;script&gt;" in told and "u003cscript" not in told and "-3&#x27; is not a whole number" in told


def test_the_app_needs_no_torch():
    code = (
        "import sys, runpy; runpy.run_path(sys.argv[1], run_name='__main__'); print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(PATH)], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-2:] == ["False", "False"]


def test_the_notebook_is_clean():
    done = subprocess.run([sys.executable, "-m", "marimo", "check", "--strict", str(PATH)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_gpu_without_a_figure_says_so_and_costs_stay(notebook):
    page, found = show(notebook, gpu="t4")
    assert "No times on this GPU" in page and "choose fp16" in page
    assert found["shown"].timings == [] and "Vision is 7" in page and "TTFT" not in page
    page, _ = show(notebook, gpu="t4", tab="Memory")
    assert "vegalite" in page


def test_times_are_those_of_the_device_chosen(notebook):
    page, found = show(notebook, gpu="h200", tab="Roofline")
    shown = found["shown"]
    assert shown.timings[0].hardware.name == "h200" and "On NVIDIA H200" in page
    assert shown.timings[0].ttft_seconds == shown.estimates[0].on(of.load_hardware("h200")).ttft_seconds


@pytest.mark.parametrize("values", [{"ttft_ms": 0.0}, {"tpot_ms": -3.0}, {"price": -1.0}])
def test_a_target_that_is_not_positive_is_a_callout(notebook, values):
    page, _ = show(notebook, tab="Plan", **values)
    assert "This target has no answer" in page and "is not a positive number" in page


def test_plan_without_targets_lists_devices(notebook):
    page, _ = show(notebook, tab="Plan", ttft_ms=None, tpot_ms=None, output_tokens=0)
    assert "holds at most batch" in page and "no answer" not in page


def test_method_shows_the_verification_of_this_version(notebook):
    page, _ = show(notebook, tab="Method", chapter="Compared with the real model")
    assert "all equal, as integers" in page and f"ocr_flops {of.__version__}" in page


def test_the_audit_is_shown_as_recorded_and_as_it_came_here(notebook, queue):
    page, _ = show(notebook, tab="Method", chapter="What torch's counter misses")
    assert "scaled_dot_product_attention" in page and "Run it again, here" in page and "vegalite" in page
    message = {"event": "audit"} | counter_audit.recorded() | {"ran": counter_audit.recorded()["ran"] | {"torch": "9.9.9"}}
    queue(a_job("done", results=(message,)))
    page, _ = show(notebook, tab="Method", chapter="What torch's counter misses")
    assert "torch 9.9.9" in page


def test_the_audit_button_asks_the_queue_once(notebook, queue):
    fake = queue()
    asked = {"run_audit": SimpleNamespace(value=1), "owner": "me", "get_asked": lambda: 0}
    setters = {"set_asked": lambda value: None, "set_refused": lambda value: None}
    presses = {"audit": 0, "time": 0}
    for _ in range(2):
        notebook.submit_audit.run(**asked, **setters, presses=presses)
    assert len(fake.asked) == 1 and fake.asked[0][0]["kind"] == "audit"


@pytest.fixture
def shelf(monkeypatch):
    """Records of an L4 at the default page and three others, and one file that is none."""
    points = synthetic.workloads(
        pages=[("tiny", (1, 1)), ("base", (1, 1)), ("gundam", (1, 2)), ("gundam", (2, 3))], lengths=((10, 256), (500, 32))
    )
    frame = synthetic.frame(points, of.load_model(), hardware="l4", attention=("sdpa", "eager"))
    modules = records.frame(Path("/nonexistent"), level="module", shipped=Path("/nonexistent"))[0]
    found = Shelf(1, frame, modules, (records.Problem(Path("/there/<b>bad</b>.json"), "damaged: not JSON"),))
    monkeypatch.setattr(LIBRARY, "shelf", lambda: found)
    return found


def test_without_records_the_page_says_why_nothing_is_calibrated(notebook):
    page, _ = show(notebook, tab="Measured")
    assert "No calibrated figures." in page and "There are no records yet" in page and "calibrated TTFT" not in page


def test_records_are_shown_with_calibrated_figures_beside_the_bound(notebook, shelf):
    page, found = show(notebook, tab="Measured")
    said = found["on_record"].calibrated(found["shown"].estimates[0])
    assert f"calibrated by {found['on_record'].calibration.records} records" in page and "calibrated TTFT" in page
    for name in ("bound", "roofline", "nine in ten within", "measured (median)"):
        assert name in page
    assert seconds(said.ttft_seconds.value) in page and seconds(said.ttft_seconds.low) in page
    assert page.count("vegalite") == 3 and "damaged: not JSON" in page and "<b>bad" not in page
    other, _ = show(notebook, tab="Measured", gpu="h200")
    assert "No calibrated figures." in other and "calibrated TTFT" not in other


def test_a_timed_run_is_recorded(notebook, queue, monkeypatch, tmp_path):
    monkeypatch.setenv("OCR_FLOPS_RECORDS", str(tmp_path))
    fake, refused = queue(), []
    setters = {"get_asked": lambda: 0, "set_asked": lambda value: None, "set_refused": refused.append, "owner": "me"}
    pressed = {"time_it": SimpleNamespace(value=1), "timed_on": SimpleNamespace(value="auto"), "shown": True}
    kept = []
    monkeypatch.setattr(records, "make", lambda plan, workload, message: (plan.run.attention.name, workload, message))
    monkeypatch.setattr(records, "write", lambda record, where: kept.append((record, where)))
    notebook.submit_timing.run(**setters, **pressed, presses={"time": 0}, setting=Setting(attention="eager"))
    request, label, _ = fake.asked[0]
    assert request["kind"] == "time" and request["attention"] == {"sam": "eager", "clip": "eager", "decoder": "eager"} and "timed" in label
    assert (
        kept[0][0][0] == "eager"
        and kept[0][0][1].image_tokens == Setting().workload.image_tokens
        and kept[0][1] == tmp_path
        and refused == [None]
    )
    for wrong, why in (({"engine": "remote_code"}, "not run from a page"), ({"cache": "static"}, "cannot be measured")):
        notebook.submit_timing.run(**setters, **pressed, presses={"time": 0}, setting=Setting(**wrong))
        assert why in refused[-1]
    assert len(fake.asked) == 1
