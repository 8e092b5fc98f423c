"""The model to be timed: as `model.build`, and with flash attention's own kernel where one is installed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from transformers.utils import is_flash_attn_2_available

FLASH = "flash_attention_2"
SAM = "kernel missing: attention.sam: 'flash' cannot be run, since no kernel builds SAM's bias on chip; choose attention.sam=sdpa"


def build(
    towers: dict[str, dict[str, Any]], attention: dict[str, str], dtype: str, device: str, experts: str, checkpoint: str | None = None
) -> torch.nn.Module:
    """Builds the model (arguments as in `model.build`), `attention` also "flash" for clip and decoder.

    Raises:
        ValueError: a kernel is missing, or what `model.build` refuses.
    """
    from ocr_flops.measure.worker.transformers_engine import (
        build as build_plain,  # not where the vendor's code runs: its transformers lacks that class
    )

    flash = [tower for tower, mode in attention.items() if mode == "flash"]
    if "sam" in flash:
        raise ValueError(SAM)
    for tower in flash:
        if device != "cuda" or not is_flash_attn_2_available():
            needed = "the package flash-attn where the worker runs" if device == "cuda" else "a CUDA device"
            raise ValueError(f"kernel missing: attention.{tower}: 'flash' cannot be run without {needed}; choose sdpa")
    model = build_plain(towers, attention | dict.fromkeys(flash, "sdpa"), dtype, device, experts, checkpoint)
    for settings in _settings(model, flash):
        settings._attn_implementation = FLASH
    return model


@contextlib.contextmanager
def countable(model: torch.nn.Module, engine: str, attention: dict[str, str], experts: str) -> Iterator[None]:
    """Within it, kernels that torch's FLOP counter has no formula for are exchanged for ones that it knows."""
    if engine != "transformers":
        yield
        return
    flash = [tower for tower, mode in attention.items() if mode == "flash"]
    for settings in _settings(model, flash):
        settings._attn_implementation = "sdpa"
    model.set_experts_implementation("eager")
    try:
        yield
    finally:
        model.set_experts_implementation(experts)
        for settings in _settings(model, flash):
            settings._attn_implementation = FLASH


def exchanged(stage: str, attention: dict[str, str], experts: str, device: str) -> list[str]:
    """What torch's counter could not have counted in the kernels of a stage that are timed, and what is counted instead; a line each."""
    notes = []
    for tower in ("sam", "clip") if stage == "vision" else ("decoder",):
        if attention[tower] == "flash":
            notes.append(f"{tower}: flash-attn is not counted; counted with sdpa")
        elif attention[tower] == "sdpa" and device == "cpu":
            notes.append(f"{tower}: the CPU's fused attention is not counted; counted with its plain one")
    if stage != "vision" and experts == "grouped_mm":
        notes.append("decoder.routed_experts: grouped products are not counted; counted expert by expert")
    return notes


def _settings(model: torch.nn.Module, towers: list[str]) -> list[Any]:
    """The config that each of the towers reads its attention from."""
    owners = {"clip": model.model.vision_tower.vision_encoder, "decoder": model.model.language_model} if towers else {}
    return [owners[tower].config for tower in towers]
