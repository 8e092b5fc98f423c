"""The attention core per mode: what runs between the projections of query, key and value and the output projection.

`eager` materialises scores and probabilities and takes the softmax in fp32. `sdpa` is PyTorch's fused kernel as CUDA chooses it: flash
attention without a mask, the memory-efficient kernel with an additive bias. `flash` is a kernel that also builds SAM's bias on chip.
"""

from __future__ import annotations

from ocr_flops.cost import ops
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.polynomial import product
from ocr_flops.cost.tape import Tape

KERNELS = ("eager", "sdpa", "flash")  # the most wasteful first
PHILOX_BYTES = 8  # seed or offset of a fused kernel's random state: one int64 each


def attention_modes(dtype: str) -> tuple[str, ...]:
    """The attention modes there are for a precision, the most wasteful first: no flash kernel takes fp32."""
    return tuple(mode for mode in KERNELS if (mode, dtype) != ("flash", "fp32"))


def eager_scores_to_output(tape: Tape, scores: Tensor, value: Tensor, *, copies_value: bool) -> tuple[Tensor, Tensor]:
    """Softmax in fp32, back to the model's dtype, times value.

    Args:
        scores: [..., rows, keys], freed here.
        value: [..., keys, d].
        copies_value: whether the layout forces a contiguous copy of value before the product.

    Returns:
        the output [..., rows, d] and the probabilities, which the engines' Python code keeps alive until attention or the layer returns.
    """
    upcast = tape.cast(scores, 4)
    exponentials = tape(ops.softmax(upcast))
    if upcast is not scores:
        tape.free(upcast)
    probabilities = tape.cast(exponentials, scores.itemsize)
    tape.free(scores)
    if probabilities is not exponentials:
        tape.free(exponentials)
    dense = tape(ops.copy("clone", value)) if copies_value else value
    out = tape(ops.matmul(probabilities, dense))
    if copies_value:
        tape.free(dense)
    return out, probabilities


def eager(
    tape: Tape,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Tensor | None = None,
    copies: tuple[bool, bool, bool],
    scale_name: str = "mul",
    transposes_output: bool = True,
) -> tuple[Tensor, Tensor]:
    """Scores, scaling, mask, softmax and output as separate operators.

    Args:
        query: [batch, heads, rows, d]; key, value: [batch, heads, keys, d].
        mask: additive mask [batch, rows, keys], shared by the heads.
        copies: whether query, key and value need a contiguous copy before their matrix products.
        scale_name: "mul" or "div".
        transposes_output: whether the output must be copied to [batch, rows, heads, d].

    Returns:
        the output [batch, heads, rows, d] and the probabilities (still alive).
    """
    *batch, rows, width = query.shape
    keys = key.shape[-2]
    q = tape(ops.copy("clone", query)) if copies[0] else query
    k = tape(ops.copy("clone", key)) if copies[1] else key
    scores = tape(ops.matmul(q, k.view(*batch, width, keys)))
    for copied, tensor in zip(copies, (q, k), strict=False):
        if copied:
            tape.free(tensor)
    scaled = tape(ops.elementwise(scale_name, scores))
    tape.free(scores)
    if mask is not None:
        masked = tape(ops.elementwise("add", scaled, mask))
        tape.free(scaled)
        scaled = masked
    out, probabilities = eager_scores_to_output(tape, scaled, value, copies_value=copies[2])
    if transposes_output:
        contiguous = tape(ops.copy("clone", out))
        tape.free(out)
        out = contiguous
    return out, probabilities


def fused(tape: Tape, query: Tensor, key: Tensor, value: Tensor, *, visible: bool = True) -> tuple[Tensor, None]:
    """The flash kernel without a mask: q, k, v once, the output and the logsumexp of every row once. fp32 takes the
    memory-efficient kernel, which keeps no logsumexp in inference.

    Args:
        query: [batch, heads, rows, d]; key, value: [batch, heads, keys, d].
        visible: whether torch's FLOP counter knows the kernel (it does not know the flash-attn package's).

    Returns:
        the output [batch, heads, rows, d], and None for the probabilities.
    """
    *batch, rows, _ = query.shape
    statistics = philox() if query.itemsize == 4 else (ops.new((product(batch) * rows,), 4), *philox(), *philox()[:1])
    return tape(ops.fused_attention(query, key, value, statistics=statistics, visible=visible), keep=1), None


def philox() -> tuple[Tensor, ...]:
    """Seed and offset of the random state, which the fused kernels return even without dropout."""
    return ops.new((1,), PHILOX_BYTES), ops.new((1,), PHILOX_BYTES)


def memory_efficient(tape: Tape, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """PyTorch's fused kernel for an additive bias [batch, heads, rows, keys], which must be written, padded and read.

    The kernel needs bias rows of a multiple of 8 elements; PyTorch pads them first (`preprocess_mask` in ATen's attention.cpp).

    Returns the output [batch, heads, rows, d]; bias stays alive.
    """
    *batch, rows, keys = bias.shape
    read = bias
    if keys % 8:
        padded = tape(ops.copy("constant_pad_nd", bias, shape=(*batch, rows, keys + 8 - keys % 8)))
        read = padded.view(*bias.shape)
    out = tape(ops.fused_attention(query, key, value, read, statistics=philox()), keep=1)
    tape.free(*([read] if keys % 8 else []))
    return out


def run(
    mode: str,
    tape: Tape,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Tensor | None = None,
    copies: tuple[bool, bool, bool],
    **eager_options,
) -> tuple[Tensor, Tensor | None]:
    """The attention core of CLIP and the decoder in the given mode; see `eager` and `fused`."""
    if mode == "eager":
        return eager(tape, query, key, value, mask=mask, copies=copies, **eager_options)
    return fused(tape, query, key, value, visible=mode != "flash")
