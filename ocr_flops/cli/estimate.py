"""The commands about one workload: `ocr-flops estimate`, `plan` and `report`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ocr_flops.cli import console
from ocr_flops.cli.console import Columns, Form, Out, Overrides

if TYPE_CHECKING:
    from ocr_flops.spec.specs import HardwareSpec
    from ocr_flops.timing.timing import Timing

WORK = ("tensor_flops", "vector_flops", "torch_flops", "io_bytes", "peak_activation_bytes", "weight_bytes", "kv_cache_bytes")
INTENSITY = "arithmetic_intensity"
EXPECTED = ("expected_seconds", "expected_low_seconds", "expected_high_seconds", "device_busy_share")
TIMES = (*EXPECTED, "roofline_seconds", "bound_seconds", "binding_ceiling")

ANSWERS = (  # columns of a plan's table in the order in which they are shown; the others follow
    "hardware",
    "expected_ttft_seconds",
    "expected_tpot_seconds",
    "expected_pages_per_second",
    "device_busy_share",
    "fits",
    "meets_target",
    "cost_per_1000_pages",
    "reason",
)


def estimate_workload(overrides: Overrides = None, form: Form = "table", out: Out = None, columns: Columns = "") -> int:
    """Cost of one workload, by stage and module; with hardware=... also its times."""
    from ocr_flops.evidence.calibration.conditions import with_records
    from ocr_flops.reports.export import describe_estimate
    from ocr_flops.spec.run_spec import load_run
    from ocr_flops.timing.estimate import estimate_run, time_run

    run = with_records(load_run(overrides or ()))
    result = estimate_run(run)
    timing = time_run(run, result)
    source = timing or result
    modules = ("expected_seconds", "total_flops", "io_bytes", "roofline_seconds", "bound_seconds", "binding_ceiling", *WORK, INTENSITY)
    orders = {"stages": (*TIMES, *WORK, INTENSITY), "modules": modules}
    frames = {}
    for level, order in orders.items():
        frame = getattr(source, level)
        kept = [name for name in ("stage", "module", *dict.fromkeys(order)) if name in frame.columns]
        frames[level] = frame.select(kept)
    values = {"run": run, "held": result.footprint, "times": timing, **frames, "columns": columns}
    text = partial(console.render_text, "estimate", out, **values)
    data = partial(describe_estimate, result, timing)
    console.write_result("estimate", form, out, json=data, csv=lambda: source.modules, table=text)
    return 0


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
    from ocr_flops.evidence.calibration.conditions import with_records
    from ocr_flops.spec.catalog import load_hardware, names
    from ocr_flops.spec.run_spec import load_run
    from ocr_flops.timing import planning
    from ocr_flops.timing.estimate import estimate_run, time_run

    run = with_records(load_run(overrides or ()))
    result = estimate_run(run)
    bases: dict[str, None] = {}

    def timed(gpu: HardwareSpec) -> Timing:
        timing = time_run(with_records(replace(run, hardware=gpu)), result)
        bases.setdefault(timing.time_basis)
        return timing

    required = planning.required_rates(result, ttft_seconds=ttft, tpot_seconds=tpot)
    gpus = [run.hardware] if run.hardware else [load_hardware(name) for name in names("hardware")]
    targets = {"ttft_seconds": ttft, "tpot_seconds": tpot, "price_per_hour": price}
    devices = planning.compare_devices(result, gpus, **targets, on=timed)
    memory = memory_gb * 1e9 if memory_gb is not None else run.hardware.memory_bytes if run.hardware else None
    largest = {}
    if memory is not None:
        largest = {
            "memory_bytes": int(memory),
            "batch_size": planning.largest_batch(result, memory),
            "context_tokens": planning.largest_context(result, memory),
            "grid": planning.largest_grid(result, memory) if run.workload.tile_px else None,
        }
    basis = "; or on ".join(bases)
    data = {"required": [one._asdict() for one in required], "largest": largest, "time_basis": basis, "devices": devices.to_dicts()}
    first = [name for name in ANSWERS if name in devices.columns and devices[name].null_count() < devices.height]
    shown = [*first, *(name for name in devices.columns if name not in (*first, "label", "meets_target", "reason"))]
    values = {"run": run, "required": required, "largest": largest, "devices": devices.select(shown), "columns": columns, "basis": basis}
    text = partial(console.render_text, "plan", out, **values)
    console.write_result("plan", form, out, json=lambda: data, csv=lambda: devices, table=text)
    return 0


def write_report(
    overrides: Overrides = None,
    form: Annotated[Literal["html", "md"], typer.Option("--format", help="Of the report.")] = "html",
    charts: Annotated[
        Literal["svg", "png"] | None, typer.Option(help="Also write every chart of the app as an image beside it; Markdown shows them.")
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="PATH", help="A folder, or a file that ends in .html or .md.", show_default="./report.html")
    ] = Path(),
) -> int:
    """One self-contained HTML file, or Markdown: findings, charts (in HTML with controls), tables, evidence."""
    from ocr_flops.evidence.calibration.conditions import with_records
    from ocr_flops.reports import estimate_report
    from ocr_flops.reports.estimate_subject import Subject
    from ocr_flops.spec.run_spec import load_run
    from ocr_flops.timing.estimate import estimate_run

    run = with_records(load_run(overrides or ()))
    subject = Subject(estimate_run(run), run.hardware, run.host, run.efficiency)
    path = out if out.suffix == f".{form}" else out / f"report.{form}"
    with console.show_progress("drawing charts"):
        for file in estimate_report.write_report(path, subject, images=charts or "", in_child=False):
            print(file)
    return 0
