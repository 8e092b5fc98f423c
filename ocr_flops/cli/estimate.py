"""The commands about one workload: `ocr-flops estimate`, `plan` and `report`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ocr_flops.cli import console
from ocr_flops.cli.console import Columns, Form, Out, Overrides, Prices
from ocr_flops.errors import SpecError
from ocr_flops.units import hour_price

if TYPE_CHECKING:
    import polars as pl

    from ocr_flops.spec.specs import HardwareSpec
    from ocr_flops.timing.timing import Timing

WORK = ("tensor_flops", "vector_flops", "torch_flops", "io_bytes", "peak_activation_bytes", "weight_bytes", "kv_cache_bytes")
INTENSITY = "arithmetic_intensity"
EXPECTED = ("expected_seconds", "expected_low_seconds", "expected_high_seconds", "device_busy_share")
TIMES = (*EXPECTED, "roofline_seconds", "bound_seconds", "binding_ceiling")

ANSWERS = (  # columns of a plan's table in the order in which they are shown; the others follow
    "hardware",
    "batch_size",
    "expected_ttft_seconds",
    "target_outlook",
    "expected_pages_per_second",
    "cost",
    "expected_tpot_seconds",
    "hours",
    "cost_per_1000_pages",
    "headroom_bytes",
)
UNSAID = ("label", "fits", "meets_target", "reason", "host", "efficiency")  # columns that a plan's text says otherwise


def estimate_workload(overrides: Overrides = None, form: Form = "table", out: Out = None, columns: Columns = "") -> int:
    """Cost of one workload, by stage and module; with hardware=... also its times."""
    from ocr_flops.cost.models.learned import describe_replaced
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
    values["replaced"] = describe_replaced(result.config)
    console.write_result("estimate", form, out, source.modules, partial(describe_estimate, result, timing), **values)
    return 0


def list_choices(
    what: Annotated[Literal["models", "hardware", "modes", "attention", "engines"], typer.Argument(help="What there is of.")],
    form: Form = "table",
    out: Out = None,
    columns: Columns = "",
) -> int:
    """The models, devices, resolution modes, attention modes or engines there are, your own among them."""
    from ocr_flops.spec.listing import LISTS

    frame = LISTS[what]()
    console.write_result(what, form, out, frame, template="list", frame=frame, columns=columns)
    return 0


def plan_devices(
    overrides: Overrides = None,
    ttft: Annotated[float | None, typer.Option(metavar="SECONDS", help="Target for the time to first token.")] = None,
    tpot: Annotated[float | None, typer.Option(metavar="SECONDS", help="Target for the mean time per output token.")] = None,
    memory_gb: Annotated[
        float | None, typer.Option(metavar="GB", help="Memory of a device that may be taken (default: all that it has).")
    ] = None,
    price: Prices = None,
    pages: Annotated[
        float | None, typer.Option(metavar="N", help="Pages to be done, as in 1e6: adds hours and cost of all of them.")
    ] = None,
    gpus: Annotated[int, typer.Option(metavar="N", help="Devices of a kind that do them.")] = 1,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="N|best", help="Pages in a batch; best: of each device that with most pages a second that fits and meets the targets."
        ),
    ] = None,
    form: Form = "table",
    out: Out = None,
    columns: Columns = "",
) -> int:
    """What a target requires, what fits, which GPUs do, and what pages cost."""
    from ocr_flops.evidence.calibration.conditions import with_records
    from ocr_flops.spec.catalog import load_hardware, names
    from ocr_flops.spec.run_spec import load_run
    from ocr_flops.timing import planning
    from ocr_flops.timing.estimate import estimate_run, time_run

    run = with_records(load_run([*(overrides or ()), *console.batch_override(batch)]))
    result = estimate_run(run)
    bases: dict[str, None] = {}

    def timed(gpu: HardwareSpec) -> Timing:
        timing = time_run(with_records(replace(run, hardware=gpu)), result)
        bases.setdefault(timing.time_basis)
        return timing

    if memory_gb is not None and not 0 < memory_gb < 1e15:
        raise SpecError(f"--memory-gb: {memory_gb!r} is not a positive number")
    memory = None if memory_gb is None else memory_gb * 1e9
    gpus_wanted = [run.hardware] if run.hardware else [load_hardware(name) for name in names("hardware")]
    prices = console.read_prices(price, gpus_wanted)
    with console.options_named(ttft_seconds="--ttft", tpot_seconds="--tpot", price_per_hour="--price", pages="--pages", gpus="--gpus"):
        required = planning.required_rates(result, ttft_seconds=ttft, tpot_seconds=tpot)
        devices = planning.compare_devices(
            result,
            gpus_wanted,
            ttft_seconds=ttft,
            tpot_seconds=tpot,
            price_per_hour=prices,
            memory_bytes=memory,
            best_batch=batch == "best",
            pages=pages,
            gpus=gpus,
            on=timed,
        )
        memory = memory or (run.hardware.memory_bytes if run.hardware else None)
        largest = (
            {}
            if memory is None
            else {
                "memory_bytes": int(memory),
                "batch_size": planning.largest_batch(result, memory),
                "context_tokens": planning.largest_context(result, memory),
                "grid": planning.largest_grid(result, memory),
            }
        )
    basis = "; or on ".join(bases)
    data = {"required": [one._asdict() for one in required], "largest": largest, "time_basis": basis, "devices": devices.to_dicts()}
    able = devices.filter(devices["reason"].is_null())
    unsaid = {*UNSAID, *([] if batch == "best" else ["batch_size"])}
    ordered = dict.fromkeys(name for name in (*ANSWERS, *able.columns) if name in able.columns and name not in unsaid)
    shown = [name for name in ordered if able[name].null_count() < able.height]
    values = {"run": run, "required": required, "largest": largest, "devices": able.select(shown), "columns": columns, "basis": basis}
    best = _best(able, isinstance(prices, dict) and len(prices) > 1)
    values["among"] = {"fastest": f"fastest of {devices.height} GPUs" if devices.height > 1 else "fastest"}
    if "cheapest" in best:
        price_of = prices.get(best["cheapest"]["hardware"].partition(" ")[0])
        values["among"]["cheapest"] = f"cheapest of {len(prices)} GPUs with a price, at {hour_price(price_of)},"
    values |= {"unable": _by_reason(devices), "best": best, "pages": pages, "gpus": gpus, "batch": batch}
    console.write_result("plan", form, out, devices, data, **values)
    return 0


def _by_reason(devices: pl.DataFrame) -> dict[str, list[str]]:
    """The devices that do not run it, by why."""
    found: dict[str, list[str]] = {}
    for row in devices.filter(devices["reason"].is_not_null()).iter_rows(named=True):
        holds = f"; a batch of {row['largest_batch']} fits" if row["reason"].startswith("does not fit") and row["largest_batch"] else ""
        found.setdefault(f"{row['reason']}{holds}", []).append(row["hardware"])
    return found


def _best(able: pl.DataFrame, is_priced: bool) -> dict[str, dict]:
    """The fastest device and, where several have prices of their own, the cheapest, of those that at least likely meet the targets."""
    able = able.filter(able["meets_target"].fill_null(True), able["expected_pages_per_second"].is_not_null())
    found = {"fastest": able.head(1)}
    if is_priced:
        found["cheapest"] = able.filter(able["cost_per_1000_pages"].is_not_null()).sort("cost_per_1000_pages").head(1)
    return {word: one.row(0, named=True) for word, one in found.items() if one.height}


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
    with console.show_bars() as bars, console.options_named(format="--out"):
        bars("writing", 0, 1)
        files = estimate_report.write_report(path, subject, images=charts or "", in_child=False, progress=bars)
    print("\n".join(map(str, files)))
    return 0
