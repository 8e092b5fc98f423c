"""The talk's bars: what each attention mode moves, holds and takes, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from ocr_flops.charts.bars import Panel, panel_rows, panel_template, row_axis
from ocr_flops.charts.chart import NO_TITLE, Chart, Template
from ocr_flops.charts.growth import TRAFFIC
from ocr_flops.charts.savings import saved
from ocr_flops.charts.slides.base import enlarged
from ocr_flops.charts.theme import ATTENTION_COLOURS, FAMILIES, INK, MEMORY_COLOURS, STAGE_COLOURS, in_bytes
from ocr_flops.timing.estimate import Estimate
from ocr_flops.timing.timing import Timing
from ocr_flops.units import seconds

FIRST = ("vision", "prefill")  # the stages before the first token
EXPERTS, OTHERS = "expert weights", "other weights"
PARTS = {EXPERTS: FAMILIES["routed experts"], OTHERS: MEMORY_COLOURS["weights"]}
PARTS |= {kind: colour for kind, (_, colour) in TRAFFIC.items()} | MEMORY_COLOURS | STAGE_COLOURS
BAR = 0.56  # of a panel's width; the rest is for the words
FACTOR = 1.8


def moved_and_held(estimates: Mapping[str, Estimate]) -> Chart:
    """DRAM traffic to the first token, and the peak activation memory.

    Args:
        estimates: of one point by attention mode, the one to compare with first.
    """
    moved = {mode: {stage: one.stage_numbers[stage]["io_bytes"] for stage in FIRST} for mode, one in estimates.items()}
    held = {mode: {"peak activations": one.footprint.peak_activation_bytes} for mode, one in estimates.items()}
    return compared([Panel("moved to the first token", moved, in_bytes), Panel("held at once, beside the weights", held, in_bytes)])


def first_token(timings: Mapping[str, Timing]) -> Chart:
    """Roofline time to the first token, and the memory that the whole run needs beside what the device has.

    Args:
        timings: of one point on one device by attention mode.
    """
    times = {
        mode: {row["stage"]: row["roofline_seconds"] for row in one.stages.to_dicts() if row["stage"] in FIRST}
        for mode, one in timings.items()
    }
    needs = {mode: dict(zip(MEMORY_COLOURS, one.estimate.footprint[:3], strict=True)) for mode, one in timings.items()}
    has = next(iter(timings.values())).hardware.memory_bytes
    return compared([Panel("time to the first token", times, seconds), Panel(f"memory needed, of {in_bytes(has)}", needs, in_bytes, has)])


def one_token(timings: Mapping[str, Timing]) -> Chart:
    """What a decode step moves on average, and its time.

    Args:
        timings: of one point with output tokens on one device by attention mode.
    """
    moved = {mode: token_traffic(one.estimate) for mode, one in timings.items()}
    times = {mode: {"decode": one.tpot_seconds} for mode, one in timings.items()}
    return compared([Panel("moved for each output token", moved, in_bytes), Panel("time per output token", times, seconds)])


def token_traffic(estimate: Estimate) -> dict[str, float]:
    """Bytes of a decode step on average: weights of routed experts, other weights, activations, KV cache."""
    row, steps = estimate.stage_numbers["decode"], estimate.workload.output_tokens
    experts = estimate.module_numbers["decode", "decoder.routed_experts"]["weight_io_bytes"]
    parts = {EXPERTS: experts, OTHERS: row["weight_io_bytes"] - experts}
    parts |= {kind: row[TRAFFIC[kind][0]] for kind in ("activations", "KV cache")}
    return {kind: value / steps for kind, value in parts.items()}


def compared(panels: Sequence[Panel]) -> Chart:
    """Panels beside each other; at a bar's end its sum, and what it saves of the first mode's.

    Args:
        panels: of the same modes.
    """
    rows, whole = panel_rows(panels, BAR)
    modes = list(panels[0].bars)
    ends, differences = [], []
    for bar in whole:
        base, limit = sum(bar.panel.bars[modes[0]].values()), bar.panel.limit
        words = saved(bar.total, base, bar.panel.words) if bar.row != modes[0] else ""
        place = {"row": bar.row, "end": max(bar.end, rows["limits"][-1]["start"]) if limit else bar.end}  # beside the line, not across it
        ends.append({**place, "text": bar.panel.words(bar.total)})
        differences.append({**place, "text": "does not fit" if limit and bar.total > limit else words})
    params = {"rows": modes, "panels": len(panels) - 0.01, "kinds": list(dict.fromkeys(bar["kind"] for bar in rows["bars"]))}
    return enlarged(Chart(_template(), NO_TITLE, {**rows, "ends": ends, "differences": differences}, params), factor=FACTOR)


@cache
def _template() -> Template:
    named = [{"test": f"datum.value == '{mode}'", "value": colour} for mode, colour in ATTENTION_COLOURS.items()]
    labels = row_axis(labelPadding=8, labelFontSize=15, labelFontWeight="bold", labelColor={"condition": named, "value": INK})
    return panel_template(labels, PARTS, height=300)
