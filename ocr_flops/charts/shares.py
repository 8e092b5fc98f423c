"""Where FLOPs, bytes and time go: shares by part of the model, to the first token and for each output token."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import altair as alt

from ocr_flops.charts.chart import Chart, Template, Title, compiled, data, title
from ocr_flops.charts.interactive.base import headed_rows
from ocr_flops.charts.theme import FAMILIES, INK, MODULES, listed, module_name
from ocr_flops.units import seconds, share, si

if TYPE_CHECKING:
    from ocr_flops.timing.estimate import Estimate
    from ocr_flops.timing.timing import Timing

Row = dict[str, Any]
PHASES = {"to the first token": ("vision", "prefill"), "each output token": ("decode",)}
MEASURES = {"total_flops": "FLOPs", "io_bytes": "bytes moved", "roofline_seconds": "time"}
WORDS = {"total_flops": si, "io_bytes": lambda value: si(value, "B"), "roofline_seconds": seconds}
ROOM = 0.24  # right of the bars, for the sums
LETTER_PX, MARGIN_PX = 6.2, 4  # of the words in segments, which stand where they fit


def shares(estimate: Estimate, timing: Timing | None = None, *, wide: bool = False) -> Chart:
    """Bars of 100 %: which part of the model takes what share of FLOPs, of bytes and (on a device) of roofline time.

    Args:
        estimate: of one point.
        timing: of the same point on a device.
        wide: for a place about 1000 px wide: the legend has five columns.
    """
    table = _by_module(estimate, timing)
    steps = max(1, estimate.workload.output_tokens)
    order, heads, bars, inside, ends = [], [], [], [], []
    for phase, stages in PHASES.items():
        rows = [(module, row) for (stage, module), row in table.items() if stage in stages]
        measures = [name for name in MEASURES if sum(row.get(name, 0) for _, row in rows)]
        if measures:
            order.append(f"{phase}|")
            heads.append({"row": order[-1], "text": phase.upper()})
        for measure in measures:
            order.append(f"{phase}|{MEASURES[measure]}")
            whole, start = sum(row[measure] for _, row in rows), 0.0
            ends.append({"row": order[-1], "end": 1, "text": WORDS[measure](whole / (steps if stages == ("decode",) else 1))})
            for family, value in _by_family(rows, measure).items():
                end = start + value / whole
                bar = {"row": order[-1], "family": family, "start": start, "end": end, "part": share(value, whole)}
                bars.append({**bar, "phase": phase, "measure": MEASURES[measure], "value": WORDS[measure](value)})
                inside.append({"row": order[-1], "end": (start + end) / 2, "text": bar["part"], "size": end - start})
                start = end
    families = [family for family in FAMILIES if not bars or any(bar["family"] == family for bar in bars)]
    return Chart(
        _template(5 if wide else 2),
        _title(table, timing),
        {"heads": heads, "bars": bars, "inside": inside, "ends": ends},
        {"rows": order, "families": families},
    )


def _by_module(estimate: Estimate, timing: Timing | None) -> dict[tuple[str, str], Row]:
    """FLOPs, bytes and seconds by stage and module."""
    table = {key: {name: row[name] for name in ("total_flops", "io_bytes")} for key, row in estimate.module_numbers.items()}
    if timing:
        keys = estimate.keys("module")
        for key, spent in zip(keys, timing.table(keys)["roofline_seconds"][0].tolist(), strict=True):
            table[key]["roofline_seconds"] = spent
    return table


def _by_family(rows: list[tuple[str, Row]], measure: str) -> dict[str, float]:
    sums = dict.fromkeys(FAMILIES, 0)
    for module, row in rows:
        sums[MODULES[module][0]] += row[measure]
    return {family: value for family, value in sums.items() if value}


@cache
def _template(columns: int) -> Template:
    y = headed_rows(head="''")
    end = alt.X("end", type="quantitative", axis=None, scale=alt.Scale(domain=[0, 1 + ROOM], nice=False))
    colour = alt.Color(
        "family",
        type="nominal",
        title=None,
        legend=listed("families", orient="bottom", columns=columns, symbolType="square"),
        scale=alt.Scale(domain=list(FAMILIES), range=list(FAMILIES.values())),
    )
    words = (("family", "part of the model"), ("phase", "when"), ("measure", "of"), ("part", "share"), ("value", "value"))
    tooltip = [alt.Tooltip(name, type="nominal", title=label) for name, label in words]
    word, text = alt.Text("text", type="nominal"), {"baseline": "middle", "fontSize": 11}
    return compiled(
        alt.Chart(data("bars"))
        .mark_bar(height={"band": 0.82})
        .encode(y, alt.X("start", type="quantitative", axis=None), alt.X2("end"), colour, tooltip=tooltip),
        alt.Chart(data("inside"))
        .transform_filter(f"datum.size * width / {1 + ROOM} > {LETTER_PX} * length(datum.text) + {MARGIN_PX}")
        .mark_text(color="white", fontWeight="bold", **text)
        .encode(y, end, word),
        alt.Chart(data("ends")).mark_text(align="left", dx=6, color=INK, **text).encode(y, end, word),
        alt.Chart(data("heads"))
        .mark_text(align="left", baseline="middle", fontSize=12, fontWeight="bold", color=INK)
        .encode(y, word, x=alt.value(0)),
        height=alt.Step(22),
    )


def _title(table: Mapping[tuple[str, str], Row], timing: Timing | None) -> Title:
    """The module with the largest share of each phase's time (of its bytes, without a device)."""
    measure = "roofline_seconds" if timing else "io_bytes"
    names = ("TTFT", "TPOT") if timing else ("the bytes to the first token", "those of an output token")
    told = []
    for name, stages in zip(names, PHASES.values(), strict=True):
        rows = {module: row[measure] for (stage, module), row in table.items() if stage in stages}
        if whole := sum(rows.values()):
            widest = max(rows, key=rows.get)
            told.append(f"{module_name(widest)}: {share(rows[widest], whole)} of {name}")
    where = f"Roofline time on {timing.hardware.label}" if timing else "No times, so by bytes moved"
    finding = "; ".join(told) or "Nothing to do"
    return title(finding[0].upper() + finding[1:], f"{where}; every bar is 100 %", width=48)
