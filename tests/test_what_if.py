"""The app without a browser: cells run with other values than the sliders', as a user could set them."""

import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace

import marimo as mo
import pytest
from results import result
from test_pages import encoded, png_header

import ocr_flops as of
from ocr_flops import spot_check
from ocr_flops.config import notebook_dir
from ocr_flops.scenario import Scenario

PATH = notebook_dir() / "what_if.py"
CONTROLS = {  # cells and what they define; a test that sets one sets all of its cell
    "mode_controls": ("mode", "source"),
    "page_controls": ("width_px", "height_px", "upload"),
    "grid_controls": ("columns", "rows"),
    "text_controls": ("prompt_tokens", "output_tokens", "batch_size"),
    "software_controls": ("attention", "engine", "dtype", "cache"),
    "gpu_controls": ("gpu",),
    "plan_controls": ("ttft_ms", "tpot_ms", "price"),
    "tabs": ("tab",),
}
DEFAULTS = {
    "mode": "gundam", "source": "page", "width_px": 1654, "height_px": 2339, "upload": (), "columns": 2, "rows": 3, "prompt_tokens": 10,
    "output_tokens": 256, "batch_size": 1, "attention": "vendor", "engine": "transformers", "dtype": "bf16", "cache": "dynamic", "gpu": "l4", "ttft_ms": 500.0, "tpot_ms": 20.0, "price": None,
    "tab": "Overview",
}  # fmt: skip
TABS = ("Overview", "Grids", "Tiling", "Time", "Memory", "Savings", "Plan", "Spot check", "Table", "Method")


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
            stubs |= {name: SimpleNamespace(value=values.get(name, DEFAULTS[name])) for name in names}
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
            if name != "tab":
                value = found[name].value
                assert len(value) == 0 if name == "upload" else value == DEFAULTS[name], name
    assert found["scenario"] == Scenario()
    assert found["tab"].value == "Overview"


def test_headline_figures_are_those_of_the_estimate(notebook):
    page, _ = show(notebook)
    stages = of.estimate(of.load_model(), of.Workload.from_image(1654, 2339)).stage_numbers
    assert f"<strong>{sum(row['total_flops'] for row in stages.values()) / 1e12:.2f} T</strong>" in page
    assert "<strong>903</strong>" in page and "<strong>6.67 GB</strong>" in page


@pytest.mark.parametrize("tab", TABS)
def test_every_tab_shows_something_of_its_own(notebook, tab):
    page, _ = show(notebook, tab=tab)
    signs = [
        "Vision is 7",
        "image tokens cost",
        "tiles and a global view",
        "of the time is bound by",
        "Fits NVIDIA L4",
        "less than eager in vision",
        "holds at most batch",
        "Run the vendor model",
        "tensor GFLOPs",
        "How these numbers are made",
    ]
    for name, sign in zip(TABS, signs, strict=True):
        assert (sign in page) is (name == tab), (name, sign)


@pytest.mark.parametrize("values", [
    {"mode": "tiny"}, {"mode": "gundam_m", "source": "grid", "columns": 32, "rows": 32}, {"attention": "all", "dtype": "fp32"},
    {"engine": "remote_code", "attention": "flash", "batch_size": 512}, {"output_tokens": 0, "prompt_tokens": 0},
    {"width_px": 16, "height_px": 8000}, {"gpu": "t4", "dtype": "fp16", "cache": "static"}, {"gpu": "mi300x", "batch_size": 512},
])  # fmt: skip
@pytest.mark.parametrize("tab", ["Overview", "Grids", "Tiling", "Time", "Memory", "Savings"])
def test_every_setting_draws(notebook, values, tab):
    page, found = show(notebook, tab=tab, **values)
    assert found["estimates"] and "vegalite" in page and "no result" not in page


@pytest.mark.parametrize(("values", "message"), [
    ({"prompt_tokens": -1}, "prompt_tokens: -1"), ({"prompt_tokens": None}, "prompt_tokens: None"), ({"prompt_tokens": 2.5}, "2.5"),
    ({"source": "grid", "columns": 0, "rows": 3}, "columns: 0"), ({"width_px": 0}, "width_px: 0"), ({"height_px": -5}, "height_px: -5"),
    ({"attention": "flash", "dtype": "fp32"}, "flash kernels take bf16 or fp16"), ({"output_tokens": 10**9}, "output_tokens"),
])  # fmt: skip
@pytest.mark.parametrize("tab", TABS)
def test_a_wrong_value_is_a_callout_on_every_tab(notebook, values, message, tab):
    page, found = show(notebook, tab=tab, **values)
    assert "This setting has no result" in page and message in page
    assert found["estimates"] == [] and "vegalite" not in page


def test_an_image_sets_the_page_size(notebook):
    _, found = show(notebook, source="file", upload=file(encoded("JPEG", (1200, 300)), "scan.jpg"))
    assert (found["scenario"].width_px, found["scenario"].height_px) == (1200, 300)
    assert (found["scenario"].workload.columns, found["scenario"].workload.rows) == (4, 1)


@pytest.mark.parametrize(("content", "message"), [
    (b"just text", "not an image that can be read"), (png_header(10_000, 10_000), "more than 89 megapixels"), (png_header(0, 9), "image"),
    (b"", "not an image"),
])  # fmt: skip
def test_a_bad_image_is_a_callout_and_the_page_keeps_its_size(notebook, content, message):
    page, found = show(notebook, source="file", upload=file(content, "notes.png"))
    assert "The image was not used" in page and message in page and "Vision is" in page
    assert (found["scenario"].width_px, found["scenario"].height_px) == (1654, 2339)


def test_a_bad_image_after_a_good_one_keeps_the_good_ones_size(notebook):
    good, _ = mo.state((1200, 300))
    _, sizes = mo.state(None)
    names = ("get_failure", "get_measured", "get_page", "set_failure", "set_measured", "set_page")
    state = dict(zip(names, (mo.state(None)[0], mo.state({})[0], good, sizes, sizes, sizes), strict=True))
    page, found = show(notebook, state, source="file", upload=file(b"text", "notes.png"))
    assert "The image was not used" in page and found["scenario"].width_px == 1200


def with_results(*messages, failure=None):
    model = of.load_model()
    measured = {spot_check.key(message): spot_check.frame(model, message) for message in messages}
    names = ("get_failure", "get_measured", "get_page", "set_failure", "set_measured", "set_page")
    setter = mo.state(None)[1]
    values = (mo.state(failure)[0], mo.state(measured)[0], mo.state(None)[0], setter, setter, setter)
    return dict(zip(names, values, strict=True))


def test_measured_points_stay_while_controls_change(notebook):
    state = with_results(result(Scenario()))
    for values in ({}, {"batch_size": 4}, {"source": "grid", "columns": 5, "rows": 1}, {"engine": "remote_code"}, {"attention": "flash"}):
        for tab in ("Overview", "Grids"):
            page, _ = show(notebook, state, tab=tab, **values)
            assert "measured: transformers, UnlimitedOcr class" in page, (values, tab)


def test_results_are_judged(notebook):
    good, _ = show(notebook, with_results(result(Scenario())), tab="Spot check")
    assert "as integers." in good and "danger" not in good
    bad, _ = show(notebook, with_results(result(Scenario(), off=1), result(Scenario(batch_size=2))), tab="Spot check")
    assert "differ." in bad and "danger" in bad
    unseen, _ = show(notebook, with_results(result(Scenario(), missed=["_grouped_mm"])), tab="Spot check")
    assert "Not seen by torch" in unseen and "_grouped_mm" in unseen


def test_a_failed_run_says_why_and_what_to_do(notebook):
    page, _ = show(notebook, with_results(failure={"message": "out of memory", "advice": "choose meta"}))
    assert "The spot check ended early: out of memory." in page and "choose meta" in page


def run_model(notebook, monkeypatch, messages):
    """Presses the button with a worker that sends these messages; returns what was stored."""
    asked, stored = [], {}

    class Fake:
        def __init__(self, request):
            asked.append(json.loads(request.to_json()))

        def __enter__(self):
            return iter(messages)

        def __exit__(self, *exception):
            pass

    monkeypatch.setattr("ocr_flops.measure.client.Worker", Fake)  # the cell imports it anew
    scenario = Scenario(engine="remote_code", dtype="fp16")
    notebook.run_model.run(
        device=SimpleNamespace(value="meta"), scope=SimpleNamespace(value="current point"), go=SimpleNamespace(value=True),
        scenario=scenario, estimates=scenario.estimates(of.load_model()),
        set_measured=lambda change: stored.update(measured=change({})), set_failure=lambda value: stored.update(failure=value),
    )  # fmt: skip
    return asked, stored


def test_the_button_runs_the_point_shown_and_keeps_what_came(notebook, monkeypatch):
    message = result(Scenario())
    progress = {"event": "progress", "done": 0, "total": 3, "text": "vision"}
    asked, stored = run_model(notebook, monkeypatch, [progress, message, {"event": "done"}])
    assert asked[0]["prefill_logits"] == "all" and asked[0]["dtype"] == "fp16" and asked[0]["device"] == "meta"
    assert asked[0]["workloads"][0] | {"columns": 2, "rows": 3, "output_tokens": 3} == asked[0]["workloads"][0]
    assert list(stored["measured"]) == [spot_check.key(message)] and stored["failure"] is None


@pytest.mark.parametrize("before", [[], [{"event": "progress", "done": 0, "total": 3, "text": "vision"}, result(Scenario())]])
def test_an_error_of_the_worker_is_kept_beside_what_came_before_it(notebook, monkeypatch, before):
    error = {"event": "error", "message": "the worker ended early (killed by signal 9)", "advice": "choose meta"}
    _, stored = run_model(notebook, monkeypatch, [*before, error])
    assert stored["failure"] == error and len(stored["measured"]) == (1 if before else 0)


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
    assert "No times on this GPU" in page and "choose dtype=fp16" in page
    assert found["timings"] == [] and "Vision is 7" in page and "first token" not in page
    page, _ = show(notebook, gpu="t4", tab="Memory")
    assert "vegalite" in page


def test_times_are_those_of_the_device_chosen(notebook):
    page, found = show(notebook, gpu="h200", tab="Time")
    assert found["timings"][0].hardware.name == "h200" and "On NVIDIA H200" in page
    assert found["timings"][0].ttft_seconds == found["estimates"][0].on(of.load_hardware("h200")).ttft_seconds


@pytest.mark.parametrize("values", [{"ttft_ms": 0.0}, {"tpot_ms": -3.0}, {"price": -1.0}])
def test_a_target_that_is_not_positive_is_a_callout(notebook, values):
    page, _ = show(notebook, tab="Plan", **values)
    assert "This target has no answer" in page and "is not a positive number" in page


def test_plan_without_targets_lists_devices(notebook):
    page, _ = show(notebook, tab="Plan", ttft_ms=None, tpot_ms=None, output_tokens=0)
    assert "holds at most batch" in page and "no answer" not in page


def test_method_shows_the_verification_of_this_version(notebook):
    page, _ = show(notebook, tab="Method")
    assert "all equal, as integers" in page and f"ocr_flops {of.__version__}" in page
