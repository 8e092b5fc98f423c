"""The estimate in Python: names for specs, lists for columns, several devices, short words for people, errors that name what was given."""

import polars as pl
import pytest

import ocr_flops as of

PAGE = of.Workload.from_image(width_px=1654, height_px=2339)


def test_names_serve_for_specs(model):
    timing = of.estimate("deepseek_ocr", PAGE).on("L4")
    assert timing.ttft_seconds == of.estimate(model, PAGE).on(of.load_hardware("l4")).ttft_seconds
    assert repr(timing).startswith("Timing(Estimate(DeepSeek-OCR, ") and len(repr(timing)) < 200
    assert "<table" in timing._repr_html_() and "<table" in timing.estimate._repr_html_()


def test_lists_and_series_are_columns(model):
    many = of.Workload.from_grid([1, 2], (3, 3), batch_size=pl.Series([1, 4]))
    frame = of.estimate(model, many).stages
    assert frame.filter(pl.col("stage") == "vision").select("columns", "rows", "batch_size").rows() == [(1, 3, 1), (2, 3, 4)]
    assert repr(many) == "Workload(columns of 2 points)" and repr(PAGE) == "Workload(2 × 3 tiles, 913 tokens, batch 1)"


def test_several_devices_in_one_frame(model):
    frame = of.sweep(model, [PAGE], ["eager", "sdpa"], hardware=["l4", of.load_hardware("h200")])
    assert frame.select("hardware", "attention").unique(maintain_order=True).rows() == [
        (gpu, mode) for gpu in ("l4", "h200") for mode in ("eager", "sdpa")
    ]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: of.estimate(3, PAGE), "model: 3 is no ModelSpec"),
        (lambda: of.estimate("deepseek_ocr", 7), "workload: 7 is no Workload"),
        (lambda: of.estimate("deepseek", PAGE), "model: 'deepseek' is not one of 10 names; nearest: deepseek_ocr, "),
        (lambda: of.estimate("deepseek_ocr", PAGE).on(5), "hardware: 5 is no name of a device and no HardwareSpec"),
        (lambda: of.Workload.from_grid(["a"], 1), "columns: an array of <U1 "),
    ],
)
def test_errors_name_what_was_given(call, said):
    with pytest.raises(of.SpecError) as caught:
        call()
    assert str(caught.value).startswith(said)


def test_public_doors_lead_somewhere():
    assert of.plan(of.estimate("deepseek_ocr", PAGE), ["l4"])["hardware"].to_list() == ["l4"]
    assert "record_id" in of.records.frame().columns
    assert all(getattr(of, name) is not None for name in of.__all__)


def test_arguments_that_a_public_function_does_not_take_are_refused_by_its_public_name():
    with pytest.raises(TypeError, match=r"^ocr_flops.hardware\(\): too many .*; it takes no arguments$"):
        of.hardware("l4")
    with pytest.raises(TypeError, match=r"^ocr_flops.plan\(\): .* 'ttft'; it takes estimate, hardware, ttft_seconds, "):
        of.plan(None, ttft=0.5)
