"""Fused attention as CUDA runs it, on devices that have no such kernel: so what it saves can be traced on any machine."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

aten = torch.ops.aten
KERNELS = ("_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention")


class CudaAttention(TorchFunctionMode):
    """Sends `scaled_dot_product_attention` to the operator that CUDA would choose, also on `meta` tensors and on the CPU.

    Without a mask that is flash attention (fp32: the memory-efficient kernel); with an additive bias the memory-efficient kernel, which
    needs rows of a multiple of 8 elements, so PyTorch pads the bias first (`preprocess_mask` in ATen's attention.cpp).
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        query, key, value, *rest = args
        if query.device.type == "cpu":
            _on_cpu()
        bias = rest[0] if rest else kwargs.get("attn_mask")
        causal, scale = kwargs.get("is_causal", False), kwargs.get("scale")
        if bias is None and query.dtype != torch.float32:
            return aten._scaled_dot_product_flash_attention(query, key, value, 0.0, causal, False, scale=scale)[0]
        if bias is not None and bias.shape[-1] % 8:
            columns = bias.shape[-1]
            bias = torch.nn.functional.pad(bias, (0, 8 - columns % 8))[..., :columns]
        return aten._scaled_dot_product_efficient_attention(query, key, value, bias, False, 0.0, causal, scale=scale)[0]


@functools.cache
def _on_cpu() -> torch.library.Library:
    """Gives both operators a CPU kernel, for this process: results in the layout of CUDA's, computed the plain way."""
    library = torch.library.Library("aten", "IMPL", "CPU")
    for name in KERNELS:
        library.impl(name, _plain(getattr(aten, name)))
    return library


def _plain(operator: Any) -> Callable[..., tuple]:
    def kernel(query, key, value, *rest, scale=None):
        biased = operator is aten._scaled_dot_product_efficient_attention
        bias, causal = (rest[0], rest[3] if len(rest) > 3 else False) if biased else (None, rest[1] if len(rest) > 1 else False)
        shapes = operator(
            *(part.to("meta") if isinstance(part, torch.Tensor) else part for part in (query, key, value, *rest)), scale=scale
        )
        made = [torch.empty_like(part, device="cpu") if isinstance(part, torch.Tensor) else part for part in shapes]
        made[0].copy_(aten._scaled_dot_product_attention_math(query, key, value, bias, 0.0, causal, scale=scale)[0])
        return tuple(made)

    return kernel
