"""An estimate as plain data: one object with everything that was asked and what came out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ocr_flops.timing.estimate import Estimate
    from ocr_flops.timing.timing import Timing


def as_json(estimate: Estimate, timing: Timing | None = None) -> dict[str, Any]:
    """An estimate as one object: what was asked, the resolved workload, the footprint, the rows of stages and modules, and times.

    Args:
        estimate: of one point.
        timing: the same on a device.
    """
    from ocr_flops.cost.frames import WORKLOAD_COLUMNS

    config, shown = estimate.config, timing or estimate
    return {
        "model": config.model.name,
        "engine": config.engine.name,
        "attention": config.attention.name,
        "dtype": config.dtype,
        "cache": config.cache,
        "prefill_logits": config.prefill_logits,
        "workload": {name: getattr(estimate.workload, name) for name in ("mode", *WORKLOAD_COLUMNS)},
        "footprint": estimate.footprint._asdict(),
        "stages": shown.stages.to_dicts(),
        "modules": shown.modules.to_dicts(),
        **(times(timing) if timing else {}),
    }


def times(timing: Timing) -> dict[str, Any]:
    """The headline figures of an estimate on a device."""
    return {
        "hardware": timing.hardware.name,
        "fits": bool(timing.fits),
        "ttft_seconds": timing.ttft_seconds,
        "tpot_seconds": timing.tpot_seconds,
        "last_tpot_seconds": timing.last_tpot_seconds,
        "bound_ttft_seconds": timing.bound_ttft_seconds,
        "tokens_per_second": timing.tokens_per_second,
        "pages_per_second": timing.pages_per_second,
    }
