"""Numbers as files: frames as CSV, Parquet and JSON, and an estimate as one object."""

from io import BytesIO
from typing import Any

import polars as pl

from ocr_flops.cost.frames import WORKLOAD_COLUMNS
from ocr_flops.errors import one_of
from ocr_flops.timing.estimate import Estimate
from ocr_flops.timing.timing import Timing

WRITERS = {"csv": pl.DataFrame.write_csv, "parquet": pl.DataFrame.write_parquet, "json": pl.DataFrame.write_json}
TIMES = ("ttft_seconds", "tpot_seconds", "last_tpot_seconds", "bound_ttft_seconds", "tokens_per_second", "pages_per_second")


def table_bytes(frame: pl.DataFrame, format: str) -> bytes:
    """A frame as the content of a file, with exact integers and text that any reader takes.

    Args:
        frame: any frame of the package.
        format: "csv", "parquet", or "json" (a list of rows).

    Raises:
        SpecError: another format.
    """
    file = BytesIO()
    WRITERS[one_of("format", format, WRITERS)](frame.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String)), file)
    return file.getvalue()


def describe_estimate(estimate: Estimate, timing: Timing | None = None) -> dict[str, Any]:
    """An estimate as one JSON object: the settings, the resolved workload, footprint, rows of stages and modules, and times on a device."""
    config, source = estimate.config, timing or estimate
    return {
        "model": config.model.title,
        **{name: getattr(config, name).name for name in ("engine", "attention")},
        **{name: getattr(config, name) for name in ("dtype", "cache", "prefill_logits")},
        "workload": {name: getattr(estimate.workload, name) for name in ("mode", *WORKLOAD_COLUMNS)},
        "footprint": estimate.footprint._asdict(),
        "stages": source.stages.to_dicts(),
        "modules": source.modules.to_dicts(),
        **(describe_times(timing) if timing else {}),
    }


def describe_times(timing: Timing) -> dict[str, Any]:
    """The headline times of an estimate on a device with the range of expected ones, what these rest on, and whether it fits."""
    found = {"hardware": timing.hardware.title, "host": timing.host.name, "fits": bool(timing.fits), "time_basis": timing.time_basis}
    return found | timing.expected_figures() | {name: getattr(timing, name) for name in ("device_busy_share", *TIMES)}
