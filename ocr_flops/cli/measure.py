"""What `ocr-flops measure` does: times the real model for one workload, keeps the record, prints it; exits 1 where it failed."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocr_flops.cli.console import Progress, apart, chosen, listed, table, write
from ocr_flops.errors import SpecError
from ocr_flops.measure.protocol import EXPERTS, PASSES, TIMED_DEVICES, Request

if TYPE_CHECKING:
    import polars as pl

STAGE_COLUMNS = ("stage", "runs", "median_seconds", "spread_seconds", "min_seconds", "torch_flops_counted", "io_bytes", "mfu")
STAGE_COLUMNS += ("bandwidth_use", "peak_allocated_bytes", "peak_reserved_bytes")
MODULE_COLUMNS = ("stage", "module", *STAGE_COLUMNS[2:-2])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ocr-flops measure`, but for those of every command's output."""
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="as for estimate; engine=remote_code snapshot=DIR trust_remote_code=true times the vendor's own code, checkpoint=DIR "
        "local weights",
    )
    parser.add_argument(
        "--device", default="auto", choices=TIMED_DEVICES, help="auto: cuda where there is one, else cpu (default %(default)s)"
    )
    parser.add_argument("--runs", type=int, default=Request.runs, metavar="N", help="timed runs (default %(default)s)")
    parser.add_argument("--warmup", type=int, default=Request.warmup, metavar="N", help="runs before them (default %(default)s)")
    parser.add_argument("--experts", choices=EXPERTS, help="transformers' experts implementation (default: grouped_mm)")
    parser.add_argument(
        "--passes",
        type=listed,
        default=Request.passes,
        metavar="PASS,...",
        help=f"what is observed beside the timed runs, of {', '.join(PASSES)}, or none (default {','.join(Request.passes)})",
    )
    parser.add_argument(
        "--python",
        metavar="PATH",
        help="interpreter that runs the model, with torch and transformers (default: that of OCR_FLOPS_PYTHON, or this one)",
    )
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="end the worker after so long (default: never)")
    parser.add_argument(
        "--records", metavar="DIR", help="folder of records (default: OCR_FLOPS_RECORDS, or ~/.local/share/ocr_flops/records)"
    )


def measure_model(options: argparse.Namespace) -> int:
    """Times, records and prints; 1 where it failed, 0 otherwise. What cannot be asked for is a SpecError."""
    from ocr_flops.evidence import records
    from ocr_flops.evidence.records.recorder import measure
    from ocr_flops.measure.client import interpreter
    from ocr_flops.measure.plan import ModelSource, Plan
    from ocr_flops.spec import load_run

    overrides, source = apart(options.overrides)
    run = load_run(overrides)
    if options.timeout is not None and not options.timeout > 0:
        raise SpecError(f"--timeout: {options.timeout!r} is not a number of seconds above 0")
    passes = () if options.passes == ("none",) else chosen("--passes", options.passes, PASSES)
    plan = Plan(run, ModelSource(run.engine.name, **source), options.device, options.runs, options.warmup, options.experts, passes)
    python = interpreter(options.python)
    where = records.check(records.folder(options.records))
    with Progress() as progress:
        (record,) = measure(
            plan,
            python=python,
            timeout_seconds=options.timeout,
            progress=lambda done, total, text: progress(f"{done} of {total}: {text}"),
        )
    problem = None
    try:
        path = records.write(record, where)
    except records.Unwritten as unwritten:
        path, problem = unwritten.rescued, unwritten
    failed = record["state"] == records.FAILED
    if problem is not None and path is None:
        print(json.dumps(record))  # its only copy
    elif options.format != "table" or not failed:
        write(_text(record, path, options.format), options, "measure")
    if problem is not None:
        _tell(str(problem))
    if failed:
        failure = record["failure"]
        _tell("\n".join(part for part in (failure["message"], failure["advice"], failure["detail"], f"record: {path}") if part))
    return 1 if failed or problem is not None else 0


def _text(record: dict[str, Any], path: Path, form: str) -> str:
    """A record as it is shown."""
    from ocr_flops.evidence.records import rows_of

    if form == "json":
        return json.dumps(record | {"path": str(path)}, indent=1)
    stages = rows_of(record, path)
    if form == "csv":
        return stages.write_csv()
    shown = (_shown(stages, STAGE_COLUMNS), _shown(rows_of(record, path, "module"), MODULE_COLUMNS))
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


def _shown(frame: pl.DataFrame, columns: tuple[str, ...]) -> str:
    """The columns that have figures."""
    return table(frame.select(name for name in columns if frame[name].null_count() < frame.height)) if frame.height else ""


def _tell(text: str) -> None:
    print(f"ocr-flops measure: {text}", file=sys.stderr)
