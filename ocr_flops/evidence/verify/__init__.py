"""Analytic numbers against the real model's: FLOPs as torch counts them, and every operator's FLOPs, bytes and live memory as traced.

A measured point is compared with the analytic value of the engine, attention, precision and logits that ran, never with anything else.
"""

from ocr_flops.evidence.verify.cases import Case, asked, point_cases, run, suite
from ocr_flops.evidence.verify.levels import LEVELS, MEASURES, WHAT, differences
from ocr_flops.evidence.verify.results import ALL, analytic, compare

__all__ = [
    "ALL",
    "LEVELS",
    "MEASURES",
    "WHAT",
    "Case",
    "analytic",
    "asked",
    "compare",
    "differences",
    "point_cases",
    "run",
    "suite",
]
