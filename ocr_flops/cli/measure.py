"""What `ocr-flops measure` does: times the real model for one workload, keeps the record, prints it; exits 1 where it failed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ocr_flops.cli.console import (
    Form,
    Out,
    Overrides,
    Python,
    Records,
    complain,
    known_names,
    render_table,
    show_progress,
    split_overrides,
    write_output,
)
from ocr_flops.errors import SpecError
from ocr_flops.measure.protocol import EXPERTS, PROBES, TIMED_DEVICES, Request

if TYPE_CHECKING:
    import polars as pl

STAGE_COLUMNS = ("stage", "runs", "median_seconds", "spread_seconds", "min_seconds", "torch_flops_counted", "io_bytes", "mfu")
STAGE_COLUMNS += ("bandwidth_use", "peak_allocated_bytes", "peak_reserved_bytes")
MODULE_COLUMNS = ("stage", "module", *STAGE_COLUMNS[2:-2])


def measure_model(
    overrides: Overrides = None,
    device: Annotated[Literal[TIMED_DEVICES], typer.Option(help="auto: cuda where there is one, else cpu.")] = "auto",
    runs: Annotated[int, typer.Option(metavar="N", help="Timed runs.")] = Request.runs,
    warmup: Annotated[int, typer.Option(metavar="N", help="Runs before them.")] = Request.warmup,
    experts: Annotated[Literal[EXPERTS] | None, typer.Option(help="transformers' experts implementation (default: grouped_mm).")] = None,
    passes: Annotated[
        str,
        typer.Option(metavar="PASS,...", help=f"What is observed beside the timed runs, of {', '.join(PROBES)}, or none."),
    ] = ",".join(Request.probes),
    python: Python = None,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="End the worker after so long (default: never).")] = None,
    records_folder: Records = None,
    form: Form = "table",
    out: Out = None,
) -> int:
    """Time the real model for one workload, and keep a record of it.

    engine=remote_code snapshot=DIR trust_remote_code=true times the published code, checkpoint=DIR local weights.
    """
    from ocr_flops.evidence import records
    from ocr_flops.evidence.records.recorder import measure_points
    from ocr_flops.measure.client import interpreter
    from ocr_flops.measure.plan import ModelSource, Plan
    from ocr_flops.spec.run_spec import load_run

    rest, source = split_overrides(overrides)
    run = load_run(rest)
    if timeout is not None and not timeout > 0:
        raise SpecError(f"--timeout: {timeout!r} is not a number of seconds above 0")
    observed = () if passes == "none" else known_names("--passes", passes, PROBES)
    plan = Plan(run, ModelSource(run.engine.name, **source), device, runs, warmup, experts, observed)
    python = interpreter(python)
    where = records.check_folder(records.records_folder(records_folder))
    with show_progress() as progress:
        (record,) = measure_points(
            plan,
            python=python,
            timeout_seconds=timeout,
            progress=lambda done, total, text: progress(f"{done} of {total}: {text}"),
        )
    problem = None
    try:
        path = records.write_record(record, where)
    except records.Unwritten as unwritten:
        path, problem = unwritten.rescued, unwritten
    failed = record["state"] == records.FAILED
    if problem is not None and path is None:
        print(json.dumps(record))  # its only copy
    elif form != "table" or not failed:
        write_output(_text(record, path, form, out), form, out, "measure")
    if problem is not None:
        complain("measure", str(problem))
    if failed:
        failure = record["failure"]
        complain(
            "measure", "\n".join(part for part in (failure["message"], failure["advice"], failure["detail"], f"record: {path}") if part)
        )
    return 1 if failed or problem is not None else 0


def _text(record: dict[str, Any], path: Path, form: str, out: Path | None) -> str:
    """A record as it is shown."""
    from ocr_flops.evidence.records import record_frame

    if form == "json":
        return json.dumps(record | {"path": str(path)}, indent=1)
    stages = record_frame(record, path)
    if form == "csv":
        return stages.write_csv()
    shown = (_shown(stages, STAGE_COLUMNS, out), _shown(record_frame(record, path, "module"), MODULE_COLUMNS, out))
    return "\n".join([*_head(record), *filter(None, shown), str(path)])


def _head(record: dict[str, Any]) -> list[str]:
    """What ran, in words."""
    ran, asked, workload = record["ran"], record["asked"], record["workload"]
    where = (
        f"{ran['device_name']} ({record['hardware']['name']})" if record["hardware"] else f"{ran['device_name']}, whose peaks are not known"
    )
    modes = ", ".join(f"{tower} {mode}" for tower, mode in asked["attention"].items())
    lines = [
        f"{record['model']['name']}, {asked['engine']}, {modes}, experts {ran['experts']}, {asked['dtype']}, on {where}",
        f"{workload['image_tokens']} image + {workload['prompt_tokens']} prompt tokens, {workload['output_tokens']} output tokens, "
        f"batch {workload['batch_size']}; {asked['runs']} runs after {asked['warmup']}",
    ]
    notes = dict.fromkeys(note for stage in record["stages"].values() for note in stage["not_counted"] or ())
    return [*lines, *notes, *(f"{name} could not be observed: {why}" for name, why in ran["not_observed"].items())]


def _shown(frame: pl.DataFrame, columns: tuple[str, ...], out: Path | None) -> str:
    """The columns that have figures."""
    kept = [name for name in columns if frame[name].null_count() < frame.height]
    return render_table(frame.select(kept), ("stage", "module"), out=out) if frame.height else ""
