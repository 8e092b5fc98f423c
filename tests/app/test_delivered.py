"""What one device delivers, as the talk says it: the estimates' pages and money, what serves, and what is asked for."""

from dataclasses import replace

import ocr_flops as of
from ocr_flops import units
from ocr_flops.app import delivered, talk
from ocr_flops.app.setting import Setting
from ocr_flops.charts import slides
from ocr_flops.units import seconds

MODEL = of.load_model("deepseek_ocr")
SETTING = Setting(source="grid", columns=2, rows=3, batch_size=8, attention="all")


def timings_of(setting):
    return {mode: one.on(**setting.conditions) for mode, one in talk.by_mode(MODEL, setting).items()}


TIMINGS = timings_of(SETTING)


def test_pages_and_money_are_those_of_the_estimate_and_what_does_not_fit_has_none():
    title, line = delivered.describe_pages(TIMINGS, 0.8, "USD")
    hours = {mode: 1e6 / one.expected_pages_per_second.value / 3600 for mode, one in TIMINGS.items()}
    assert title == (
        f"A million pages cost {0.8 * hours['flash']:.0f} USD with flash, {units.less(hours['sdpa'], hours['flash'])} than today's sdpa; "
        "eager: does not fit"
    )
    assert (
        "at least half of what the GPU itself saves of whole pages shows from batch 1 on" in line
        and "flash 65." in line
        and "at 0.8 USD an hour" in line
    )
    days = [row["text"] for row in slides.pages_and_cost(TIMINGS, 0.8, "USD").datasets["ends"]]
    assert days == ["–", *(units.count(24e6 / hours[mode]) for mode in ("sdpa", "flash")), "–",
                    *(f"{0.8 * hours[mode]:.0f} USD" for mode in ("sdpa", "flash"))]  # fmt: skip
    none = {mode: one.estimate.with_workload(batch_size=512).on(SETTING.device) for mode, one in TIMINGS.items()}
    assert delivered.describe_pages(none, 1, "")[0] == "Batch 512 does not fit, whatever the attention"


def test_the_ask_names_the_kernel_that_is_missing_and_what_each_step_gives():
    title, line = delivered.describe_ask(TIMINGS)
    first, last = (TIMINGS[mode].expected_ttft.value for mode in ("sdpa", "flash"))
    assert "attention kernel for SAM" in title and f"worth {seconds(first - last)} of {seconds(first)} to the first token" in line
    steps, _ = delivered.serving_steps(MODEL, SETTING)
    rows = delivered.ask_rows(TIMINGS, steps, 1.0)
    assert [row.needs for row in rows] == ["an option that the engine has", "nothing: it runs today", "a kernel that no engine has",
                                           "an engine that batches; modelled"]  # fmt: skip
    assert rows[0].pages_a_day == "does not fit" and rows[-1].what.startswith("vLLM") and "(" in rows[2].million_pages
    without = {mode: one for mode, one in TIMINGS.items() if mode != "flash"}
    assert (
        "nothing more of attention, sdpa runs today" in delivered.describe_ask(without)[0]
        and len(delivered.ask_rows(without, {}, 1.0)) == 2
    )


def test_what_serves_follows_the_setting_and_says_its_precision():
    usual, slow = (delivered.serving_steps(MODEL, one)[0] for one in (SETTING, replace(SETTING, matrix_efficiency=0.2, host="none")))
    assert all(slow[name].pages_per_day.value != one.pages_per_day.value for name, one in usual.items())
    in_fp32, _ = delivered.serving_steps(MODEL, replace(SETTING, dtype="fp32", engine="remote_code"))
    assert [*in_fp32][:3] == ["the published code, page by page", "the published code, 8 at once", "vLLM in bf16, 1 in flight"]
    assert in_fp32["vLLM in bf16, 1 in flight"] == usual["vLLM in bf16, 1 in flight"]
    at_once = timings_of(replace(SETTING, dtype="fp32", engine="remote_code"))["today"].expected_ttft
    assert in_fp32["the published code, 8 at once"].ttft_seconds == at_once
    for batch, name in ((1, "transformers, page by page"), (8, "transformers, 8 at once")):
        at = {key: one for key, one in usual.items() if batch > 1 or "at once" not in key}
        title, line = delivered.describe_served(at, replace(SETTING, batch_size=batch))
        assert title.endswith(f"instead of {units.count(at[name].pages_per_day.value)} ({name})") and "in flight, is modelled" in line
    cut = replace(SETTING, gpu="h200")
    assert "which batches do not wait for" in delivered.describe_served(delivered.serving_steps(MODEL, cut)[0], cut)[1]
    assert "NVIDIA L4 (24 GB), fp32," in delivered.describe_served(in_fp32, replace(SETTING, dtype="fp32"))[1]


def test_the_ask_compares_with_nothing_that_does_not_fit():
    timings = timings_of(replace(SETTING, batch_size=32))
    assert [one.fits for one in timings.values()] == [False, False, True]
    assert delivered.describe_ask(timings)[1].startswith("today's sdpa does not fit: NVIDIA L4 (24 GB), bf16, batch 32")


def test_a_gpu_that_is_not_served_says_which_kernel_it_lacks_and_what_runs():
    old = replace(SETTING, gpu="t4", dtype="fp16")
    steps, refused = delivered.serving_steps(MODEL, old)
    title, line = delivered.describe_served(steps, old, refused)
    days = units.count(steps["transformers, 8 at once"].pages_per_day.value)
    assert title == f"Not served, this GPU reads {days} pages a day (transformers, 8 at once)" and len(steps) == 2
    said = "T4 (16 GB) has no flash kernel, which sglang and vllm take unless attention=eager or sdpa is given; remote_code and transformers run there"
    assert said in line and "use attention" not in line
    assert [row.what for row in delivered.ask_rows(timings_of(old), steps, 1.0)] == ["eager, 8 at once", "sdpa, 8 at once"]
    wide = replace(SETTING, columns=12, rows=12, dtype="fp32", batch_size=128)
    assert all(name.startswith("vLLM") for name in delivered.serving_steps(MODEL, wide)[0]), "transformers does not fit"


def test_an_engine_that_mixes_kernels_is_what_runs_today():
    timings = timings_of(replace(SETTING, engine="remote_code"))
    assert [*timings] == ["eager", "sdpa", "today", "flash"]
    assert [row.needs for row in delivered.ask_rows(timings, {}, 1.0)][2] == "nothing: it runs today"
    assert delivered.describe_ask(timings)[1].startswith("Against what runs today it is worth")
    assert "less than what runs today, " in talk.describe_first_token(timings)[0]
    assert "With what runs today SAM" in talk.describe_modes(talk.by_mode(MODEL, replace(SETTING, engine="remote_code")))[1]
