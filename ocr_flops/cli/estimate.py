"""The command `ocr-flops estimate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ocr_flops.cli.console import Columns, Form, Out, Overrides, render_table, wrap_lines, write_output
from ocr_flops.units import seconds, si

if TYPE_CHECKING:
    from ocr_flops.spec.run_spec import RunSpec
    from ocr_flops.timing.estimate import Estimate
    from ocr_flops.timing.timing import Timing

WORK = ("tensor_flops", "vector_flops", "torch_flops", "io_bytes", "peak_activation_bytes", "weight_bytes", "kv_cache_bytes")


def estimate_workload(overrides: Overrides = None, form: Form = "table", out: Out = None, columns: Columns = "") -> int:
    """Cost of one workload, by stage and module; with hardware=... also its times."""
    from ocr_flops.reports.export import describe_estimate
    from ocr_flops.spec.run_spec import load_run
    from ocr_flops.timing.estimate import estimate_run

    run = load_run(overrides or ())
    result = estimate_run(run)
    timing = None if run.hardware is None else result.on(run.hardware)
    if form == "json":
        text = json.dumps(describe_estimate(result, timing), indent=1)
    elif form == "csv":
        text = (timing or result).modules.write_csv()
    else:
        text = "\n".join([*wrap_lines([*describe_run(run), *_totals(result, timing)], out), "", _tables(timing or result, columns, out)])
    write_output(text, form, out, "estimate")
    return 0


def describe_run(run: RunSpec) -> list[str]:
    """What is estimated, in two lines: model, engine, attention and precision; page, tokens and batch."""
    workload = run.workload
    grid = f"{workload.columns} x {workload.rows} tiles" if workload.tiles else "no tiles"
    return [
        f"{run.model.label}, {run.engine.label}, attention {run.attention.name}, {run.dtype}, cache {run.cache}, "
        f"logits {run.prefill_logits}",
        f"{workload.mode}, {grid}, {workload.image_tokens} image + {workload.prompt_tokens} prompt tokens, "
        f"{workload.output_tokens} output tokens, batch {workload.batch_size}",
    ]


def _totals(result: Estimate, timing: Timing | None) -> list[str]:
    from ocr_flops.reports.export import describe_times

    parts = {"weights": "weight", "KV cache": "kv_cache", "activations": "peak_activation"}
    held = [f"{name} {si(getattr(result.footprint, f'{part}_bytes'), 'B')}" for name, part in parts.items()]
    lines = [f"memory: {' + '.join(held)} = {si(result.footprint.total_bytes, 'B')}"]
    if timing is not None:
        figures = describe_times(timing)
        ttft, tpot, pages = (figures[name] for name in ("ttft_seconds", "tpot_seconds", "pages_per_second"))
        words = [] if ttft is None else [f"TTFT {seconds(ttft)} (no implementation below {seconds(figures['bound_ttft_seconds'])})"]
        words += [] if tpot is None else [f"TPOT {seconds(tpot)}, {si(figures['tokens_per_second'])} tokens/s".replace("  ", " ")]
        words += [] if pages is None else [f"{pages:.3g} pages/s"]
        words.append(f"{'fits' if figures['fits'] else 'does NOT fit'} in {si(timing.hardware.memory_bytes, 'B')}")
        lines.append(f"{timing.hardware.label}, roofline: {', '.join(words)}")
    return lines


def _tables(result: Estimate | Timing, columns: str, out: Path | None) -> str:
    """Stages, then modules, in blocks that fit the terminal: the stages with every column, the modules with what one block holds."""
    times = ["roofline_seconds", "bound_seconds", "binding_ceiling"]
    tables = []
    for frame, keys, blocks in ((result.stages, ("stage",), 9), (result.modules, ("stage", "module"), 1)):
        order = (
            [*WORK, "arithmetic_intensity", *times] if blocks > 1 else ["total_flops", "io_bytes", *times, *WORK, "arithmetic_intensity"]
        )
        kept = frame.select(*keys, *(name for name in dict.fromkeys(order) if name in frame.columns))
        tables.append(render_table(kept, keys, columns, out, blocks))
    return "\n\n".join(tables)
