"""What there is to choose from, as frames: models, devices, resolution modes, attention modes, engines, and the grids of the tile rule."""

from __future__ import annotations

from typing import Any

import polars as pl

from ocr_flops.spec import catalog, tiling
from ocr_flops.spec.reading import names, offered
from ocr_flops.spec.specs import OTHERS
from ocr_flops.spec.workload import Workload

A4_PX = (1654, 2339)  # at 200 dpi


def hardware_frame() -> pl.DataFrame:
    """A row per device with its figures: dense peaks by precision in FLOP/s (null where it has none), bytes a second, bytes.

    It takes no arguments; `load_hardware` gives one device.
    """
    return _frame({"hardware": name, **_figures(catalog.load_hardware(name))} for name in names("hardware"))


def grids_frame(mode: str = "gundam") -> pl.DataFrame:
    """A row per grid of the tile rule, 1 x 1 first: columns, rows, tiles, and the tokens of an image in a mode with tiles."""
    pages = [Workload.from_grid(columns, rows, mode) for columns, rows in [(1, 1), *tiling.rule_grids()]]
    return _frame({name: getattr(page, name) for name in ("columns", "rows", "tiles", "image_tokens")} for page in pages)


def models_frame() -> pl.DataFrame:
    """A row per model: its name, its label, and the parts it runs."""
    found = [catalog.load_model(name) for name in offered("model")]
    return _frame({"model": one.name, "label": one.label, "towers": ", ".join(tower.tower for tower in one.towers)} for one in found)


def modes_frame() -> pl.DataFrame:
    """A row per resolution mode: the sides of its global view and its tiles in pixels, and the image tokens of an A4 page at 200 dpi."""
    pages = [Workload.from_image(*A4_PX, mode) for mode in catalog.modes()]
    sides = [{"global_px": page.global_px, "tile_px": page.tile_px or None, "a4_image_tokens": page.image_tokens} for page in pages]
    return _frame({"workload": mode.name, "label": mode.label, **side} for mode, side in zip(catalog.modes(), sides, strict=True))


def attention_frame() -> pl.DataFrame:
    """A row per attention mode: the kernel that it gives to towers, the engine's own where it leaves it open."""
    found = [catalog.load_attention(name) for name in names("attention")]
    return _frame({"attention": one.name, "kernel": one.kernel(OTHERS) or "each engine's own"} for one in found)


def engines_frame() -> pl.DataFrame:
    """A row per engine: its label, what issues its operators, the logits its `generate` computes, the kernel of each tower."""
    found = [catalog.load_engine(name) for name in names("engine")]
    keys = ("label", "host", "prefill_logits")
    kernels = {one.name: ", ".join(f"{tower}: {kernel}" for tower, kernel in one.kernels) for one in found}
    return _frame({"engine": one.name, **{key: getattr(one, key) for key in keys}, "own_attention": kernels[one.name]} for one in found)


LISTS = {
    "models": models_frame,
    "hardware": hardware_frame,
    "modes": modes_frame,
    "attention": attention_frame,
    "engines": engines_frame,
}


def _figures(device: Any) -> dict[str, Any]:
    peaks = dict(device.matrix_flops_per_second)
    matrix = {f"{dtype}_flops_per_second": peaks.get(dtype) for dtype in ("bf16", "fp16", "tf32", "fp8")}
    keys = ("vector_fp32_flops_per_second", "memory_bandwidth_bytes_per_second", "memory_bytes", "flash_attention")
    return {"label": device.label, **matrix, **{key: getattr(device, key) for key in keys}}


def _frame(rows: Any) -> pl.DataFrame:
    return pl.DataFrame(list(rows), infer_schema_length=None)
