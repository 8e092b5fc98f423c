"""The tab Measured: what records say of the setting, what is calibrated by them, and a run of one's own."""

from html import escape
from pathlib import Path
from typing import Any

import marimo as mo
import polars as pl

from ocr_flops.app.chart_widget import ChartWidget
from ocr_flops.app.runs import missing, plan_timing
from ocr_flops.app.tabs.elements import plain_table, problem, row, unless
from ocr_flops.app.views import Results
from ocr_flops.charts import calibration as charts
from ocr_flops.evidence.calibration import Calibration, Interval
from ocr_flops.evidence.calibration.selection import attention_name
from ocr_flops.evidence.records.cache import Snapshot
from ocr_flops.evidence.records.store import SHIPPED, USER
from ocr_flops.spec.specs import STAGES
from ocr_flops.units import seconds, si

ABOUT = """
A record is one timed run of the real model: seconds by stage and module, FLOPs and memory, with device and versions. Records are files
that are only ever added; some come with the package, and `ocr-flops measure`, campaigns and this button add more.
"""


def measured(results: Results, inputs: mo.ui.dictionary, run: mo.ui.button) -> mo.Html:
    """Figures at the setting's point, how the device was calibrated, the controls of a run, and all records.

    Args:
        results: of a setting.
        inputs: of `timing_controls`.
        run: the button that times the model here.
    """
    on_record = results.on_record
    snapshot, calibration = on_record.snapshot, on_record.calibration
    parts: list[Any] = [
        mo.md(ABOUT),
        row(*inputs.elements.values(), unless(missing(plan_timing, results, "auto"), run), gap=2),
    ]
    if snapshot.problems:
        unread = [f"{Path(path).name}: {str(reason).replace(str(path), Path(path).name)}" for path, reason in snapshot.problems[:10]]
        parts.append(problem("Not every file could be read.", *unread, kind="warn"))
    if isinstance(calibration, Calibration):
        calibrated = on_record.calibrated(results.main)
        parts.append(mo.md(f"**This point on {calibration.device}**, calibrated by {calibration.records} records: {calibration.launches}."))
        parts += _at_the_point(results)
        parts += [problem("Beyond what was measured.", *calibrated.notes, kind="warn")] if calibrated.notes else []
        parts.append(ChartWidget((draw(calibration) for draw in (charts.predictions, charts.efficiencies, charts.errors)), "measured"))
    else:
        parts.append(problem("No calibrated figures.", f"{calibration.reason}.", kind="neutral"))
        parts += _at_the_point(results) if len(on_record.here) else []
    if snapshot.stages.height:
        parts.append(mo.md(f"**All records**, {snapshot.stages['record_id'].n_unique():,}; the latest first"))
        parts.append(plain_table(records_table(snapshot), page_size=20))
    return mo.vstack(parts)


def _at_the_point(results: Results) -> list[Any]:
    """The table of `figures`, and where what was measured comes from."""
    origins = results.on_record.here.filter(attention=attention_name(results.main.config.attention))["origin"].unique(maintain_order=True)
    words = "; ".join(origins) if len(origins) else "Not measured at this very point."
    return [plain_table(figures(results), pagination=False), mo.Html(f"<small>{escape(words)}</small>")]


def figures(results: Results) -> pl.DataFrame:
    """The setting's point: roofline and bound, calibrated, and measured."""
    estimate, timing = results.main, results.main_timing
    calibrated = results.on_record.calibrated(estimate)
    here = results.on_record.here.filter(attention=attention_name(estimate.config.attention))
    measured = {one["stage"]: one for one in here.iter_rows(named=True)}
    roofline = {one["stage"]: one for one in timing.stages.iter_rows(named=True)} if timing else {}
    steps = estimate.workload.output_tokens
    rows = []

    def add(name: str, stages: tuple[str, ...], interval: Interval | None, divisor: int = 1) -> None:
        found = [measured[stage] for stage in stages if stage in measured]
        whole = len(found) == len(stages) and divisor > 0
        rows.append(
            {
                "": name,
                "bound": _sum(roofline, stages, "bound_seconds", divisor),
                "roofline": _sum(roofline, stages, "roofline_seconds", divisor),
                "calibrated": seconds(interval.value) if interval else "–",
                "nine in ten within": f"{seconds(interval.low)} to {seconds(interval.high)}" if interval else "–",
                "measured (median)": seconds(sum(one["median_seconds"] for one in found) / divisor) if whole else "–",
            }
        )

    for stage in STAGES:
        add(stage, (stage,), calibrated.seconds.get(stage) if calibrated else None)
    add("first token (TTFT)", ("vision", "prefill"), calibrated.ttft_seconds if calibrated else None)
    add("per token (TPOT)", ("decode",), calibrated.tpot_seconds if calibrated else None, steps)
    peaks = [one["peak_allocated_bytes"] for one in measured.values() if one["peak_allocated_bytes"]]
    memory = calibrated.allocated_bytes if calibrated else None
    rows.append(
        {
            "": "memory",
            "bound": "–",
            "roofline": si(estimate.footprint.total_bytes, "B"),
            "calibrated": si(memory.value, "B") if memory else "–",
            "nine in ten within": f"{si(memory.low, 'B')} to {si(memory.high, 'B')}" if memory else "–",
            "measured (median)": si(max(peaks), "B") if peaks else "–",
        }
    )
    return pl.DataFrame(rows)


def _sum(found: dict[str, Any], stages: tuple[str, ...], column: str, divisor: int) -> str:
    return seconds(sum(found[stage][column] for stage in stages) / divisor) if found and divisor else "–"


def records_table(snapshot: Snapshot) -> pl.DataFrame:
    """All records, a row a stage, the latest first."""
    grid = pl.format("{} × {}", "columns", "rows")
    views = pl.when(pl.col("tiles") > 0).then(grid).otherwise(pl.format("{} px view", "global_px"))
    whose = {USER: "recorded here", SHIPPED: "with the package"}
    return snapshot.stages.sort("measured_at", descending=True, maintain_order=True).select(
        pl.format("{}, {} tokens, batch {}", views, "context_tokens", "batch_size").alias("point"),
        "attention",
        pl.when(pl.col("stage") == "decode").then(pl.format("decode, {} steps", "output_tokens")).otherwise("stage").alias("stage"),
        (pl.col("median_seconds") * 1e3).alias("median (ms)"),
        (pl.col("spread_seconds") * 1e3).alias("spread (ms)"),
        (pl.col("mfu") * 100).alias("of matrix peak (%)"),
        (pl.col("bandwidth_use") * 100).alias("of bandwidth (%)"),
        (pl.col("peak_allocated_bytes") / 1e9).alias("allocated (GB)"),
        (pl.col("torch_flops_counted") - pl.col("analytic_torch_flops")).alias("FLOPs counted beyond analytic"),
        "dtype",
        "device",
        pl.col("measured_at").str.slice(0, 16).str.replace("T", " ").alias("measured (UTC)"),
        pl.col("source").replace_strict(whose, default=pl.col("source"), return_dtype=pl.String).alias("where from"),
        "engine",
        "torch",
        "failure",
    )
