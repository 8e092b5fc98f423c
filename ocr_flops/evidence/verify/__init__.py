"""Analytic numbers against the real model's: FLOPs as torch counts them, and every operator's FLOPs, bytes and live memory as traced."""

from ocr_flops.evidence.verify.cases import Case, default_cases, point_case, run_cases
from ocr_flops.evidence.verify.compare import ALL, LEVELS, MEASURES, WHAT, compare_flops, compare_numbers
