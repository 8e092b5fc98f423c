"""What torch's FLOP counter reports of the model and what it hides, by how the model is run."""

from functools import cache

import altair as alt
import polars as pl

from ocr_flops.charts.bars import StageBars, headed_axis, headed_rows, stacked
from ocr_flops.charts.chart import Chart, Row, Template, Title, compiled, title
from ocr_flops.charts.encoding import listed, occurring, painted, tips
from ocr_flops.charts.theme import FAMILIES, INK
from ocr_flops.evidence.verify.counter_audit import GROUPS
from ocr_flops.evidence.verify.op_kinds import WHOLE
from ocr_flops.timing.estimate import Estimate
from ocr_flops.units import share, si, workload_words

COLOURS = dict(zip(GROUPS, (INK, *(FAMILIES[name] for name in ("SAM", "routed experts", "dense MLP", "router"))), strict=True))


def hidden_flops(hidden: pl.DataFrame, estimated: Estimate, torch: str) -> Chart:
    """Each stage's FLOPs as a whole bar: what the counter reports, and what it does not, by kind of operator and by how the model is run.

    Args:
        hidden: from `counter_audit.hidden_frame`.
        estimated: the same estimate.
        torch: version of torch that was audited.
    """
    bars = []
    rows = hidden.filter(pl.col("flops") > 0)
    for (setting, stage), of_stage in rows.group_by("setting", "stage", maintain_order=True):
        flops = dict(of_stage["group", "flops"].rows())
        for group, part, at in stacked(dict(of_stage["group", "share"].rows()), scale=100):
            about = {"setting": setting, "stage": stage, "group": group, "part": _part(part), "flops": si(flops[group], "FLOPs")}
            bars.append({"row": f"{setting}|{stage}", **about, **at})
    params = {"rows": headed_rows(bar["row"] for bar in bars), "groups": occurring(GROUPS, bars, "group")}
    return Chart(_template(), _title(hidden.to_dicts(), estimated, torch), {"bars": bars}, params)


def _part(of_one: float) -> str:
    """A share in words that do not round up to all of it."""
    return f"{100 * of_one:.1f} %" if 0.99 < of_one < 1 else share(of_one, 1)


def _title(rows: list[Row], estimated: Estimate, torch: str) -> Title:
    counted = {row["setting"]: row["share"] for row in rows if row["stage"] == WHOLE and row["group"] == GROUPS[0]}
    finding = "None of the ways to run the model could be audited here"
    if counted:
        worst, best = (pick(counted, key=counted.__getitem__) for pick in (min, max))
        finding = (
            f"torch's counter misses {share(1 - counted[worst], 1)} of this model's FLOPs when it is run as “{worst}”, "
            f"{share(1 - counted[best], 1)} as “{best}”"
        )
    point = workload_words(estimated.stages.row(0, named=True))
    return title(finding, f"{point}; torch {torch}; share of each stage's FLOPs, matrix and vector work together")


@cache
def _template() -> Template:
    axis = alt.Axis(labelExpr="datum.value + ' %'", values=[0, 25, 50, 75, 100])
    along = {"title": "share of the stage's FLOPs", "scale": alt.Scale(domain=[0, 100], nice=False), "axis": axis}
    bars = StageBars(headed_axis(head="{}"), along)
    colour = painted("group", COLOURS, listed("groups", orient="bottom", columns=alt.ExprRef("narrow ? 1 : 3")))
    about = tips(setting="run", stage="stage", group="part", part="share", flops="FLOPs")
    return compiled(bars.segments("bars", colour, about, start="start", band=0.75), bars.inside("part", "100"), height=alt.Step(22))
