"""Unlimited-OCR's window: decode keeps the prompt and the last 128 tokens that it wrote."""

import numpy as np
import pytest

import ocr_flops as of
from ocr_flops.cost.models.learned import find_program
from ocr_flops.cost.run_config import RunConfig
from ocr_flops.errors import SpecError
from ocr_flops.spec.run_spec import load_run
from ocr_flops.timing.estimate import estimate

WINDOW = 128
COLUMNS = ("tensor_flops", "vector_flops", "io_bytes", "operators")


@pytest.fixture(scope="module", params=["eager", "sdpa"])
def attention(request):
    return request.param


def page(**rest):
    return of.Workload.from_image(1654, 2339, **{"output_tokens": 1} | rest)


def decode(attention, outputs, **rest):
    return estimate(of.load_model("unlimited_ocr"), page(output_tokens=outputs, **rest), attention).stage_numbers["decode"]


def test_the_cache_stops_growing_at_prompt_and_window(attention):
    model = of.load_model("unlimited_ocr")
    token = RunConfig.resolve(model, attention, "transformers", "bf16", "dynamic", None).kv_bytes_per_token
    assert token == 2 * 12 * 1280 * 2 and find_program(model).window == WINDOW
    held = {outputs: estimate(model, page(output_tokens=outputs), attention).footprint for outputs in (0, 1, 127, 128, 129, 100_000)}
    assert [held[outputs].kv_cache_bytes // token for outputs in held] == [913, 914, 1040, 1041, 1041, 1041]
    assert held[128] == held[129] == held[100_000]
    other = [estimate(of.load_model("deepseek_ocr"), page(output_tokens=outputs), attention).footprint for outputs in (129, 100_000)]
    assert other[1].kv_cache_bytes - other[0].kv_cache_bytes == (100_000 - 129) * token


def test_a_step_grows_until_the_window_is_full(attention):
    total = {outputs: decode(attention, outputs) for outputs in (0, 1, 2, 7, 8, 127, 128, 129, 130, 999, 1000)}
    step = {n: {column: total[n][column] - total[n - 1][column] for column in COLUMNS} for n in (1, 2, 8, 128, 129, 130, 1000)}
    assert step[128] == step[129] == step[130] == step[1000] and step[1] != step[2] != step[128]
    flops = [step[n]["tensor_flops"] for n in (1, 2, 8, 128)]
    key = 4 * 12 * 1280  # of one key more in 12 layers: scores and values
    assert np.diff(flops).tolist() == [key, 6 * key, 120 * key]


def test_a_longer_output_never_needs_less(attention):
    """Also where the last step's context is a multiple of what masks are padded to, and the one before needed more."""
    peaks = [decode(attention, outputs)["peak_activation_bytes"] for outputs in range(1, 20)]
    assert peaks == sorted(peaks)


def test_columns_are_the_points_one_by_one(attention):
    outputs = np.array([1, 5, 127, 128, 400])
    sizes = np.array([1654, 800, 300, 600, 2480])
    model = of.load_model("unlimited_ocr")
    both = of.Workload.from_image(sizes, sizes * 2, output_tokens=outputs)
    columns = estimate(model, both, attention).stage_numbers["decode"]
    timing = estimate(model, both, attention).on("l4").expected_tpot.value
    for index in range(len(outputs)):
        one = of.Workload.from_image(int(sizes[index]), int(2 * sizes[index]), output_tokens=int(outputs[index]))
        alone = estimate(model, one, attention)
        assert {name: int(values[index]) for name, values in columns.items()} == alone.stage_numbers["decode"]
        assert timing[index] == pytest.approx(alone.on("l4").expected_tpot.value, rel=1e-9)


def test_a_token_takes_as_long_after_many_as_after_the_window(attention):
    times = [estimate(of.load_model("unlimited_ocr"), page(output_tokens=n), attention).on("l4") for n in (1000, 2000, 100_000)]
    decode_seconds = [one.expected_tpot.value * one.estimate.workload.output_tokens for one in times]
    last = (decode_seconds[1] - decode_seconds[0]) / 1000
    assert (decode_seconds[2] - decode_seconds[1]) / 98_000 == pytest.approx(last, rel=1e-9)
    roofline = [one.decode_seconds for one in times]
    assert (roofline[2] - roofline[1]) / 98_000 == pytest.approx((roofline[1] - roofline[0]) / 1000, rel=1e-9)


def test_several_pages_in_a_request_are_views_of_one_context():
    rest = {"image_width_px": 1654, "image_height_px": 2339, "output_tokens": 5}
    rule = of.load_model("unlimited_ocr").page_rule
    together = of.estimate("unlimited_ocr", of.Workload(0, **rest, pages=4, page_rule=rule))
    assert (together.workload.tiles, together.workload.context_tokens) == (0, 4 * 273 + 10)
    small = of.Workload.from_image(600, 600, batch_size=4)
    assert together.stage_numbers["vision"]["tensor_flops"] == of.estimate("unlimited_ocr", small).stage_numbers["vision"]["tensor_flops"]
    assert load_run(["model=unlimited_ocr", "workload.pages=4"]).workload.context_tokens == 4 * 273 + 10
    many = of.estimate("unlimited_ocr", of.Workload.from_image(1654, 2339, pages=np.array([1, 4, 2]), output_tokens=5))  # one has tiles
    assert many.stage_numbers["prefill"]["tensor_flops"][1] == together.stage_numbers["prefill"]["tensor_flops"]
    for name in ("glm_ocr", "deepseek_ocr"):
        with pytest.raises(SpecError, match="^workload.pages: several in one request are known of Unlimited-OCR alone"):
            of.estimate(name, of.Workload.from_image(1654, 2339, pages=4))


def test_a_longer_output_than_can_be_counted_is_refused():
    longer = of.Workload.from_image(900, 900, output_tokens=np.array([1, 10**6]), batch_size=65_536)
    with pytest.raises(SpecError, match="decode exceeds 2"):
        repr(of.estimate("unlimited_ocr", longer).stage_numbers)


def test_a_resolution_mode_is_refused_by_a_learned_model():
    with pytest.raises(SpecError, match="^workload: is of DeepSeek-OCR's resolution modes; GLM-OCR takes pages"):
        of.estimate("glm_ocr", of.Workload.from_image(900, 900, "tiny"))
    with pytest.raises(SpecError, match="^workload: is of DeepSeek-OCR's resolution modes"):
        load_run(["model=glm_ocr", "workload=base"])
    tiles = ["workload.columns=2", "workload.rows=3"]
    named, plain = (load_run(["model=unlimited_ocr", *mode, *tiles]).workload for mode in (["workload=gundam"], []))  # the default
    assert repr(named) == repr(plain) == "Workload(2 × 3 tiles, 913 tokens, batch 1)"
