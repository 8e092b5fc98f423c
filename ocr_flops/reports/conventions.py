"""Sentences that reports share: how to read their numbers, and how far to trust them."""

from __future__ import annotations

READING = (
    "**FLOPs**: a multiply-add is 2. Tensor FLOPs run on matrix units, vector FLOPs on the others; attention is counted dense, as in "
    "PyTorch.",
    "**Bytes moved**: what every executed operator reads and writes, at its real precision. Caches on the chip are not modelled.",
    "**Peak of live activations**: the largest sum alive at one instant beside weights and KV cache, stage inputs included.",
    "**Vision** runs SAM, CLIP and the projector over all views, **prefill** the language model over the context, **decode** one step per "
    "output token. The first token needs vision and prefill.",
)
NOT_FITTED = (
    "**Nothing is fitted.** Every operator that the engine executes is listed with its FLOPs, its bytes and what is alive beside it, "
    "and added up in whole numbers."
)
EVIDENCE = (
    "Runnable: the mode exists in that engine, and can be counted and traced on the real model without a GPU. "
    "Modelled: by the same rules, without a runnable counterpart"
)
ROOFLINE = (
    "**Roofline time is a model, not a measurement.** Every operator takes the longest of its times at the peaks of matrix units, vector "
    "units and memory; none overlap, no cache is reused, and launches cost nothing. The **bound** is what no implementation of the same "
    "arithmetic undercuts."
)
