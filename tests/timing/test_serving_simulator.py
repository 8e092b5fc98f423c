"""The step simulator against the steady state, and against what must hold whatever the times are."""

import numpy as np
import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import ocr_flops as of
from ocr_flops.errors import SpecError
from ocr_flops.timing.serving.simulator import simulate
from ocr_flops.timing.serving.steady import prepare
from ocr_flops.timing.serving.targets import Promise, best_budget, best_rate, command_line, count_gpus, longest_output
from ocr_flops.timing.serving.traffic import Lengths, Traffic, draw_traffic, read_trace

PAGE = of.Workload.from_grid(2, 3, output_tokens=400)


@pytest.fixture(scope="module")
def l4():
    return prepare(of.load_model(), PAGE, "l4")


def middle(values):
    """The mean of what came neither first nor last, when the engine fills and empties."""
    return values[int(0.2 * len(values)) : int(0.85 * len(values))].mean()


def a_token(run):
    """Seconds of each later token."""
    return middle(run.total_seconds - run.ttft_seconds) / middle(run.output_tokens - 1)


@settings(max_examples=80, deadline=None, derandomize=True, phases=(Phase.generate,))
@given(
    gpu=st.sampled_from(["l4", "a10", "a100_40gb", "h100_sxm", "mi300x"]),
    engine=st.sampled_from(["vllm", "sglang"]),
    output=st.integers(3, 1500),
    spread=st.floats(1.2, 2.5),
    grid=st.sampled_from([(1, 1), (1, 2), (2, 3)]),
    options=st.fixed_dictionaries(
        {
            "max_num_batched_tokens": st.sampled_from([None, 2048, 8192]),
            "ngram_ban": st.booleans(),
            "preprocess_workers": st.sampled_from([1, 4, 16, 64]),
        }
    ),
    flying=st.integers(1, 60),
    load=st.one_of(st.none(), st.floats(0.1, 0.6)),
)
def test_steady_state_and_simulation_agree_unless_it_is_rough(gpu, engine, output, spread, grid, options, flying, load):
    """Within 5 % (of fewer than 100 tokens 10 %) where lengths differ and nothing is sent away."""
    server = prepare(of.load_model(), of.Workload.from_grid(*grid, output_tokens=output), gpu, engine=engine, options=options)
    count, lengths = max(1500, 30 * flying) if load is None else 4000, Lengths(output, p95=spread * output)
    rate = None if load is None else load * float(server.capacity[0, 0])
    traffic = draw_traffic(count, lengths, rate=rate, concurrency=flying)
    steady = server.with_lengths(traffic.output_tokens, traffic.kinds).solve(traffic.concurrency or None, traffic.rate)
    if steady.is_rough:
        return
    run, near = simulate(server, traffic), 0.05 if output >= 100 else 0.1
    assert run.preemptions == 0
    assert run.requests_per_second == pytest.approx(steady.requests_per_second.value, rel=near)
    assert a_token(run) == pytest.approx(steady.tpot_seconds.value, rel=near)
    if load is not None:
        assert middle(run.ttft_seconds) == pytest.approx(steady.ttft_seconds.value, rel=0.1)


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize(("gpu", "output", "prompt"), [("h100_sxm", 5, 10), ("h20", 20, 10), ("l4", 300, 10), ("a10", 20, 2000)])
def test_one_request_in_flight_is_as_played(gpu, output, prompt, engine):
    """Also where its prompt takes several steps; others are not in its range."""
    page = of.Workload.from_grid(2, 3, output_tokens=output, prompt_tokens=prompt)
    server = prepare(of.load_model(), page, gpu, engine=engine, options={"max_num_batched_tokens": 2048})
    run, found = simulate(server, draw_traffic(40, Lengths(output), concurrency=1)), server.solve(1)
    assert found.ttft_seconds.value == pytest.approx(run.ttft_seconds[5], rel=1e-9)
    assert found.tpot_seconds.value == pytest.approx(run.tpot_seconds[5], rel=1e-3)
    assert found.tpot_seconds.high < 2 * found.tpot_seconds.value and not found.is_rough


@pytest.mark.parametrize(
    ("gpu", "grid", "output", "engine", "workers", "flying"),
    [("h100_sxm", (1, 1), 131, "vllm", 4, 53), ("h100_sxm", (2, 3), 14, "sglang", 16, 38), ("h100_sxm", (2, 3), 830, "vllm", 1, 41)],
)
def test_what_means_do_not_know_is_called_rough(gpu, grid, output, engine, workers, flying):
    page = of.Workload.from_grid(*grid, output_tokens=output)
    server = prepare(of.load_model(), page, gpu, engine=engine, options={"preprocess_workers": workers})
    assert server.solve(flying).is_rough and not server.solve(1).is_rough


def test_prompts_above_the_token_budget_are_called_rough():
    """They take several steps, and those that run wait for each."""
    page = of.Workload.from_grid(1, 2, output_tokens=800, prompt_tokens=2000)
    options = [{"max_num_batched_tokens": budget, "preprocess_workers": 64} for budget in (2048, 8192)]
    servers = [prepare(of.load_model(), page, "h20", engine="sglang", options=one) for one in options]
    assert [[one.solve(2).is_rough, one.solve(rate=1.0).is_rough] for one in servers] == [[True, True], [False, False]]


@pytest.mark.parametrize(("gpu", "output"), [("l4", 800), ("a10", 800), ("a100_40gb", 2500)])
def test_requests_of_one_length_agree_until_they_fill_the_cache(gpu, output):
    server = prepare(of.load_model(), of.Workload.from_grid(2, 3, output_tokens=output), gpu, options={"preprocess_workers": 16})
    for flying in (64, int(0.95 * server.max_concurrency), server.max_concurrency):
        run, steady = simulate(server, draw_traffic(1500, Lengths(output), concurrency=flying)), server.solve(flying)
        assert steady.is_rough == (run.preemptions > 0)
        assert steady.is_rough or middle(run.ttft_seconds) == pytest.approx(steady.ttft_seconds.value, rel=0.15)


@pytest.mark.parametrize(("output", "options", "near"), [(3, {}, 0.1), (30, {}, 0.05), (400, {"max_num_seqs": 16}, 0.05)])
def test_short_outputs_and_few_places_are_as_simulated(output, options, near):
    """Little is decoded between long steps; where few run at once, requests wait for one of them to end."""
    server = prepare(of.load_model(), PAGE, "l4", options={"preprocess_workers": 16, **options})
    traffic = draw_traffic(6000, Lengths(output, p95=1.6 * output), rate=0.8 * float(server.capacity[0, 0]))
    run = simulate(server, traffic)
    steady = server.with_lengths(traffic.output_tokens, traffic.kinds).solve(rate=traffic.rate)
    assert a_token(run) == pytest.approx(steady.tpot_seconds.value, rel=near)
    assert middle(run.ttft_seconds) == pytest.approx(steady.ttft_seconds.value, rel=0.5 if options else 0.15)
    assert steady.is_rough


@pytest.mark.parametrize(("output", "budget", "sequences"), [(1, 512, 64), (30, 512, 8), (200, 512, 64), (30, 2048, 64)])
def test_a_full_engine_delivers_its_capacity(output, budget, sequences):
    """Also where a prompt takes several steps."""
    page = of.Workload.from_grid(2, 3, "gundam_m", output_tokens=output)
    options = {"max_num_batched_tokens": budget, "max_num_seqs": sequences, "preprocess_workers": 64}
    server = prepare(of.load_model(), page, "l4", options=options)
    run = simulate(server, draw_traffic(1500, Lengths(output), concurrency=2 * sequences))
    assert run.requests_per_second == pytest.approx(server.capacity[0, 0], rel=0.03)
    assert server.solve(np.arange(1, sequences + 1)).requests_per_second.value.max() <= server.capacity[0, 0] * (1 + 1e-9)


def test_whole_prompts_have_to_fit_beside_those_that_run():
    page = of.Workload.from_grid(mode="large", output_tokens=400)
    server = prepare(
        of.load_model(), page, "l40s", options={"max_num_batched_tokens": 512, "chunked_prefill": False, "preprocess_workers": 4}
    )
    assert server.max_concurrency == 512 - page.context_tokens + 1 and server.solve(200).limited_by == "token budget"
    run = simulate(server, draw_traffic(2000, Lengths(400, p95=700), concurrency=200))
    assert run.requests_per_second == pytest.approx(server.capacity[0, 0], rel=0.05)


def test_capacity_does_not_depend_on_the_seed_and_a_seed_repeats_a_run(l4):
    served, first = [], []
    for seed in (1, 2, 1):
        run = simulate(l4, draw_traffic(3000, Lengths(400, p95=900), rate=100.0, seed=seed))
        served.append(run.requests_per_second)
        first.append(run.ttft_seconds)
    assert served[0] == pytest.approx(served[1], rel=0.03)
    assert np.array_equal(first[0], first[2]) and not np.array_equal(first[0], first[1])


@settings(max_examples=15, deadline=None)
@given(
    memory=st.floats(8.9e9, 12e9),
    output=st.integers(1, 600),
    block=st.sampled_from([1, 16, 256]),
    chunked=st.booleans(),
    sequences=st.integers(1, 64),
    pattern=st.sampled_from(["poisson", "constant", "bursts"]),
    rate=st.floats(0.2, 20.0),
)
def test_every_request_is_served_whole(memory, output, block, chunked, sequences, pattern, rate):
    """Whatever is sent away comes back: all requests end, each after its first token, and the cache is never more than full."""
    device = of.load_hardware("l4", (f"hardware.memory_bytes={memory:.0f}",))
    options = {"block_size": block, "chunked_prefill": chunked, "max_num_seqs": sequences, "max_num_batched_tokens": 1024}
    server = prepare(of.load_model(), PAGE, device, options=options)
    traffic = draw_traffic(150, Lengths(output, loops=0.1, limit=max(600, output)), rate=rate, pattern=pattern)
    run = simulate(server, traffic)
    assert len(run.finished) == 150 and np.isfinite(run.ttft_seconds).all()
    assert (run.ttft_seconds > 0).all() and (run.total_seconds >= run.ttft_seconds).all()
    assert run.samples["cache_share"].is_between(0, 1).all() and run.samples["running"].max() <= sequences
    assert run.busy_seconds <= run.seconds * (1 + 1e-9)


def test_a_full_cache_sends_the_youngest_away():
    device = of.load_hardware("l4", ("hardware.memory_bytes=9e9",))
    small = prepare(of.load_model(), PAGE, device, options={"max_num_seqs": 64})
    run = simulate(small, draw_traffic(300, Lengths(400), concurrency=64))
    assert run.preemptions > 0 and run.samples["cache_share"].max() > 0.95
    with pytest.raises(SpecError, match="does not fit the cache"):
        simulate(small, draw_traffic(10, Lengths(400, loops=1.0, limit=100_000), concurrency=1))


def test_pages_that_are_not_cut_yet_wait_too(l4):
    come = Traffic(np.full(200, 5.0), 0, np.full(200, 10), np.zeros(200, np.int64))
    assert simulate(l4, come).samples["waiting"].max() > 190
    flying = simulate(l4, draw_traffic(200, Lengths(10), concurrency=20)).samples
    assert flying["waiting"].max() > 15 and (flying["waiting"] + flying["running"]).max() <= 20


def test_the_rate_of_a_trace_is_taken_between_its_arrivals():
    come = Traffic(np.array([0.0, 1.0, 2.0, 3.0]), 0, np.ones(4, np.int64), np.zeros(4, np.int64))
    assert come.rate == 1 and come.split(2).rate == 0.5


def test_what_is_done_is_kept_when_it_is_stopped(l4):
    def stop(done, total):
        raise KeyboardInterrupt

    run = simulate(l4, draw_traffic(8000, Lengths(10), rate=2.0), stop)
    assert 5000 <= len(run.finished) < 8000 == run.requested


@pytest.mark.parametrize(("name", "write"), [("trace.csv", pl.DataFrame.write_csv), ("trace.parquet", pl.DataFrame.write_parquet)])
def test_a_trace_is_read(l4, tmp_path, name, write):
    write(pl.DataFrame({"arrival_seconds": [5.0, 3.0, 4.0], "output_tokens": [7, 100, 9000]}), tmp_path / name)
    traffic = read_trace(tmp_path / name, Lengths(1))
    assert traffic.arrivals.tolist() == [0.0, 1.0, 2.0] and traffic.output_tokens.tolist() == [100, 8192, 7]
    assert len(simulate(l4, traffic).finished) == 3
    assert traffic.split(2).arrivals.tolist() == [0.0, 2.0] and traffic.split(2).output_tokens.tolist() == [100, 7]


@pytest.mark.parametrize(
    ("text", "message"), [("a\n1\n", "no rows with a column"), ("arrival_seconds\nx\n", "no numbers"), ("", "trace.csv")]
)
def test_a_bad_trace_is_refused(tmp_path, text, message):
    (tmp_path / "trace.csv").write_text(text)
    with pytest.raises(SpecError, match=message):
        read_trace(tmp_path / "trace.csv", Lengths(1))


def test_drawn_lengths_have_the_mean_the_p95_the_quantiles_and_the_loops_asked_for():
    random = np.random.default_rng(0)
    drawn = Lengths(800, p95=2000, limit=100_000).draw(200_000, random)
    assert drawn.mean() == pytest.approx(800, rel=0.02) and np.percentile(drawn, 95) == pytest.approx(2000, rel=0.02)
    drawn = Lengths(800, quantiles=((0.0, 10), (0.5, 100), (1.0, 200))).draw(10_000, random)
    assert np.median(drawn) == pytest.approx(100, rel=0.05) and (drawn.min(), drawn.max()) == (10, 200)
    assert (Lengths(800, loops=0.25, limit=4096).draw(10_000, random) == 4096).mean() == pytest.approx(0.25, abs=0.02)
    for wrong in ({"p95": 700}, {"p95": 9000}, {"loops": 2}, {"limit": 10}, {"quantiles": ((0.5, 3), (0.2, 4))}):
        with pytest.raises(SpecError):
            Lengths(800, **wrong)


def test_targets_are_kept_where_they_can_be(l4):
    loose, tight = (best_rate(l4, Lengths(400), Promise(ttft)) for ttft in (5.0, 0.45))
    assert 0 < tight.rate.value < loose.rate.value <= 0.96 * l4.capacity[0, 0] and tight.by_promise
    assert tight.ttft_p95 <= 0.45
    near = best_rate(l4, Lengths(400), Promise(5.0), requests=2000, cases=1, others=2)
    assert near.by_seed[0] == (near.ttft_p95, near.tpot_p95) and len({*near.by_seed}) == 3 and not loose.by_seed
    none = best_rate(l4, Lengths(400), Promise(1e-3), requests=500, others=2)
    assert none.rate.value == 0 and not none.by_seed and none.ttft_p95 > 0.2 and none.limited_by == "ttft_p95"
    rows = count_gpus([l4, prepare(of.load_model(), PAGE, "a100_40gb")], 10.0, Lengths(400), Promise(5.0))
    assert [row["hardware"] for row in rows] == ["a100_40gb", "l4"] and rows[0]["gpus"] < rows[1]["gpus"]


def test_the_best_token_budget_keeps_a_target_as_simulated(l4):
    asked = (Lengths(400), Promise(0.35), 0, 1000)
    own, best = (best_rate(one, *asked) for one in (l4, best_budget(l4, *asked)))
    assert best.rate.value >= own.rate.value and best.ttft_p95 <= 0.35


def test_the_longest_output_fills_the_cache_and_the_command_names_the_options(l4):
    longest = longest_output(l4, 100)
    blocks = -(-(PAGE.context_tokens + longest - 1) // 16)
    assert 100 * blocks <= l4.pool.blocks < 100 * (blocks + 1)
    assert "--max-num-seqs 37" in command_line(l4, 37) and "--max-num-seqs 256" in command_line(l4, 5000)
    assert "--gpu-memory-utilization 0.92" in command_line(l4)
