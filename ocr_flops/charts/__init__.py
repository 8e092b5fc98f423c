"""Frames -> Altair charts: pure functions, one file a subject."""

from ocr_flops.charts.flops import flops_by_module, flops_by_tokens
from ocr_flops.charts.tiling import tiling_picture

__all__ = ["flops_by_module", "flops_by_tokens", "tiling_picture"]
