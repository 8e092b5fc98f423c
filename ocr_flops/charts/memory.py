"""What a run holds in memory against what a device has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType

import altair as alt

from ocr_flops.charts.bars import StageBars, row_axis, stacked
from ocr_flops.charts.chart import Chart, Template, Title, compiled, data, title
from ocr_flops.charts.encoding import WORDS, painted, si_axis, tips
from ocr_flops.charts.overlay import MEASURED, measured_layer, origins
from ocr_flops.charts.theme import LIMIT, MEMORY_COLOURS, conditions, module_name
from ocr_flops.spec.specs import HardwareSpec
from ocr_flops.timing.estimate import Estimate
from ocr_flops.units import share, si

BESIDE = 0.3  # of the axis: words this close to the line stand after it
BEYOND = "without the allocator's slack and the driver's own memory"


def memory(
    estimates: Mapping[str, Estimate] | Sequence[Estimate],
    hardware: HardwareSpec | None = None,
    *,
    narrow: bool = False,
    allocated: Mapping[str, tuple[int, str]] = MappingProxyType({}),
) -> Chart:
    """Weights, KV cache and peak activations stacked, a bar per estimate, against the device's memory.

    Args:
        estimates: of one point each, under their labels, or in a list of different attention modes, which then are the labels.
        hardware: the device; without one no line is drawn.
        narrow: for a place about 400 px wide: what the title says is not written beside the bars again.
        allocated: bytes that were measured, and where that comes from, by label.
    """
    labelled = dict(estimates) if isinstance(estimates, Mapping) else {one.config.attention.name: one for one in estimates}
    limit = hardware.memory_bytes if hardware else 0
    found = {label: one for label, one in allocated.items() if label in labelled}
    measured = [{"row": label, "end": size, "size": si(size, "B"), "origin": where} for label, (size, where) in found.items()]
    most = max([estimate.footprint.total_bytes for estimate in labelled.values()] + [limit])
    bars, ends = [], []
    for label, estimate in labelled.items():
        needs, whole = estimate.footprint, estimate.footprint.total_bytes
        stage, peak = max(estimate.peaks.items(), key=lambda item: item[1].live_bytes)
        where = f"{module_name(peak.module)} in {stage}, at {peak.operator.strip('_')}"
        notes = ("every parameter", "at the last output token", f"largest in {where}")
        parts = dict(zip(MEMORY_COLOURS, needs[:3], strict=True))
        for (kind, size, at), note in zip(stacked(parts), notes, strict=True):
            about = {"size": si(size, "B"), "note": note, "part": share(size, whole), "total": si(whole, "B")}
            bars.append({"row": label, "kind": kind, **at, **about})
        end = max(whole, found.get(label, (0, ""))[0])
        beside = limit if limit and end <= limit < end + BESIDE * most else end  # clear of the line
        ends.append({"row": label, "end": beside, "text": si(whole, "B") + ("" if narrow else _spare(whole, limit))})
    return Chart(
        _template(len(labelled), narrow),
        _title(labelled, hardware, narrow, origins(measured)),
        {"bars": bars, "ends": ends, "line": [{"end": limit, "text": f"memory: {si(limit, 'B')}"}] if limit else [], MEASURED: measured},
        {"rows": list(labelled), "room": max([most, *(point["end"] for point in measured)]) * 1.25},
    )


def _spare(total: int, limit: float) -> str:
    if not limit:
        return ""
    return f", {si(limit - total, 'B')} to spare" if total <= limit else f", {si(total - limit, 'B')} too much"


@cache
def _template(labels: int, narrow: bool) -> Template:
    """Bars and their words, the device's memory as a line, and what was measured.

    Args:
        labels: how many bars.
        narrow: fewer ticks on the axis.
    """
    axis = alt.Axis(labelExpr=si_axis("B"), tickCount=3 if narrow else 6)
    scale = alt.Scale(domain=[0, alt.ExprRef("room")], nice=False)
    bars = StageBars(row_axis(), {"title": "bytes of device memory", "scale": scale, "axis": axis})
    colour = painted("kind", MEMORY_COLOURS, alt.Legend(orient="top"))
    about = tips(row="setting", kind="what", size="bytes", part="share", note="how", total="in all")
    line, above = alt.Chart(data("line")), {"align": "center", "baseline": "bottom", "y": -4, "fontSize": 12, "fontWeight": "bold"}
    return compiled(
        bars.segments("bars", colour, about, start="start", band=0.62),
        bars.inside("size", "room"),
        bars.words(dx=9, fontSize=12, fontWeight="bold"),
        line.mark_rule(color=LIMIT, strokeWidth=2, strokeDash=[6, 4]).encode(bars.x("end")),
        line.mark_text(color=LIMIT, **above).encode(bars.x("end"), WORDS),
        measured_layer(bars.x("end"), bars.rows, row="setting", size="allocated at most"),
        height=max(90, 46 * labels),
    )


def _title(labelled: Mapping[str, Estimate], hardware: HardwareSpec | None, narrow: bool, origin: Sequence[str]) -> Title:
    finding = _fits(labelled, hardware) if hardware else _needs(labelled)
    if narrow:
        return title(finding, f"Peak activation memory, {BEYOND}", *origin, width=48)
    row = next(iter(labelled.values())).stages.row(0, named=True)
    return title(
        finding, conditions(row, with_attention=False), f"Weights, KV cache at its end and peak activation memory; {BEYOND}", *origin
    )


def _needs(labelled: Mapping[str, Estimate]) -> str:
    """What is needed where no device says what there is."""
    needs = {label: estimate.footprint.total_bytes for label, estimate in labelled.items()}
    least, largest = min(needs, key=needs.get), max(needs, key=needs.get)
    if len(needs) == 1:
        return f"The run needs {si(needs[largest], 'B')} of device memory"
    return f"{largest} needs {si(needs[largest], 'B')} of device memory, {least} {si(needs[least], 'B')}"


def _fits(labelled: Mapping[str, Estimate], hardware: HardwareSpec) -> str:
    """Which settings fit the device and which lack memory, those that fit first."""
    spare = {label: hardware.memory_bytes - estimate.footprint.total_bytes for label, estimate in labelled.items()}
    words: list[str] = []
    for label in sorted(spare, key=lambda label: spare[label] < 0):
        name, size = f"{label} " if len(spare) > 1 else "", si(abs(spare[label]), "B")
        if spare[label] >= 0:
            words.append(f"{name}with {size}" if words else f"{name}fits {hardware.label} with {size} to spare")
        else:
            words.append(f"{name}lacks {size}" if words else f"{name}does not fit {hardware.label}: lacks {size}")
    finding = ", ".join(words)
    return finding if len(spare) > 1 else finding[0].upper() + finding[1:]
