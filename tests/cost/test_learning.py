"""What learns polynomials from traces: loops are folded, coefficients are exact, and what is neither is refused by the operator's name."""

import pytest

from ocr_flops.cost.learning.dimensions import DerivedSize, with_parts
from ocr_flops.cost.learning.folding import COLUMNS, Launch, Trace, Unlearnable
from ocr_flops.cost.learning.solving import Solver
from ocr_flops.cost.learning.stage_learning import Names, StageKey, learn_stage
from ocr_flops.cost.polynomial import evaluate

KEY = StageKey("vision", "eager", False)
MONOMIALS = [(), ("n",), ("n", "n")]


def launch(name, place, flops=0, live=0):
    numbers = dict.fromkeys(COLUMNS, 0) | {"vector_flops": flops, "live_bytes": live}
    return Launch(place, name, "vision.mlp" + "".join(f"/{part}" for part in place.split(".")[1:]), 0, tuple(numbers.values()))


def trace(n, repeats=0, layers=2, extra=False):
    """Two layers alike, in each a loop over pictures, and a last operator."""
    found = []
    for layer in range(layers):
        found.append(launch("mm", f"layers.{layer}", 3 * n * n + 1, 5 * n))
        for step in range(repeats):
            found += [launch("add", f"layers.{layer}", n, 7 + step), launch("mul", f"layers.{layer}", 2, 8)]
    found += [launch("pad", "", 9)] * extra
    return Trace({"n": n}, [*found, launch("gelu", "", n)])


def test_coefficients_are_whole_and_checked_at_points_that_were_not_used():
    points = [{"n": n} for n in (2, 3, 10**6, 5, 7)]
    solver = Solver(MONOMIALS, points)
    values = tuple(10**15 * p["n"] ** 2 + 3 * p["n"] + 1 for p in points)
    assert solver.solve(values) == (1, 3, 10**15)
    assert solver.solve((*values[:-1], values[-1] + 1)) is None
    assert Solver([(), ("n",)], [{"n": 2}, {"n": 4}]).solve((1, 2)) is None  # half a number is no count
    with pytest.raises(ValueError, match="2 of 3 monomials"):
        Solver(MONOMIALS, [{"n": 1}, {"n": 1}, {"n": 2}])


def test_layers_that_are_alike_stand_once_and_loops_are_folded():
    texts = Names()
    stage = learn_stage(KEY, [trace(n, repeats=n) for n in (2, 3, 4, 5, 6)], MONOMIALS, texts)
    dims = stage.dims()
    assert [(list(texts)[one.name], one.layers, one.loop) for one in stage.operators] == [
        ("mm", [0, 1], -1),
        ("add", [0, 1], 0),
        ("mul", [0, 1], 0),
        ("gelu", [], -1),
    ]
    at = {(): 1, ("n",): 11, ("n", "n"): 121}
    assert evaluate(dims[stage.loops[0]], at.get) == 11
    assert evaluate(dims[stage.operators[1].costs[1]], at.get) == 11 * 11  # over all repeats
    assert evaluate(dims[stage.operators[1].once[1]], at.get) == 11
    assert evaluate(dims[stage.operators[1].live], at.get) == 7 + 10  # of the last repeat
    assert {point["n"] for point in stage.evidence.verified_at} == {5, 6}


def test_operators_that_some_sizes_lack():
    odd = {"odd": DerivedSize("uneven", ("n",), 2)}
    traces = [trace(n, extra=n % 2 == 1) for n in range(2, 9)]
    traces = [one._replace(sizes=with_parts(one.sizes, odd)) for one in traces]
    stage = learn_stage(KEY, traces, [*MONOMIALS, ("odd",)], Names())
    assert len(stage.operators) == 3
    assert stage.dims()[stage.loops[0]].terms == {("odd",): 1}


def test_an_operator_behind_a_loop_that_is_like_the_end_of_its_body_stays_outside():
    """Here the last `cat`, whose live bytes are now more, now less than those of the loop's."""

    def joined(n, pages):
        found = [launch("mm", "", 7)]
        for page in range(1, pages + 1):
            found += [launch("cat", "", 2, 100 * page + n), launch("clone", "", 3), launch("cat", "", 2, 100 * page)]
        return Trace({"n": n, "pages": pages}, [*found, launch("cat", "", n, 900 + 7 * n)])

    traces = [joined(n, pages) for n, pages in ((3, 2), (11, 4), (2, 3), (5, 12), (8, 9), (4, 15))]
    stage = learn_stage(KEY, traces, [(), ("n",), ("pages",)], Names())
    assert [one.loop for one in stage.operators] == [-1, 0, 0, 0, -1]
    assert stage.dims()[stage.operators[-1].live].terms == {(): 900, ("n",): 7}


@pytest.mark.parametrize(
    ("traces", "message"),
    [
        ([trace(2), trace(3), trace(4), trace(5)._replace(sizes={"n": 9})], "layers.0: mm: its vector flops are no polynomial"),
        ([trace(2), trace(3), Trace({"n": 4}, [*trace(4).launches[:-1], launch("tanh", "head", 4)]), trace(5)], "head: tanh: the sequence"),
    ],
)
def test_what_cannot_be_learned_is_named(traces, message):
    with pytest.raises(Unlearnable, match=message):
        learn_stage(KEY, traces, MONOMIALS, Names())


def test_parts_of_ints_and_columns():
    import numpy as np

    kinds = {kind: DerivedSize(kind, ("a", "b"), 4) for kind in ("floor", "ceil", "squares", "beyond", "last", "before", "uneven", "any")}
    values = with_parts({"a": np.array([2, 4, 0]), "b": 5}, kinds)
    assert {kind: values[kind].tolist() for kind in kinds} == {
        "floor": [2, 5, 0],
        "ceil": [3, 5, 0],
        "squares": [16 + 16 + 4, 80, 0],
        "beyond": [3, 6, 1],
        "last": [2, 4, 4],
        "before": [4, 12, 0],
        "uneven": [1, 0, 0],
        "any": [1, 1, 0],
    }
