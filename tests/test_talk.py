"""The talk: its sentences say what the estimates say, at every setting of its sliders; its charts have their numbers."""

import importlib.util
import subprocess
import sys
from dataclasses import replace
from html import unescape
from types import SimpleNamespace

import marimo as mo
import numpy as np
import pytest

import ocr_flops as of
from ocr_flops import evidence, talk
from ocr_flops.charts import shares
from ocr_flops.charts import talk as charts
from ocr_flops.config import notebook_dir
from ocr_flops.scenario import contexts
from ocr_flops.setting import Setting

MODEL = of.load_model("deepseek_ocr")
PATH = notebook_dir() / "flash_savings.py"
SETTING = Setting(source="grid", columns=2, rows=3, batch_size=8)
BY_MODE = SETTING.by_mode(MODEL)
TIMINGS = {mode: one.on(SETTING.device) for mode, one in BY_MODE.items()}
SLIDERS = {"columns": 2, "rows": 3, "batch_size": 8, "output_tokens": 256, "gpu": "l4"}


@pytest.fixture(scope="module")
def notebook():
    spec = importlib.util.spec_from_file_location("flash_savings", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def slides(notebook, **values):
    assert set(values) <= set(SLIDERS)
    stubs = {name: SimpleNamespace(value=value) for name, value in (SLIDERS | values).items()}
    outputs, found = notebook.app.run(defs=stubs | {"inputs": []})
    return [unescape(mo.as_html(one).text) for one in outputs if one is not None], found


def test_the_sliders_are_those_of_the_talk(notebook):
    _, found = notebook.app.run()
    assert {name: found[name].value for name in SLIDERS} == SLIDERS and len(found["inputs"]) == len(SLIDERS)


@pytest.mark.parametrize("values", [
    {}, {"columns": 1, "rows": 1}, {"columns": 12, "rows": 12, "batch_size": 128}, {"output_tokens": 0}, {"gpu": "mi300x"}, {"gpu": "t4"},
    {"batch_size": 1, "columns": 9, "rows": 1, "output_tokens": 4096},
])  # fmt: skip
def test_eight_slides_at_every_setting(notebook, values):
    shown, found = slides(notebook, **values)
    assert len(shown) == 8 and all(page.count("<h1>") == 1 for page in shown)
    assert sum("vegalite" in page for page in shown) == (6 if values.get("output_tokens") == 0 else 7)
    assert not any("None" in page.split("</p>")[0] or "nan" in page.split("</p>")[0] for page in shown)
    assert (found["without"] is not None) is (values.get("gpu") == "t4")


def test_the_first_slide_counts_tiles_and_tokens(notebook):
    assert "6 tiles and a global view: 903 tokens" in slides(notebook)[0][0]
    assert "one view of 1024 px: 273 tokens" in slides(notebook, columns=1, rows=1)[0][0]


def test_twice_the_tokens_is_twice_the_tokens():
    frame = of.sweep(MODEL, contexts(SETTING.workload), ["eager", "sdpa", "flash"], level="module", stages=["prefill"])
    times = charts.doubling(frame)
    tokens = frame["context_tokens"].unique().sort().to_list()
    assert tokens == [1024 * number for number in range(1, 9)] and 3.5 < times["eager"] < 4 and 1.9 < times["flash"] < 2.1
    workload = replace(SETTING.workload, prompt_tokens=np.array([4096, 8192]) - 903)
    moved = of.estimate(MODEL, workload, "eager", stages=["prefill"]).module_numbers["prefill", "decoder.attention"]["io_bytes"]
    assert times["eager"] == moved[1] / moved[0]
    assert f"{times['eager']:.1f} times the bytes in eager" in talk.quadratic(times)[0]
    ends = charts.attention_traffic(frame, 913).datasets["ends"]
    assert len(ends) == 2 and ends[1]["text"].startswith("sdpa, flash: ")


def test_modes_are_compared_with_the_first():
    moved = [sum(BY_MODE[mode].stage_numbers[stage]["io_bytes"] for stage in talk.FIRST) for mode in ("eager", "flash")]
    title = talk.modes(BY_MODE)[0]
    assert f"flash moves {100 * (moved[0] - moved[1]) / moved[0]:.0f} % less to the first token than eager" in title
    texts = charts.moved_and_held(BY_MODE).datasets["texts"]
    assert texts[0]["text"] == "770 GB" and texts[3]["text"] == "19.9 GB"


def test_time_to_first_token_says_what_fits():
    title, line = talk.first_token(TIMINGS)
    assert "first token in 722 ms with flash, 2.63 s with eager" in title
    assert "eager needs 27.1 GB and does not fit; sdpa needs 14.3 GB; flash" in line
    bars = charts.first_token(TIMINGS).datasets["bars"]
    whole = [bar["end"] for bar in bars if bar["kind"] == "prefill"]
    assert whole[2] / whole[0] == pytest.approx(TIMINGS["flash"].ttft_seconds / TIMINGS["eager"].ttft_seconds)


def test_where_it_does_not_help():
    title, _ = talk.one_token(BY_MODE)
    row = BY_MODE["flash"].stage_numbers["decode"]
    assert f"{100 * row['weight_io_bytes'] / row['io_bytes']:.0f} % are weights" in title and "0.65 % less" in title
    silent = replace(SETTING, output_tokens=0).by_mode(MODEL)
    assert talk.one_token(silent)[0] == "No output tokens, nothing to save"


@pytest.mark.parametrize(("base", "best", "words"), [(4, 1, "75 % less"), (4, 4, "no less"), (4, 5, "25 % more")])
def test_less(base, best, words):
    assert talk.less(base, best) == words


def test_evidence_is_the_record():
    record = evidence.recorded()
    assert f"{record['numbers']:,} numbers" in talk.evidence(record)[0] and "all equal" in talk.evidence(record)[0]
    wrong = record | {"rows": [{**record["rows"][0], "largest_difference": 3}, *record["rows"][1:]]}
    assert "1 rows differ" in talk.evidence(wrong)[0]


def test_an_enlarged_chart_has_larger_type_and_the_same_rows():
    chart = shares(BY_MODE["sdpa"], TIMINGS["sdpa"])
    large = charts.enlarged(chart, 290)
    assert large.datasets is chart.datasets and large.template["height"] == 290
    assert large.template["config"]["axis"]["labelFontSize"] > 1.4 * chart.template["config"]["axis"]["labelFontSize"]


def test_the_notebook_is_clean():
    done = subprocess.run([sys.executable, "-m", "marimo", "check", "--strict", str(PATH)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
