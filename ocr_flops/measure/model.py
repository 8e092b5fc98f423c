"""The real model: transformers' UnlimitedOcr class at DeepSeek-OCR's dimensions, with random weights, on any device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from transformers import UnlimitedOcrConfig, UnlimitedOcrForConditionalGeneration
from transformers.integrations import moe

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


def config(towers: dict[str, dict[str, Any]]) -> UnlimitedOcrConfig:
    """The class's config with the given dimensions; every decoder layer attends to everything."""
    sam, clip, decoder = towers["sam"], towers["clip"], towers["decoder"]
    vision = {
        "sam_config": {
            "hidden_size": sam["width"],
            "output_channels": sam["neck_width"],
            "num_hidden_layers": sam["layers"],
            "num_attention_heads": sam["heads"],
            "num_channels": sam["channels"],
            "image_size": sam["image_px"],
            "patch_size": sam["patch_px"],
            "window_size": sam["window"],
            "global_attn_indexes": list(sam["global_layers"]),
            "mlp_dim": sam["mlp_width"],
            "downsample_channels": list(sam["downsample_widths"]),
        },
        "encoder_config": {
            "hidden_size": clip["width"],
            "intermediate_size": clip["mlp_width"],
            "num_hidden_layers": clip["layers"],
            "num_attention_heads": clip["heads"],
            "num_channels": clip["channels"],
            "image_size": clip["image_px"],
            "patch_size": clip["patch_px"],
        },
    }
    layers, dense, vocabulary = decoder["layers"], decoder["dense_layers"], decoder["vocabulary"]
    text = {
        "hidden_size": decoder["width"],
        "intermediate_size": decoder["dense_width"],
        "num_hidden_layers": layers,
        "num_attention_heads": decoder["heads"],
        "num_key_value_heads": decoder["heads"],
        "n_routed_experts": decoder["experts"],
        "num_experts_per_tok": decoder["experts_per_token"],
        "moe_intermediate_size": decoder["expert_width"],
        "n_shared_experts": decoder["shared_experts"],
        "vocab_size": vocabulary,
        "layer_types": ["full_attention"] * layers,
        "mlp_layer_types": ["dense"] * dense + ["sparse"] * (layers - dense),
    }
    return UnlimitedOcrConfig(vision_config=vision, text_config=text, image_token_id=min(128_815, vocabulary - 1))


def build(towers: dict[str, dict[str, Any]], attention: dict[str, str], dtype: str, device: str, experts: str) -> torch.nn.Module:
    """Builds the model with random weights.

    Args:
        towers: dimensions, as in the request.
        attention: "eager" or "sdpa" for each of sam, clip and decoder.
        dtype: "bf16", "fp16" or "fp32".
        device: "meta", "cpu" or "cuda".
        experts: transformers' experts implementation, "batched_mm", "grouped_mm" or "eager".

    Raises:
        ValueError: an attention mode that this class does not have.
    """
    for tower, mode in attention.items():
        if mode not in ("eager", "sdpa"):
            raise ValueError(f"attention.{tower}: {mode!r} cannot be run by transformers' UnlimitedOcr class; choose eager or sdpa")
    settings = config(towers)
    with torch.device(device):
        model = UnlimitedOcrForConditionalGeneration._from_config(settings, attn_implementation=attention["sam"], dtype=DTYPES[dtype])
    model.model.vision_tower.vision_encoder.config._attn_implementation = attention["clip"]
    model.model.language_model.config._attn_implementation = attention["decoder"]
    model.set_experts_implementation(experts)
    return model.eval()


def parameter_count(model: torch.nn.Module) -> int:
    """Parameters of the model."""
    return sum(parameter.numel() for parameter in model.parameters())


@contextlib.contextmanager
def meta_shims(device: str) -> Iterator[None]:
    """Lets the model run on meta: a check that reads a value on the host is run up to the reading, and grouped matrix products of other
    dtypes than bf16, which have no meta kernel, go through transformers' own fallback operator (same shapes, same sizes)."""
    if device != "meta":
        yield
        return
    checked, usable = torch._check_tensor_all_with, moe._can_use_grouped_mm
    torch._check_tensor_all_with = lambda error, condition, message=None: condition._is_all_true()
    moe._can_use_grouped_mm = lambda x, weight, offs: x.dtype == torch.bfloat16
    try:
        yield
    finally:
        torch._check_tensor_all_with, moe._can_use_grouped_mm = checked, usable
