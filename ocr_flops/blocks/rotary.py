"""Rotary position embeddings (Su et al., RoFormer, 2021)."""

from __future__ import annotations

from ocr_flops import ops
from ocr_flops.blocks.step import Step
from ocr_flops.ops import Tensor
from ocr_flops.tape import Tape


def angles(tape: Tape, head_dim: int, step: Step) -> tuple[Tensor, Tensor]:
    """Cosines and sines [1, tokens, head_dim] of the rotary embedding, elementwise, once for all layers."""
    half, rows = head_dim // 2, (1, step.tokens)
    positions = tape(ops.copy("_to_copy", ops.new(rows, ops.INDEX_BYTES), itemsize=4))
    frequencies = tape.buffer(half, itemsize=4)
    angles = tape.then_free(ops.elementwise("mul", positions, frequencies, shape=(*rows, half)), positions)
    return _cosines_and_sines(tape, head_dim, rows, angles)


def _cosines_and_sines(tape: Tape, head_dim: int, rows: tuple, angles: Tensor) -> tuple[Tensor, Tensor]:
    """Both halves of a head get the same angles; cosine and sine, scaled, in the model's dtype. Frees angles."""
    doubled = tape(ops.copy("cat", angles, angles, shape=(*rows, head_dim)))
    scaled = []
    for function in ("cos", "sin"):
        raw = tape(ops.elementwise(function, doubled))
        scaled.append(tape.then_free(ops.elementwise("mul", raw), raw))
    cast = [tape.cast(table, tape.itemsize) for table in scaled]
    tape.free(angles, doubled, *(table for table in scaled if table not in cast))
    return cast[0], cast[1]


def angles_by_matmul(tape: Tape, head_dim: int, step: Step) -> tuple[Tensor, Tensor]:
    """transformers 4.46's rotary embedding, run in every layer: angles as a matrix product, 2·head_dim/2·tokens FLOPs a sequence."""
    half = head_dim // 2
    index = ops.new((step.batch, step.tokens), ops.INDEX_BYTES)
    positions = tape(ops.copy("_to_copy", index, itemsize=4)).view(step.batch, 1, step.tokens)
    frequencies = ops.Tensor((step.batch, half, 1), 4, tape.buffer(half, itemsize=4).storage)
    angles = tape.then_free(ops.matmul(frequencies, positions), positions)
    return _cosines_and_sines(tape, head_dim, (step.batch, step.tokens), angles)


def rotate(tape: Tape, x: Tensor, angles: tuple[Tensor, ...]) -> Tensor:
    """Rotary embedding of x [batch, heads, tokens, head_dim]: x·cos + rotate_half(x)·sin. x stays alive."""
    cosines, sines = angles
    *batch, width = x.shape
    straight = tape(ops.elementwise("mul", x, cosines))
    negated = tape(ops.elementwise("neg", x.view(*batch, width // 2)))
    rotated = tape.then_free(ops.copy("cat", negated, x.view(*batch, width // 2), shape=x.shape), negated)
    turned = tape.then_free(ops.elementwise("mul", rotated, sines), rotated)
    return tape.then_free(ops.elementwise("add", straight, turned), straight, turned)
