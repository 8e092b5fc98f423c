"""The flash-attn package's kernel, and the one nobody has written: a kernel that also builds SAM's relative-position bias on chip.

It is sdpa without writing, copying, padding and reading the n x n bias; the einsums stay, and the kernel reads their n x side results.
"""

from __future__ import annotations

from ocr_flops.cost import ops
from ocr_flops.cost.blocks.positions import RelativePositions
from ocr_flops.cost.kernels.base import Attended
from ocr_flops.cost.kernels.sdpa import Sdpa, random_state
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.tape import Tape


class Flash(Sdpa, name="flash"):
    """Flash attention; torch's FLOP counter does not know the package's kernel."""

    order = 2
    dtypes = ("bf16", "fp16")
    visible = False

    def attend_with_positions(self, tape: Tape, query: Tensor, key: Tensor, value: Tensor, positions: RelativePositions) -> Attended:
        sides, gathered = positions.side_biases(tape, query)
        out = tape(ops.fused_attention(query, key, value, side_biases=sides, statistics=random_state()), keep=1)
        return Attended(out, (*sides, *gathered))
