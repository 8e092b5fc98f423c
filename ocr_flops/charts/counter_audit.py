"""What torch's FLOP counter reports of the model and what it hides, by how the model is run."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import altair as alt

from ocr_flops.charts.chart import Chart, Template, Title, compiled, data, title
from ocr_flops.charts.interactive.base import headed_rows
from ocr_flops.charts.theme import INK, listed
from ocr_flops.evidence.verify.counter_audit import GROUPS
from ocr_flops.evidence.verify.op_kinds import WHOLE
from ocr_flops.units import share, si, workload_words

if TYPE_CHECKING:
    import polars as pl

    from ocr_flops.timing.estimate import Estimate

COLOURS = dict(zip(GROUPS, ("#8C8C8C", "#0080ED", "#CA0013", "#EA8802", "#A80C94"), strict=True))
LABELLED = 0.05  # of a bar: narrower parts bear no words


def hidden_flops(hidden: pl.DataFrame, estimated: Estimate, torch: str) -> Chart:
    """Each stage's FLOPs as a whole bar: what the counter reports, and what it does not, by kind of operator and by how the model is run.

    Args:
        hidden: from `audit.hidden`.
        estimated: the same estimate.
        torch: version of torch that was audited.
    """
    rows = [row for row in hidden.to_dicts() if row["flops"]]
    settings = tuple(dict.fromkeys(row["setting"] for row in rows))
    stages = tuple(dict.fromkeys(row["stage"] for row in rows))
    order = tuple(name for setting in settings for name in (f"{setting}|", *(f"{setting}|{stage}" for stage in stages)))
    parts, texts, ends = [], [], dict.fromkeys(order, 0.0)
    for row in rows:
        place = f"{row['setting']}|{row['stage']}"
        start = ends[place]
        ends[place] = end = start + 100 * row["share"]
        bar = {"row": place, "group": row["group"], "start": start, "end": end, "flops": si(row["flops"], "FLOPs")}
        parts.append({**bar, "setting": row["setting"], "stage": row["stage"], "part": _part(row["share"])})
        if row["share"] >= LABELLED:
            texts.append({**bar, "middle": (start + end) / 2, "text": _part(row["share"])})
    groups = {row["group"] for row in rows}
    return Chart(
        _template(),
        _title(hidden.to_dicts(), estimated, torch),
        {"parts": parts, "texts": texts},
        {"rows": order, "groups": [group for group in GROUPS if group in groups or not groups]},
    )


def _part(of_one: float) -> str:
    """A share in words that do not round up to all of it."""
    return f"{100 * of_one:.1f} %" if 0.99 < of_one < 1 else share(of_one, 1)


def _title(rows: list[dict[str, Any]], estimated: Estimate, torch: str) -> Title:
    counted = {row["setting"]: row["share"] for row in rows if row["stage"] == WHOLE and row["group"] == GROUPS[0]}
    finding = "None of the ways to run the model could be audited here"
    if counted:
        worst, best = (pick(counted, key=counted.__getitem__) for pick in (min, max))
        finding = (
            f"torch's counter misses {share(1 - counted[worst], 1)} of this model's FLOPs when it is run as “{worst}”, "
            f"{share(1 - counted[best], 1)} as “{best}”"
        )
    workload = estimated.workload
    point = {
        name: getattr(workload, name) for name in ("columns", "rows", "tiles", "global_px", "context_tokens", "output_tokens", "batch_size")
    }
    return title(finding, f"{workload_words(point)}; torch {torch}; share of each stage's FLOPs, matrix and vector work together")


@cache
def _template() -> Template:
    y = headed_rows(head="{}")
    colour = alt.Color(
        "group",
        type="nominal",
        scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values())),
        legend=listed("groups", title=None, orient="bottom", columns=3),
    )
    told = {"setting": "run", "stage": "stage", "group": "", "part": "share", "flops": "FLOPs"}
    tooltip = [alt.Tooltip(name, type="nominal", title=word or "part") for name, word in told.items()]
    x = alt.X(
        "start",
        type="quantitative",
        scale=alt.Scale(domain=[0, 100], nice=False),
        axis=alt.Axis(title="share of the stage's FLOPs", labelExpr="datum.value + ' %'", values=[0, 25, 50, 75, 100]),
    )
    bars = alt.Chart(data("parts")).mark_bar(height=15).encode(y, x, alt.X2("end"), colour, tooltip=tooltip)
    words = (
        alt.Chart(data("texts"))
        .mark_text(fontSize=11, color="white", fontWeight="bold")
        .encode(y, alt.X("middle", type="quantitative"), alt.Text("text", type="nominal"))
    )
    edge = alt.Chart(data("parts")).mark_rule(color=INK, opacity=0.25).encode(alt.XDatum(100, type="quantitative"))
    return compiled(edge, bars, words, height=alt.Step(22))
