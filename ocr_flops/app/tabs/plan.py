"""The tab Plan: which device meets the targets, and at what price."""

from __future__ import annotations

from dataclasses import replace

import marimo as mo

from ocr_flops.app.records_overlay import conditions
from ocr_flops.app.setting import FIGURES
from ocr_flops.app.tabs.controls import GPUS
from ocr_flops.app.tabs.elements import plain_table, problem, row
from ocr_flops.app.views import Results
from ocr_flops.errors import SpecError
from ocr_flops.reports import tables
from ocr_flops.reports.markdown import render_markdown
from ocr_flops.spec.catalog import load_hardware
from ocr_flops.timing import planning


def plan(results: Results, targets: mo.ui.dictionary) -> mo.Html:
    """What a device must reach for the targets, and how those known compare; a notice where that has no answer.

    Args:
        results: of a setting.
        targets: of `target_controls`.
    """
    estimate, setting = results.main, results.setting
    values = {"estimate": estimate, "hardware": results.hardware}
    values["mode"] = f"attention {estimate.config.attention.name} in {estimate.config.engine.described}"
    wanted = {
        "ttft_seconds": None if setting.ttft_ms is None else setting.ttft_ms / 1e3,
        "tpot_seconds": None if setting.tpot_ms is None or not estimate.workload.output_tokens else setting.tpot_ms / 1e3,
    }
    try:
        gpus = [load_hardware(name) for name in GPUS.values()]
        catalogued = replace(setting, **dict.fromkeys(FIGURES))
        devices = planning.compare_devices(
            estimate,
            gpus,
            price_per_hour=setting.price,
            on=lambda device: estimate.on(**conditions(results.model, replace(catalogued, gpu=device.name))),
            **wanted,
        )
        required = planning.required_rates(estimate, **wanted)
        answer = [
            mo.md(render_markdown("plan.md.j2", **values, required=required, planning=planning)),
            plain_table(tables.devices_table(devices), page_size=50),
        ]
    except SpecError as error:
        answer = [problem("This target has no answer.", f"{error}.")]
    return mo.vstack([row(*targets.elements.values(), gap=2), *answer])
