"""transformers >= 5.20: UnlimitedOcrForConditionalGeneration with DeepSeek-OCR's dimensions."""

from __future__ import annotations

from ocr_flops.cost import ops
from ocr_flops.cost.blocks import attention, experts, layers, positions
from ocr_flops.cost.blocks.passes import ForwardPass
from ocr_flops.cost.engines.base import Engine, Tensors
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.tape import Tape


class Transformers(Engine, name="transformers"):
    """What the class executes; a source line is named where its code does more than it must."""

    named = frozenset({"sam mlp input", "projector input", "attention probabilities", "router logits"})
    experts = "grouped_mm"
    prefill_cache_is_contiguous = True

    def pad_windows(self, tape: Tape, x: Tensor, padded: tuple) -> Tensor:
        """It also pads by nothing."""
        return tape(ops.copy("constant_pad_nd", x, shape=padded))

    def resize_relative(self, tape: Tape, table: Tensor, rows: int) -> Tensor:
        """It interpolates in the model's precision, also to the size that the table has."""
        return positions.resize_relative(tape, table, rows, table.itemsize)

    def arrange_bias(self, tape: Tape, bias: Tensor, sides: Tensors, gathered: Tensors) -> tuple[Tensor, Tensors]:
        """The sum of the factors is copied once more, to become contiguous."""
        tape.free(*sides, *gathered)
        return tape.then_free(ops.copy("clone", bias), bias), ()

    def insert_features(self, tape: Tape, forward: ForwardPass, embedded: Tensor, features: Tensor) -> Tensors:
        """It joins the features of all pages, and first compares their number with that of the places."""
        joined = tape(ops.copy("cat", features))
        places = tape(ops.elementwise("eq", ops.new((forward.batch, forward.tokens), ops.INDEX_BYTES), itemsize=1))
        count = tape(ops.reduction("sum", places, (1,), ops.INDEX_BYTES))
        product = tape(ops.elementwise("mul", count))
        same = tape.then_free(ops.elementwise("eq", product, itemsize=1), product)
        tape.free(tape(ops.reduction("_is_all_true", same, (1,))), same, count)
        tape.synchronise()
        out = tape.then_free(ops.copy("masked_scatter", embedded, places, joined), embedded)
        return out, joined, places

    def build_masks(self, tape: Tape, kernel: attention.Kernel, forward: ForwardPass) -> tuple[Tensor | None, Tensors]:
        """It also builds the mask of Unlimited-OCR's sliding window, which no layer of DeepSeek-OCR uses, and keeps it."""
        positions_of_tokens = attention.count_positions(tape, forward.tokens)
        kept = []
        for allow in (attention.allow_causal, _allow_window) if kernel.reads_mask else (_allow_window,):
            indices = [tape(ops.create("arange", (length,), ops.INDEX_BYTES)) for length in (forward.batch, 1)]
            queries, keys = (attention.count_positions(tape, length) for length in (forward.tokens, forward.context))
            allowed = allow(tape, queries, keys)
            tape.free(*indices, queries, keys)
            kept.append(attention.to_additive(tape, forward, allowed) if kernel.reads_mask else allowed)
        return kept[0] if kernel.reads_mask else None, (positions_of_tokens, *kept)

    def fill_cache(self, tape: Tape, fresh: Tensor) -> Tensor:
        """A dynamic cache begins empty, and concatenates in prefill too."""
        return layers.concatenate_cache(tape, fresh, fresh.shape[-2], 0)

    def run_experts(self, tape: Tape, sizes: experts.Experts, x: Tensor, weights: Tensor, index: Tensor) -> Tensor:
        """Grouped matrix products."""
        return experts.run_grouped(tape, sizes, x, weights, index)


def _allow_window(tape: Tape, queries: Tensor, keys: Tensor) -> Tensor:
    """(in the window and causal) or (causal and in the prefix), as transformers nests its mask functions: [tokens, context] bool."""
    tokens, context = queries.shape[0], keys.shape[0]

    def mask(name: str, *inputs: Tensor, frees: Tensors = ()) -> Tensor:
        return tape.then_free(ops.elementwise(name, *inputs, shape=(tokens, context), itemsize=1), *frees)

    def both(name: str, *inputs: Tensor) -> Tensor:
        return mask(name, *inputs, frees=inputs)

    nothing = tape(ops.create("new_zeros", (tokens,), 1))
    everything = tape(ops.create("new_ones", (tokens,), 1))
    start = tape(ops.elementwise("sub", queries))
    started = both("bitwise_and", everything, mask("gt", keys, start, frees=(start,)))
    window = both("bitwise_or", nothing, both("bitwise_and", started, mask("le", keys, queries)))
    everything = tape(ops.create("new_ones", (tokens,), 1))
    causal = both("bitwise_and", everything, mask("le", keys, queries))
    offset = tape(ops.elementwise("sub", keys))
    prefix = both("bitwise_and", causal, tape.then_free(ops.elementwise("lt", offset, itemsize=1), offset))
    return both("bitwise_or", window, prefix)
