"""Settings side by side: time to first token, time per token, memory and FLOPs, stacked by what they consist of."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import altair as alt

from ocr_flops.charts.chart import Chart, Template, Title, compiled, data, title
from ocr_flops.charts.memory import KINDS
from ocr_flops.charts.theme import INK, STAGE_COLOURS, listed, row_axis
from ocr_flops.units import seconds, share, si

if TYPE_CHECKING:
    from ocr_flops.app.comparison import Compared

Row = dict[str, Any]
COLOURS = STAGE_COLOURS | KINDS
BAR = 0.62  # of a panel's width; the rest is for the words
PANELS = ("first token", "per token", "device memory", "FLOPs")


def comparison(found: list[Compared]) -> Chart:
    """Bars by setting, one panel a figure, each on a scale of its own from zero; differences from the first setting as numbers.

    Args:
        found: of `comparison.compared`, the one to compare with first.
    """
    panels = {name: [_parts(name, one) for one in found] for name in PANELS}
    panels = {name: bars for name, bars in panels.items() if any(parts for parts in bars)}
    bars, texts, said_at, heads = [], [], [], []
    for position, (name, all_parts) in enumerate(panels.items()):
        words = seconds if "token" in name else _flops if name == "FLOPs" else _bytes
        sums = [sum(parts.values()) for parts in all_parts]
        most = max(sums) or 1
        heads.append({"x": position, "text": name})
        for one, parts, total in zip(found, all_parts, sums, strict=True):
            start = position
            for kind, value in parts.items():
                end = start + BAR * value / most
                bars.append(
                    {"row": one.label, "kind": kind, "x": start, "end": end, "what": name, "value": words(value), "all": words(total)}
                )
                start = end
            said = _difference(total, sums[0]) if one is not found[0] and parts else ""
            at = {"row": one.label, "end": start}
            texts.append({**at, "text": words(total) if parts else "no figure"})
            said_at.append({**at, "text": said})
    kinds = tuple(kind for kind in COLOURS if any(bar["kind"] == kind for bar in bars))
    return Chart(
        _template(len(found)),
        _title(found),
        {"bars": bars, "texts": texts, "said": said_at, "heads": heads, "room": [{"end": len(panels) - 0.02}, {"end": 0}]},
        {"rows": [one.label for one in found], "kinds": kinds},
    )


def _parts(panel: str, one: Compared) -> dict[str, float]:
    """What a panel's bar consists of; empty where the figure does not exist."""
    if panel == "FLOPs":
        return {stage: row["total_flops"] for stage, row in one.estimate.stage_numbers.items()}
    if panel == "device memory":
        return dict(zip(KINDS, one.estimate.footprint[:3], strict=True))
    if one.timing is None:
        return {}
    steps = one.estimate.workload.output_tokens
    times = {row["stage"]: row["roofline_seconds"] for row in one.timing.stages.to_dicts()}
    if panel == "first token":
        return {stage: times[stage] for stage in ("vision", "prefill")}
    return {"decode": times["decode"] / steps} if steps else {}


def _bytes(value: float) -> str:
    return si(value, "B")


def _flops(value: float) -> str:
    return si(value)


def _difference(value: float, base: float) -> str:
    if value == base:
        return "no change"
    if value >= 3 * base > 0:
        return f"× {value / base:.3g}"
    return f"{'−' if value < base else '+'}{share(abs(value - base), base)}"


@cache
def _template(settings: int) -> Template:
    y = row_axis(labelPadding=8, labelFontSize=13, labelFontWeight="bold")
    start = alt.X("x", type="quantitative", axis=None)
    end = alt.X("end", type="quantitative", axis=None, scale=alt.Scale(nice=False, zero=True))
    colour = alt.Color(
        "kind",
        type="nominal",
        title=None,
        legend=listed("kinds", orient="bottom"),
        scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values())),
    )
    words = (("row", "setting"), ("what", "figure"), ("kind", "part"), ("value", "value"), ("all", "in all"))
    tooltip = [alt.Tooltip(name, type="nominal", title=label) for name, label in words]
    word, text = alt.Text("text", type="nominal"), {"align": "left", "baseline": "middle", "dx": 5, "color": INK}
    return compiled(
        alt.Chart(data("room")).mark_point(opacity=0, tooltip=None).encode(end),
        alt.Chart(data("heads"))
        .mark_text(align="left", baseline="bottom", y=-6, fontSize=13, fontWeight="bold", color=INK)
        .encode(start, word),
        alt.Chart(data("bars")).mark_bar(height={"band": 0.62}).encode(y, start, alt.X2("end"), colour, tooltip=tooltip),
        alt.Chart(data("texts")).mark_text(dy=-7, fontSize=13, **text).encode(y, end, word),
        alt.Chart(data("said")).mark_text(dy=8, fontSize=12, fontWeight="bold", **text).encode(y, end, word),
        height=max(90, 46 * settings),
    )


def _title(found: list[Compared]) -> Title:
    """How the last setting stands to the first."""
    base = found[0]
    lines = ["Roofline times on each setting's own device; every panel has a scale of its own, from zero"]
    if len(found) == 1:
        return title(f"Only {base.label} so far: pin it, then change a control", *lines, width=105)
    told = []
    for one in found[1:]:
        first, here = base.figures, one.figures
        parts = [
            f"{words} {_difference(here[name], first[name])}"
            for name, words in (("ttft_seconds", "first token"), ("tpot_seconds", "per token"), ("total_bytes", "memory"))
            if here[name] is not None and first[name] and here[name] != first[name]
        ]
        told.append(f"{one.label}: {', '.join(parts) or 'no change'}")
    return title(f"Against {base.label}: " + "; ".join(told[:3]), *lines, width=105)
