"""Rotary position embeddings (Su et al., RoFormer, 2021)."""

from __future__ import annotations

from ocr_flops.cost import ops
from ocr_flops.cost.blocks.forward_pass import ForwardPass
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.tape import Tape


def angles(tape: Tape, head_dim: int, step: ForwardPass) -> tuple[Tensor, Tensor]:
    """Cosines and sines [1, tokens, head_dim] of the rotary embedding, elementwise, once for all layers."""
    half, rows = head_dim // 2, (1, step.tokens)
    positions = tape(ops.copy("_to_copy", ops.new(rows, ops.INDEX_BYTES), itemsize=4))
    frequencies = tape.buffer(half, itemsize=4)
    angles = tape.then_free(ops.elementwise("mul", positions, frequencies, shape=(*rows, half)), positions)
    doubled = tape(ops.copy("cat", angles, angles, shape=(*rows, head_dim)))  # both halves of a head get the same angles
    scaled = [_scaled(tape, tape(ops.elementwise(function, doubled))) for function in ("cos", "sin")]
    return _cast(tape, scaled, angles, doubled)


def _scaled(tape: Tape, table: Tensor) -> Tensor:
    """Cosines or sines times the embedding's scale; frees them."""
    return tape.then_free(ops.elementwise("mul", table), table)


def _cast(tape: Tape, scaled: list[Tensor], *named: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines in the model's precision; frees what is named besides them."""
    cast = [tape.cast(table, tape.itemsize) for table in scaled]
    tape.free(*named, *(table for table in scaled if table not in cast))
    return cast[0], cast[1]


def angles_by_matmul(tape: Tape, head_dim: int, step: ForwardPass) -> tuple[Tensor, Tensor]:
    """transformers 4.46's rotary embedding, run in every layer: angles as a matrix product, 2·head_dim/2·tokens FLOPs a sequence."""
    half = head_dim // 2
    index = ops.new((step.batch, step.tokens), ops.INDEX_BYTES)
    positions = tape(ops.copy("_to_copy", index, itemsize=4)).view(step.batch, 1, step.tokens)
    frequencies = tape.buffer(half, itemsize=4)
    product = ops.matmul(frequencies.view(step.batch, half, 1), positions)
    product.reads = (frequencies, positions)  # which all sequences share
    angles = tape(product)
    doubled = tape(ops.copy("cat", angles, angles, shape=(step.batch, step.tokens, head_dim)))
    both = [tape(ops.elementwise(function, doubled)) for function in ("cos", "sin")]
    return _cast(tape, [_scaled(tape, table) for table in both], positions, angles, doubled)


def rotate(tape: Tape, x: Tensor, angles: tuple[Tensor, ...]) -> Tensor:
    """Rotary embedding of x [batch, heads, tokens, head_dim]: x·cos + rotate_half(x)·sin. x stays alive."""
    cosines, sines = angles
    *batch, width = x.shape
    straight = tape(ops.elementwise("mul", x, cosines))
    negated = tape(ops.elementwise("neg", x.view(*batch, width // 2)))
    rotated = tape.then_free(ops.copy("cat", negated, x.view(*batch, width // 2), shape=x.shape), negated)
    turned = tape.then_free(ops.elementwise("mul", rotated, sines), rotated)
    return tape.then_free(ops.elementwise("add", straight, turned), straight, turned)
