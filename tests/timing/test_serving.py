"""Steady state of serving: laws it must keep, limits it must say."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ocr_flops as of
from ocr_flops.cost.engines.base import ENGINES
from ocr_flops.errors import SpecError
from ocr_flops.spec.serving import cutting_part
from ocr_flops.timing.serving.simulator import simulate
from ocr_flops.timing.serving.steady import Server, prepare, solve_each
from ocr_flops.timing.serving.traffic import Lengths, draw_traffic

PAGE = of.Workload.from_grid(2, 3, output_tokens=800)
GPUS = ("l4", "a10", "a100_40gb", "h100_sxm", "mi300x")


@pytest.fixture(scope="module")
def model():
    return of.load_model()


def test_figures_of_a_concurrency_follow_littles_law(model):
    found = of.serving(model, PAGE, "a100_40gb", concurrency=np.array([1, 7, 64, 200]))
    seconds = found.ttft_seconds.value + (PAGE.output_tokens - 1) * found.tpot_seconds.value
    assert found.requests_per_second.value * seconds == pytest.approx(found.concurrency, rel=1e-3)
    assert found.output_tokens_per_second.value == pytest.approx(800 * found.requests_per_second.value)
    assert (np.diff(found.requests_per_second.value) > 0).all() and (np.diff(found.tpot_seconds.value) > 0).all()


def test_columns_of_one_request_in_flight_are_as_long_as_asked(model):
    page = of.Workload.from_grid(2, 3, output_tokens=1)
    found = of.serving(model, page, "l4", concurrency=[1, 2], options={"max_num_seqs": 1})
    assert found.ttft_seconds.value.tolist() == [of.serving(model, page, "l4", concurrency=1).ttft_seconds.value] * 2


def test_a_rate_is_served_as_long_as_it_is_below_capacity(model):
    found = of.serving(model, PAGE, "l4", rate=np.array([0.01, 1.0, 5.0]))
    assert found.is_stable.tolist() == [True, True, False]
    assert found.requests_per_second.value[:2] == pytest.approx([0.01, 1.0], rel=1e-3)
    assert found.requests_per_second.value[2] == pytest.approx(found.capacity_per_second.value[2], rel=1e-3)
    assert np.isnan(found.ttft_seconds.value[2]) and found.ttft_seconds.value[0] < found.ttft_seconds.value[1]


def test_one_request_takes_what_one_page_takes(model):
    """Without other requests, serving is the estimate of that page: vision, a prefill, decode steps."""
    options = {"preprocess_ms": 0, "ngram_ban": False}
    found = of.serving(model, PAGE, "l4", concurrency=1, options=options)
    alone = of.estimate(model, PAGE, engine="vllm").on("l4")
    assert found.tpot_seconds.value == pytest.approx(alone.expected_tpot.value, rel=0.02)
    assert found.ttft_seconds.value == pytest.approx(alone.expected_ttft.value, rel=0.02)


def test_what_is_beyond_a_limit_is_clipped_and_said(model):
    found = of.serving(model, PAGE, "l4", concurrency=5000)
    assert (found.concurrency, found.limited_by) == (found.max_concurrency, "cache")
    few = of.serving(model, PAGE, "l4", concurrency=5000, options={"max_num_seqs": 8})
    assert (few.concurrency, few.limited_by) == (8, "sequences")
    assert repr(few).startswith("Serving(vllm on 1 x l4: ") and repr(few).endswith(" pages a day)") and "<table" in few._repr_html_()
    slow = of.serving(model, PAGE, "h100_sxm", concurrency=500, options={"preprocess_ms": 500})
    assert slow.limited_by == "preprocessing" and slow.requests_per_second.value == pytest.approx(2.0, rel=0.02)
    short = of.serving(model, of.Workload.from_grid(2, 3, output_tokens=2), "h100_sxm", concurrency=64, options={"preprocess_ms": 0})
    assert short.limited_by == "token budget"


def test_parts_are_of_a_step_also_where_hardly_anyone_comes(model):
    found = of.serving(model, PAGE, "l4", rate=np.array([0.001, 0.05, 0.1, 1.0]))
    assert found.step_parts.sum(axis=0) == pytest.approx(found.step_seconds.value, rel=0.01)
    assert (found.step_parts[2] > 0.7 * found.step_seconds.value)[:2].all() and found.device_busy_share[0] < 0.02


def test_cutting_limits_also_beyond_what_runs_at_once(model):
    tiny = of.Workload.from_grid(mode="tiny", output_tokens=256)
    assert of.serving(model, tiny, "h100_sxm", concurrency=5000).limited_by == "preprocessing"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hardware": of.load_hardware("l4", ("hardware.memory_bytes=7e9",))}, "are missing"),
        ({"concurrency": 0}, "concurrency: 0"),
        ({"rate": -1.0}, "rate: -1.0"),
        ({"concurrency": 1, "rate": 1.0}, "not both"),
        ({"engine": "transformers"}, "does not batch continuously"),
        ({"replicas": 0}, "replicas: 0"),
        ({"options": {"max_num_seq": 3}}, "max_num_seq"),
        ({"options": {"gpu_memory_utilization": 1.2}}, "gpu_memory_utilization: 1.2"),
        ({"workload": of.Workload.from_grid(2, 3, output_tokens=0)}, "output_tokens"),
        ({"workload": 3}, "workload: a request is one page"),
    ],
)
def test_a_wrong_value_is_named(model, change, message):
    with pytest.raises(SpecError, match=message):
        of.serving(**{"model": model, "workload": PAGE, "hardware": "l4", **change})


def test_defaults_are_those_of_the_engine_on_the_device():
    chosen = [ENGINES.find("vllm").serving_options(of.load_hardware(name)) for name in ("l4", "a100_80gb_sxm", "h100_sxm")]
    assert [(one["max_num_batched_tokens"], one["max_num_seqs"]) for one in chosen] == [(2048, 256), (2048, 256), (8192, 1024)]
    assert ENGINES.find("sglang").serving_options(of.load_hardware("h100_sxm"))["max_num_batched_tokens"] == 8192


def test_replicas_and_mixes_add_up(model):
    one, eight = (of.serving(model, PAGE, "l4", concurrency=32, replicas=count) for count in (1, 8))
    assert eight.pages_per_day[:3] == pytest.approx((8 * one.pages_per_day)[:3])
    small = of.Workload.from_grid(mode="base", output_tokens=200)
    pages = [of.serving(model, kind, "l4", concurrency=32).pages_per_day.value for kind in (PAGE, [PAGE, small], small)]
    assert pages[0] < pages[1] < pages[2]


@settings(max_examples=25, deadline=None)
@given(
    gpu=st.sampled_from(GPUS),
    engine=st.sampled_from(["vllm", "sglang"]),
    concurrency=st.one_of(st.integers(1, 8), st.integers(9, 300)),
    output=st.one_of(st.integers(1, 30), st.integers(31, 4000)),
    prompt=st.sampled_from([10, 2000]),
    budget=st.integers(1024, 16384),
    workers=st.sampled_from([1, 4, 16]),
    factor=st.floats(1.05, 4.0),
    figure=st.sampled_from(["memory_bandwidth_bytes_per_second", "memory_bytes", "vector_fp32_flops_per_second", "matrix"]),
)
def test_more_of_a_device_never_delivers_less(gpu, engine, concurrency, output, prompt, budget, workers, factor, figure):
    """Expected, at best and at worst; memory that is not needed changes nothing."""
    device = of.load_hardware(gpu)
    page = of.Workload.from_grid(2, 3, output_tokens=output, prompt_tokens=prompt)
    if figure == "matrix":
        better = device.edited("bf16", matrix_flops_per_second=factor * device.matrix_peak("bf16"))
    else:
        better = device.edited("bf16", **{figure: factor * getattr(device, figure)})
    options = {"max_num_batched_tokens": budget, "max_num_seqs": 256, "preprocess_workers": workers}
    less, more = (prepare(of.load_model(), page, one, engine=engine, options=options) for one in (device, better))
    found, grown = (one.solve(concurrency) for one in (less, more))
    delivered, then = (np.array(one.requests_per_second[:3], float) for one in (found, grown))
    is_fuller = more.max_concurrency > less.max_concurrency  # whose experts' rows may fill one more block
    near = 2e-2 if found.is_rough or grown.is_rough else 5e-3 if is_fuller and concurrency > less.max_concurrency else 1e-5
    assert (then >= delivered * (1 - near)).all()
    assert (more.capacity >= less.capacity * (1 - (5e-3 if is_fuller else 1e-9))).all()
    if figure == "memory_bytes" and concurrency <= less.max_concurrency // 2:
        assert then == pytest.approx(delivered, rel=1e-9)


def test_kinds_of_pages_that_are_solved_together_are_what_each_is_alone(model):
    asked = (("tiny", 10, 300), ("large", 1505, 300), ("gundam_m", 3000, 300), ("base", 10, 1))  # of a budget of 2048 tokens
    pages = [of.Workload.from_grid(mode=of.load_mode(mode), prompt_tokens=prompt, output_tokens=out) for mode, prompt, out in asked]
    served = prepare(model, pages, "rtx_4090").served
    for page, rate, seconds in zip(served.pages, *solve_each(served), strict=True):
        alone = Server(replace(served, pages=(page._replace(weight=1.0),)))
        found = alone.solve([alone.max_concurrency, 1])
        assert rate == pytest.approx(found.pages_per_second.value[0], rel=1e-12)
        assert seconds.value == pytest.approx(found.ttft_seconds.value[1] + alone.later * found.tpot_seconds.value[1], rel=1e-12)


def test_steps_that_do_not_settle_are_neither_of_the_two_between_which_they_swing():
    page = of.Workload.from_grid(2, 2, output_tokens=5, prompt_tokens=100)
    options = {"max_num_batched_tokens": 12314, "preprocess_workers": 4}
    server = prepare(of.load_model(), page, "h20", engine="sglang", options=options)
    played = [simulate(server, draw_traffic(3000, Lengths(5.0), concurrency=one)).requests_per_second for one in (20, 28, 40)]
    np.testing.assert_allclose(server.solve([20, 28, 40]).requests_per_second.value, played, rtol=0.1)


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("workers", [1, 4, 16])
def test_a_prompt_above_the_token_budget_takes_several_steps(model, gpu, workers):
    page = of.Workload.from_grid(3, 3, "gundam_m", prompt_tokens=2000, output_tokens=20)
    options = {"preprocess_workers": workers, "max_num_batched_tokens": 2048, "max_num_seqs": 256}
    server = prepare(model, page, gpu, options=options)
    found = server.solve([1, 2, 5, 8, 30, 200])
    requests = found.requests_per_second
    assert (np.diff(requests.value) > -1e-9).all() and (requests.value <= server.capacity[0, 0] * (1 + 1e-9)).all()
    for one in (requests, found.step_seconds, found.tpot_seconds, found.ttft_seconds, server.solve(rate=[0.1, 0.5]).ttft_seconds):
        assert (one.low > 0).all() and (one.low <= one.value).all() and (one.value <= one.high).all()


def test_what_limits_is_the_same_of_a_concurrency_and_of_a_rate(model):
    for output, limit in ((2, "token budget"), (800, "cache")):
        server = prepare(model, of.Workload.from_grid(2, 3, output_tokens=output), "l4", options={"preprocess_workers": 64})
        assert server.solve(server.max_concurrency).limited_by == server.solve(rate=1.0).limited_by == limit


def test_ranges_have_two_sides_where_cutting_pages_limits(model):
    found = of.serving(model, of.Workload.from_grid(mode="tiny", output_tokens=256), "h100_sxm", concurrency=200)
    assert found.limited_by == "preprocessing"
    for figure in (found.tpot_seconds, found.ttft_seconds, found.requests_per_second, found.step_seconds):
        assert figure.low < figure.value < figure.high


def test_pages_of_fewer_pixels_are_cut_in_less_time(model):
    part = {mode: cutting_part(of.Workload.from_image(1654, 2339, mode)) for mode in ("tiny", "base", "gundam")}
    assert part["gundam"] == 1 and 0.29 < part["tiny"] < 0.42 and 0.37 < part["base"] < 0.5
    assert cutting_part(of.Workload.from_image(3308, 4678, "tiny")) > 2 * part["tiny"]
    tiny = of.serving(model, of.Workload.from_image(1654, 2339, "tiny", output_tokens=1), "h200", concurrency=500)
    assert tiny.requests_per_second.value == pytest.approx(1 / (0.14 * part["tiny"]), rel=0.03)


@pytest.mark.parametrize(("gpu", "is_hidden"), [("h200", True), ("l4", False)])
def test_attention_fills_the_time_in_which_the_device_waits_for_the_host(model, gpu, is_hidden):
    times = prepare(model, PAGE, gpu).times
    sequences, context, tokens = (np.full((len(times.ban), 1), number) for number in (200.0, 1200.0, 913.0))
    mixed = times.mixed(*times.alone(sequences, context), sequences, tokens)
    forward, _ = times.forward_seconds(1113, 0)
    assert (mixed[0, 0, 0] == pytest.approx(forward[1113])) == is_hidden
    assert mixed[0, 0, 0] >= max(forward[1113], mixed[1, 0, 0]) * (1 - 1e-9)
