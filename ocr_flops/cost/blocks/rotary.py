"""Rotary position embeddings (Su et al., RoFormer, 2021)."""

from __future__ import annotations

from collections.abc import Iterable

from ocr_flops.cost import ops
from ocr_flops.cost.blocks.passes import ForwardPass
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.tape import Tape


def angles(tape: Tape, head_dim: int, forward: ForwardPass) -> tuple[Tensor, ...]:
    """Cosines and sines [1, tokens, head_dim] of the rotary embedding, elementwise, once for all layers."""
    half, rows = head_dim // 2, (1, forward.tokens)
    positions = tape(ops.copy("_to_copy", ops.new(rows, ops.INDEX_BYTES), itemsize=4))
    frequencies = tape.buffer(half, itemsize=4)
    angles = tape.then_free(ops.elementwise("mul", positions, frequencies, shape=(*rows, half)), positions)
    doubled = tape(ops.copy("cat", angles, angles, shape=(*rows, head_dim)))  # both halves of a head get the same angles
    functions = (tape(ops.elementwise(function, doubled)) for function in ("cos", "sin"))
    return scale_and_cast(tape, functions, angles, doubled)


def scale_and_cast(tape: Tape, tables: Iterable[Tensor], *made_of: Tensor) -> tuple[Tensor, ...]:
    """Cosines and sines times the embedding's scale, in the model's precision; frees them and what they were made of."""
    scaled = [tape.then_free(ops.elementwise("mul", table), table) for table in tables]
    cast = [tape.cast(table, tape.itemsize) for table in scaled]
    tape.free(*made_of, *(table for table in scaled if table not in cast))
    return tuple(cast)


def rotate(tape: Tape, x: Tensor, angles: tuple[Tensor, ...]) -> Tensor:
    """Rotary embedding of x [batch, heads, tokens, head_dim]: x·cos + rotate_half(x)·sin. x stays alive."""
    cosines, sines = angles
    *batch, width = x.shape
    straight = tape(ops.elementwise("mul", x, cosines))
    negated = tape(ops.elementwise("neg", x.view(*batch, width // 2)))
    rotated = tape.then_free(ops.copy("cat", negated, x.view(*batch, width // 2), shape=x.shape), negated)
    turned = tape.then_free(ops.elementwise("mul", rotated, sines), rotated)
    return tape.then_free(ops.elementwise("add", straight, turned), straight, turned)
