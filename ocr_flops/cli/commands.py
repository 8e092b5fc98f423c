"""What the commands of `ocr-flops` do: each takes parsed options and returns the exit code."""

from __future__ import annotations

import argparse
import json
import threading
import webbrowser
from typing import TYPE_CHECKING

from ocr_flops.cli.console import si, table, write
from ocr_flops.reports.as_json import as_json, times
from ocr_flops.timing.estimate import estimate_run

if TYPE_CHECKING:
    from ocr_flops.spec import RunSpec
    from ocr_flops.timing.estimate import Estimate
    from ocr_flops.timing.timing import Timing


def app(options: argparse.Namespace) -> int:
    from ocr_flops.app import server

    where = server.serving(options.host, options.port, options.token, options.max_upload_mb)
    with server.listen(where) as listening:
        port = listening.getsockname()[1]
        links = server.links(where, port)
        print("\n".join((*links, "Ctrl-C ends it.")), flush=True)
        if not options.headless:
            threading.Thread(target=webbrowser.open, args=links[:1], daemon=True).start()  # may look for a browser for long
        server.run(server.build(where, port), listening)
    return 0


def estimate_workload(options: argparse.Namespace) -> int:
    from ocr_flops.spec import load_run

    run = load_run(options.overrides)
    result = estimate_run(run)
    timing = None if run.hardware is None else result.on(run.hardware)
    if options.format == "json":
        text = json.dumps(as_json(result, timing), indent=1)
    elif options.format == "csv":
        text = (timing or result).modules.write_csv()
    else:
        text = _tables(run, result, timing)
    write(text, options, "estimate")
    return 0


def _tables(run: RunSpec, result: Estimate, timing: Timing | None) -> str:
    """Stages and modules for a terminal, in readable units."""
    workload, footprint = run.workload, result.footprint
    grid = f"{workload.columns} x {workload.rows} tiles" if workload.tiles else "no tiles"
    head = [
        f"{run.model.label}, {run.engine.label}, attention {run.attention.name}, {run.dtype}, cache {run.cache}, "
        f"logits {run.prefill_logits}",
        f"{workload.mode}, {grid}, {workload.image_tokens} image + {workload.prompt_tokens} prompt tokens, "
        f"{workload.output_tokens} output tokens, batch {workload.batch_size}",
        f"memory: weights {si(footprint.weight_bytes, 'B')} + KV cache {si(footprint.kv_cache_bytes, 'B')} + activations "
        f"{si(footprint.peak_activation_bytes, 'B')} = {si(footprint.total_bytes, 'B')}",
    ]
    if timing is not None:
        figures = times(timing)
        ttft, tpot, pages = (figures[name] for name in ("ttft_seconds", "tpot_seconds", "pages_per_second"))
        words = [] if ttft is None else [f"TTFT {si(ttft, 's')} (no implementation below {si(figures['bound_ttft_seconds'], 's')})"]
        words += [] if tpot is None else [f"TPOT {si(tpot, 's')}, {si(figures['tokens_per_second'], 'tokens/s')}"]
        words += [] if pages is None else [f"{pages:.3g} pages/s"]
        words.append(f"{'fits' if figures['fits'] else 'does NOT fit'} in {si(timing.hardware.memory_bytes, 'B')}")
        head.append(f"{timing.hardware.label}, roofline: {', '.join(words)}")
    seconds = ["roofline_seconds", "bound_seconds"] if timing else []
    shown = [
        "tensor_flops",
        "vector_flops",
        "torch_flops",
        "io_bytes",
        "peak_activation_bytes",
        "weight_bytes",
        "kv_cache_bytes",
        *seconds,
        "arithmetic_intensity",
        *(["binding_ceiling"] if timing else []),
    ]
    tables = [
        table((timing or result).stages.select("stage", *shown)),
        table((timing or result).modules.select("stage", "module", *shown)),
    ]
    return "\n".join([*head, *tables])


def plan(options: argparse.Namespace) -> int:
    """Answers the inverse questions for one workload."""
    from ocr_flops.spec import load_hardware, load_run, names
    from ocr_flops.timing import planning

    run = load_run(options.overrides)
    result = estimate_run(run)
    required = planning.required(result, ttft_seconds=options.ttft, tpot_seconds=options.tpot)
    gpus = [run.hardware] if run.hardware else [load_hardware(name) for name in names("hardware")]
    found = planning.devices(result, gpus, ttft_seconds=options.ttft, tpot_seconds=options.tpot, price_per_hour=options.price)
    memory = options.memory_gb * 1e9 if options.memory_gb is not None else run.hardware.memory_bytes if run.hardware else None
    largest = (
        {}
        if memory is None
        else {
            "memory_bytes": int(memory),
            "batch_size": planning.largest_batch(result, memory),
            "context_tokens": planning.largest_context(result, memory),
            "grid": planning.largest_grid(result, memory) if run.workload.tile_px else None,
        }
    )
    if options.format == "json":
        text = json.dumps({"required": [one._asdict() for one in required], "largest": largest, "devices": found.to_dicts()}, indent=1)
    elif options.format == "csv":
        text = found.write_csv()
    else:
        lines = [
            f"{one.target.upper()} of {si(one.seconds, 's')} needs {si(one.matrix_flops_per_second, 'FLOP/s')} of matrix work and "
            f"{si(one.bytes_per_second, 'B/s')}"
            for one in required
        ]
        if largest:
            grid = "no two tiles" if largest["grid"] is None else "{} x {} tiles".format(*largest["grid"])
            lines.append(
                f"{si(memory, 'B')} hold at most batch {largest['batch_size']}, or {largest['context_tokens']} context tokens, or {grid}"
            )
        text = "\n".join([*lines, table(found)])
    write(text, options, "plan")
    return 0
