"""Memory: what a run needs against what a device has, and what grows with the output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import altair as alt

from ocr_flops.charts.chart import Chart, Template, Title, compiled, data, title
from ocr_flops.charts.overlay import MEASURED, measured_layer, origins
from ocr_flops.charts.theme import INK, module_name, row_axis, si_axis
from ocr_flops.units import share, si, workload_words

if TYPE_CHECKING:
    import polars as pl

    from ocr_flops.spec.specs import HardwareSpec
    from ocr_flops.timing.estimate import Estimate

Row = dict[str, Any]
Names = tuple[str, ...]
KINDS = {
    "weights": "#888888",
    "KV cache": "#AA4499",
    "peak activations": "#DDAA33",
}  # unlike the colours of stages, beside which they stand
TRAFFIC = {
    "weights read": ("weight_io_bytes", KINDS["weights"]),
    "activations": ("activation_io_bytes", KINDS["peak activations"]),
    "KV cache": ("kv_io_bytes", KINDS["KV cache"]),
}
HELD = "#0077BB"
BYTES = si_axis("B")


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
    limit = hardware.memory_bytes if hardware else None
    most = max([estimate.footprint.total_bytes for estimate in labelled.values()] + ([limit] if limit else []))
    parts, ends = [], []
    for label, estimate in labelled.items():
        needs, start = estimate.footprint, 0
        stage, peak = max(estimate.peaks.items(), key=lambda item: item[1].live_bytes)
        where = f"{module_name(peak.module)} in {stage}, at {peak.operator.strip('_')}"
        notes = {"weights": "every parameter", "KV cache": "at the last output token", "peak activations": f"largest in {where}"}
        for kind, size in zip(KINDS, needs[:3], strict=True):
            parts.append(
                {
                    "row": label,
                    "kind": kind,
                    "start": start,
                    "end": start + size,
                    "size": si(size, "B"),
                    "note": notes[kind],
                    "part": share(size, needs.total_bytes),
                    "total": si(needs.total_bytes, "B"),
                }
            )
            start += size
        beside = limit if limit and start <= limit < start + 0.3 * most else start  # clear of the line
        ends.append({"row": label, "end": beside, "text": si(start, "B") + ("" if narrow else _verdict(start, limit))})
    line = [{"end": limit, "text": f"memory: {si(limit, 'B')}"}] if hardware else []
    measured = [
        {"row": label, "end": size, "size": si(size, "B"), "origin": where}
        for label, (size, where) in allocated.items()
        if label in labelled
    ]
    return Chart(
        _memory_template(len(labelled)),
        _memory_title(labelled, hardware, narrow, origins(measured)),
        {
            MEASURED: measured,
            "parts": parts,
            "ends": ends,
            "line": line,
            "inside": [
                {**part, "middle": (part["start"] + part["end"]) / 2}
                for part in parts
                if part["end"] - part["start"] > (0.25 if narrow else 0.07) * most
            ],
        },
        {"rows": list(labelled), "room": max([most, *(row["end"] for row in measured)]) * 1.25},
    )


def _verdict(total: int, limit: float | None) -> str:
    if not limit:
        return ""
    return f", {si(limit - total, 'B')} to spare" if total <= limit else f", {si(total - limit, 'B')} too much"


@cache
def _memory_template(bars: int) -> Template:
    y = row_axis(labelPadding=6)
    x = alt.X(
        "end",
        type="quantitative",
        title="bytes of device memory",
        scale=alt.Scale(domain=[0, alt.ExprRef("room")], nice=False),
        axis=alt.Axis(labelExpr=BYTES, tickCount=6),
    )
    colour = alt.Color(
        "kind", type="nominal", title=None, legend=alt.Legend(orient="top"), scale=alt.Scale(domain=list(KINDS), range=list(KINDS.values()))
    )
    tooltip = [
        alt.Tooltip(name, type="nominal", title=words)
        for name, words in (
            ("row", "setting"),
            ("kind", "what"),
            ("size", "bytes"),
            ("part", "share"),
            ("note", "how"),
            ("total", "in all"),
        )
    ]
    ends, line = alt.Chart(data("ends")), alt.Chart(data("line"))
    word = alt.Text("text", type="nominal")
    return compiled(
        alt.Chart(data("parts"))
        .mark_bar(height={"band": 0.62})
        .encode(y, alt.X("start", type="quantitative"), alt.X2("end"), colour, tooltip=tooltip),
        alt.Chart(data("inside"))
        .mark_text(baseline="middle", fontSize=11, color="#111111", fontWeight="bold")
        .encode(y, alt.X("middle", type="quantitative"), alt.Text("size", type="nominal")),
        ends.mark_text(align="left", baseline="middle", dx=6, color=INK, fontSize=12, fontWeight="bold").encode(y, x, word),
        line.mark_rule(color="#CC3311", strokeWidth=2, strokeDash=[6, 4]).encode(x),
        line.mark_text(align="center", baseline="bottom", y=-4, color="#CC3311", fontSize=12, fontWeight="bold").encode(x, word),
        measured_layer(x, y, ("row", "setting"), ("size", "allocated at most")),
        height=max(90, 46 * bars),
    )


def _memory_title(labelled: Mapping[str, Estimate], hardware: HardwareSpec | None, narrow: bool, told: Names) -> Title:
    needs = {label: estimate.footprint.total_bytes for label, estimate in labelled.items()}
    if hardware is None:
        largest = max(needs, key=needs.get)
        finding = f"{largest if len(needs) > 1 else 'The run'} needs {si(needs[largest], 'B')} of device memory"
        if len(needs) > 1:
            least = min(needs, key=needs.get)
            finding += f", {least} {si(needs[least], 'B')}"
    else:
        room = {label: hardware.memory_bytes - total for label, total in needs.items()}
        fits = [label for label, spare in room.items() if spare >= 0]
        words = []
        for label in sorted(room, key=lambda label: label not in fits):  # those that fit first
            name = f"{label} " if len(room) > 1 else ""
            if label in fits:
                words.append(
                    f"{name}fits {hardware.label} with {si(room[label], 'B')} to spare"
                    if not words
                    else f"{name}with {si(room[label], 'B')}"
                )
            else:
                words.append(
                    f"{name}lacks {si(-room[label], 'B')}"
                    if words
                    else f"{name}does not fit {hardware.label}: lacks {si(-room[label], 'B')}"
                )
        finding = ", ".join(words)
        finding = finding if len(room) > 1 else finding[0].upper() + finding[1:]
    beyond = "without the allocator's slack and the driver's own memory"
    if narrow:
        return title(finding, f"Largest live activations, {beyond}", *told, width=48)
    first = next(iter(labelled.values()))
    config, row = first.config, first.stages.row(0, named=True)
    return title(
        finding,
        f"{workload_words(row)}; {config.engine.name}, {config.dtype}",
        f"Weights, KV cache at its end and the largest live activations; {beyond}",
        *told,
    )


def growth(sweep: pl.DataFrame, output_tokens: int | None = None) -> Chart:
    """KV cache held and bytes moved by a decode step, against output length.

    Args:
        sweep: `of.sweep` of one page over at least three ascending output_tokens; of several attention modes the first is drawn. A step's
            bytes are linear in the context, so those of any step follow from the differences of totals.
        output_tokens: the current output length, marked.
    """
    mode = sweep["attention"][0]
    found = [row for row in sweep.to_dicts() if row["stage"] == "decode" and row["attention"] == mode]
    steps = _steps(found)
    held = [
        {"output_tokens": row["output_tokens"], "bytes": row["kv_cache_bytes"], "size": si(row["kv_cache_bytes"], "B")} for row in found
    ]
    areas = []
    for step in steps:
        start = 0.0
        for kind, (column, _) in TRAFFIC.items():
            areas.append(
                {
                    "output_tokens": step["output_tokens"],
                    "kind": kind,
                    "start": start,
                    "bytes": start + step[column],
                    "size": si(step[column], "B"),
                    "part": share(step[column], step["io_bytes"]),
                    "total": si(step["io_bytes"], "B"),
                }
            )
            start += step[column]
    ends = areas[-len(TRAFFIC) :]
    names = [
        {
            "output_tokens": end["output_tokens"],
            "bytes": (end["start"] + end["bytes"]) / 2,
            "text": f"{end['kind']}: {end['size']} a step",
            "colour": TRAFFIC[end["kind"]][1],
        }
        for end in ends
    ]
    names += [{**held[-1], "text": f"KV cache held: {held[-1]['size']}", "colour": HELD}] if ends else []
    mark = [{"output_tokens": output_tokens, "text": f"{output_tokens:,} tokens"}] if output_tokens else []
    room = [{"output_tokens": 1.3 * found[-1]["output_tokens"], "bytes": 0}]
    return Chart(
        _growth_template(),
        _growth_title(found, steps, held),
        {
            "areas": areas,
            "held": held,
            "mark": mark,
            "names": _apart(names, 0.05 * max((end["bytes"] for end in ends), default=0)),
            "room": room,
        },
    )


def _steps(found: list[Row]) -> list[Row]:
    """The traffic of the decode step that ends at each output length, from decode's totals.

    The mean of the steps between two lengths is that of the step in their middle; two such means give the line that all steps lie on.
    """
    columns = ("io_bytes", *(column for column, _ in TRAFFIC.values()))
    means = []
    for before, after in pairwise(found):
        steps = after["output_tokens"] - before["output_tokens"]
        middle = (before["output_tokens"] + 1 + after["output_tokens"]) / 2
        means.append((middle, {column: (after[column] - before[column]) / steps for column in columns}))
    if not means:
        return []
    (first, start), (last, end) = means[0], means[-1]
    slope = {column: (end[column] - start[column]) / (last - first) if last > first else 0.0 for column in columns}
    return [
        {"output_tokens": at, **{column: start[column] + slope[column] * (at - first) for column in columns}}
        for at in (max(1, row["output_tokens"]) for row in found)
    ]


def _apart(names: list[Row], least: float) -> list[Row]:
    """Names moved up where they would lie on one another."""
    below, placed = float("-inf"), []
    for name in sorted(names, key=lambda name: name["bytes"]):
        below = max(name["bytes"], below + least)
        placed.append({**name, "bytes": below})
    return placed


@cache
def _growth_template() -> Template:
    x = alt.X(
        "output_tokens",
        type="quantitative",
        title="output tokens",
        scale=alt.Scale(nice=False, zero=True),
        axis=alt.Axis(format=",d", tickCount=8, tickMinStep=1, grid=False),
    )
    y = alt.Y("bytes", type="quantitative", title="bytes of the whole batch", axis=alt.Axis(labelExpr=BYTES, tickCount=6))
    colour = alt.Color(
        "kind", type="nominal", legend=None, scale=alt.Scale(domain=list(TRAFFIC), range=[colour for _, colour in TRAFFIC.values()])
    )
    at = alt.Tooltip("output_tokens", type="quantitative", title="output token", format=",d")
    of_step = [
        at,
        *(
            alt.Tooltip(name, type="nominal", title=words)
            for name, words in (("kind", "moved"), ("size", "bytes in this step"), ("part", "share of the step"), ("total", "whole step"))
        ),
    ]
    of_held = [at, alt.Tooltip("size", type="nominal", title="KV cache held")]
    areas, held, mark = alt.Chart(data("areas")), alt.Chart(data("held")), alt.Chart(data("mark"))
    return compiled(
        areas.mark_area(opacity=0.55).encode(x, alt.Y("start", type="quantitative"), alt.Y2("bytes"), colour),
        areas.mark_point(size=26, filled=True, opacity=0.9).encode(x, y, colour, tooltip=of_step),
        held.mark_line(strokeWidth=3, color=HELD).encode(x, y),
        held.mark_point(size=40, filled=True, color=HELD).encode(x, y, tooltip=of_held),
        mark.mark_rule(strokeDash=[4, 4], color=INK).encode(x),
        mark.mark_text(align="center", baseline="bottom", y=-4, color=INK, fontSize=12, fontWeight="bold").encode(
            x, alt.Text("text", type="nominal")
        ),
        alt.Chart(data("names"))
        .mark_text(align="left", baseline="middle", dx=10, fontSize=12, fontWeight="bold")
        .encode(x, y, alt.Text("text", type="nominal"), alt.Color("colour", type="nominal", scale=None)),
        alt.Chart(data("room")).mark_point(opacity=0, tooltip=None).encode(x, y),
        height=380,
    )


def _growth_title(found: list[Row], steps: list[Row], held: list[Row]) -> Title:
    row = found[-1]
    if not steps:
        return title("No output tokens: nothing grows", workload_words(row))
    first, last = steps[0], steps[-1]
    apart = last["output_tokens"] - first["output_tokens"]
    per_token = (last["kv_io_bytes"] - first["kv_io_bytes"]) / apart if apart else 0
    times = per_token * (row["output_tokens"] - found[0]["output_tokens"]) / (held[-1]["bytes"] - held[0]["bytes"])
    finding = (
        f"At output token {row['output_tokens']:,} the KV cache holds {held[-1]['size']}; its step moves {si(last['io_bytes'], 'B')}, "
        f"{share(last['kv_io_bytes'], last['io_bytes'])} of it cache"
    )
    how = {
        "dynamic": "a dynamic cache is read for attention, and read and written again to append each token",
        "static": "a static cache is read for attention; each token is written in place",
    }[row["cache"]]
    grows = (
        f"Each token cached adds {si(per_token, 'B')} to a step, {times:.3g} times its own size: {how}" if per_token else how.capitalize()
    )
    views = f"{row['columns']} × {row['rows']} tiles and a {row['global_px']} px view" if row["tiles"] else f"{row['global_px']} px view"
    return title(
        finding,
        f"{views}, {row['context_tokens']:,} context tokens, batch {row['batch_size']}; "
        f"{row['engine']}, attention {row['attention']}, {row['dtype']}",
        grows,
    )
