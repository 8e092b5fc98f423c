"""What the controls say, as a workload and its estimates."""

from dataclasses import replace

import pytest

import ocr_flops as of
from ocr_flops.app import views
from ocr_flops.app.setting import SIDE_BY_SIDE, Setting
from ocr_flops.evidence.calibration.host_lane import measured_host
from ocr_flops.evidence.records import host_lane, store
from ocr_flops.evidence.records.host_lane import read_host_lanes

MODEL = of.load_model("deepseek_ocr")


def grid(setting):
    return setting.workload.columns, setting.workload.rows


def test_the_grid_comes_from_the_page_or_from_the_hand():
    assert grid(Setting()) == grid(Setting(source="page", columns=9, rows=1)) == (2, 3)
    assert grid(Setting(source="grid", columns=9, rows=1)) == (9, 1)


def test_a_mode_without_tiles_ignores_the_grid():
    assert Setting(mode="base", source="grid", columns=9, rows=1).workload.tiles == 0


def test_attention_modes_side_by_side():
    assert Setting(attention=SIDE_BY_SIDE).attention_modes == ("eager", "sdpa", "flash")
    assert Setting(attention=SIDE_BY_SIDE, dtype="fp32").attention_modes == ("eager", "sdpa")
    assert [found.config.attention.name for found in Setting(attention=SIDE_BY_SIDE).estimates(MODEL)] == ["eager", "sdpa", "flash"]
    assert Setting(attention="vendor").attention_modes == ("vendor",)


def test_the_numbers_are_those_of_estimate():
    (one,) = Setting(
        width_px=1000,
        height_px=3000,
        prompt_tokens=20,
        output_tokens=7,
        batch_size=2,
        attention="eager",
        engine="remote_code",
        dtype="fp16",
    ).estimates(MODEL)
    page = of.Workload.from_image(1000, 3000, "gundam", prompt_tokens=20, output_tokens=7, batch_size=2)
    assert one.stage_numbers == of.estimate(MODEL, page, "eager", engine="remote_code", dtype="fp16").stage_numbers


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"source": "grid", "columns": 0}, "columns: 0"),
        ({"prompt_tokens": -1}, "prompt_tokens: -1"),
        ({"prompt_tokens": None}, "prompt_tokens: None"),
        ({"prompt_tokens": 1.5}, "prompt_tokens: 1.5"),
        ({"width_px": 0}, "width_px: 0"),
        ({"mode": "huge"}, "huge"),
        ({"source": "web"}, "source: 'web'"),
        ({"attention": "flash", "dtype": "fp32"}, "flash"),
        ({"attention": "fast"}, "fast"),
        ({"batch_size": 65_536, "prompt_tokens": 1_000_000}, "2\\^62"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_it(wrong, message):
    with pytest.raises(of.SpecError, match=message):
        Setting(**wrong).estimates(MODEL)


def test_a_measured_host_is_that_of_the_records_there_are(tmp_path, monkeypatch):
    assert Setting(host="measured").host_spec == measured_host("transformers", read_host_lanes())
    assert Setting(host="measured", engine="remote_code").host_spec.label.startswith("host measured with remote_code on ")
    monkeypatch.setattr(host_lane, "shipped_folder", lambda: tmp_path)
    monkeypatch.setenv(store.VARIABLE, str(tmp_path))
    with pytest.raises(of.SpecError, match="host=measured: the host was not measured here; run ocr-flops measure --lane host"):
        Setting(host="measured").conditions  # noqa: B018


def test_another_model_keeps_page_and_lengths_and_has_its_own_kernels():
    own, other = Setting(output_tokens=7), Setting(output_tokens=7, model="got_ocr2")
    assert (other.workload.image_width_px, other.workload.output_tokens) == (own.workload.image_width_px, 7)
    assert other.workload.image_tokens == 258 != own.workload.image_tokens
    assert (own.known_modes, other.known_modes) == (("eager", "sdpa", "flash"), ("eager",))
    results = views.evaluate(other.model_spec, other)
    assert views.overview(results) and views.roofline(results)
    assert "Only DeepSeek-OCR is timed here" in views.why_not(results, "Measured")
    assert views.why_not(results, "Overview") is None
    assert views.why_not(views.evaluate(own.model_spec, own), "Measured") is None


def test_a_learned_model_is_shown_under_transformers_where_its_engine_does_not_run_it():
    asked = Setting(model="glm_ocr", engine="vllm")
    assert asked.known == replace(asked, engine="transformers") and "GLM-OCR: all is of transformers' class, and Serving" in asked.instead
    assert Setting(engine="vllm").known.engine == "vllm" and not Setting(model="glm_ocr").instead
