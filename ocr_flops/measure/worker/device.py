"""Where and in which precision the real model runs; needs torch alone."""

from __future__ import annotations

import torch

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def resolved_device(device: str) -> str:
    """The device that runs: "auto" is cuda where there is one, else meta.

    Raises:
        RuntimeError: cuda was asked for and there is none.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "meta"
    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("device: 'cuda' is not available here; choose meta (exact FLOPs, no GPU) or cpu")
    return device


def parameter_count(model: torch.nn.Module) -> int:
    """Parameters of the model."""
    return sum(parameter.numel() for parameter in model.parameters())


def bytes_of_all(tensor: torch.Tensor) -> int:
    """Bytes of all elements of a tensor."""
    return tensor.numel() * tensor.element_size()
