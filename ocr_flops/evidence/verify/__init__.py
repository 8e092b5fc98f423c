"""Analytic numbers against the real model's: FLOPs as torch counts them, and every operator's FLOPs, bytes and live memory as traced.

A measured point is compared with the analytic value of the engine, attention, precision and logits that ran, never with anything else.
"""

from ocr_flops.evidence.verify.cases import Case, Source, asked, point_cases, run, suite
from ocr_flops.evidence.verify.levels import LEVELS, MEASURES, WHAT, differences
from ocr_flops.evidence.verify.results import ALL, DECODE_STEPS, POINT_FIELDS, analytic, compare, request
from ocr_flops.measure.protocol import Request

__all__ = [
    "ALL",
    "DECODE_STEPS",
    "LEVELS",
    "MEASURES",
    "POINT_FIELDS",
    "WHAT",
    "Case",
    "Request",
    "Source",
    "analytic",
    "asked",
    "compare",
    "differences",
    "point_cases",
    "request",
    "run",
    "suite",
]
