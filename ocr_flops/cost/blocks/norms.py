"""Norms that are several operators, or run on maps."""

from __future__ import annotations

from ocr_flops.cost import ops
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.tape import Tape


def layer_norm_2d(tape: Tape, x: Tensor, width: int) -> Tensor:
    """LayerNorm over the channels of a map [images, width, side, side]; frees x."""
    images, _, side, _ = x.shape
    out = tape(ops.layer_norm(x.view(images, side, side, width), tape.weight(width), tape.weight(width)), keep=1)
    tape.free(x)
    return out.view(*x.shape)


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
