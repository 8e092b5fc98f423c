"""Attention masks as the engines build them before the first decoder layer."""

from __future__ import annotations

from ocr_flops.cost import ops
from ocr_flops.cost.blocks.forward_pass import ForwardPass
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.tape import Tape
from ocr_flops.spec.specs import EngineSpec


def masks(tape: Tape, engine: EngineSpec, mode: str, step: ForwardPass) -> tuple[Tensor | None, tuple[Tensor, ...]]:
    """The masks built before the first layer.

    transformers also builds the mask of Unlimited-OCR's sliding window, which no layer of DeepSeek-OCR uses, and keeps it.

    Returns:
        the additive causal mask [batch, tokens, context] that eager attention reads (else None), and everything that stays alive.
    """
    eager, index = mode == "eager", ops.INDEX_BYTES
    if not engine.builds_window_mask:
        return _vendor_mask(tape, step) if eager else (None, ())
    counted = tape(ops.create("arange", (step.tokens,), index))
    positions = tape.then_free(ops.elementwise("add", counted), counted)
    kept = []
    for window in (False, True) if eager else (True,):
        indices = [tape(ops.create("arange", (length,), index)) for length in (step.batch, 1)]
        for length in (step.tokens, step.context):
            counted = tape(ops.create("arange", (length,), index))
            indices.append(tape.then_free(ops.elementwise("add", counted), counted))
        queries, keys = indices[2:]
        if window:
            allowed = _window_mask(tape, queries, keys)
        else:
            allowed = tape(ops.elementwise("le", keys, queries, shape=(step.tokens, step.context), itemsize=1))
        tape.free(*indices)
        kept.append(_additive(tape, step, allowed) if eager else allowed)
    return kept[0] if eager else None, (positions, *kept)


def _additive(tape: Tape, step: ForwardPass, allowed: Tensor) -> Tensor:
    """0 where attention is allowed, the lowest number elsewhere: [batch, tokens, context]; frees allowed."""
    zero, lowest = (tape(ops.create(name, (1,), tape.itemsize)) for name in ("zeros", "scalar_tensor"))
    choice = ops.elementwise("where", allowed, zero, lowest, shape=(step.batch, step.tokens, step.context), itemsize=tape.itemsize)
    return tape.then_free(choice, zero, lowest, allowed)


def _window_mask(tape: Tape, queries: Tensor, keys: Tensor) -> Tensor:
    """(in the window and causal) or (causal and in the prefix), as transformers nests its mask functions: [tokens, context] bool."""
    tokens, context = queries.shape[0], keys.shape[0]

    def both(name: str, *inputs: Tensor) -> Tensor:
        return tape(ops.elementwise(name, *inputs, shape=(tokens, context), itemsize=1))

    nothing = tape(ops.create("new_zeros", (tokens,), 1))
    everything = tape(ops.create("new_ones", (tokens,), 1))
    bound = tape(ops.elementwise("sub", queries))
    inside = both("gt", keys, bound)
    tape.free(bound)
    first = both("bitwise_and", everything, inside)
    tape.free(everything, inside)
    causal = both("le", keys, queries)
    window = both("bitwise_and", first, causal)
    tape.free(first, causal)
    result = both("bitwise_or", nothing, window)
    tape.free(nothing, window)
    everything = tape(ops.create("new_ones", (tokens,), 1))
    causal = both("le", keys, queries)
    first = both("bitwise_and", everything, causal)
    tape.free(everything, causal)
    offset = tape(ops.elementwise("sub", keys))
    inside = tape.then_free(ops.elementwise("lt", offset, itemsize=1), offset)
    prefix = both("bitwise_and", first, inside)
    tape.free(first, inside)
    union = both("bitwise_or", result, prefix)
    tape.free(result, prefix)
    return union


def _vendor_mask(tape: Tape, step: ForwardPass) -> tuple[Tensor, tuple[Tensor, ...]]:
    """transformers 4.46's `_prepare_4d_causal_attention_mask`: a lower-triangular mask plus the padding mask, one for each sequence."""
    square = (step.tokens, step.context)
    batched = (step.batch, *square)
    causal = None
    if step.is_prefill:
        filled = tape(ops.create("full", (step.tokens, step.tokens), 4))  # in torch's default precision
        index = tape(ops.create("arange", (step.tokens,), ops.INDEX_BYTES))
        shifted = tape(ops.elementwise("add", index))
        below = tape.then_free(ops.elementwise("lt", index, shifted, shape=square, itemsize=1), shifted)
        tape(ops.in_place("masked_fill_", filled, filled, below, vector_flops=filled.elements))
        tape.free(below)
        causal = tape.cast(filled, tape.itemsize)
        tape.free(index, *([filled] if causal is not filled else []))
    attend = ops.new((step.batch, step.context), ops.INDEX_BYTES)
    padding = tape(ops.copy("_to_copy", attend, shape=batched, itemsize=tape.itemsize))
    inverted = tape(ops.elementwise("rsub", padding))
    blocked = tape(ops.copy("_to_copy", inverted, itemsize=1))
    mask = tape.then_free(ops.elementwise("masked_fill", inverted, blocked), padding, inverted, blocked)
    if causal is not None:
        hidden = tape(ops.copy("_to_copy", mask, itemsize=1))
        combined = tape.then_free(ops.elementwise("masked_fill", causal, hidden, shape=batched), hidden, mask, causal)
        mask = combined
    return mask, (mask,)
