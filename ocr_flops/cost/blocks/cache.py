"""KV caches: how the keys and values of a pass join those before it."""

from __future__ import annotations

from ocr_flops.cost import ops
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.polynomial import Dim
from ocr_flops.cost.tape import Tape


def concatenate(tape: Tape, fresh: Tensor, context: Dim, held: Dim) -> Tensor:
    """A dynamic cache: it reads what it holds, and writes all of it and the new again.

    Args:
        tape: takes the operators.
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


def write_in_place(tape: Tape, fresh: Tensor, context: Dim) -> Tensor:
    """A static cache: the new keys or values [batch, heads, tokens, head_dim] are written at their places in it."""
    *batch, _, width = fresh.shape
    stored = ops.new((*batch, context, width), fresh.itemsize, "cache")
    tape(ops.in_place("index_copy_", stored.view(*fresh.shape), fresh))
    return stored
