"""What `ocr-flops calibrate` does: learns from a device's records, and prints what is reached, held-out errors and calibrated figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ocr_flops.cli.console import Form, Out, Overrides, Records, complain, render_table, write_output
from ocr_flops.timing.estimate import estimate_run
from ocr_flops.units import seconds, si

if TYPE_CHECKING:
    from ocr_flops.evidence.calibration import CalibratedEstimate, Calibration, Interval
    from ocr_flops.spec.run_spec import RunSpec

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
        complain("calibrate", f"{problem.path}: {problem.reason}")
    found = calibrate(frame, run.model, hardware=run.hardware, device=device, dtype=run.dtype, engine=run.engine)
    if isinstance(found, Uncalibrated):
        complain("calibrate", found.reason)
        return 1
    point = found.predict(estimate_run(run))
    if form == "csv":
        text = found.predictions.write_csv()
    elif form == "json":
        text = json.dumps(as_json(found, point), indent=1)
    else:
        text = _text(run, found, point, out)
    write_output(text, form, out, "calibrate")
    return 0


def as_json(found: Calibration, point: CalibratedEstimate) -> dict[str, Any]:
    """A calibration and what it says of a point as plain data."""
    memory, point_fields = found.memory, ("bound_ttft_seconds", "bound_tpot_seconds", "bound_seconds", "memory_reason")
    return {
        **{name: getattr(found, name) for name in ("device", "records", "workloads", "outliers")},
        "hardware": None if found.hardware is None else found.hardware.name,
        **{name: getattr(found, name).name for name in ("model", "engine")},
        "dtype": found.dtype,
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
    return None if figure is None else figure._asdict()


def _text(run: RunSpec, found: Calibration, point: CalibratedEstimate, out: Path | None) -> str:
    """What a terminal shows."""
    import polars as pl

    where = (
        f"{found.device} ({found.hardware.name})" if found.hardware else f"{found.device}, whose peaks are not known: rates, no efficiency"
    )
    left = [f"{count} {reason}" for reason, count in found.left_out.items()]
    lines = [
        f"{found.model.name}, {found.engine.name}, {found.dtype}, on {where}",
        f"{found.records} records of {found.workloads} workloads, {found.outliers} outliers"
        + (f"; left out: {'; '.join(left)}" if left else ""),
    ]
    reached = [
        {
            "ceiling": one.ceiling,
            "efficiency": "" if one.efficiency is None else "{:.0%} ({:.0%} to {:.0%})".format(*one.efficiency),
            "reached": f"not known: it {one.reason}" if one.reason else _interval(one.rate, RATES[one.ceiling]),
            "of": "not known" if one.peak is None else si(one.peak, RATES[one.ceiling]),
        }
        for one in found.efficiencies
    ]
    spent = [f"{stage} {'never shows' if one is None else _interval(one, 's')}" for stage, one in found.launch_seconds.items()]
    errors = found.errors.with_columns(
        (pl.col(name) * 100).round(1).cast(pl.String) + " %" for name in ("median_error", "p90_error", "within_15_percent")
    )
    far = found.predictions.sort(pl.col("ratio").log().abs(), descending=True).head(FURTHEST)
    held = far.select(SHOWN if found.hardware else SHOWN[:-1], ratio=pl.col("ratio").round(3).cast(pl.String))
    lines += [render_table(pl.DataFrame(reached), out=out), f"an operator's launch: {', '.join(spent)}; {found.launches}"]
    lines += ["cross-validation, each workload predicted by the others:", render_table(errors, out=out)]
    lines += [f"the {held.height} furthest off, of {found.predictions.height} (all of them: --format csv):", render_table(held, out=out)]
    workload = run.workload
    lines.append(
        f"{workload.mode}, {workload.image_tokens} image + {workload.prompt_tokens} prompt tokens, {workload.output_tokens} output tokens, "
        f"batch {workload.batch_size}, attention {run.attention.name}: calibrated, with the range of nine in ten"
    )
    for name, figure, bound in (
        ("TTFT", point.ttft_seconds, point.bound_ttft_seconds),
        ("TPOT", point.tpot_seconds, point.bound_tpot_seconds),
    ):
        if figure is not None:
            lines.append(f"{name} {_interval(figure, 's')}" + ("" if bound is None else f"; bound {seconds(bound)}"))
    for name, figure in (("allocated", point.allocated_bytes), ("reserved", point.reserved_bytes)):
        if figure is not None:
            lines.append(f"memory {name} {_interval(figure, 'B')}")
    lines += [f"no calibrated memory: {point.memory_reason}"] if point.memory_reason else []
    return "\n".join([*lines, *(f"note: {note}" for note in point.notes)])


def _interval(figure: Interval, unit: str) -> str:
    value, low, high = (seconds(one) if unit == "s" else si(one, unit) for one in figure)
    return f"{value} ({low} to {high})"
