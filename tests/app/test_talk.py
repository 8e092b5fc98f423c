"""The talk: its sentences say what the estimates say, at every setting of its controls; its charts have their numbers and grow with the screen."""

import importlib.util
import subprocess
import sys
from dataclasses import replace
from html import unescape
from types import SimpleNamespace

import marimo as mo
import pytest

import ocr_flops as of
from ocr_flops import units
from ocr_flops.app import talk
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
CONTROLS = {"columns": 2, "rows": 3, "batch_size": 8, "output_tokens": 256, "attention": "sdpa", "bits": 16, "gpu": "l4"}
STRIPS = dict.fromkeys(("page", "pages", "mode", "time", "output", "served"), ())


@pytest.fixture(scope="module")
def notebook():
    spec = importlib.util.spec_from_file_location("flash_savings", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def slides(notebook, **values):
    assert set(values) <= set(CONTROLS)
    stubs = {name: SimpleNamespace(value=value) for name, value in (CONTROLS | values).items()}
    outputs, _ = notebook.app.run(defs=stubs | {"inputs": STRIPS})
    return [unescape(mo.as_html(one).text) for one in outputs if one is not None]


def test_the_controls_are_those_of_the_talk(notebook):
    _, found = notebook.app.run()
    assert {name: found[name].value for name in CONTROLS} == CONTROLS and set(found["inputs"]) == set(STRIPS)
    shown = {id(one) for strip in found["inputs"].values() for one in strip}
    assert shown == {id(found[name]) for name in CONTROLS}


@pytest.mark.parametrize("values", [
    {}, {"columns": 1, "rows": 1}, {"columns": 12, "rows": 12, "batch_size": 128, "bits": 32}, {"attention": "flash", "bits": 32},
    {"gpu": "mi300x"}, {"gpu": "t4"}, {"batch_size": 1, "columns": 9, "rows": 1, "output_tokens": 4096},
])  # fmt: skip
def test_nine_slides_at_every_setting(notebook, values):
    shown = slides(notebook, **values)
    assert len(shown) == 9 and all(page.count("<h1>") == 1 for page in shown)
    is_served = values.get("gpu") != "t4"  # which has no FlashAttention, vLLM's kernel
    assert ["vegalite" in page for page in shown] == [True] * 7 + [is_served, False]
    assert ("pages a day instead of" in shown[7]) is is_served
    heads = [page.split('<div class="content">')[0] for page in shown]
    assert not any("None" in head or "nan" in head for head in heads)
    precise = {("t4", 16): "T4 (16 GB) has no bf16, so fp16", ("l4", 32): "fp32", ("l4", 16): "bf16", ("mi300x", 16): "bf16"}
    told = precise[values.get("gpu", "l4"), values.get("bits", 16)]
    assert all(told in heads[number] for number in (1, 5, 6))


def test_the_first_slide_counts_tiles_patches_and_tokens(notebook):
    first = slides(notebook)[0]
    assert "6 tiles and a global view: 903 tokens" in first
    assert all(words in first for words in ("13,696 patches", "856 vectors", "913 tokens", "4 of them attend to a whole view"))
    assert 13_696 == 6 * 40**2 + 64**2 and 856 == 13_696 / 16
    assert "one view of 1024 px: 273 tokens" in slides(notebook, columns=1, rows=1)[0]


def test_the_mode_chosen_is_the_one_shown(notebook):
    flash, eager = slides(notebook, attention="flash")[1], slides(notebook, attention="eager")[1]
    assert "Attention flash; NVIDIA L4" in flash and "Attention eager; NVIDIA L4" in eager
    assert "Attention sdpa; no flash kernel takes fp32" in slides(notebook, attention="flash", bits=32)[1]


@pytest.mark.parametrize(("gpu", "bits", "dtype"), [("l4", 16, "bf16"), ("t4", 16, "fp16"), ("t4", 32, "fp32")])
def test_precision_is_one_the_device_has(gpu, bits, dtype):
    device = of.load_hardware(gpu)
    assert talk.choose_dtype(bits, device) == dtype and device.matrix_peak(dtype)


def test_twice_the_tokens_is_twice_the_tokens():
    frame = of.sweep(MODEL, growing_contexts(SETTING.workload), MODES, level="module", stages=["prefill"])
    times = doubling(frame)
    assert frame["context_tokens"].unique().sort().to_list() == [1024 * number for number in range(1, 9)]
    title, line = talk.describe_growth(times, 10, SETTING.workload, "bf16")
    assert title == f"Twice the tokens: {times['eager']:.1f} times the bytes in eager, {times['flash']:.1f} in sdpa and flash"
    assert f"10 heads × 913² = {si(10 * 913**2 * 2, 'B')} a layer" in line


def test_modes_are_compared_with_the_first():
    moved = [sum(BY_MODE[mode].stage_numbers[stage]["io_bytes"] for stage in talk.FIRST) for mode in ("eager", "flash")]
    title = talk.describe_modes(BY_MODE)[0]
    assert f"flash moves {100 * (moved[0] - moved[1]) / moved[0]:.0f} % less than eager, and holds" in title


def test_time_to_first_token_says_what_fits():
    title, line = talk.describe_first_token(TIMINGS)
    first, last = (seconds(TIMINGS[mode].expected_ttft.value) for mode in ("eager", "flash"))
    assert title == f"First token expected in {last} with flash, {first} with eager; eager does not fit"
    assert "a user sees 71 %" in line


def test_a_saving_that_the_host_hides_is_said_to_be_hidden():
    fast = replace(SETTING, gpu="h200", batch_size=1, engine="remote_code")
    timings = {mode: one.on(fast.device) for mode, one in fast.by_mode(MODEL).items()}
    line = talk.describe_first_token(timings)[1]
    found = hidden_saving(timings["eager"], timings["flash"], talk.FIRST)
    assert found.is_hidden and f"from batch {found.from_batch} on" in line
    shown = {mode: one.estimate.with_workload(batch_size=found.from_batch) for mode, one in timings.items()}
    shown = hidden_saving(*(shown[mode].on(fast.device) for mode in ("eager", "flash")), talk.FIRST)
    assert not shown.is_hidden and shown.expected >= shown.device / 2


def test_memory_that_is_too_small_is_said():
    small_setting = replace(SETTING, dtype="fp16", batch_size=32, gpu="rtx_2080_ti")
    small = {mode: one.on(of.load_hardware("rtx_2080_ti")) for mode, one in small_setting.by_mode(MODEL).items()}
    assert talk.describe_first_token(small)[0].endswith("; neither fits")


def test_where_it_does_not_help():
    title, _ = talk.describe_token(TIMINGS)
    row, modules = BY_MODE["flash"].stage_numbers["decode"], BY_MODE["flash"].module_numbers
    experts = modules["decode", "decoder.routed_experts"]["weight_io_bytes"]
    assert f"{100 * experts / row['io_bytes']:.0f} % are expert weights" in title and "0.65 % less" in title


@pytest.mark.parametrize(("base", "best", "words"), [(4, 1, "75 % less"), (4, 4, "no less"), (4, 5, "25 % more")])
def test_less(base, best, words):
    assert units.less(base, best) == words


def test_evidence_is_of_the_modes_shown():
    title, line = talk.describe_evidence(BY_MODE)
    compared = {mode: found for mode, one in BY_MODE.items() if (found := find_compared(one.config))}
    numbers = sum(found.numbers for found in compared.values())
    assert f"{numbers:,} numbers of {' and '.join(compared)} compared" in title and "all equal" in title
    assert "not compared: " in line and "flash" not in title and "batch" in line
    assert sum(sum(row.numbers) for row in talk.evidence_rows(BY_MODE)) == numbers, "every number is in one row"
    assert talk.describe_evidence({"flash": BY_MODE["flash"]})[0].startswith("Nothing of these settings")


def test_the_notebook_is_clean():
    done = subprocess.run([sys.executable, "-m", "marimo", "check", "--strict", str(PATH)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
