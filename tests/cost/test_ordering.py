"""What must hold at every workload: flash <= sdpa <= eager, the growth of cache traffic, decode's intensity, expert weights."""

import numpy as np
import pytest

import ocr_flops as of
from ocr_flops.spec.tiling import rule_grids, square_grids

ENGINES = ("transformers", "remote_code")
ALL_ENGINES = (*ENGINES, "vllm", "sglang")
STRIPS = [(tiles, 1) for tiles in (10, 100, 1000)]
GRIDS = [(1, 1), *rule_grids(), *square_grids(1000), *STRIPS, *((rows, columns) for columns, rows in STRIPS)]
BATCHES = (1, 2, 3, 4, 8, 16, 31, 64)


def crossed(grids, batches, **rest):
    """Every grid at every batch size, as columns."""
    columns, rows = np.repeat(np.array(grids), len(batches), axis=0).T
    return of.Workload.from_grid(columns=columns.copy(), rows=rows.copy(), batch_size=np.tile(np.array(batches), len(grids)), **rest)


def check(model, workload, **options):
    eager, sdpa, flash = (of.estimate(model, workload, mode, **options).stage_numbers for mode in ("eager", "sdpa", "flash"))
    for stage in eager:
        for less, more in ((flash, sdpa), (sdpa, eager)):
            for column in ("io_bytes", "peak_activation_bytes"):
                wrong = np.flatnonzero(less[stage][column] > more[stage][column])
                assert not len(wrong), (stage, column, wrong[0])
            assert (less[stage]["tensor_flops"] == more[stage]["tensor_flops"]).all()
            assert (less[stage]["weight_io_bytes"] == more[stage]["weight_io_bytes"]).all()
    assert (sdpa["vision"]["io_bytes"] < eager["vision"]["io_bytes"]).all()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_modes_are_ordered_over_grids_and_batches(model, engine, cache):
    check(model, crossed(GRIDS, BATCHES), engine=engine, cache=cache)


@pytest.mark.parametrize("engine", ALL_ENGINES)
def test_modes_are_ordered_at_every_batch_of_the_rules_grids(model, engine):
    check(model, crossed([(1, 1), *rule_grids()], range(1, 65)), engine=engine)


@pytest.mark.parametrize(("points", "engine", "logits"), [
    *((3, *of) for of in (("transformers", "last"), ("remote_code", "all"), ("vllm", "all"), ("sglang", "last"))),
    *(pytest.param(25, engine, logits, marks=pytest.mark.verification) for engine in ALL_ENGINES for logits in ("all", "last")),
])  # fmt: skip
def test_modes_are_ordered_at_random_views_and_contexts(model, tiny, engine, logits, points):
    generator = np.random.default_rng(points)

    def numbers(least, most):
        return generator.integers(least, most, points)

    workload = of.Workload(
        16 * numbers(1, 100),
        16 * numbers(1, 80),
        numbers(1, 12),
        numbers(1, 12),
        numbers(0, 100_000),
        numbers(1, 5000),
        np.where(numbers(0, 2) > 0, 1, numbers(1, 65)),
    )
    for spec in (model, tiny):
        check(spec, workload, engine=engine, prefill_logits=logits)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("cache", "times"), [("static", 1), ("dynamic", 3)])
@pytest.mark.parametrize("attention", ["eager", "sdpa", "flash"])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_cache_traffic_of_a_step_grows_with_every_cached_token(model, engine, cache, times, attention, batch):
    prompts = np.array([10, 11, 12, 500, 501, 100_000, 100_001])
    workload = of.Workload.from_grid(2, 1, prompt_tokens=prompts, output_tokens=1, batch_size=batch)
    moved = of.estimate(model, workload, attention, engine=engine, cache=cache).stage_numbers["decode"]["kv_io_bytes"]
    assert (np.diff(moved) == np.diff(prompts) * times * batch * 61_440).all()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("attention", ["eager", "sdpa", "flash"])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_decode_of_a_page_does_about_one_flop_a_byte(model, engine, attention, cache):
    numbers = of.estimate(model, crossed([(1, 1), *rule_grids()], [1]), attention, engine=engine, cache=cache).stage_numbers["decode"]
    intensity = numbers["total_flops"] / numbers["io_bytes"]
    assert (intensity > 0.5).all() and (intensity < 2).all()


@pytest.mark.parametrize("engine", ALL_ENGINES)
@pytest.mark.parametrize("stage", ["prefill", "decode"])
def test_expert_weights_are_between_top_6_and_all_and_grow_with_tokens(model, engine, stage):
    most, expert = 20_000, 2 * 3 * 1280 * 896
    varying = np.arange(most)
    changed = {"prompt_tokens": varying} if stage == "prefill" else {"batch_size": 1 + varying}
    workload = of.Workload(64, output_tokens=1, **changed)
    moved = of.estimate(model, workload, engine=engine, stages=[stage]).module_numbers[stage, "decoder.routed_experts"]["weight_io_bytes"]
    assert (moved >= 11 * 6 * expert).all()
    assert (moved <= 11 * 64 * expert).all()
    assert (np.diff(moved) >= 0).all()
    assert moved[-1] == 11 * 64 * expert
    if stage == "decode":
        assert moved[0] == 11 * 6 * expert
