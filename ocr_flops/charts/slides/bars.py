"""The talk's bars: what each attention mode moves, holds and takes, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import altair as alt

from ocr_flops.charts.chart import Chart, Template, compiled, data
from ocr_flops.charts.memory import KINDS, TRAFFIC
from ocr_flops.charts.savings import COLOURS, saved
from ocr_flops.charts.slides.base import NO_TITLE, TYPE, large
from ocr_flops.charts.theme import FAMILIES, INK, STAGE_COLOURS, listed, row_axis
from ocr_flops.units import seconds, si

if TYPE_CHECKING:
    from ocr_flops.timing.estimate import Estimate
    from ocr_flops.timing.timing import Timing

Row = dict[str, Any]
FIRST = ("vision", "prefill")  # the stages before the first token
EXPERTS, OTHERS = "expert weights", "other weights"
PARTS = {EXPERTS: FAMILIES["routed experts"], OTHERS: KINDS["weights"]}
PARTS |= {kind: colour for kind, (_, colour) in TRAFFIC.items()} | KINDS | STAGE_COLOURS
BAR = 0.56  # of a panel's width; the rest is for the words


@dataclass(frozen=True)
class Panel:
    """Bars of one measure, a bar a mode, on a scale of their own from zero.

    Args:
        head: what is measured.
        table: {mode: {part: value}}; a part's colour is that of `PARTS`.
        words: a value in words.
        limit: a value that none should exceed, drawn as a line; None for none.
    """

    head: str
    table: Mapping[str, Mapping[str, float]]
    words: Callable[[float], str]
    limit: float | None = None


def moved_and_held(estimates: Mapping[str, Estimate]) -> Chart:
    """Bytes moved to the first token, and the peak of live activations.

    Args:
        estimates: of one point by attention mode, the one to compare with first.
    """
    moved = {mode: {stage: one.stage_numbers[stage]["io_bytes"] for stage in FIRST} for mode, one in estimates.items()}
    held = {mode: {"peak activations": one.footprint.peak_activation_bytes} for mode, one in estimates.items()}
    return panels([Panel("moved to the first token", moved, in_bytes), Panel("held at once, beside the weights", held, in_bytes)])


def first_token(timings: Mapping[str, Timing]) -> Chart:
    """Roofline time to the first token, and the memory that the whole run needs beside what the device has.

    Args:
        timings: of one point on one device by attention mode.
    """
    times = {
        mode: {row["stage"]: row["roofline_seconds"] for row in one.stages.to_dicts() if row["stage"] in FIRST}
        for mode, one in timings.items()
    }
    needs = {mode: dict(zip(KINDS, one.estimate.footprint[:3], strict=True)) for mode, one in timings.items()}
    has = next(iter(timings.values())).hardware.memory_bytes
    return panels([Panel("time to the first token", times, seconds), Panel(f"memory needed, of {in_bytes(has)}", needs, in_bytes, has)])


def one_token(timings: Mapping[str, Timing]) -> Chart:
    """What a decode step moves on average, and its time.

    Args:
        timings: of one point with output tokens on one device by attention mode.
    """
    moved = {mode: token_traffic(one.estimate) for mode, one in timings.items()}
    times = {mode: {"decode": one.tpot_seconds} for mode, one in timings.items()}
    return panels([Panel("moved for each output token", moved, in_bytes), Panel("time per output token", times, seconds)])


def token_traffic(estimate: Estimate) -> dict[str, float]:
    """Bytes of a decode step on average: weights of routed experts, other weights, activations, KV cache."""
    row, steps = estimate.stage_numbers["decode"], estimate.workload.output_tokens
    experts = estimate.module_numbers["decode", "decoder.routed_experts"]["weight_io_bytes"]
    parts = {EXPERTS: experts, OTHERS: row["weight_io_bytes"] - experts}
    parts |= {kind: row[TRAFFIC[kind][0]] for kind in ("activations", "KV cache")}
    return {kind: value / steps for kind, value in parts.items()}


def in_bytes(value: float) -> str:
    """Bytes in words: 24.0 GB."""
    return si(value, "B")


def panels(shown: Sequence[Panel]) -> Chart:
    """Panels beside each other; at a bar's end its sum, and what it saves of the first mode's.

    Args:
        shown: panels of the same modes.
    """
    bars, texts, told, heads, limits = [], [], [], [], []
    for position, panel in enumerate(shown):
        sums = {mode: sum(parts.values()) for mode, parts in panel.table.items()}
        most, first = max(*sums.values(), panel.limit or 0) or 1, next(iter(sums))
        heads.append({"x": position, "text": panel.head})
        limits += [{"x": position + BAR * panel.limit / most}] if panel.limit else []
        for mode, parts in panel.table.items():
            start = float(position)
            for part, value in parts.items():
                end = start + BAR * value / most
                bars.append({"row": mode, "kind": part, "x": start, "end": end, "value": panel.words(value), "what": panel.head})
                start = end
            excess = panel.limit is not None and sums[mode] > panel.limit
            words = "does not fit" if excess else saved(sums[mode], sums[first], panel.words) if mode != first else ""
            at = max(start, limits[-1]["x"]) if panel.limit else start  # the words beside the line, not across it
            texts.append({"row": mode, "end": at, "text": panel.words(sums[mode])})
            told.append({"row": mode, "end": at, "text": words})
    kinds = tuple(dict.fromkeys(bar["kind"] for bar in bars))
    room = [{"end": len(shown) - 0.01}, {"end": 0}]
    rows = {"bars": bars, "texts": texts, "told": told, "heads": heads, "limits": limits, "room": room}
    return Chart(_template(), NO_TITLE, rows, {"rows": list(shown[0].table), "kinds": kinds})


@cache
def _template() -> Template:
    named = [{"test": f"datum.value == '{mode}'", "value": colour} for mode, colour in COLOURS.items()]
    looks = {"labelFontSize": TYPE + 5, "labelFontWeight": "bold", "labelColor": {"condition": named, "value": INK}}
    y = row_axis(labelPadding=12, **looks)
    scale = alt.Scale(nice=False, zero=True)
    start, end = alt.X("x", type="quantitative", axis=None), alt.X("end", type="quantitative", axis=None, scale=scale)
    legend = listed("kinds", orient="bottom", labelFontSize=TYPE, symbolType="square", columnPadding=24)
    shades = alt.Scale(domain=list(PARTS), range=list(PARTS.values()))
    colour = alt.Color("kind", type="nominal", title=None, legend=legend, scale=shades)
    tips = (("row", "attention"), ("what", "what"), ("kind", "part"), ("value", "value"))
    tooltip = [alt.Tooltip(name, type="nominal", title=label) for name, label in tips]
    word, text = alt.Text("text", type="nominal"), {"align": "left", "baseline": "middle", "dx": 10, "color": INK}
    template = compiled(
        alt.Chart(data("room")).mark_point(opacity=0, tooltip=None).encode(end),
        alt.Chart(data("heads"))
        .mark_text(align="left", baseline="bottom", y=-6, fontSize=TYPE + 1, fontWeight="bold", color=INK)
        .encode(start, word),
        alt.Chart(data("bars")).mark_bar(height={"band": 0.62}).encode(y, start, alt.X2("end"), colour, tooltip=tooltip),
        alt.Chart(data("limits")).mark_rule(strokeDash=[7, 5], strokeWidth=3, color=INK).encode(start),
        alt.Chart(data("texts")).mark_text(dy=-13, fontSize=TYPE + 4, fontWeight="bold", **text).encode(y, end, word),
        alt.Chart(data("told")).mark_text(dy=16, fontSize=TYPE, **text).encode(y, end, word),
        height=300,
    )
    return large(template)
