"""The command `ocr-flops measure`: times the real model for one workload, or the host's lane; keeps the record, prints it; exits 1 where it
failed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ocr_flops.cli import console
from ocr_flops.cli.console import Form, Out, Overrides, Python, Records
from ocr_flops.errors import SpecError
from ocr_flops.measure.plan import HOST_RUNS
from ocr_flops.measure.protocol import EXPERTS, PROBES, TIMED_DEVICES, Request

if TYPE_CHECKING:
    import polars as pl

FIGURES = ("median_seconds", "spread_seconds", "min_seconds", "torch_flops_counted", "io_bytes", "mfu", "bandwidth_use")
COLUMNS = {"stage": ("stage", "runs", *FIGURES, "peak_allocated_bytes", "peak_reserved_bytes"), "module": ("stage", "module", *FIGURES)}


def measure_model(
    overrides: Overrides = None,
    device: Annotated[Literal[TIMED_DEVICES], typer.Option(help="auto: cuda where there is one, else cpu.")] = "auto",
    lane: Annotated[
        Literal["device", "host"],
        typer.Option(help="host: what one CPU thread takes to issue the operators, without a device, by the class at tiny widths."),
    ] = "device",
    runs: Annotated[
        int | None,
        typer.Option(metavar="N", help=f"Timed runs (default: {Request.runs}; of the host's lane {HOST_RUNS}).", show_default=False),
    ] = None,
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
    from ocr_flops.measure.plan import ModelSource, Plan, host_request, split_source
    from ocr_flops.spec.run_spec import load_run

    rest, source = split_source(overrides or ())
    run = load_run(rest)
    if timeout is not None and not timeout > 0:
        raise SpecError(f"--timeout: {timeout!r} is not a number of seconds above 0")
    observed = () if passes == "none" else console.known_names("--passes", passes, PROBES)
    source, python = ModelSource(run.engine.name, **source), interpreter(python, run.engine.name)
    where = records.check_folder(records.records_folder(records_folder))
    if lane == "host":
        settings = {"runs": HOST_RUNS if runs is None else runs, "warmup": warmup, "experts": experts}
        settings |= {"device": device} if device != "auto" else {}
        return _measure_host(
            host_request(run, source, **settings), run.model.name, where, form, out, python=python, timeout_seconds=timeout
        )
    plan = Plan(run, source, device, Request.runs if runs is None else runs, warmup, experts, observed)
    with console.show_progress() as say:
        options = {"python": python, "timeout_seconds": timeout, "progress": lambda done, total, text: say(f"{done} of {total}: {text}")}
        (record,) = measure_points(plan, **options)
    problem = None
    try:
        path = records.write_record(record, where)
    except records.Unwritten as unwritten:
        path, problem = unwritten.rescued, unwritten
    failed = record["state"] == records.FAILED
    if path is None:
        print(json.dumps(record))  # its only copy
    elif form != "table" or not failed:
        frames = {level: records.record_frame(record, path, level) for level in COLUMNS}
        shown = [_figures(frame, COLUMNS[level]) for level, frame in frames.items() if frame.height]
        values = {"record": record, "path": path, "frames": shown}
        console.write_result("measure", form, out, frames["stage"], record | {"path": str(path)}, **values)
    if problem is not None:
        console.complain("measure", str(problem))
    if failed:
        failure = record["failure"]
        said = (failure["message"], failure["advice"], failure["detail"], f"record: {path}")
        console.complain("measure", "\n".join(filter(None, said)))
    return 1 if failed or problem is not None else 0


def _measure_host(request: Request, model: str, where: Path, form: str, out: Path | None, **options: Any) -> int:
    """Measures the host's lane, keeps the record and prints it."""
    import polars as pl

    from ocr_flops.evidence.records import write_record
    from ocr_flops.evidence.records.host_lane import FOLDER, measure_host

    with console.show_progress() as say:
        options["progress"] = lambda event: say(f"{event.done} of {event.total}: {event.text}")
        record = measure_host(request, model, **options)
    path = write_record(record, where / FOLDER)
    rows = [
        {"stage": stage, "module": module}
        | {"host_seconds": one["seconds"], "operators": one["operators"], "module_calls": one["module_calls"]}
        for stage, figures in record["stages"].items()
        for module, one in {None: figures, **figures["modules"]}.items()
    ]
    each = pl.when(pl.col("operators") > 0).then(pl.col("host_seconds") / pl.col("operators"))
    frame = pl.DataFrame(rows, infer_schema_length=None).with_columns(operator_seconds=each)
    is_busy = (record["load"][0] or 0.0) > (os.cpu_count() or 1) / 4
    values = {"record": record, "path": path, "frame": frame, "is_busy": is_busy}
    console.write_result("measure", form, out, frame, record | {"path": str(path)}, template="host_lane", **values)
    return 0


def _figures(frame: pl.DataFrame, columns: tuple[str, ...]) -> pl.DataFrame:
    """The columns that have figures."""
    return frame.select(name for name in columns if frame[name].null_count() < frame.height)
