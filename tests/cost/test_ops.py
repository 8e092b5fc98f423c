"""Costs of single operators against numbers worked out by hand."""

import pytest

from ocr_flops.cost import ops
from ocr_flops.cost.ops import new


def shapes(operator):
    return [(tensor.shape, tensor.itemsize) for tensor in operator.outputs]


def read(operator):
    return sum(tensor.size_bytes for tensor in operator.reads)


def test_tensor_bytes_and_views():
    x = new((2, 3, 5), 2)
    assert (x.elements, x.size_bytes, x.storage.size_bytes) == (30, 60, 60)
    part = x.view(3, 5)
    assert (part.size_bytes, part.storage) == (30, x.storage)


def test_linear():
    operator = ops.linear(new((2, 7, 3), 2), new((5, 3), 2, "weight"))
    assert (operator.name, operator.tensor_flops, operator.vector_flops) == ("mm", 2 * 14 * 3 * 5, 0)
    assert shapes(operator) == [((2, 7, 5), 2)]
    assert read(operator) == 2 * (42 + 15)


def test_linear_with_bias_reads_it_and_counts_nothing_for_it():
    operator = ops.linear(new((4, 3), 2), new((5, 3), 2), new((5,), 2))
    assert (operator.name, operator.tensor_flops) == ("addmm", 120)
    assert read(operator) == 2 * (12 + 15 + 5)


def test_linear_in_fp32_needs_the_fp32_peak():
    assert ops.linear(new((4, 3), 4), new((5, 3), 4)).matrix_itemsize == 4
    assert ops.linear(new((4, 3), 2), new((5, 3), 2)).matrix_itemsize == 2


def test_matmul():
    operator = ops.matmul(new((2, 3, 4, 5), 2), new((2, 3, 5, 7), 2))
    assert operator.tensor_flops == 6 * 2 * 4 * 5 * 7 == 1680
    assert shapes(operator) == [((2, 3, 4, 7), 2)]
    assert read(operator) == 2 * (6 * 20 + 6 * 35)


def test_grouped_matmul():
    operator = ops.grouped_matmul(new((12, 8), 2), 6)
    assert operator.tensor_flops == 2 * 12 * 8 * 6 == 1152
    assert read(operator) == 192  # rows only: the tape charges the experts hit


def test_convolution():
    operator = ops.convolution(new((2, 3, 32, 32), 2), new((8, 3, 16, 16), 2), new((8,), 2), 2)
    assert operator.tensor_flops == 2 * (2 * 2 * 2) * 8 * 3 * 256 == 98304
    assert shapes(operator) == [((2, 8, 2, 2), 2)]
    assert read(operator) == 2 * (2 * 3 * 1024 + 8 * 3 * 256 + 8)


def test_elementwise_counts_output_elements():
    operator = ops.elementwise("le", new((1, 9), 8), new((4, 1), 8), shape=(4, 9), itemsize=1)
    assert (operator.vector_flops, operator.tensor_flops) == (36, 0)
    assert shapes(operator) == [((4, 9), 1)]
    assert read(operator) == 8 * 13


def test_reduction_counts_input_elements():
    operator = ops.reduction("mean", new((4, 10), 4), (4, 1))
    assert operator.vector_flops == 40
    assert shapes(operator) == [((4, 1), 4)]


@pytest.mark.parametrize(("kind", "per_element"), [("gelu", 5), ("silu", 4), ("sigmoid", 4)])
def test_activations(kind, per_element):
    operator = ops.activation(kind, new((3, 7), 2))
    assert operator.vector_flops == per_element * 21
    assert shapes(operator) == [((3, 7), 2)]


def test_softmax():
    assert ops.softmax(new((2, 3, 3), 4)).vector_flops == 5 * 18


def test_layer_norm_also_writes_statistics_in_fp32():
    operator = ops.layer_norm(new((2, 3, 8), 2), new((8,), 2), new((8,), 2))
    assert operator.vector_flops == 8 * 48
    assert shapes(operator) == [((2, 3, 8), 2), ((6,), 4), ((6,), 4)]


@pytest.mark.parametrize(
    "operator",
    [
        ops.copy("cat", new((2, 3), 2), new((4, 3), 2), shape=(6, 3)),
        ops.create("arange", (6, 3), 2),
        ops.gather("embedding", new((1000, 3), 2), new((6,), 8), (6, 3)),
        ops.in_place("index_copy_", new((6, 3), 2), new((2, 3), 2)),
    ],
)
def test_moving_computes_nothing(operator):
    assert (operator.tensor_flops, operator.vector_flops) == (0, 0)


def test_gather_reads_the_rows_and_the_index_not_the_table():
    assert read(ops.gather("embedding", new((1000, 3), 2, "weight"), new((6,), 8), (6, 3))) == 6 * 3 * 2 + 6 * 8


def test_gather_keeps_the_tables_role():
    rows = ops.gather("embedding", new((1000, 3), 2, "weight"), new((6,), 8), (6, 3)).reads[0]
    assert rows.storage.role == "weight"


def test_cast_changes_the_width():
    operator = ops.copy("_to_copy", new((5,), 2), itemsize=4)
    assert (read(operator), shapes(operator)) == (10, [((5,), 4)])


def test_in_place_writes_and_makes_nothing():
    target = new((6, 3), 2)
    operator = ops.in_place("mul_", target, target, vector_flops=18)
    assert (operator.outputs, operator.writes, operator.vector_flops) == ((), (target,), 18)


def heads(rows):
    return new((2, 3, rows, 8), 2)


def test_fused_attention_without_bias():
    operator = ops.fused_attention(heads(5), heads(7), heads(7))
    scores = 2 * 3 * 5 * 7
    assert operator.name == "_scaled_dot_product_flash_attention"
    assert operator.tensor_flops == 4 * 8 * scores  # q·k and p·v, two FLOPs each
    assert operator.vector_flops == (5 + 1) * scores  # softmax and scaling
    assert shapes(operator) == [((2, 3, 5, 8), 2)]
    assert read(operator) == 2 * (240 + 336 + 336)


def test_fused_attention_with_a_bias_reads_and_adds_it():
    operator = ops.fused_attention(heads(5), heads(7), heads(7), new((2, 3, 5, 7), 2))
    assert operator.name == "_scaled_dot_product_efficient_attention"
    assert operator.vector_flops == 7 * 210
    assert read(operator) == 2 * (240 + 336 + 336 + 210)


def test_fused_attention_building_the_bias_reads_its_factors():
    factor = new((2, 3, 5, 4), 2)
    operator = ops.fused_attention(heads(5), heads(7), heads(7), side_biases=(factor, factor))
    assert operator.tensor_flops == 4 * 8 * 210
    assert operator.vector_flops == 8 * 210  # softmax, scaling, the sum of the factors and its addition
    assert read(operator) == 2 * (240 + 336 + 336 + 2 * 120)


def test_composites_are_the_published_table():
    assert ops.COMPOSITES == {"softmax": 5, "layer_norm": 8, "rms_norm": 4, "gelu": 5, "silu": 4, "sigmoid": 4}
