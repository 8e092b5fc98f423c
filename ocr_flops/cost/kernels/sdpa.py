"""PyTorch's fused kernels as CUDA chooses them: flash attention without a mask, the memory-efficient kernel with an additive bias."""

from __future__ import annotations

from ocr_flops.cost import ops
from ocr_flops.cost.blocks.positions import RelativePositions
from ocr_flops.cost.kernels.base import Attended, Kernel, Layout
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.polynomial import product
from ocr_flops.cost.tape import Tape

RANDOM_STATE_BYTES = 8  # the seed or the offset of a fused kernel's random state: one int64 each
ALIGNMENT = 8  # elements that a row of the bias must be a multiple of


class Sdpa(Kernel, name="sdpa"):
    """`scaled_dot_product_attention`."""

    order = 1
    visible = True  # to torch's FLOP counter

    def attend(self, tape: Tape, query: Tensor, key: Tensor, value: Tensor, layout: Layout, mask: Tensor | None = None) -> Attended:
        """Query, key and value are read once, the output and the logsumexp of every row written once. fp32 takes the memory-efficient
        kernel, which keeps no logsumexp in inference."""
        *batch, rows, _ = query.shape
        logsumexp = (ops.new((product(batch) * rows,), 4), *random_state()[:1]) if query.itemsize != 4 else ()
        statistics = (*logsumexp, *random_state())
        return Attended(tape(ops.fused_attention(query, key, value, statistics=statistics, visible=self.visible), keep=1))

    def attend_with_positions(self, tape: Tape, query: Tensor, key: Tensor, value: Tensor, positions: RelativePositions) -> Attended:
        """The bias [batch, heads, n, n] is written, padded and read.

        The kernel needs its rows to be a multiple of 8 elements; PyTorch pads them first (`preprocess_mask` in ATen's attention.cpp).
        """
        bias, held = positions.bias(tape, query)
        *batch, rows, keys = bias.shape
        read = bias
        if keys % ALIGNMENT:
            read = tape(ops.copy("constant_pad_nd", bias, shape=(*batch, rows, keys + ALIGNMENT - keys % ALIGNMENT))).view(*bias.shape)
        out = tape(ops.fused_attention(query, key, value, read, statistics=random_state()), keep=1)
        tape.free_copy(read, bias)
        return Attended(out, (*held, bias))


def random_state() -> tuple[Tensor, ...]:
    """Seed and offset of the random state, which the fused kernels return even without dropout."""
    return ops.new((1,), RANDOM_STATE_BYTES), ops.new((1,), RANDOM_STATE_BYTES)
