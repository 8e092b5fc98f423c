"""Layers of language models that are several operators: RMSNorm, rotary embedding, KV cache, gated MLP."""

from collections.abc import Iterable

from ocr_flops.cost import ops
from ocr_flops.cost.blocks.passes import ForwardPass
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.polynomial import Dim
from ocr_flops.cost.tape import Tape


def rms_norm(tape: Tape, x: Tensor) -> Tensor:
    """RMSNorm in fp32: square, mean, epsilon, rsqrt, product, and the weight in the model's dtype. x stays alive."""
    weight = tape.weight(x.shape[-1])
    row = (*x.shape[:-1], 1)
    upcast = tape.cast(x, 4)
    squares = tape(ops.elementwise("pow", upcast))
    variance = tape.then_free(ops.reduction("mean", squares, row), squares)
    shifted = tape(ops.elementwise("add", variance))
    inverse = tape.then_free(ops.elementwise("rsqrt", shifted), shifted)
    normed = tape.then_free(ops.elementwise("mul", upcast, inverse), inverse, *([upcast] if upcast is not x else []))
    downcast = tape.cast(normed, x.itemsize)
    out = tape(ops.elementwise("mul", weight, downcast, shape=x.shape))
    tape.free(variance, normed, *([downcast] if downcast is not normed else []))
    return out


def rotary_angles(tape: Tape, head_dim: int, forward: ForwardPass) -> tuple[Tensor, ...]:
    """Cosines and sines [1, tokens, head_dim] of the rotary embedding (Su et al., RoFormer, 2021), elementwise, once for all layers."""
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


def concatenate_cache(tape: Tape, fresh: Tensor, context: Dim, held: Dim) -> Tensor:
    """A dynamic cache: it reads what it holds, and writes all of it and the new again.

    Args:
        fresh: new keys or values [batch, heads, tokens, head_dim]; they stay alive.
        context: tokens held afterwards.
        held: tokens held before.

    Returns the keys or values [batch, heads, context, head_dim], which are transient until the cache has taken them.
    """
    *batch, _, width = fresh.shape
    old = [ops.new((*batch, held, width), fresh.itemsize, "cache")] if held else []
    stored = tape(ops.copy("cat", *old, fresh, shape=(*batch, context, width), itemsize=fresh.itemsize, role="cache"))
    tape.free(stored)
    return stored


def write_cache(tape: Tape, fresh: Tensor, context: Dim) -> Tensor:
    """A static cache: the new keys or values [batch, heads, tokens, head_dim] are written at their places in it."""
    *batch, _, width = fresh.shape
    stored = ops.new((*batch, context, width), fresh.itemsize, "cache")
    tape(ops.in_place("index_copy_", stored.view(*fresh.shape), fresh))
    return stored


def gated_mlp(tape: Tape, x: Tensor, width: int, inner: int) -> Tensor:
    """SwiGLU: down(silu(gate(x))·up(x)); x stays alive."""
    gate = tape(ops.linear(x, tape.weight(inner, width)))
    active = tape.then_free(ops.activation("silu", gate), gate)
    up = tape(ops.linear(x, tape.weight(inner, width)))
    product = tape.then_free(ops.elementwise("mul", active, up), active, up)
    return tape.then_free(ops.linear(product, tape.weight(width, inner)), product)
