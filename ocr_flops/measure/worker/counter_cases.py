"""Small operators with what they compute in closed form, to be run under torch's FLOP counter.

Work is counted by the project's rules: a multiply-add is 2 FLOPs of matrix work (`tensor_flops`); `vector_flops` is one per element of an
elementwise operator and, per element, softmax 5, LayerNorm 8, GELU 5, SiLU 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import (
    conv2d,
    embedding,
    gelu,
    grouped_mm,
    layer_norm,
    linear,
    rms_norm,
    scaled_dot_product_attention,
    silu,
    softmax,
)

aten = torch.ops.aten
BATCH, HEADS, TOKENS, HEAD = 2, 4, 32, 16  # of attention
ROWS, WIDTH, INNER = 48, 64, 96  # of everything else
EXPERTS = 4
SCORES = BATCH * HEADS * TOKENS**2
CORE = 4 * HEAD * SCORES  # query·keyᵀ and probabilities·value
CONVOLUTION = {"images": 2, "channels": 3, "side": 16, "kernel": 3, "out_channels": 8, "out_side": 8}
HEAD_SHAPE = (BATCH, HEADS, TOKENS, HEAD)


@dataclass(frozen=True)
class Case:
    """One demonstration.

    Args:
        name: unique.
        call: what is run, in words a reader of the code knows.
        device: "cpu", "meta" or "cuda".
        shapes: of the inputs, random bf16.
        run: takes them.
        tensor_flops, vector_flops: what it computes, in closed form.
        remedy: how to make the counter see it; empty where it does.
        needs: a package without which it is skipped.
    """

    name: str
    call: str
    device: str
    shapes: tuple[tuple[int, ...], ...]
    run: Callable[..., Any]
    tensor_flops: int = 0
    vector_flops: int = 0
    remedy: str = ""
    needs: str = ""


def _grouped(x: torch.Tensor, experts: torch.Tensor) -> torch.Tensor:
    ends = torch.arange(ROWS // EXPERTS, ROWS + 1, ROWS // EXPERTS, dtype=torch.int32, device=x.device)
    return grouped_mm(x, experts, offs=ends)


def _math_only(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    with sdpa_kernel(SDPBackend.MATH):
        return scaled_dot_product_attention(query, key, value)


def _biased(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return scaled_dot_product_attention(query, key, value, attn_mask=bias)


def _rope(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, -1)
    return x * cosines + torch.cat((-second, first), -1) * sines


def _flash_attn(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    from flash_attn import flash_attn_func

    return flash_attn_func(*(part.transpose(1, 2) for part in (query, key, value)))


def cases() -> list[Case]:
    """All demonstrations, those with matrix work first."""
    core = {"tensor_flops": CORE, "vector_flops": 6 * SCORES}  # softmax and scaling of every score
    biased = {"tensor_flops": CORE, "vector_flops": 7 * SCORES}  # and the addition of the bias
    three, with_bias = (HEAD_SHAPE,) * 3, (*(HEAD_SHAPE,) * 3, (BATCH, HEADS, TOKENS, TOKENS))
    experts = ((ROWS, WIDTH), (EXPERTS, WIDTH, INNER))
    rows, tokens = ((ROWS, WIDTH),), ROWS * WIDTH
    picture = CONVOLUTION
    unseen = "count it from shapes, as `estimate` does: no mode of the counter sees it"
    math = "run under `sdpa_kernel(SDPBackend.MATH)`, or on meta: the same matrix products, one by one"
    batched = "`set_experts_implementation('batched_mm')` or 'eager': the same products as bmm or mm"
    found = [
        Case("linear", "linear with a bias", "cpu", ((ROWS, WIDTH), (INNER, WIDTH), (INNER,)), linear, 2 * ROWS * WIDTH * INNER),
        Case("matmul", "batched matmul", "cpu", ((4, ROWS, WIDTH), (4, WIDTH, INNER)), torch.matmul, 4 * 2 * ROWS * WIDTH * INNER),
        Case(
            "conv2d",
            "conv2d, 3 x 3, stride 2",
            "cpu",
            (
                (picture["images"], picture["channels"], picture["side"], picture["side"]),
                (picture["out_channels"], picture["channels"], picture["kernel"], picture["kernel"]),
            ),
            lambda x, weight: conv2d(x, weight, stride=2, padding=1),
            2 * picture["images"] * picture["out_side"] ** 2 * picture["out_channels"] * picture["channels"] * picture["kernel"] ** 2,
        ),
        *(
            case
            for device, remedy in (("cpu", math), ("meta", ""), ("cuda", ""))
            for case in (
                Case(f"sdpa_{device}", "scaled_dot_product_attention", device, three, scaled_dot_product_attention, remedy=remedy, **core),
                Case(
                    f"sdpa_bias_{device}", "scaled_dot_product_attention with a mask", device, with_bias, _biased, remedy=remedy, **biased
                ),
            )
        ),
        Case("sdpa_math_cpu", "scaled_dot_product_attention, MATH backend", "cpu", three, _math_only, **core),
        Case(
            "flash_operator",
            "the flash attention operator of CUDA",
            "meta",
            three,
            lambda query, key, value: aten._scaled_dot_product_flash_attention(query, key, value, 0.0, False, False),
            **core,
        ),
        Case(
            "efficient_operator",
            "the memory-efficient operator of CUDA, with a bias",
            "meta",
            with_bias,
            lambda query, key, value, bias: aten._scaled_dot_product_efficient_attention(query, key, value, bias, False),
            **biased,
        ),
        Case(
            "flash_attn",
            "flash_attn_func of the package flash-attn",
            "cuda",
            three,
            _flash_attn,
            remedy="run sdpa instead: the same products, which the counter knows",
            needs="flash_attn",
            **core,
        ),
        *(
            Case(f"grouped_mm_{device}", "grouped_mm of experts", device, experts, _grouped, 2 * ROWS * WIDTH * INNER, remedy=batched)
            for device in ("cpu", "meta", "cuda")
        ),
        Case(
            "batched_mm",
            "batched_mm of experts: a bmm",
            "meta",
            ((ROWS, 1, WIDTH), (ROWS, WIDTH, INNER)),
            torch.bmm,
            2 * ROWS * WIDTH * INNER,
        ),
        Case("softmax", "softmax", "cpu", rows, lambda x: softmax(x, -1), 0, 5 * tokens, unseen),
        Case(
            "layer_norm",
            "layer_norm",
            "cpu",
            (*rows, (WIDTH,), (WIDTH,)),
            lambda x, weight, bias: layer_norm(x, (WIDTH,), weight, bias),
            0,
            8 * tokens,
            unseen,
        ),
        Case(
            "rms_norm",
            "rms_norm",
            "cpu",
            (*rows, (WIDTH,)),
            lambda x, weight: rms_norm(x, (WIDTH,), weight),
            0,
            4 * tokens + 2 * ROWS,
            unseen,
        ),
        Case("gelu", "gelu", "cpu", rows, gelu, 0, 5 * tokens, unseen),
        Case("silu", "silu", "cpu", rows, silu, 0, 4 * tokens, unseen),
        Case("rope", "rotary position embedding", "cpu", (*rows, *rows, *rows), _rope, 0, 3 * tokens + tokens // 2, unseen),
        Case("residual", "residual addition", "cpu", (*rows, *rows), torch.add, 0, tokens, unseen),
        Case(
            "embedding",
            "embedding",
            "cpu",
            ((ROWS, WIDTH),),
            lambda table: embedding(torch.zeros(BATCH, TOKENS, dtype=torch.long, device=table.device), table),
        ),
    ]
    return found
