"""Causal masks as tensors in memory: which keys a query may attend to, and that as numbers to add to scores."""

from __future__ import annotations

from ocr_flops.cost import ops
from ocr_flops.cost.blocks.passes import ForwardPass
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.polynomial import Dim
from ocr_flops.cost.tape import Tape


def count_positions(tape: Tape, length: Dim) -> Tensor:
    """Positions [length] from where the cache ends: an arange, and its sum with that number."""
    counted = tape(ops.create("arange", (length,), ops.INDEX_BYTES))
    return tape.then_free(ops.elementwise("add", counted), counted)


def allow_causal(tape: Tape, queries: Tensor, keys: Tensor) -> Tensor:
    """Whether a key is not after a query: [tokens, context] bool."""
    return tape(ops.elementwise("le", keys, queries, shape=(*queries.shape, *keys.shape), itemsize=1))


def to_additive(tape: Tape, forward: ForwardPass, allowed: Tensor) -> Tensor:
    """0 where attention is allowed, the lowest number elsewhere: [batch, tokens, context]; frees allowed."""
    zero, lowest = (tape(ops.create(name, (1,), tape.itemsize)) for name in ("zeros", "scalar_tensor"))
    choice = ops.elementwise("where", allowed, zero, lowest, shape=(forward.batch, forward.tokens, forward.context), itemsize=tape.itemsize)
    return tape.then_free(choice, zero, lowest, allowed)
