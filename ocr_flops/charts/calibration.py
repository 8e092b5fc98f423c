"""Calibration: held-out predictions against measurements with bands and bounds, what is reached of every ceiling, and the errors."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

import altair as alt

from ocr_flops.charts.chart import Chart, Template, Title, compiled, data, title
from ocr_flops.charts.sweep.axes import log_ticks
from ocr_flops.charts.theme import CEILING_COLOURS, CEILING_NAMES, INK, STAGE_COLOURS, listed, row_axis, si_axis
from ocr_flops.units import seconds, si, workload_words

if TYPE_CHECKING:
    from ocr_flops.evidence.calibration import Calibration, Efficiency

Row = dict[str, Any]
COLOURS = STAGE_COLOURS | {"first token": "#AA4499"}
FIGURES = {"ttft": "first token"}
WANTED = 0.15  # the error that a calibration should stay below
LANE = 0.7  # of a row, over which points of an error chart are spread


def measured(found: Calibration) -> Chart:
    """Every record's stages: predicted by the other workloads (with the range of nine in ten) against measured, and the bound.

    Args:
        found: a calibration.
    """
    rows = found.predictions.to_dicts()
    points = [
        {
            "stage": row["stage"],
            "measured": row["measured_seconds"],
            "predicted": row["predicted_seconds"],
            "low": row["low_seconds"],
            "high": row["high_seconds"],
            "said": f"{seconds(row['predicted_seconds'])} ({seconds(row['low_seconds'])} to {seconds(row['high_seconds'])})",
            "took": seconds(row["measured_seconds"]),
            "least": "not known" if row["bound_seconds"] is None else seconds(row["bound_seconds"]),
            "error": _percent(row["ratio"] - 1, signed=True),
            "what": workload_words(row),
            "attention": row["attention"],
        }
        for row in rows
    ]
    bounds = [
        {
            "stage": row["stage"],
            "measured": row["measured_seconds"],
            "predicted": row["bound_seconds"],
            "least": seconds(row["bound_seconds"]),
        }
        for row in rows
        if row["bound_seconds"]
    ]
    ends = [*(value for row in points for value in (row["measured"], row["low"], row["high"])), *(row["predicted"] for row in bounds)]
    low, high = min(ends) / 1.3, max(ends) * 1.3
    line = [{"measured": low, "predicted": low}, {"measured": high, "predicted": high}]
    stages = tuple(stage for stage in STAGE_COLOURS if stage in found.stages)
    return Chart(
        _measured_template(),
        _measured_title(found, bool(bounds)),
        {"points": points, "bounds": bounds, "line": line},
        {"stages": stages, "ends": [low, high], "ticks": log_ticks(low, high)},
    )


def reached(found: Calibration) -> Chart:
    """What the device reaches of every ceiling with its 90 % range: of its peak, or as rates where no peak is known.

    Args:
        found: a calibration.
    """
    shown = {one.ceiling: one.efficiency if found.hardware else one.rate for one in found.efficiencies}
    ends = [end for band in shown.values() if band for end in (band.low, band.high)] or [1.0]
    start = 0.0 if found.hardware else 10.0 ** math.floor(math.log10(min(ends)))
    bars, texts = [], []
    for one in found.efficiencies:
        name, band = CEILING_NAMES[one.ceiling], shown[one.ceiling]
        if band is None:
            texts.append({"row": name, "end": start, "text": f"not known: it {one.reason}"})
            continue
        bars.append({"row": name, "colour": CEILING_COLOURS[one.ceiling], "start": start, **band._asdict()})
        texts.append({"row": name, "end": band.high, "text": _reached_words(one)})
    order = tuple(CEILING_NAMES[one.ceiling] for one in found.efficiencies)
    last = 10.0 ** math.ceil(math.log10(max(ends)) + 2)  # room for words
    params = {"rows": order, "ends": [0, 1.9] if found.hardware else [start, last]}
    return Chart(_reached_template(bool(found.hardware)), _reached_title(found), {"bars": bars, "texts": texts}, params)


def held_out(found: Calibration) -> Chart:
    """The error of every prediction of a workload by the others, a lane a figure, with the span that nine of ten stay in.

    Args:
        found: a calibration.
    """
    lanes, spans, points, texts = [], [], [], []
    firsts = _first_tokens(found)
    for error in found.errors.to_dicts():
        figure = FIGURES.get(error["figure"], error["figure"])
        lanes.append(figure)
        rows = firsts if error["figure"] == "ttft" else found.predictions.filter(found.predictions["stage"] == error["figure"]).to_dicts()
        for number, row in enumerate(rows):
            lane = LANE * ((number * 0.618034) % 1 - 0.5)  # spread evenly, whatever the order
            points.append(
                {
                    "lane": len(lanes) - 1 + lane,
                    "figure": figure,
                    "error": row["ratio"] - 1,
                    "words": _percent(row["ratio"] - 1, signed=True),
                    "what": workload_words(row),
                    "attention": row["attention"],
                }
            )
        spans.append({"lane": len(lanes) - 1, "figure": figure, "low": -error["p90_error"], "high": error["p90_error"]})
        said = f"{figure}: median error {_percent(error['median_error'])}, nine of ten within {_percent(error['p90_error'])}"
        texts.append({"lane": len(lanes) - 1 - 0.42, "text": said})
    rules = [{"error": -WANTED}, {"error": 0.0}, {"error": WANTED}]
    return Chart(_held_template(len(lanes)), _held_title(found), {"points": points, "spans": spans, "texts": texts, "rules": rules})


def _first_tokens(found: Calibration) -> list[Row]:
    """Vision and prefill of the same record together."""
    both: dict[str, list[Row]] = {}
    for row in found.predictions.to_dicts():
        if row["stage"] != "decode":
            both.setdefault(row["record_id"], []).append(row)
    return [
        rows[0] | {"ratio": sum(row["predicted_seconds"] for row in rows) / sum(row["measured_seconds"] for row in rows)}
        for rows in both.values()
        if len(rows) == 2
    ]


def _percent(part: float, signed: bool = False) -> str:
    sign = ("+" if part > 0 else "−" if part < 0 else "") if signed else ""
    size = 100 * abs(part)
    return f"{sign}{size:.0f} %" if size >= 9.95 else f"{sign}{size:.1f} %"


def _reached_words(one: Efficiency) -> str:
    unit = "B/s" if one.ceiling == "bandwidth" else "FLOP/s"
    rate = f"{si(one.rate.value, unit)} ({si(one.rate.low, unit)} to {si(one.rate.high, unit)})"
    if one.efficiency is None:
        return rate
    value, low, high = (100 * part for part in one.efficiency)
    return f"{value:.0f} % ({low:.0f} to {high:.0f}), {si(one.rate.value, unit)} of {si(one.peak, unit)}"


def _errors(found: Calibration) -> dict[str, Row]:
    return {row["figure"]: row for row in found.errors.to_dicts()}


def _conditions(found: Calibration) -> str:
    left = sum(found.left_out.values())
    apart = f", {found.outliers} of their stages outliers" if found.outliers else ""
    return f"{found.model.name}, {found.engine.name}, {found.dtype}: {found.records} records of {found.workloads} workloads{apart}" + (
        f"; {left} other records left out" if left else ""
    )


def _measured_title(found: Calibration, bounded: bool) -> Title:
    within = float(((found.predictions["ratio"] - 1).abs() <= WANTED).mean())
    finding = f"{found.device}: {100 * within:.0f} % of the stages of workloads left out are predicted within {100 * WANTED:.0f} %"
    below = "hollow below: the bound, which nothing undercuts" if bounded else "no bound: the device's peaks are not known"
    return title(finding, _conditions(found), f"Each predicted by the other workloads; bars: the range of nine in ten; {below}", width=80)


def _reached_title(found: Calibration) -> Title:
    known = [one for one in found.efficiencies if one.rate]
    if not known:
        finding = f"{found.device}: launches alone explain its records, no ceiling shows in them"
    elif found.hardware:
        parts = [f"{100 * one.efficiency.value:.0f} % of its {CEILING_NAMES[one.ceiling]}" for one in known]
        finding = f"{found.device} reaches {' and '.join([', '.join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)}"
    else:
        parts = [
            f"{si(one.rate.value, 'B/s' if one.ceiling == 'bandwidth' else 'FLOP/s')} of {CEILING_NAMES[one.ceiling]}" for one in known
        ]
        finding = f"{found.device} reaches {', '.join(parts)}; its peaks are not known"
    launches = [f"{stage} {seconds(one.value) if one else 'never shows'}" for stage, one in found.launch_seconds.items()]
    return title(finding, _conditions(found), f"An operator's launch: {', '.join(launches)}; {found.launches}", width=80)


def _held_title(found: Calibration) -> Title:
    errors, told = _errors(found), []
    for figure, words in (("ttft", "first token"), ("decode", "time per token")):
        if figure in errors:
            told.append(f"{words} within {_percent(errors[figure]['p90_error'])}")
    whole = " and ".join(told) or ", ".join(f"{name} within {_percent(row['p90_error'])}" for name, row in errors.items())
    return title(
        f"{found.device}: nine of ten predictions of workloads left out have {whole}",
        _conditions(found),
        f"Predicted over measured, less 1; each workload by the others. Bars: nine of ten; dashed: ±{100 * WANTED:.0f} %",
        width=80,
    )


@cache
def _measured_template() -> Template:
    axis = alt.Axis(labelExpr=si_axis("s"), values=alt.ExprRef("ticks"))
    scale = alt.Scale(type="log", domain=alt.ExprRef("ends"), nice=False)
    x = alt.X("measured", type="quantitative", title="measured", scale=scale, axis=axis)
    y = alt.Y("predicted", type="quantitative", title="predicted", scale=scale, axis=axis)
    colour = alt.Color(
        "stage",
        type="nominal",
        title=None,
        legend=listed("stages", orient="top"),
        scale=alt.Scale(domain=list(STAGE_COLOURS), range=list(STAGE_COLOURS.values())),
    )
    tips = {"stage": "stage", "what": "workload", "attention": "attention", "took": "measured", "said": "predicted", "error": "error"}
    tooltip = [alt.Tooltip(name, type="nominal", title=words) for name, words in (tips | {"least": "bound"}).items()]
    bound = [alt.Tooltip(name, type="nominal", title=words) for name, words in (("stage", "stage"), ("least", "bound"))]
    points = alt.Chart(data("points"))
    return compiled(
        alt.Chart(data("line")).mark_line(color=INK, strokeDash=[4, 4], strokeWidth=1).encode(x, y),
        alt.Chart(data("bounds")).mark_point(shape="triangle-up", size=26, opacity=0.55, strokeWidth=1).encode(x, y, colour, tooltip=bound),
        points.mark_rule(opacity=0.55, strokeWidth=1.6).encode(x, alt.Y("low", type="quantitative"), alt.Y2("high"), colour),
        points.mark_point(size=34, filled=True, opacity=0.9).encode(x, y, colour, tooltip=tooltip),
        height=380,
    )


@cache
def _reached_template(of_peak: bool) -> Template:
    scale = alt.Scale(type="linear" if of_peak else "log", domain=alt.ExprRef("ends"), nice=False)
    axis = alt.Axis(format=".0%", values=[0, 0.25, 0.5, 0.75, 1]) if of_peak else alt.Axis(labelExpr=si_axis(), tickCount=5)
    along = {"title": "of the peak" if of_peak else "reached, in FLOP/s or B/s", "scale": scale, "axis": axis}
    y = row_axis(labelPadding=6)
    colour = alt.Color("colour", type="nominal", scale=None)
    bars = alt.Chart(data("bars"))
    return compiled(
        bars.mark_rule(strokeWidth=14, opacity=0.75).encode(y, alt.X("start", type="quantitative", **along), alt.X2("value"), colour),
        bars.mark_rule(strokeWidth=2, color=INK).encode(y, alt.X("low", type="quantitative"), alt.X2("high")),
        *(bars.mark_tick(thickness=2, height=12, color=INK).encode(y, alt.X(end, type="quantitative")) for end in ("low", "high")),
        alt.Chart(data("texts"))
        .mark_text(align="left", baseline="middle", dx=8, fontSize=12, color=INK)
        .encode(y, alt.X("end", type="quantitative"), alt.Text("text", type="nominal")),
        height=alt.Step(44),
    )


@cache
def _held_template(lanes: int) -> Template:
    scale = alt.Scale(domain=[lanes - 0.4, -0.6], nice=False)
    y = alt.Y("lane", type="quantitative", scale=scale, axis=None)
    axis = alt.Axis(labelExpr="(datum.value > 0 ? '+' : datum.value < 0 ? '−' : '') + format(abs(datum.value), '.0%')", tickCount=9)
    x = alt.X("error", type="quantitative", title="error of the prediction", axis=axis)
    colour = alt.Color(
        "figure",
        type="nominal",
        legend=None,
        scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values())),
    )
    tips = {"figure": "figure", "words": "error", "what": "workload", "attention": "attention"}
    tooltip = [alt.Tooltip(name, type="nominal", title=words) for name, words in tips.items()]
    dash = alt.StrokeDashValue([4, 4], condition={"test": "datum.error == 0", "value": [1, 0]})
    return compiled(
        alt.Chart(data("rules")).mark_rule(color=INK, opacity=0.8).encode(x, dash),
        alt.Chart(data("spans"))
        .mark_rule(strokeWidth=30, opacity=0.2)
        .encode(y, alt.X("low", type="quantitative"), alt.X2("high"), colour),
        alt.Chart(data("points")).mark_point(filled=True, size=26, opacity=0.7).encode(y, x, colour, tooltip=tooltip),
        alt.Chart(data("texts"))
        .mark_text(align="left", baseline="bottom", fontSize=12, color=INK)
        .encode(y, alt.Text("text", type="nominal"), x=alt.value(4)),
        height=76 * lanes,
    )
