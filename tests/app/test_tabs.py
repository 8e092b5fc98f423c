"""What each tab shows, and the controls, without a page around them."""

from html import unescape
from pathlib import Path
from types import SimpleNamespace

import marimo as mo
import polars as pl
import pytest
from marimo._plugins.ui._impl.table import SearchTableArgs

import ocr_flops as of
from ocr_flops.app import views
from ocr_flops.app.links import Link
from ocr_flops.app.session import Session
from ocr_flops.app.setting import Setting
from ocr_flops.app.spot_checks import STORE
from ocr_flops.app.tabs import OVERLAID, compare, controls, export, headline, jobs, measured, method, plan, spot_check
from ocr_flops.app.tabs.elements import button, plain_table
from ocr_flops.app.views import VIEWS, Results
from ocr_flops.evidence import records
from ocr_flops.evidence.records.cache import RECORDS, Snapshot
from ocr_flops.evidence.verify import counter_audit
from ocr_flops.measure.events import Audit
from ocr_flops.measure.failures import Failure
from ocr_flops.measure.job_queue import QUEUE, Job, Stage
from ocr_flops.spec.workload import LIMITS
from ocr_flops.units import seconds
from tests.support import synthetic
from tests.support.results import result

PINS = (("with <b>flash</b>", Setting(attention="flash")), ("other GPU", Setting(gpu="h200")))
RUN = mo.ui.button(label="run it")


def text(shown):
    return mo.as_html(shown).text


def evaluated(model, **values):
    return views.evaluate(model, Setting(**values))


@pytest.fixture
def store():
    STORE.clear()
    yield STORE
    STORE.clear()


def test_a_table_has_dashes_and_wraps_long_texts():
    frame = pl.DataFrame({"short": ["a", None], "long": ["x" * 60, "y"], "number": [1.5, None]})
    table = plain_table(frame)
    assert table.data["short"].to_list() == ["a", "–"] and "<dt>number</dt><dd>1.500</dd>" in text(table)


def test_a_button_acts_once_a_press():
    pressed = []
    one = button("go", lambda: pressed.append(1))
    for count in (1, 2):
        one._update(count)
        assert len(pressed) == count


def test_controls_begin_with_a_link_and_give_its_setting():
    setting = Setting("gundam_m", "grid", 9000, 12, 40, 9, 0, 5001, 33, "flash", "remote_code", "fp16", "static", "h200", 1.5e15, None, 4e12, None, None, 7.25, None, "graphs", 9.5, 0.0, 0.55, 0.29, None, prices="h200=3.5")  # fmt: skip
    mode, source = controls.encoding_controls(setting)
    figures = controls.figure_controls(setting, "h200", "fp16"), controls.host_figure_controls(setting, "remote_code", "graphs")
    make = (controls.workload_controls, controls.engine_controls, controls.device_controls, controls.target_controls)
    size = controls.size_controls((setting.width_px, setting.height_px), print)[1].value
    values = size | {name: value for group in make for name, value in group(setting).value.items()}
    edited = {name: value for fields, own in figures for name, value in controls.edited_figures(fields.value, own).items()}
    assert Setting(mode=mode.value, source=source.value, **values, **edited) == setting
    for fields, own in (controls.figure_controls(setting, "l4", "fp16"), controls.host_figure_controls(setting, "remote_code", "eager")):
        assert controls.edited_figures(fields.value, own) == {}, "figures of another device or host"


def test_a_common_page_sets_the_size():
    chosen = []
    common, size = controls.size_controls((7, 9000), chosen.append)
    assert size.value == {"width_px": 7, "height_px": 9000} and common.value is None
    common._update(["A4 at 300 dpi"])
    assert chosen == [(2480, 3508)]


def test_a_table_is_searched_for_what_is_typed():
    table = plain_table(pl.DataFrame({"device": ["NVIDIA L4 (24 GB)", "NVIDIA L40 (48 GB)"]}))
    assert [table._search(SearchTableArgs(10, 0, query)).total_rows for query in ("l4 (24", "L4.", None)] == [1, 0, 2]


def test_a_figure_begins_with_its_default_and_says_where_that_comes_from():
    fields, own = controls.host_figure_controls(Setting(), "transformers", "engine")
    assert fields.value == own == {"operator_us": 7.0, "launch_us": 4.0}
    assert "Unless set here, or fitted to timed runs of this GPU, 7 (5 to 10); one decode step of both engines" in unescape(
        text(fields.elements["operator_us"])
    )
    assert controls.host_figure_controls(Setting(), "transformers", "none")[1] == {"operator_us": 0.0, "launch_us": 0.0}
    fields, own = controls.figure_controls(Setting(), "l4", "bf16")
    assert own["matrix_efficiency"] == 65.0 and "65 (40 to 85); " in unescape(text(fields.elements["matrix_efficiency"]))


@pytest.mark.parametrize(("values", "said"), [
    ({"operator_us": -1.0}, "host.operator_us: -1.0 is not a number from 0 up"), ({"launch_us": float("inf")}, "host.launch_us: inf"),
    ({"matrix_efficiency": 1.5}, "efficiency.matrix: 1.5 is not a number from 0.001 to 1"), ({"host": "fast"}, "host: 'fast'"),
])  # fmt: skip
def test_a_host_that_cannot_be_is_told_and_costs_stay(model, values, said):
    shown = evaluated(model, **values)
    assert said in shown.without_times and shown.timings == [] and shown.time_basis == ""
    assert [name for name, draw in VIEWS.items() if not draw(shown)] == ["Timeline", "Plan", "Which mode"]
    assert "fits the GPU" in text(headline.headline(shown))


def test_any_number_of_output_tokens_can_be_set():
    output = controls.workload_controls(Setting(output_tokens=1500)).elements["output_tokens"]
    assert (output.start, output.stop, output.value, output._component_args["include-input"]) == (0, 8192, 1500, True)


def test_the_prompt_field_has_its_limits():
    most = Setting(prompt_tokens=LIMITS["prompt_tokens"][1])
    prompt = controls.workload_controls(most).elements["prompt_tokens"]
    assert (prompt.start, prompt.stop) == LIMITS["prompt_tokens"] and prompt.value == LIMITS["prompt_tokens"][1]


def test_the_upload_button_is_short():
    upload = text(controls.upload_control({}))
    assert "image or PDF" in upload and "choose an image" not in upload and "at most 50 MB" in upload
    assert "at most 2 MB" in text(controls.upload_control({"max_upload_bytes": 2_000_000}))


@pytest.mark.parametrize("gpu", ["v100_pcie", "t4"])
def test_a_gpu_without_a_figure_keeps_fit_and_memory(model, gpu):
    shown = Results(model, Setting(gpu=gpu))
    assert shown.device is None and shown.timings == [] and shown.hardware.memory_bytes == 16e9
    assert "has no bf16 figure: choose fp16 or fp32, or enter one under 'edit its figures'" in shown.without_times
    assert "_" not in shown.without_times  # no key of a config
    _, shares, memory = VIEWS["Overview"](shown)
    assert memory.datasets["line"][0]["text"] == "memory: 16.0 GB" and "fits NVIDIA" in " ".join(memory.title.text).replace("Fits", "fits")
    assert "Without a device" not in " ".join(shares.title.subtitle)
    assert VIEWS["Memory"](shown)[0].datasets["line"]


def test_a_gpu_without_a_flash_kernel_says_so_and_the_other_modes_have_times(model):
    shown = Results(model, Setting(gpu="t4", dtype="fp16", attention="flash"))
    assert shown.without_times == "NVIDIA T4 (16 GB) has no flash kernel: choose eager or sdpa" and VIEWS["Overview"](shown)
    shown = Results(model, Setting(gpu="t4", dtype="fp16", attention="all"))
    assert [one.estimate.config.attention.name for one in shown.timings] == ["eager", "sdpa"]
    assert shown.main_timing.ttft_seconds == shown.timings[1].ttft_seconds  # the engine's own mode


def test_figures_that_are_none_leave_no_device(model):
    shown = Results(model, Setting(memory_bytes=-1.0))
    assert shown.device is None and shown.hardware is None and "memory_bytes" in shown.without_times and VIEWS["Overview"](shown)


def test_the_headline_has_the_estimates_figures(model):
    shown = text(headline.headline(evaluated(model)))
    stages = of.estimate(model, of.Workload.from_image(1654, 2339)).stage_numbers
    assert f"<strong>{sum(row['total_flops'] for row in stages.values()) / 1e12:.2f} T</strong>" in shown
    assert "<strong>903</strong>" in shown and "<strong>6.67 GB</strong>" in shown
    without_times = text(headline.headline(evaluated(model, gpu="v100_pcie")))
    assert "fits the GPU" in without_times and "8.38\N{NO-BREAK SPACE}GB spare" in without_times


def pinned(model, pins, name="", **values):
    """Pin controls of a page with a setting, the name typed, and the pins they set."""
    page, kept = Session(), []
    page.results = evaluated(model, **values)
    inputs = compare.PinControls(pins, kept.append, page)
    inputs.new_name._update(name)
    return inputs, kept


def test_pins_are_compared_with_the_controls(model):
    inputs, _ = pinned(model, PINS, attention="eager")
    shown = text(compare.compare(evaluated(model, attention="eager"), inputs))
    assert "attention flash → eager" in shown and "<b>flash" not in shown and "gpu=h200" in shown and "tab=Compare" in shown
    charts = compare.compared_charts(evaluated(model), PINS)
    assert "now instead of with <b>flash</b>" in str(charts[0].title)
    assert "pin it, then change a control" in str(compare.compared_charts(evaluated(model), ())[0].title)


@pytest.mark.parametrize(("name", "pins", "stored"), [
    ("", (), "l4, gundam 2×3"), ("mine", PINS, "mine"), ("now", (), "now 2"), ("other GPU", PINS, "other GPU 2"),
    ("", (("flash", Setting(attention="flash")), ("Baseline", Setting(dtype="fp16"))), "bf16"),
])  # fmt: skip
def test_the_pin_button_keeps_the_setting_under_a_name_of_its_own(model, name, pins, stored):
    inputs, kept = pinned(model, pins, name)
    inputs.add._update(1)
    assert kept == [(*pins, (stored, Setting()))]


def test_pins_are_renamed_removed_and_limited(model):
    inputs, kept = pinned(model, PINS)
    inputs.names[1]._update("with <b>flash</b>")
    inputs.removals[0]._update(1)
    assert [[name for name, _ in pins] for pins in kept] == [["with <b>flash</b>", "with <b>flash</b> 2"], ["other GPU"]]
    inputs, kept = pinned(model, tuple((str(number), Setting()) for number in range(8)))
    inputs.add._update(1)
    assert kept == []


def planned(model, **values):
    above, table = plan.plan(evaluated(model, **values), controls.target_controls(Setting(**values)))
    return text(above) + (text(table) if table else "")


def test_a_plan_says_what_holds_and_which_devices_meet_it(model):
    assert "holds at most batch" in planned(model) and "NVIDIA H200" in planned(model, price=2.5)
    shown = planned(model, prices="l4=0.8, h200=3.5 eur", pages=1e7, gpus=4, plan_batch="best")
    assert (
        "on 4 GPUs and cost" in shown
        and "Cheapest of 2 GPUs with a price, at 3.5 EUR an hour, that meets the targets: " in shown
        and " EUR (" in shown
    )
    assert "prices: " in planned(model, prices="free=0") and "neither a price" in planned(model, prices="l4=x")
    assert "no answer" not in planned(model, ttft_ms=None, tpot_ms=None, output_tokens=0)
    assert "pages: empty" in planned(model, pages=None) and "gpus: empty" in planned(model, gpus=None)


@pytest.mark.parametrize("values", [{"ttft_ms": 0.0}, {"tpot_ms": -3.0}, {"price": -1.0}])
def test_a_target_that_is_not_positive_is_a_callout(model, values):
    shown = planned(model, **values)
    assert "This target has no answer" in shown and "is not a number from 1e-12 to 1e+24" in shown


def test_results_are_judged(model, store):
    def shown():
        return text(spot_check.spot_check(evaluated(model), controls.spot_check_controls(), RUN))

    assert "Nothing has been measured" in shown()
    store.add(model, result(Setting()))
    assert "as integers." in shown() and "danger" not in shown()
    store.add(model, result(Setting(batch_size=2), off=1))
    assert "differ." in shown() and "danger" in shown()


@pytest.mark.parametrize(("values", "stays"), [
    ({}, (True, True)), ({"attention": "flash"}, (True, True)), ({"source": "grid", "columns": 5, "rows": 1}, (False, True)),
    ({"batch_size": 4}, (False, False)), ({"engine": "remote_code"}, (False, False)),
])  # fmt: skip
def test_measured_points_stay_where_they_belong_and_with_a_switch_everywhere(model, store, values, stays):
    store.add(model, result(Setting()))
    for view, stays_here in zip(OVERLAID, stays, strict=True):
        for with_others in (False, True):
            points = VIEWS[view](views.evaluate(model, Setting(**values), with_others))[0].datasets["points"]
            assert bool(points) is (stays_here or with_others), (view, with_others)


def a_job(state, failure=None, results=(), position=0):
    stages = (Stage("torch", None, "done", 2.5), Stage("vision", 0, "running", 0.4), Stage("vision", 1, "waiting", 0))
    return Job(7, "2 × 3 <tiles>", "me", state, position, 1, 3, "vision of point 1", stages, 3.0, results, failure)


def progress(monkeypatch, job=None, refused=None, tick=None, with_ended=True):
    page = Session()
    page.refused = refused
    monkeypatch.setattr(QUEUE, "latest", lambda owner: job)
    shown = jobs.progress(page, (job,) if job else (), mo.ui.button(label="Cancel"), tick, with_ended)
    return text(shown) if shown is not None else ""


def test_a_run_shows_its_stages_and_a_refused_press_does_not_hide_it(monkeypatch):
    shown = progress(monkeypatch, a_job("running"), refused="one is still running")
    assert "vision of point 1" in shown and '<li class="running">vision 0.4 s</li>' in shown and "2 × 3 &lt;tiles&gt;" in shown
    assert shown.count('<li class="waiting">') == 0 and "Cancel" in shown and "one is still running" in shown
    assert "1 in line" in progress(monkeypatch, a_job("waiting", position=1)) and progress(monkeypatch) == ""


def test_a_failed_run_says_why_and_what_to_do_and_what_is_kept(monkeypatch):
    shown = progress(monkeypatch, a_job("failed", Failure("out of memory", "choose meta"), results=(1, 2)))
    assert "The run ended early: out of memory." in shown and "choose meta" in shown and "2 results that came before are kept" in shown


def chapter(model, name, job=None):
    return text(method.method(evaluated(model), SimpleNamespace(value=name, _mime_=lambda: ("text/html", "")), job, RUN))


def test_method_shows_the_verification_of_this_version(model):
    shown = chapter(model, method.COMPARED)
    assert "all equal, as integers" in shown and f"ocr_flops {of.__version__}" in shown


def test_the_audit_is_shown_as_recorded_and_as_it_came_here(model):
    shown = chapter(model, method.MISSED)
    assert "scaled_dot_product_attention" in shown and "run it" in shown
    recorded = counter_audit.read_audit()
    audit = Audit(recorded["ran"] | {"torch": "9.9.9"}, recorded["cases"])
    assert "torch 9.9.9" in chapter(model, method.MISSED, a_job("done", results=(audit,)))


@pytest.mark.parametrize("rows", export.ROWS)
def test_every_table_can_be_taken_away(model, store, rows):
    store.add(model, result(Setting()))
    inputs = export.export_controls()
    for view in export.CHARTS if rows == "modules" else ("Overview",):
        inputs._update({"rows": [rows], "charts": [view]})
        shown = text(export.export(evaluated(model), Link(pins=PINS), inputs, mo.ui.run_button(label="report")))
        assert "CSV" in shown and "SVG" in shown and "report" in shown


@pytest.fixture
def snapshot(monkeypatch):
    """Records of an L4 at the default page and three others, and one file that is none."""
    points = synthetic.workloads(
        pages=[("tiny", (1, 1)), ("base", (1, 1)), ("gundam", (1, 2)), ("gundam", (2, 3))], lengths=((10, 256), (500, 32))
    )
    frame = synthetic.frame(points, of.load_model(), hardware="l4", attention=("sdpa", "eager"))
    modules = records.records_frame(Path("/nonexistent"), level="module", shipped=Path("/nonexistent"))[0]
    found = Snapshot(frame, modules, (records.Problem(Path("/there/<b>bad</b>.json"), "damaged: not JSON"),))
    monkeypatch.setattr(RECORDS, "snapshot", lambda: found)
    return found


def recorded(model, **values):
    results = evaluated(model, **values)
    head = text(headline.headline(results))
    return results, head + text(measured.measured(results, controls.timing_controls(), RUN))


def test_without_records_the_page_says_why_nothing_is_calibrated(model):
    _, shown = recorded(model)
    assert "No calibrated figures." in shown and "There are no records yet" in shown and "timed runs on" not in shown


def test_records_are_shown_and_the_figures_rest_on_them(model, snapshot, monkeypatch):
    planned = []
    results, shown = recorded(model)
    said = results.on_record.calibrated(results.estimates[0])
    assert f"calibrated by {results.on_record.calibration.records} records" in shown
    assert f"efficiencies from {results.on_record.calibration.records} timed runs on NVIDIA L4" in shown
    assert seconds(results.main.on(**results.on_record.conditions).expected_ttft.value) in shown
    monkeypatch.setattr(plan, "plain_table", lambda table, *_, **options: planned.append(table) or mo.md(""))
    plan.plan(results, controls.target_controls(results.setting))
    (row,) = planned[0].filter(pl.col("device") == "NVIDIA L4 (24 GB)").to_dicts()
    assert row["first token"].startswith(f"{seconds(results.main_timing.expected_ttft.value)} (")
    for name in ("bound", "roofline", "nine in ten within", "measured (median)"):
        assert name in shown
    assert seconds(said.ttft_seconds.value) in shown and seconds(said.ttft_seconds.low) in shown
    assert "damaged: not JSON" in shown and "<b>bad" not in shown
    _, other = recorded(model, gpu="h200")
    assert "No calibrated figures." in other and "timed runs on" not in other
