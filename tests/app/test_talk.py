"""The talk: its sentences say what the estimates say, at every setting of its controls; its charts have their numbers and grow with the screen."""

import importlib.util
from dataclasses import replace
from html import unescape
from types import SimpleNamespace

import marimo as mo
import pytest

import ocr_flops as of
from ocr_flops import units
from ocr_flops.app import delivered, talk
from ocr_flops.app.setting import Setting
from ocr_flops.charts.slides import doubling
from ocr_flops.evidence.verify.summary import find_compared
from ocr_flops.spec.catalog import notebook_dir
from ocr_flops.spec.workload import growing_contexts
from ocr_flops.timing.hidden_savings import hidden_saving
from ocr_flops.units import seconds, si

MODEL = of.load_model("deepseek_ocr")
PATH = notebook_dir() / "flash_savings.py"
MODES = ("eager", "sdpa", "flash")
SETTING = Setting(source="grid", columns=2, rows=3, batch_size=8)
BY_MODE = SETTING.by_mode(MODEL)
TIMINGS = {mode: one.on(SETTING.device) for mode, one in BY_MODE.items()}
CONTROLS = {"columns": 2, "rows": 3, "batch_size": 8, "output_tokens": 256, "attention": "sdpa", "bits": 16, "gpu": "l4", "price": 1}
STRIPS = dict.fromkeys(("page", "pages", "mode", "time", "output", "money", "served"), ())


@pytest.fixture(scope="module")
def notebook():
    spec = importlib.util.spec_from_file_location("flash_savings", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shown_slides(notebook, **values):
    assert set(values) <= set(CONTROLS)
    stubs = {name: SimpleNamespace(value=value) for name, value in (CONTROLS | values).items()}
    outputs, _ = notebook.app.run(defs=stubs | {"inputs": STRIPS})
    return [unescape(mo.as_html(one).text) for one in outputs if one is not None]


def test_the_controls_are_those_of_the_talk(notebook):
    _, found = notebook.app.run()
    assert {name: found[name].value for name in CONTROLS} == CONTROLS and set(found["inputs"]) == set(STRIPS)
    shown = {id(one) for strip in found["inputs"].values() for one in strip}
    assert shown == {id(found[name]) for name in CONTROLS if name != "price"}


@pytest.mark.parametrize("values", [
    {}, {"columns": 1, "rows": 1}, {"columns": 12, "rows": 12, "batch_size": 128, "bits": 32}, {"attention": "flash", "bits": 32},
    {"gpu": "mi300x"}, {"gpu": "t4"}, {"batch_size": 1, "columns": 9, "rows": 1, "output_tokens": 4096},
])  # fmt: skip
def test_ten_slides_at_every_setting(notebook, values):
    shown = shown_slides(notebook, **values)
    assert len(shown) == 10 and all(page.count("<h1>") == 1 for page in shown)
    is_served = values.get("gpu") != "t4"  # which has no flash kernel
    fits = "does not fit, whatever the attention" not in shown[6]
    assert ["vegalite" in page for page in shown] == [True] * 6 + [fits, True, False, False]
    assert fits is (values.get("bits") != 32)
    assert ("Not served, this GPU" not in shown[7]) is is_served
    heads = [page.split('<div class="content">')[0] for page in shown]
    assert not any("None" in head or "nan" in head for head in heads)
    precise = {("t4", 16): "T4 (16 GB) has no bf16, so fp16", ("l4", 32): "fp32", ("l4", 16): "bf16", ("mi300x", 16): "bf16"}
    told = precise[values.get("gpu", "l4"), values.get("bits", 16)]
    assert all(told in heads[number] for number in (1, 4, 5, 6, 9))


def test_the_first_slide_counts_tiles_patches_and_tokens(notebook):
    first = shown_slides(notebook)[0]
    assert "6 tiles and a global view: 903 tokens" in first
    assert all(words in first for words in ("13,696 patches", "856 vectors", "913 tokens", "4 of them attend to a whole view"))
    assert 13_696 == 6 * 40**2 + 64**2 and 856 == 13_696 / 16
    assert "one view of 1024 px: 273 tokens" in shown_slides(notebook, columns=1, rows=1)[0]


def test_the_mode_chosen_is_the_one_shown(notebook):
    flash, eager = shown_slides(notebook, attention="flash")[1], shown_slides(notebook, attention="eager")[1]
    assert "Attention flash; NVIDIA L4" in flash and "Attention eager; NVIDIA L4" in eager
    assert "Attention sdpa; no flash kernel takes fp32" in shown_slides(notebook, attention="flash", bits=32)[1]


@pytest.mark.parametrize("values", [{"columns": 64, "rows": 64, "batch_size": 1024}, {"columns": 64, "rows": 64}])
def test_what_has_no_answer_says_why_on_its_slide(notebook, values):
    shown = shown_slides(notebook, **values)
    refused = [number for number, page in enumerate(shown) if "This setting has no answer" in page]
    assert len(shown) == 10 and refused == ([1, 2, 3, 4, 5, 6, 9] if "batch_size" in values else [2])


def test_any_price_that_a_link_may_have_can_be_shown(notebook):
    for price in (0.001, 4000.0):
        link = talk.read({"price": str(price)})
        cells = {one.name: one for one in notebook.app._cell_manager.cells()}
        _, found = cells["price_of_the_gpu"].run(link=link, gpu=SimpleNamespace(value="l4"))
        assert found["price"].value == price


def test_kernels_that_the_gpu_chosen_lacks_are_on_no_slide(notebook):
    assert not any("flash" in page.split('<div class="content">')[0] for page in shown_slides(notebook, gpu="t4")[1:7])


@pytest.mark.parametrize(("gpu", "bits", "dtype"), [("l4", 16, "bf16"), ("t4", 16, "fp16"), ("t4", 32, "fp32")])
def test_precision_is_one_the_device_has(gpu, bits, dtype):
    device = of.load_hardware(gpu)
    assert talk.choose_dtype(bits, device) == dtype and device.matrix_peak(dtype)
    assert talk.choose_dtype(16, device, "fp16") == "fp16" and talk.choose_dtype(16, device, "fp32") == talk.choose_dtype(16, device)


def test_twice_the_tokens_is_twice_the_tokens():
    frame = of.sweep(MODEL, growing_contexts(SETTING.workload), MODES, level="module", stages=["prefill"])
    times = doubling(frame)
    assert frame["context_tokens"].unique().sort().to_list() == [1024 * number for number in range(1, 9)]
    title, line = talk.describe_growth(times, 10, SETTING.workload, "bf16")
    assert title == f"Twice the tokens: {times['eager']:.1f} times the bytes in eager, {times['flash']:.1f} in sdpa and flash"
    assert f"10 heads × 913² = {si(10 * 913**2 * 2, 'B')} a layer" in line


def test_the_saving_is_against_what_runs_today_and_where_it_is():
    moved = {mode: sum(BY_MODE[mode].stage_numbers[stage]["io_bytes"] for stage in talk.FIRST) for mode in MODES}
    rows = {mode: BY_MODE[mode].module_numbers["vision", "sam.attention_global"]["io_bytes"] for mode in MODES}
    title, line = talk.describe_modes(BY_MODE)
    part = 100 * (rows["sdpa"] - rows["flash"]) / (moved["sdpa"] - moved["flash"])
    assert f"flash moves {100 * (1 - moved['flash'] / moved['sdpa']):.0f} % less than today's sdpa, {part:.0f} % of that in SAM" in title
    assert f"{100 * (1 - moved['flash'] / moved['eager']):.0f} % less than eager" in title
    assert (
        f"12 heads × 4,096² = {si(12 * 4096**2 * 2, 'B')}" in line and f"reads {si(12 * 4096 * 2 * 64 * 2, 'B')}. No engine has it" in line
    )
    in_fp32 = talk.describe_modes(replace(SETTING, dtype="fp32").by_mode(MODEL))
    assert "sdpa moves" in in_fp32[0] and "today" not in in_fp32[0] and "still written and read" in in_fp32[1]


def test_time_to_first_token_says_what_fits():
    title, line = talk.describe_first_token(TIMINGS)
    times = {mode: one.expected_ttft for mode, one in TIMINGS.items()}
    assert title == (
        f"First token in {seconds(times['flash'].value)} with flash, {units.less(times['sdpa'].value, times['flash'].value)} than today's sdpa; "
        "eager does not fit"
    )
    assert units.interval(times["flash"]) in line and "a user sees 35 %" in line


def test_the_talk_begins_with_the_setting_of_the_link():
    begun = talk.begin(Setting(gpu="h200", width_px=640, height_px=1920, batch_size=3, engine="vllm", output_tokens=0))
    assert (begun.columns, begun.rows, begun.batch_size, begun.gpu, begun.engine) == (1, 3, 3, "h200", "transformers")
    assert begun.output_tokens == 256 and talk.begin(begun) == begun
    edited = replace(begun, memory_bytes=2e11)
    assert talk.on_device(edited, "h200", 16, 64).memory_bytes == 2e11 and talk.on_device(edited, "t4", 16, 64).memory_bytes is None
    assert talk.read({}).setting == Setting(batch_size=talk.BATCH) and talk.read({"tab": "Serving", "batch_size": "1"}).notices == ()
    assert talk.read({"gpu": "none"}).notices[0].startswith("gpu: 'none' is not one of")


@pytest.mark.parametrize("prices", ["l4=0", "l4=-1", "l4=nan", "l4=inf"])
def test_a_price_that_is_none_is_said_and_left_out(prices):
    link = talk.read({"prices": prices})
    assert link.setting.prices == "" and link.notices == (f"prices: {prices!r} is not a price above 0.",)


def test_the_address_changes_only_what_the_controls_changed():
    asked = Setting(prices="h200=3.5 l4=0.8 EUR", model="glm_ocr", engine="vllm", dtype="bf16", gpu="t4", pages=5.0)
    start = talk.begin(asked)
    shown = talk.on_device(start, "t4", 16, 256)
    assert shown.dtype == "fp16" and talk.keep(asked, shown, talk.price_of(asked, "t4")) == asked
    assert [talk.price_of(asked, gpu) for gpu in ("h200", "l4", "t4")] == [3.5, 0.8, talk.PRICE]
    kept = talk.keep(asked, replace(talk.on_device(start, "h200", 16, 256), rows=9), 4.0)
    changed = {"gpu": "h200", "dtype": "bf16", "source": "grid", "columns": start.columns, "rows": 9, "prices": "h200=4 l4=0.8 EUR"}
    assert kept == replace(asked, **changed)


def test_a_saving_that_the_host_hides_is_said_to_be_hidden():
    fast = replace(SETTING, gpu="h200", batch_size=1)
    timings = {mode: one.on(fast.device) for mode, one in fast.by_mode(MODEL).items()}
    line = talk.describe_first_token(timings)[1]
    found = hidden_saving(timings["sdpa"], timings["flash"], talk.FIRST)
    assert found.is_hidden and f"from batch {found.from_batch} on" in line
    shown = {mode: one.estimate.with_workload(batch_size=found.from_batch) for mode, one in timings.items()}
    shown = hidden_saving(*(shown[mode].on(fast.device) for mode in ("sdpa", "flash")), talk.FIRST)
    assert not shown.is_hidden and shown.expected >= shown.device / 2


def test_memory_that_is_too_small_is_said():
    small_setting = replace(SETTING, dtype="fp16", batch_size=32, gpu="rtx_2080_ti", attention="all")
    small = {mode: one.on(of.load_hardware("rtx_2080_ti")) for mode, one in small_setting.by_mode(MODEL).items()}
    assert talk.describe_first_token(small)[0] == delivered.describe_ask(small)[0] == "Batch 32 does not fit, whatever the attention"
    assert "which does not fit. Every bar" in talk.describe_work(small["sdpa"], "sdpa")[1]


def test_where_it_does_not_help():
    title, _ = talk.describe_token(TIMINGS)
    row, modules = BY_MODE["flash"].stage_numbers["decode"], BY_MODE["flash"].module_numbers
    experts = modules["decode", "decoder.routed_experts"]["weight_io_bytes"]
    assert (
        f"{100 * experts / row['io_bytes']:.0f} % are expert weights" in title
        and "no less than today's sdpa, 0.65 % less than eager" in title
    )


@pytest.mark.parametrize(("base", "best", "words"), [(4, 1, "75 % less"), (4, 4, "no less"), (4, 5, "25 % more")])
def test_less(base, best, words):
    assert units.less(base, best) == words


def test_evidence_is_of_the_modes_shown():
    title, line = talk.describe_evidence(BY_MODE)
    compared = {mode: found for mode, one in BY_MODE.items() if (found := find_compared(one.config))}
    numbers = sum(found.numbers for found in compared.values())
    assert f"{numbers:,} numbers of {' and '.join(compared)} compared" in title and "all equal" in title
    assert "not compared: " in line and "flash" not in title and "batch 1 (eager), batch 3 (sdpa)" in line and line.count("grids") == 1
    assert sum(sum(row.numbers) for row in talk.evidence_rows(BY_MODE)) == numbers, "every number is in one row"
    assert talk.describe_evidence({"flash": BY_MODE["flash"]})[0].startswith("Nothing of these settings")
