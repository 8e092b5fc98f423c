"""Small operators with what they compute in closed form, to be run under torch's FLOP counter.

Work is counted by the project's rules: a multiply-add is 2 FLOPs of matrix work (`tensor_flops`); `vector_flops` is one per element of an
elementwise operator and, per element, softmax 5, LayerNorm 8, GELU 5, SiLU 4.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

aten = torch.ops.aten
BATCH, HEADS, TOKENS, HEAD = 2, 4, 32, 16  # of attention
ROWS, WIDTH, INNER = 48, 64, 96  # of everything else
EXPERTS = 4
IMAGES, CHANNELS, SIDE, KERNEL, OUT_CHANNELS, OUT_SIDE = 2, 3, 16, 3, 8, 8  # of a convolution
SCORES, MATRIX, ELEMENTS = BATCH * HEADS * TOKENS**2, 2 * ROWS * WIDTH * INNER, ROWS * WIDTH
CORE = 4 * HEAD * SCORES  # query·keyᵀ and probabilities·value
HEAD_SHAPE, BIAS_SHAPE, ROW_SHAPE = (BATCH, HEADS, TOKENS, HEAD), (BATCH, HEADS, TOKENS, TOKENS), (ROWS, WIDTH)
UNSEEN = "count it from shapes, as `estimate` does: no mode of the counter sees it"
MATH = "run under `sdpa_kernel(SDPBackend.MATH)`, or on meta: the same matrix products, one by one"
BATCHED = "`set_experts_implementation('batched_mm')` or 'eager': the same products as bmm or mm"


@dataclass(frozen=True)
class Demonstration:
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


def _attention(name: str, call: str, device: str, run: Callable[..., Any], bias: bool = False, **rest: str) -> Demonstration:
    """Attention; softmax and scaling of every score are 6 vector FLOPs, and the addition of a bias one more."""
    shapes = (HEAD_SHAPE,) * 3 + ((BIAS_SHAPE,) if bias else ())
    return Demonstration(name, call, device, shapes, run, CORE, (6 + bias) * SCORES, **rest)


def _elementwise(name: str, call: str, flops: int, run: Callable[..., Any], *more: tuple[int, ...]) -> Demonstration:
    """An operator on rows, and on `more` inputs, that no mode of the counter sees."""
    return Demonstration(name, call, "cpu", (ROW_SHAPE, *more), run, 0, flops, UNSEEN)


def _grouped(x: torch.Tensor, experts: torch.Tensor) -> torch.Tensor:
    ends = torch.arange(ROWS // EXPERTS, ROWS + 1, ROWS // EXPERTS, dtype=torch.int32, device=x.device)
    return functional.grouped_mm(x, experts, offs=ends)


def _math_only(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    with sdpa_kernel(SDPBackend.MATH):
        return functional.scaled_dot_product_attention(query, key, value)


def _rope(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, -1)
    return x * cosines + torch.cat((-second, first), -1) * sines


def _flash_attn(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    from flash_attn import flash_attn_func

    return flash_attn_func(*(part.transpose(1, 2) for part in (query, key, value)))


_SDPA = functional.scaled_dot_product_attention
CASES = (  # those with matrix work first
    Demonstration("linear", "linear with a bias", "cpu", (ROW_SHAPE, (INNER, WIDTH), (INNER,)), functional.linear, MATRIX),
    Demonstration("matmul", "batched matmul", "cpu", ((4, ROWS, WIDTH), (4, WIDTH, INNER)), torch.matmul, 4 * MATRIX),
    Demonstration(
        "conv2d",
        "conv2d, 3 x 3, stride 2",
        "cpu",
        ((IMAGES, CHANNELS, SIDE, SIDE), (OUT_CHANNELS, CHANNELS, KERNEL, KERNEL)),
        lambda x, weight: functional.conv2d(x, weight, stride=2, padding=1),
        2 * IMAGES * OUT_SIDE**2 * OUT_CHANNELS * CHANNELS * KERNEL**2,
    ),
    _attention("sdpa_cpu", "scaled_dot_product_attention", "cpu", _SDPA, remedy=MATH),
    _attention("sdpa_bias_cpu", "scaled_dot_product_attention with a mask", "cpu", _SDPA, bias=True, remedy=MATH),
    _attention("sdpa_meta", "scaled_dot_product_attention", "meta", _SDPA),
    _attention("sdpa_bias_meta", "scaled_dot_product_attention with a mask", "meta", _SDPA, bias=True),
    _attention("sdpa_cuda", "scaled_dot_product_attention", "cuda", _SDPA),
    _attention("sdpa_bias_cuda", "scaled_dot_product_attention with a mask", "cuda", _SDPA, bias=True),
    _attention("sdpa_math_cpu", "scaled_dot_product_attention, MATH backend", "cpu", _math_only),
    _attention(
        "flash_operator",
        "the flash attention operator of CUDA",
        "meta",
        lambda query, key, value: aten._scaled_dot_product_flash_attention(query, key, value, 0.0, False, False),
    ),
    _attention(
        "efficient_operator",
        "the memory-efficient operator of CUDA, with a bias",
        "meta",
        lambda query, key, value, bias: aten._scaled_dot_product_efficient_attention(query, key, value, bias, False),
        bias=True,
    ),
    _attention(
        "flash_attn",
        "flash_attn_func of the package flash-attn",
        "cuda",
        _flash_attn,
        remedy="run sdpa instead: the same products, which the counter knows",
        needs="flash_attn",
    ),
    *(
        Demonstration(
            f"grouped_mm_{device}", "grouped_mm of experts", device, (ROW_SHAPE, (EXPERTS, WIDTH, INNER)), _grouped, MATRIX, 0, BATCHED
        )
        for device in ("cpu", "meta", "cuda")
    ),
    Demonstration("batched_mm", "batched_mm of experts: a bmm", "meta", ((ROWS, 1, WIDTH), (ROWS, WIDTH, INNER)), torch.bmm, MATRIX),
    _elementwise("softmax", "softmax", 5 * ELEMENTS, lambda x: functional.softmax(x, -1)),
    _elementwise("layer_norm", "layer_norm", 8 * ELEMENTS, lambda x, *rest: functional.layer_norm(x, (WIDTH,), *rest), (WIDTH,), (WIDTH,)),
    _elementwise("rms_norm", "rms_norm", 4 * ELEMENTS + 2 * ROWS, lambda x, weight: functional.rms_norm(x, (WIDTH,), weight), (WIDTH,)),
    _elementwise("gelu", "gelu", 5 * ELEMENTS, functional.gelu),
    _elementwise("silu", "silu", 4 * ELEMENTS, functional.silu),
    _elementwise("rope", "rotary position embedding", 7 * ELEMENTS // 2, _rope, ROW_SHAPE, ROW_SHAPE),
    _elementwise("residual", "residual addition", ELEMENTS, torch.add, ROW_SHAPE),
    Demonstration(
        "embedding",
        "embedding",
        "cpu",
        (ROW_SHAPE,),
        lambda table: functional.embedding(torch.zeros(BATCH, TOKENS, dtype=torch.long, device=table.device), table),
    ),
)
