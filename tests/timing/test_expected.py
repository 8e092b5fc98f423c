"""Expected seconds: the closed form equals playing every operator; without a host and at the peaks they are the roofline."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ocr_flops as of
from ocr_flops.spec.catalog import load_host
from ocr_flops.timing import runs
from ocr_flops.timing.convex_sums import sum_convex
from ocr_flops.timing.expected import CASES, lanes_of
from ocr_flops.timing.timeline import timeline

MODEL = of.load_model()
GPUS = ("t4", "l4", "h20", "h200", "mi300x")
SLOW = of.load_hardware("l4")


def timed(engine="transformers", gpu="h200", host=None, attention="vendor", **workload):
    page = of.Workload.from_grid(**{"columns": 2, "rows": 3, "mode": "gundam", **workload})
    dtype = "fp16" if gpu == "t4" else "bf16"
    return of.estimate(MODEL, page, attention, engine=engine, dtype=dtype).on(of.load_hardware(gpu), host=host)


def ends(frame):
    """When the last of both lanes is done, and the device's seconds."""
    last = max(frame["kernel_end_seconds"].max(), frame["issue_end_seconds"].max())
    return last, (frame["kernel_end_seconds"] - frame["kernel_start_seconds"]).sum()


@pytest.mark.parametrize("engine", ["transformers", "remote_code", "vllm"])
@pytest.mark.parametrize("host", ["none", "eager", "graphs"])
@settings(max_examples=6, deadline=None)
@given(
    gpu=st.sampled_from(GPUS),
    columns=st.integers(1, 4),
    rows=st.integers(1, 4),
    prompt_tokens=st.integers(0, 3000),
    batch_size=st.integers(1, 9),
    output_tokens=st.integers(1, 3),
)
def test_the_closed_form_equals_a_replay(engine, host, gpu, **workload):
    attention = "sdpa" if engine == "vllm" else "vendor"  # its own kernel is not on all devices
    timing = timed(engine, gpu, host, attention, **workload)
    steps = [timed(engine, gpu, host, attention, **{**workload, "output_tokens": step}) for step in range(1, workload["output_tokens"] + 1)]
    for case, name in zip(CASES, ("expected_seconds", "expected_low_seconds", "expected_high_seconds"), strict=True):
        for stage, seconds, share in timing.stages.select("stage", name, "device_busy_share").iter_rows():
            played = [timeline(one, stage, case) for one in (steps if stage == "decode" else [timing])]
            own = 1e-6 * getattr(timing.host.step_us, case) * len(played) if stage == "decode" else 0.0
            assert seconds == pytest.approx(sum(ends(one)[0] for one in played) + own, rel=1e-9)
            if case == "value":
                assert share * seconds == pytest.approx(sum(ends(one)[1] for one in played), rel=1e-9)


@pytest.mark.parametrize("engine", ["transformers", "remote_code", "vllm"])
def test_every_launch_is_played(engine):
    timing = timed(engine, batch_size=2, output_tokens=1)
    for stage, operators in timing.stages.select("stage", "operators").iter_rows():
        assert timeline(timing, stage).height == operators


@pytest.mark.parametrize("engine", ["transformers", "remote_code", "vllm"])
def test_without_a_host_and_at_the_peaks_it_is_the_roofline(engine):
    page = of.Workload.from_grid(columns=3, rows=2, batch_size=3, output_tokens=777)
    stages = of.estimate(MODEL, page, "eager", engine=engine).on(SLOW, host="none", efficiency="peak").stages
    np.testing.assert_allclose(stages["expected_seconds"], stages["roofline_seconds"], rtol=1e-12)


def test_the_host_hides_what_a_fast_device_saves():
    slow, fast = (timed(gpu=gpu, output_tokens=64) for gpu in ("l4", "h200"))
    step = 786 * 11e-6  # operators of a step, us each
    assert fast.expected_tpot.value == pytest.approx(step + 300e-6, rel=0.02)
    assert fast.device_busy_share < 0.5 < slow.device_busy_share
    graphs = timed(host="graphs", output_tokens=64)
    assert graphs.expected_tpot.high < fast.expected_tpot.low
    assert fast.time_basis != graphs.time_basis


def test_many_points_are_the_points_one_by_one(monkeypatch):
    random = np.random.default_rng(3)
    columns, rows, batch, tokens, prompt = random.integers([[1], [1], [1], [0], [0]], [[9], [9], [33], [3000], [9000]], (5, 300))
    pages = of.Workload.from_grid(columns, rows, "gundam", batch_size=batch, output_tokens=tokens, prompt_tokens=prompt)
    for engine in ("transformers", "remote_code"):
        estimate = of.estimate(MODEL, pages, engine=engine)
        together = estimate.on(SLOW).stages
        monkeypatch.setattr(runs, "NARROW_FROM", 10**9)
        alone = estimate.on(SLOW).stages
        monkeypatch.undo()
        for name in ("expected_seconds", "expected_low_seconds", "expected_high_seconds", "device_busy_share"):
            np.testing.assert_allclose(together[name], alone[name], rtol=1e-12)
        assert (alone["roofline_seconds"] <= alone["expected_low_seconds"] * (1 + 1e-12)).all()
        assert (alone["expected_low_seconds"] <= alone["expected_seconds"]).all()
        assert (alone["expected_seconds"] <= alone["expected_high_seconds"]).all()


def test_modules_share_the_critical_path():
    for host in ("none", "eager", "graphs"):
        timing = timed("remote_code", "l4", host, output_tokens=300)
        rest = {"decode": 300 * 1e-6 * (timing.host.step_us.value + (timing.host.launch_us.value if host == "graphs" else 0))}
        for (stage,), modules in timing.modules.group_by("stage"):
            whole = timing.stages.filter(stage=stage)["expected_seconds"][0]
            assert modules["expected_seconds"].sum() == pytest.approx(whole - rest.get(stage, 0), rel=1e-9)
            assert modules["expected_low_seconds"].null_count() == modules.height
            issuing = modules["expected_host_seconds"]
            assert ((issuing >= 0) & (issuing <= modules["expected_seconds"])).all() and bool(issuing.sum()) is (
                host != "none" and not (host == "graphs" and stage == "decode")
            )


def test_kernels_that_the_host_hides_have_no_part_in_their_module():
    timing = timed(gpu="l4", output_tokens=100)
    row = next(row for row in timing.modules.to_dicts() if (row["stage"], row["module"]) == ("decode", "decoder.dense_mlp"))
    assert row["expected_host_seconds"] == row["expected_seconds"] < row["bound_seconds"] < row["roofline_seconds"]
    whole = timing.stages.row(by_predicate=pl.col("stage") == "decode", named=True)
    assert whole["bound_seconds"] < whole["expected_low_seconds"]


def test_sums_of_convex_functions_are_exact():
    random = np.random.default_rng(5)
    slopes, offsets = random.random((5, 4)), random.random((5, 4)) * 300
    first, last = np.array([1, 7, 5, 40, 100, 3, 9]), np.array([900, 7, 4, 2000, 101, 2, 2500])
    number = np.array([0, 1, 2, 3, 3, 0, 3])  # points share functions

    def largest(x, functions):
        return (slopes[:, functions] * x + offsets[:, functions]).max(axis=0)[None]

    def add_up(i):
        return sum(largest(np.array([x]), number[i : i + 1])[0, 0] for x in range(first[i], last[i] + 1))

    for bends in (np.empty((0, 4)), np.array([[300.0, 7, 4, 700.5], [1e9, -1, 5, 41]])):
        expected = [add_up(i) for i in range(len(number))]
        np.testing.assert_allclose(sum_convex(largest, number, first, last, bends)[0], expected, rtol=1e-12)
        for i in range(len(number)):
            alone = sum_convex(
                lambda x, of, i=i: largest(x, number[i : i + 1][of]),
                np.zeros(1, int),
                *(one[i : i + 1] for one in (first, last)),
                bends[:, number[i : i + 1]],
            )
            np.testing.assert_allclose(alone[0], expected[i], rtol=1e-12)


def test_given_figures_are_exact_and_change_what_they_are_of():
    host = load_host("eager").with_figures(operator_us=20, launch_us=0, step_us=0)
    found = timed(host=host, output_tokens=16).expected_tpot
    assert found.value == pytest.approx(786 * 20e-6, rel=0.02)
    with pytest.raises(of.SpecError, match="host: 'pages' is not one of operator_us"):
        host.with_figures(pages=1)
    assert lanes_of.cache_info().hits


def test_a_measured_host_is_handed_over_with_its_figures():
    with pytest.raises(of.SpecError, match="host: 'measured' has no figures"):
        timed(host="measured")
    assert timed(host=of.measured_host(), output_tokens=4).host.operator_us.high > 0


@pytest.mark.parametrize("engine", ["transformers", "remote_code", "vllm"])
def test_a_host_that_waits_for_every_kernel_adds_both_lanes(engine):
    waiting = replace(load_host("eager"), waits=True)
    pages = [of.Workload.from_grid(1, 1, "tiny", batch_size=7, output_tokens=0), of.Workload.from_grid(2, 3, output_tokens=40)]
    timing = of.estimate(MODEL, of.Workload.stack(pages), engine=engine).on(of.load_hardware("l4"), host=waiting)
    for stage in ("vision", "prefill", "decode"):
        operators, steps = timing.estimate.stage_numbers[stage]["operators"], np.array([0, 40]) * (stage == "decode")
        plain = 1 if stage == "vision" else timing.estimate.config.engine.host_operators.value
        both = timing.lane_seconds(stage, "device") + (4e-6 + 7e-6 * plain) * operators + 300e-6 * steps
        np.testing.assert_allclose(timing.lane_seconds(stage, "expected"), both, rtol=1e-9)
