"""The command `ocr-flops plan`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ocr_flops.cli.console import Columns, Form, Out, Overrides, render_table, wrap_lines, write_output
from ocr_flops.cli.estimate import describe_run
from ocr_flops.units import seconds, si


def plan_devices(
    overrides: Overrides = None,
    ttft: Annotated[float | None, typer.Option(metavar="SECONDS", help="Target for the time to first token.")] = None,
    tpot: Annotated[float | None, typer.Option(metavar="SECONDS", help="Target for the mean time per output token.")] = None,
    memory_gb: Annotated[
        float | None, typer.Option(metavar="GB", help="Memory that batch, context and grid must fit (default: the device's).")
    ] = None,
    price: Annotated[float | None, typer.Option(metavar="PRICE", help="Of one device hour, in any currency.")] = None,
    form: Form = "table",
    out: Out = None,
    columns: Columns = "",
) -> int:
    """What a target requires, what fits, which GPUs do, and what a thousand pages cost."""
    from ocr_flops.spec.catalog import load_hardware, names
    from ocr_flops.spec.run_spec import load_run
    from ocr_flops.timing import planning
    from ocr_flops.timing.estimate import estimate_run

    run = load_run(overrides or ())
    result = estimate_run(run)
    required = planning.required_rates(result, ttft_seconds=ttft, tpot_seconds=tpot)
    gpus = [run.hardware] if run.hardware else [load_hardware(name) for name in names("hardware")]
    devices = planning.compare_devices(result, gpus, ttft_seconds=ttft, tpot_seconds=tpot, price_per_hour=price)
    memory = memory_gb * 1e9 if memory_gb is not None else run.hardware.memory_bytes if run.hardware else None
    largest = {}
    if memory is not None:
        largest = {
            "memory_bytes": int(memory),
            "batch_size": planning.largest_batch(result, memory),
            "context_tokens": planning.largest_context(result, memory),
            "grid": planning.largest_grid(result, memory) if run.workload.tile_px else None,
        }
    if form == "json":
        text = json.dumps({"required": [one._asdict() for one in required], "largest": largest, "devices": devices.to_dicts()}, indent=1)
    elif form == "csv":
        text = devices.write_csv()
    else:
        lines = describe_run(run)
        lines += [
            f"{one.target.upper()} of {seconds(one.seconds)} needs {si(one.matrix_flops_per_second, 'FLOP/s')} of matrix work and "
            f"{si(one.bytes_per_second, 'B/s')}"
            for one in required
        ]
        if largest:
            grid = "no two tiles" if largest["grid"] is None else "{} x {} tiles".format(*largest["grid"])
            lines.append(
                f"{si(memory, 'B')} hold at most batch {largest['batch_size']}, or {largest['context_tokens']} context tokens, or {grid}"
            )
        shown = devices.drop("label") if "hardware" in devices.columns else devices
        text = "\n".join([*wrap_lines(lines, out), "", render_table(shown, ("hardware",), columns, out)])
    write_output(text, form, out, "plan")
    return 0
