"""One evaluation path: a column of workloads holds, row by row, the integers of single workloads."""

import random

import numpy as np
import pytest

import ocr_flops as of
from ocr_flops.cost import estimate
from ocr_flops.cost.stage_groups import COLUMNS

MODES = ("tiny", "small", "base", "large", "gundam", "gundam_m")
ENGINES = ("transformers", "remote_code")


def random_point(choose):
    mode = choose.choice(MODES)
    rest = {
        "prompt_tokens": choose.choice([0, 1, 10, choose.randint(0, 130_000)]),
        "output_tokens": choose.choice([0, 1, 2, choose.randint(0, 5000)]),
        "batch_size": choose.choice([1, 1, 2, choose.randint(1, 512)]),
    }
    if choose.random() < 0.3:
        return of.Workload.from_image(choose.randint(1, 9000), choose.randint(1, 9000), mode, **rest)
    if not mode.startswith("gundam"):
        return of.Workload.from_grid(1, 1, mode, **rest)
    if choose.random() < 0.2:
        return of.Workload(16 * choose.randint(1, 90), 16 * choose.randint(1, 60), choose.randint(1, 40), choose.randint(1, 25), **rest)
    return of.Workload.from_grid(choose.randint(1, 12), choose.randint(1, 12), mode, **rest)


@pytest.mark.parametrize("seed", range(16))
def test_columns_hold_what_single_points_hold(model, tiny, seed):
    choose = random.Random(seed)
    dtype = choose.choice(["bf16", "fp16", "fp32"])
    modes = [
        "vendor",
        "eager",
        "sdpa",
        *([] if dtype == "fp32" else ["flash"]),
        of.AttentionSpec("mixed", {"sam": "eager", "decoder": "eager"}),
    ]
    options = {
        "attention": modes[seed % len(modes)],
        "engine": ENGINES[seed % 2],
        "dtype": dtype,
        "cache": choose.choice(["dynamic", "static"]),
        "prefill_logits": choose.choice(["all", "last", None]),
    }
    spec = choose.choice([model, tiny])
    points = [random_point(choose) for _ in range(8)]
    many = of.estimate(spec, of.Workload.stack(points), **options)
    for index, point in enumerate(points):
        one = of.estimate(spec, point, **options)
        for numbers, columns in ((one.stage_numbers, many.stage_numbers), (one.module_numbers, many.module_numbers)):
            assert list(numbers) == list(columns)
            for key, row in numbers.items():
                assert {name: int(columns[key][name][index]) for name in COLUMNS} == row, (index, key)
        footprint = tuple(int(np.broadcast_to(value, len(points))[index]) for value in many.footprint)
        assert footprint == tuple(one.footprint)


def extreme_point(choose):
    return of.Workload(
        16 * choose.choice([1, 64, 1024]),
        16 * choose.choice([4, 40, 1024]),
        choose.choice([1, 1, 30]),
        choose.choice([1, 30]),
        prompt_tokens=choose.choice([1, 10, 700_000]),
        output_tokens=choose.choice([0, 1, 1_048_576]),
        batch_size=choose.choice([1, 1, 512, 65_536]),
    )


def numbers_or_none(*arguments):
    try:
        return of.estimate(*arguments).module_numbers
    except of.SpecError as problem:
        if "2^62" not in str(problem):
            raise
        return None


def test_columns_never_wrap(model):
    """At points near and beyond 2^62 columns are refused exactly when one of their points is, and are exact otherwise."""
    choose, outcomes = random.Random(7), []
    while len(outcomes) < 40:
        points = []
        while len(points) < 3:
            try:
                points.append(extreme_point(choose))
            except of.SpecError:  # more context than a workload may have
                continue
        attention = choose.choice(["eager", "sdpa", "flash"])
        singles = [numbers_or_none(model, point, attention) for point in points]
        many = numbers_or_none(model, of.Workload.stack(points), attention)
        outcomes.append(many is not None)
        assert (many is None) == (None in singles)
        for key, row in (many or {}).items():
            for column, values in row.items():
                assert values.tolist() == [single[key][column] for single in singles], (key, column)
    assert 5 < sum(outcomes) < 35  # both happened


def test_columns_longer_than_a_chunk(model, monkeypatch):
    """Chunks of points are evaluated one after the other; where they end must not show."""
    grids = np.arange(1, 51)
    workload = of.Workload.from_grid(columns=grids, rows=grids[::-1].copy(), batch_size=1 + grids % 3)
    whole = of.estimate(model, workload, "sdpa").stage_numbers
    monkeypatch.setattr(estimate, "CHUNK", 7)
    pieces = of.estimate(model, workload, "sdpa").stage_numbers
    for stage, row in whole.items():
        for column in COLUMNS:
            assert row[column].tolist() == pieces[stage][column].tolist()


def test_a_column_of_one_point_is_a_column(model):
    numbers = of.estimate(model, of.Workload.from_grid(columns=np.array([2])), "eager").stage_numbers["vision"]
    assert all(values.dtype == np.int64 and values.shape == (1,) for values in numbers.values())
    assert numbers["tensor_flops"][0] == of.estimate(model, of.Workload.from_grid(2), "eager").stage_numbers["vision"]["tensor_flops"]


def test_sweep_is_estimate_by_estimate(model):
    points = [of.Workload.from_grid(2, 3, output_tokens=5), of.Workload.from_grid(1, 1, batch_size=4)]
    swept = of.sweep(model, points, ["eager", "flash"], level="module")
    row = 0
    for attention in ("eager", "flash"):
        for point in points:
            one = of.estimate(model, point, attention).modules
            assert swept[row : row + one.height].drop("mode").equals(one.drop("mode"))
            row += one.height
    assert row == swept.height
