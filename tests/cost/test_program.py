"""Compiled polynomials equal the same tape run on plain integers, at one point and in columns."""

from importlib import import_module

import numpy as np
import pytest

import ocr_flops as of
from ocr_flops.cost.polynomial import evaluate, product
from ocr_flops.cost.program import Program, greatest
from ocr_flops.cost.run_config import RunConfig
from ocr_flops.cost.tape import COSTS, Tape

ATTENTION = ("eager", "sdpa", "flash")
SIZES = {
    "batch": 3,
    "tiles": 6,
    "tokens": 37,
    "context": 41,
    "image_tokens": 29,
    "tile_queries": 600,
    "tile_rows": 30,
    "gathered_queries": 600,
    "gathers": 1,
    "expert_rows": 5,
    "logit_rows_before": 37,
}


def tape_of(stage, config, is_one):
    tape = Tape(config.itemsize)
    config.pipeline.record(tape, config, stage, is_one, (256, 208) if stage in ("vision", "call") else ())
    return tape


@pytest.mark.parametrize("engine", ["transformers", "remote_code"])
@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("stage", ["vision", "prefill", "decode", "call"])
def test_polynomials_equal_the_tape_run_on_ints(tiny, monkeypatch, stage, cache, attention, engine):
    config = RunConfig.resolve(tiny, attention, engine, "bf16", cache, "all")
    sizes = tape_of(stage, config, False)
    for module in ("models.deepseek_ocr", "blocks.experts", "engines.remote_code"):
        for name in vars(import_module(f"ocr_flops.cost.{module}")).keys() & {name.upper() for name in SIZES}:
            monkeypatch.setattr(f"ocr_flops.cost.{module}.{name}", SIZES[name.lower()])
        monkeypatch.setattr(f"ocr_flops.cost.{module}.Dimension", SIZES.__getitem__)
    ints = tape_of(stage, config, False)
    assert len(sizes.operations) == len(ints.operations) > 50
    values = {**SIZES, "expert_bytes": 1_000_003, "experts_hit": 11}

    def monomial(names):
        return product(values[name] for name in names)

    for ours, direct in zip(Program(sizes).operations, Program(ints).operations, strict=True):
        assert (ours.module, ours.name) == (direct.module, direct.name)
        for cost in COSTS:
            assert evaluate(ours.costs[cost], monomial) == evaluate(direct.costs[cost], monomial), (ours.module, ours.name, cost)
        assert evaluate(ours.live_bytes, monomial) == evaluate(direct.live_bytes, monomial), (ours.module, ours.name)
    assert sizes.parameters == ints.parameters


def test_costs_of_modules_add_up_to_the_stage(tiny):
    program = Program(tape_of("vision", RunConfig.resolve(tiny, "eager", "transformers", "bf16", "dynamic", None), True))
    for cost in COSTS:
        assert sum(program.costs(module)[cost] for module in program.modules) == program.costs()[cost]


def test_sums_are_the_sums_they_are_named_for(tiny):
    program = Program(tape_of("decode", RunConfig.resolve(tiny, "sdpa", "transformers", "bf16", "dynamic", None), True))
    costs = program.costs()
    assert costs["total_flops"] == costs["tensor_flops"] + costs["vector_flops"]
    assert costs["io_bytes"] == costs["weight_io_bytes"] + costs["activation_io_bytes"] + costs["kv_io_bytes"]


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("stage", ["vision", "prefill", "decode"])
def test_peak_is_the_largest_live_sum_of_all_operators(tiny, stage, attention):
    """Only undominated candidates are kept; the largest of all operators must be among them, wherever it is looked for."""
    program = Program(tape_of(stage, RunConfig.resolve(tiny, attention, "transformers", "bf16", "dynamic", None), False))
    generator = np.random.default_rng(1)
    for _ in range(50):
        values = {name: int(generator.integers(1, 5000)) for name in SIZES} | {"gathers": 1}

        def monomial(names, values=values):
            return product(values[name] for name in names)

        for module in (None, *program.modules):
            live = [evaluate(operation.live_bytes, monomial) for operation in program.operations if module in (None, operation.module)]
            assert program.peak(monomial, module) == max(live)


def test_greatest():
    assert greatest([3, 9, 4]) == 9
    assert greatest([np.array([1, 8]), 5, np.array([2, 2])]).tolist() == [5, 8]


def vision(model, columns, rows, batch, engine):
    return of.estimate(model, of.Workload.from_grid(columns, rows, batch_size=batch), "eager", engine=engine).stage_numbers["vision"]


@pytest.mark.parametrize("engine", ["transformers", "remote_code"])
@pytest.mark.parametrize("cost", ["tensor_flops", "vector_flops", "torch_flops"])
def test_vision_is_linear_in_images(model, engine, cost):
    base, one = vision(model, 1, 1, 1, engine)[cost], vision(model, 1, 2, 1, engine)[cost]
    two = vision(model, 1, 3, 1, engine)[cost]
    tile = two - one
    for tiles in (4, 9, 100, 1000):
        assert vision(model, 1, tiles, 1, engine)[cost] == one + (tiles - 2) * tile
    assert tile > 0 and one > base
    if cost != "vector_flops":  # resizing positions is done once a pass, not once an image
        assert one == base + 2 * tile
        assert vision(model, 2, 3, 7, engine)[cost] == 7 * vision(model, 2, 3, 1, engine)[cost]
