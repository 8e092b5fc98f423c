"""The tape: whom an operator is charged to, how often, in which kind of traffic, and what is alive beside it."""

import pytest

from ocr_flops.cost import ops
from ocr_flops.cost.tape import EXPERT_BYTES, EXPERTS_HIT, Tape


@pytest.fixture
def tape():
    return Tape(2)


def test_an_operator_is_charged_to_the_module_around_it(tape):
    x = tape.hold(4, 8)
    with tape.module("outer"):
        tape(ops.elementwise("add", x))
        with tape.module("inner", range(3)):
            tape(ops.elementwise("mul", x))
        tape(ops.elementwise("sub", x))
    found = [(operation.module, operation.layers, operation.name, operation.costs["operators"]) for operation in tape.operations]
    assert found == [("outer", (), "add", 1), ("inner", range(3), "mul", 3), ("outer", (), "sub", 1)]
    assert [operation.costs["vector_flops"] for operation in tape.operations] == [32, 96, 32]


def test_every_layer_has_parameters_of_its_own(tape):
    with tape.module("layers", [1, 4]):
        tape.weight(3, 4)
        tape.weight(3)
    with tape.module("single"):
        tape.weight(7)
        tape.buffer(100, itemsize=4)  # no parameter
    assert tape.parameters == {("layers", 1): 15, ("layers", 4): 15, ("single", None): 7}


def test_work_done_several_times_has_its_parameters_once(tape):
    with tape.times(6), tape.module("layers", range(5)):
        tape(ops.linear(tape.hold(1, 4), tape.weight(3, 4)))
    assert sum(tape.parameters.values()) == 60
    assert (tape.operations[0].costs["operators"], tape.operations[0].costs["tensor_flops"]) == (30, 30 * 24)


def test_nested_times_multiply_and_launches_may_differ(tape):
    x = tape.hold(1, 4)
    with tape.times(2), tape.times(3, launches=0):
        tape(ops.elementwise("add", x))
    tape(ops.elementwise("add", x))
    assert [(operation.costs["vector_flops"], operation.costs["operators"]) for operation in tape.operations] == [(24, 0), (4, 1)]


def test_traffic_is_sorted_by_what_the_storage_holds(tape):
    x, weight = tape.hold(4, 8), tape.weight(3, 8)
    cache = ops.new((5, 3), 2, "cache")
    out = tape(ops.linear(x, weight))
    tape(ops.copy("cat", cache, out, shape=(9, 3), role="cache"))
    moved = [[operation.costs[f"{kind}_io_bytes"] for kind in ("weight", "activation", "kv")] for operation in tape.operations]
    assert moved == [[48, 64 + 24, 0], [0, 24, 30 + 54]]


def test_in_place_work_moves_what_it_writes(tape):
    target = tape.hold(6, 3)
    out = tape(ops.in_place("mul_", target.view(2, 3), target.view(2, 3)))
    assert tape.operations[0].costs["activation_io_bytes"] == 12 + 12
    assert out.storage is target.storage
    assert tape.live == 36  # nothing new


def test_live_bytes_count_inputs_and_outputs_but_no_weights(tape):
    x = tape.hold(4, 8)
    hidden = tape(ops.linear(x, tape.weight(16, 8)))
    tape.free(x)
    tape.then_free(ops.elementwise("add", hidden), hidden)
    assert [operation.live_bytes for operation in tape.operations] == [64 + 128, 128 + 128]
    assert tape.live == 128


def test_a_freed_weight_stays(tape):
    tape.free(tape.weight(10))
    assert tape.live == 0


def test_outputs_not_kept_live_only_while_their_operator_runs(tape):
    x = tape.hold(2, 8)
    tape(ops.layer_norm(x, tape.weight(8), tape.weight(8)), keep=1)
    assert tape.operations[0].live_bytes == 32 + 32 + 2 * 8
    assert tape.live == 64


def test_hold_starts_a_life_without_an_operator(tape):
    tape.hold(5, itemsize=8)
    assert (tape.live, tape.operations) == (40, [])


def test_what_feeds_other_modules_is_charged_to_them(tape):
    with tape.module("mlp", range(4)):
        tape(ops.elementwise("add", tape.hold(4, 8)), feeds={"attention": [1, 2, 3], "neck": ()})
    found = [(operation.module, operation.layers, operation.costs["operators"]) for operation in tape.operations]
    assert found == [("attention", [1, 2, 3], 3), ("neck", (), 1)]


def test_a_cast_to_the_same_width_is_no_operator(tape):
    x = tape.hold(4, 8)
    assert tape.cast(x, 2) is x
    assert tape.cast(x, 4).itemsize == 4
    assert [operation.name for operation in tape.operations] == ["_to_copy"]


def test_a_kernel_that_torch_does_not_know_has_no_torch_flops(tape):
    q = tape.hold(1, 2, 3, 4)
    for visible in (True, False):
        tape(ops.fused_attention(q, q, q, visible=visible))
    assert [operation.costs["tensor_flops"] for operation in tape.operations] == [4 * 4 * 18] * 2
    assert [operation.costs["torch_flops"] for operation in tape.operations] == [4 * 4 * 18, 0]


def test_experts_have_parameters_and_charge_those_hit(tape):
    x, offsets = tape.hold(12, 8), tape.hold(5, itemsize=4)
    with tape.module("experts", range(2)):
        tape.multiply_experts(ops.grouped_matmul(x, 6), offsets, 5, 1)
    costs = tape.operations[0].costs
    assert tape.parameters == {("experts", 0): 5 * 8 * 6, ("experts", 1): 5 * 8 * 6}
    assert (costs["weight_io_bytes"], costs["activation_io_bytes"]) == (EXPERT_BYTES, 2 * (192 + 20 + 144))


def test_a_loop_over_experts_is_launched_for_each(tape):
    x = tape.hold(12, 8)
    with tape.per_expert():
        tape(ops.activation("silu", x))
    tape(ops.activation("silu", x))
    assert [operation.costs["operators"] for operation in tape.operations] == [EXPERTS_HIT, 1]
