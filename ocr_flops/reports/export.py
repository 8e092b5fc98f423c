"""Numbers as files: frames as CSV, Parquet and JSON, and an estimate as one object."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import polars as pl

from ocr_flops.cost.frames import WORKLOAD_COLUMNS
from ocr_flops.errors import one_of

if TYPE_CHECKING:
    from ocr_flops.timing.estimate import Estimate
    from ocr_flops.timing.timing import Timing

FORMATS = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet", "json": "application/json"}  # and their media types
TIMES = (
    "ttft_seconds",
    "tpot_seconds",
    "last_tpot_seconds",
    "bound_ttft_seconds",
    "tokens_per_second",
    "pages_per_second",
)


def table_bytes(frame: pl.DataFrame, format: str) -> bytes:
    """A frame as the content of a file, with exact integers and text that any reader takes.

    Args:
        frame: any frame of the package.
        format: "csv", "parquet", or "json" (a list of rows).

    Raises:
        SpecError: another format.
    """
    one_of("format", format, FORMATS)
    plain = frame.cast({name: pl.String for name, kind in frame.schema.items() if isinstance(kind, pl.Categorical | pl.Enum)})
    file = BytesIO()
    write = {"csv": plain.write_csv, "json": plain.write_json, "parquet": plain.write_parquet}[format]
    write(file)
    return file.getvalue()


def describe_estimate(estimate: Estimate, timing: Timing | None = None) -> dict[str, Any]:
    """An estimate as one JSON object: the settings, the resolved workload, the footprint, the rows of stages and modules, and times.

    Args:
        estimate: of one point.
        timing: the same on a device.
    """
    config, source = estimate.config, timing or estimate
    return {
        "model": config.model.name,
        "engine": config.engine.name,
        "attention": config.attention.name,
        "dtype": config.dtype,
        "cache": config.cache,
        "prefill_logits": config.prefill_logits,
        "workload": {name: getattr(estimate.workload, name) for name in ("mode", *WORKLOAD_COLUMNS)},
        "footprint": estimate.footprint._asdict(),
        "stages": source.stages.to_dicts(),
        "modules": source.modules.to_dicts(),
        **(describe_times(timing) if timing else {}),
    }


def describe_times(timing: Timing) -> dict[str, Any]:
    """The headline times of an estimate on a device, and whether it fits."""
    return {"hardware": timing.hardware.name, "fits": bool(timing.fits), **{name: getattr(timing, name) for name in TIMES}}
