"""The command `ocr-flops calibrate`: learns from a device's records what it reaches, and says it of one workload."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ocr_flops.cli import console
from ocr_flops.cli.console import Form, Out, Overrides, Records
from ocr_flops.timing.estimate import estimate_run
from ocr_flops.units import interval, si

if TYPE_CHECKING:
    import polars as pl

    from ocr_flops.evidence.calibration import CalibratedEstimate, Calibration, Interval

FURTHEST = 15  # held-out rows in a terminal
RATES = {"matrix": "FLOP/s", "vector": "FLOP/s", "bandwidth": "B/s"}
MEMORY = ("bytes", "reach_bytes", "reserved", "reserved_reach")  # the figures of a memory calibration, as they are written
SHOWN = ("stage", "attention", "context_tokens", "output_tokens", "batch_size", "measured_seconds", "predicted_seconds", "bound_seconds")


def calibrate_device(
    overrides: Overrides = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="The device as its records name it (default: hardware=..., or that of most records).")
    ] = None,
    records_folder: Records = None,
    form: Form = "table",
    out: Out = None,
) -> int:
    """What a device reaches by its records, and the time of the workload given; exits 1 where the records do not say."""
    from ocr_flops.evidence import records
    from ocr_flops.evidence.calibration import Uncalibrated, calibrate
    from ocr_flops.spec.run_spec import load_run

    run = load_run(overrides or ())
    frame, problems = records.records_frame(records.records_folder(records_folder))
    for problem in problems:
        console.complain("calibrate", f"{problem.path}: {problem.reason}")
    found = calibrate(frame, run.model, hardware=run.hardware, device=device, dtype=run.dtype, engine=run.engine)
    if isinstance(found, Uncalibrated):
        console.complain("calibrate", found.reason)
        return 1
    point = found.predict(estimate_run(run))
    values = {"run": run, "found": found, "point": point, **_tables(found)}
    console.write_result("calibrate", form, out, found.predictions, partial(as_json, found, point), **values)
    return 0


def as_json(found: Calibration, point: CalibratedEstimate) -> dict[str, Any]:
    """A calibration and what it says of a point as plain data."""
    memory, point_fields = found.memory, ("bound_ttft_seconds", "bound_tpot_seconds", "bound_seconds", "memory_reason")
    return {
        **{name: getattr(found, name) for name in ("device", "records", "workloads", "outliers", "dtype")},
        **{name: one and one.name for name in ("hardware", "model", "engine") for one in [getattr(found, name)]},
        "left_out": dict(found.left_out),
        "missing": dict(found.missing),
        "launches": found.fitted.launches,
        "launch_seconds": {stage: _range(one) for stage, one in found.launch_seconds.items()},
        "ceilings": [one._asdict() | {"efficiency": _range(one.efficiency), "rate": _range(one.rate)} for one in found.efficiencies],
        "errors": found.errors.to_dicts(),
        "held_out": found.predictions.to_dicts(),
        "memory": None if isinstance(memory, str) else dict(zip(MEMORY, memory[:4], strict=True)),
        "point": {
            **{name: _range(getattr(point, name)) for name in ("ttft_seconds", "tpot_seconds", "allocated_bytes", "reserved_bytes")},
            **{name: getattr(point, name) for name in point_fields},
            "seconds": {stage: _range(one) for stage, one in point.seconds.items()},
            "notes": list(point.notes),
        },
    }


def _range(figure: Interval | None) -> dict[str, float] | None:
    return figure and figure._asdict()


def _tables(found: Calibration) -> dict[str, pl.DataFrame]:
    """What a terminal shows as tables: each ceiling, the errors, and the predictions furthest off."""
    import polars as pl

    ceilings = [
        {
            "ceiling": one.ceiling,
            "efficiency": "" if one.efficiency is None else "{:.0%} ({:.0%} to {:.0%})".format(*one.efficiency),
            "reached": f"not known: it {one.reason}" if one.reason else interval(one.rate, RATES[one.ceiling]),
            "of": "not known" if one.peak is None else si(one.peak, RATES[one.ceiling]),
        }
        for one in found.efficiencies
    ]
    percent = (pl.col("median_error", "p90_error", "within_15_percent") * 100).round(1).cast(pl.String) + " %"
    furthest = found.predictions.sort(pl.col("ratio").log().abs(), descending=True).head(FURTHEST)
    return {
        "ceilings": pl.DataFrame(ceilings),
        "errors": found.errors.with_columns(percent),
        "furthest": furthest.select(SHOWN if found.hardware else SHOWN[:-1], ratio=pl.col("ratio").round(3).cast(pl.String)),
    }
