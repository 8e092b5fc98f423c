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


def layer_norm_2d_elementwise(tape: Tape, x: Tensor, width: int) -> Tensor:
    """The same norm as the vendor's code spells it out (LayerNorm2d); frees x."""
    images, _, side, _ = x.shape
    per_pixel = (images, 1, side, side)
    weight, bias = tape.weight(width), tape.weight(width)
    mean = tape(ops.reduction("mean", x, per_pixel))
    squares = tape(ops.elementwise("sub", x, mean))
    squares = tape.then_free(ops.elementwise("pow", squares), squares)
    variance = tape.then_free(ops.reduction("mean", squares, per_pixel), squares)
    centred = tape(ops.elementwise("sub", x, mean))
    shifted = tape(ops.elementwise("add", variance))
    deviation = tape.then_free(ops.elementwise("sqrt", shifted), shifted)
    normed = tape.then_free(ops.elementwise("div", centred, deviation), centred, deviation)
    scaled = tape(ops.elementwise("mul", weight, normed, shape=x.shape))
    return tape.then_free(ops.elementwise("add", scaled, bias), scaled, normed, mean, variance, x)


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
