"""Seconds: operator by operator, and exact over decode steps."""

from dataclasses import replace

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import ocr_flops as of
from ocr_flops.cost.polynomial import evaluate
from ocr_flops.timing.roofline import CEILINGS, seconds_by_ceiling


@pytest.fixture(scope="module")
def h200():
    return of.load_hardware("h200")


def operator_seconds(program, monomial, hardware, dtype):
    """The definition, operator by operator, in plain Python."""
    total = 0.0
    for operation in program.operations:
        flops, vector, moved = (evaluate(operation.costs[cost], monomial) for cost in ("tensor_flops", "vector_flops", "io_bytes"))
        peak = hardware.matrix_peak("fp32" if operation.matrix_itemsize == 4 else dtype)
        total += max(flops / peak, vector / hardware.vector_fp32_flops_per_second, moved / hardware.memory_bandwidth_bytes_per_second)
    return total


@pytest.mark.parametrize("attention", ["eager", "sdpa", "flash"])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_roofline_is_the_sum_over_operators_of_the_largest_ceiling(model, h200, attention, batch_size):
    estimate = of.estimate(model, of.Workload.from_grid(2, 3, batch_size=batch_size, output_tokens=1), attention)
    timing = estimate.on(h200)
    for group, seconds in zip(estimate.stage_groups(), timing.stages["roofline_seconds"], strict=True):
        assert seconds == pytest.approx(operator_seconds(group.program, group.last, h200, "bf16"), rel=1e-9)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("hardware", ["h200", "t4"])
def test_decode_is_the_exact_sum_of_its_steps(model, attention, hardware):
    device, dtype, batch = of.load_hardware(hardware), "fp16", 300  # a batch at which matrix and bandwidth lines cross
    workload = of.Workload.from_grid(1, 2, output_tokens=40, batch_size=batch)
    whole = of.estimate(model, workload, attention, dtype=dtype).on(device).decode_seconds
    single = sum(
        of.estimate(model, of.Workload.from_grid(1, 2, prompt_tokens=10 + step, output_tokens=1, batch_size=batch), attention, dtype=dtype)
        .on(device)
        .decode_seconds
        for step in range(40)
    )
    assert whole == pytest.approx(single, rel=1e-12)


def test_last_token_takes_longest(model, h200):
    timing = of.estimate(model, of.Workload.from_grid(3, 3, output_tokens=500), "sdpa").on(h200)
    assert timing.last_tpot_seconds > timing.tpot_seconds
    one = of.estimate(model, of.Workload.from_grid(3, 3, prompt_tokens=509, output_tokens=1), "sdpa").on(h200)
    assert timing.last_tpot_seconds == pytest.approx(one.decode_seconds, rel=1e-9)


SIZES = {"prompt_tokens": st.integers(0, 40), "output_tokens": st.integers(0, 300), "batch_size": st.sampled_from([1, 1, 5])}
MODES = ["tiny", "gundam"]
PAGE = st.one_of(
    st.builds(of.Workload.from_image, st.integers(1, 1500), st.integers(1, 1500), st.sampled_from(MODES), **SIZES),
    st.builds(of.Workload.from_grid, st.integers(1, 4), st.integers(1, 4), st.just("gundam"), **SIZES),
)
SETTINGS = [
    {"attention": "eager", "prefill_logits": "all"},
    {"attention": "flash", "cache": "static"},
    {"attention": "sdpa", "engine": "remote_code", "prefill_logits": "last"},
]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(PAGE, min_size=2, max_size=5),
    st.sampled_from(["stage", "module"]),
    st.sampled_from(SETTINGS),
    st.sampled_from(["h200", "gaudi3"]),
)
def test_columns_equal_points(model, pages, level, setting, device):
    """Of every kind: with and without tiles, of one page and of several, of one mode or mixed; also where all points cost the same."""
    device, pages = of.load_hardware(device), [replace(page, mode="gundam") for page in pages]
    frame = of.sweep(model, pages, level=level, hardware=device, **setting)
    points = pl.concat([of.estimate(model, page, **setting).on(device).frame(level) for page in pages])
    assert_frame_equal(frame, points, check_column_order=False, categorical_as_str=True, rel_tol=1e-9)


def test_modules_add_up_to_stages(model, h200):
    timing = of.estimate(model, of.Workload.from_grid(2, 2, batch_size=4), "eager").on(h200)
    modules = timing.modules
    by_stage = {stage: modules.filter(modules["stage"] == stage)["roofline_seconds"].sum() for stage in ("vision", "prefill", "decode")}
    assert by_stage == pytest.approx(dict(zip(timing.stages["stage"], timing.stages["roofline_seconds"], strict=True)), rel=1e-9)
    assert timing.ttft_seconds == pytest.approx(by_stage["vision"] + by_stage["prefill"])


def test_launch_overhead_is_charged_for_every_operator(model, h200):
    estimate = of.estimate(model, of.Workload.from_grid(1, 1, output_tokens=10), "sdpa")
    slower = estimate.on(h200, launch_seconds=1e-3)
    launches = sum(row["operators"] for stage, row in estimate.stage_numbers.items() if stage != "decode")
    assert slower.ttft_seconds - estimate.on(h200).ttft_seconds == pytest.approx(launches * 1e-3)
    assert slower.binding_ceilings["decode"] == "launch"


def test_decode_of_a_page_is_bound_by_bandwidth_and_a_fast_memory_moves_that(model, h200):
    estimate = of.estimate(model, of.Workload.from_grid(2, 3, batch_size=64), "flash")
    assert estimate.on(h200).binding_ceilings["decode"] == "bandwidth"
    faster = of.load_hardware("h200", ["hardware.memory_bandwidth_bytes_per_second=1e18"])
    assert estimate.on(faster).binding_ceilings["decode"] != "bandwidth"


def test_seconds_by_ceiling_sum_to_roofline(model, h200):
    estimate = of.estimate(model, of.Workload.from_grid(2, 3), "eager")
    group = estimate.stage_groups()[0]
    spent = seconds_by_ceiling(group, estimate.config, h200)
    assert spent.shape == (len(group.program.modules), len(CEILINGS), 1)
    assert spent.sum() == pytest.approx(estimate.on(h200).stages["roofline_seconds"][0])


def test_times_of_stages_that_were_not_asked_for_are_none(model, h200):
    decode = of.estimate(model, of.Workload.from_grid(1, 1), stages=["decode"]).on(h200)
    assert decode.ttft_seconds is None and decode.bound_ttft_seconds is None and decode.pages_per_second is None
    assert decode.tpot_seconds == of.estimate(model, of.Workload.from_grid(1, 1)).on(h200).tpot_seconds
    vision = of.estimate(model, of.Workload.from_grid(1, 1), stages=["vision"]).on(h200)
    assert vision.ttft_seconds is None and vision.tpot_seconds is None and vision.last_tpot_seconds is None
