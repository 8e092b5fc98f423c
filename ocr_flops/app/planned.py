"""The plan of a setting: what its pages take on the device and on all others, which meet the targets, and what they cost."""

from dataclasses import replace
from typing import Any

import polars as pl

from ocr_flops.app.setting import FIGURES
from ocr_flops.app.views import Results
from ocr_flops.errors import SpecError
from ocr_flops.reports import tables
from ocr_flops.reports.markdown import render_markdown
from ocr_flops.spec.catalog import load_hardware, names
from ocr_flops.spec.specs import HardwareSpec
from ocr_flops.timing import planning
from ocr_flops.timing.timing import Timing
from ocr_flops.units import attention_words, hour_price

LIKELY = ("yes", "likely")


def plan_pages(results: Results) -> tuple[str, pl.DataFrame]:
    """The answer in sentences, as Markdown, and a row a device.

    Args:
        results: of a setting.

    Raises:
        SpecError: a target or a price that is none.
    """
    estimate, setting = results.main, results.setting
    for name in ("pages", "gpus"):
        if getattr(setting, name) is None:
            raise SpecError(f"{name}: empty; give a number from 1 up")
    values: dict[str, Any] = {"estimate": estimate, "hardware": results.hardware, "setting": setting, "planning": planning}
    values["mode"] = f"{attention_words(estimate.config.attention.name)} in {estimate.config.model.under(estimate.config.engine)}"
    wanted = {
        "ttft_seconds": None if setting.ttft_ms is None else setting.ttft_ms / 1e3,
        "tpot_seconds": None if setting.tpot_ms is None or not estimate.workload.output_tokens else setting.tpot_ms / 1e3,
    }

    def timed(device: HardwareSpec) -> Timing:
        own = {} if device.name == setting.gpu else dict.fromkeys(FIGURES)  # figures that were edited are those of the device shown
        there = replace(setting, gpu=device.name, **own)
        return estimate.on(**(replace(results.on_record, setting=there) if results.on_record else there).conditions)

    prices, currency = setting.hour_prices
    devices = planning.compare_devices(
        estimate,
        [results.hardware if name == setting.gpu and results.hardware else load_hardware(name) for name in names("hardware")],
        price_per_hour=prices or None,
        best_batch=setting.plan_batch == "best",
        pages=setting.pages,
        gpus=setting.gpus,
        on=timed,
        **wanted,
    )
    required = planning.required_rates(estimate, **wanted)
    able = devices.filter(pl.col("reason").is_null())
    able = able.filter(pl.col("target_outlook").is_in(LIKELY)) if required else able
    cheapest = able.filter(pl.col("cost").is_not_null()).sort("cost") if len(prices) > 1 else able.clear()
    chosen = {"here": devices.filter(pl.col("hardware") == setting.hardware.title), "fastest": able, "cheapest": cheapest}
    best = {word: tables.devices_table(rows.head(1), currency).row(0, named=True) for word, rows in chosen.items() if rows.height}
    among = {"here": "This GPU", "fastest": f"Of {devices.height} GPUs the fastest"}
    if cheapest.height:
        price = prices[setting.gpu if cheapest["hardware"][0] == setting.hardware.title else cheapest["hardware"][0]]
        among["cheapest"] = f"Cheapest of {len(prices)} GPUs with a price, at {hour_price(price, currency)},"
    return render_markdown("plan.md.j2", **values, required=required, best=best, among=among), tables.devices_table(devices, currency)
