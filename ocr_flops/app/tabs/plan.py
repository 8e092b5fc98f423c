"""The tab Plan: which device meets the targets, and at what price."""

from __future__ import annotations

from typing import Any

import marimo as mo

from ocr_flops.app.tabs.controls import GPUS
from ocr_flops.app.tabs.elements import plain_table, problem
from ocr_flops.app.views import Shown
from ocr_flops.errors import SpecError
from ocr_flops.reports import tables
from ocr_flops.spec.catalog import load_hardware
from ocr_flops.timing import planning


def plan(shown: Shown, ttft_ms: float | None, tpot_ms: float | None, price: float | None) -> list[Any]:
    """What a device must reach for the targets, and how those known compare; a notice where that has no answer.

    Args:
        shown: a setting that can be computed.
        ttft_ms, tpot_ms: targets; None for none.
        price: of an hour; None where it is not known.
    """
    estimate = shown.estimates[0]
    wanted = {
        "ttft_seconds": None if ttft_ms is None else ttft_ms / 1e3,
        "tpot_seconds": None if tpot_ms is None or not estimate.workload.output_tokens else tpot_ms / 1e3,
    }
    try:
        devices = planning.devices(estimate, [load_hardware(name) for name in GPUS.values()], price_per_hour=price, **wanted)
        return [
            mo.md(tables.plan_words(estimate, planning.required(estimate, **wanted), shown.hardware)),
            plain_table(tables.devices_table(devices), page_size=50),
        ]
    except SpecError as error:
        return [problem("This target has no answer.", f"{error}.")]
