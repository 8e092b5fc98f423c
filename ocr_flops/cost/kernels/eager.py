"""Eager attention: scores and probabilities are materialised, and the softmax is taken in fp32."""

from __future__ import annotations

from ocr_flops.cost import ops
from ocr_flops.cost.blocks.positions import RelativePositions
from ocr_flops.cost.kernels.base import Attended, Kernel, Layout
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.tape import Tape


class Eager(Kernel, name="eager"):
    """Scores, scaling, mask, softmax and output as separate operators."""

    order = 0
    reads_mask = True

    def attend(self, tape: Tape, query: Tensor, key: Tensor, value: Tensor, layout: Layout, mask: Tensor | None = None) -> Attended:
        *batch, _, width = query.shape
        copies_query, copies_key, copies_value = layout.copies
        dense_query = tape(ops.copy("clone", query)) if copies_query else query
        dense_key = tape(ops.copy("clone", key)) if copies_key else key
        scores = tape(ops.matmul(dense_query, dense_key.view(*batch, width, key.shape[-2])))
        tape.free_copy(dense_query, query)
        tape.free_copy(dense_key, key)
        scores = tape.then_free(ops.elementwise(layout.scale_name, scores), scores)
        if mask is not None:
            scores = tape.then_free(ops.elementwise("add", scores, mask), scores)
        out, probabilities = _weighted_values(tape, scores, value, copies_value)
        if layout.transposes_output:
            out = tape.then_free(ops.copy("clone", out), out)
        return Attended(out, kept=(probabilities,))

    def attend_with_positions(self, tape: Tape, query: Tensor, key: Tensor, value: Tensor, positions: RelativePositions) -> Attended:
        batch, heads, n, d = query.shape
        scaled = tape(ops.elementwise("mul", query))
        scores = tape.then_free(ops.matmul(scaled, key.view(batch, heads, d, n)), scaled)
        bias, held = positions.bias(tape, query)
        biased = tape.then_free(ops.elementwise("add", scores, bias), scores)
        product, probabilities = _weighted_values(tape, biased, value, copies_value=False)
        return Attended(tape.then_free(ops.copy("clone", product), product), (*held, bias), (probabilities,))


def _weighted_values(tape: Tape, scores: Tensor, value: Tensor, copies_value: bool) -> tuple[Tensor, Tensor]:
    """Softmax of scores [..., rows, keys] in fp32, back to the model's dtype, times value [..., keys, d]; frees the scores.

    Returns the output [..., rows, d] and the probabilities, which the engines' code keeps alive until attention or the layer returns.
    """
    upcast = tape.cast(scores, 4)
    exponentials = tape(ops.softmax(upcast))
    tape.free_copy(upcast, scores)
    probabilities = tape.cast(exponentials, scores.itemsize)
    tape.free(scores)
    tape.free_copy(exponentials, probabilities)
    dense = tape(ops.copy("clone", value)) if copies_value else value
    out = tape(ops.matmul(probabilities, dense))
    tape.free_copy(dense, value)
    return out, probabilities
