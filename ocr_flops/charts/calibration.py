"""Calibration: predictions against measurements, how efficient a device is under every ceiling, and the errors of predictions."""

import math
from functools import cache

import altair as alt
import polars as pl

from ocr_flops.charts.bars import StageBars, row_axis
from ocr_flops.charts.chart import Chart, Row, Template, Title, compiled, data, title
from ocr_flops.charts.encoding import OWN_COLOUR, WORDS, listed, log_ticks, painted, si_axis, tips, x_of, y_of
from ocr_flops.charts.theme import CEILING_COLOURS, CEILING_NAMES, INK, MEMORY_COLOURS, STAGE_COLOURS
from ocr_flops.evidence.calibration import Calibration, Efficiency
from ocr_flops.units import seconds, si, workload_words

FIRST = "first token"
COLOURS = STAGE_COLOURS | {FIRST: MEMORY_COLOURS["KV cache"]}
WANTED = 0.15  # the error that a calibration should stay below
LANE = 0.7  # of a row, over which points of an error chart are spread
GOLDEN = 0.618034  # multiples of it, without their whole parts, are spread evenly however many there are


def predictions(found: Calibration) -> Chart:
    """Every record's stages: predicted by the other workloads (with the interval of nine in ten) against measured, and the bound."""
    points = []
    for row in found.predictions.to_dicts():
        value, low, high, bound = (row[f"{name}_seconds"] for name in ("predicted", "low", "high", "bound"))
        numbers = {"measured": row["measured_seconds"], "predicted": value, "low": low, "high": high, "bound": bound}
        about = {
            "range": f"{seconds(value)} ({seconds(low)} to {seconds(high)})",
            "took": seconds(row["measured_seconds"]),
            "least": "not known" if bound is None else seconds(bound),
        }
        points.append({**numbers, **about, **_error(row), "stage": row["stage"]})
    ends = [row[name] for row in points for name in ("measured", "low", "high", "bound") if row[name]]
    low, high = min(ends) / 1.3, max(ends) * 1.3
    line = [{"measured": end, "predicted": end} for end in (low, high)]
    params = {"stages": [stage for stage in STAGE_COLOURS if stage in found.stages], "ends": [low, high], "ticks": log_ticks(low, high)}
    return Chart(_predictions_template(), _predictions_title(found), {"points": points, "line": line}, params)


def efficiencies(found: Calibration) -> Chart:
    """What the device reaches of every ceiling with its 90 % interval: of its peak, or as rates where no peak is known."""
    intervals = {one.ceiling: one.efficiency if found.hardware else one.rate for one in found.efficiencies}
    ends = [end for interval in intervals.values() if interval for end in (interval.low, interval.high)] or [1.0]
    start = 0.0 if found.hardware else 10.0 ** math.floor(math.log10(min(ends)))
    bars, texts = [], []
    for one in found.efficiencies:
        place, interval = {"row": CEILING_NAMES[one.ceiling], "start": start}, intervals[one.ceiling]
        if interval is None:
            texts.append({**place, "end": start, "text": f"not known: it {one.reason}"})
        else:
            bars.append({**place, "colour": CEILING_COLOURS[one.ceiling], **interval._asdict()})
            texts.append({**place, "end": interval.high, "text": _efficiency_words(one)})
    last = 1.9 if found.hardware else 10.0 ** math.ceil(math.log10(max(ends)) + 2)  # room for words
    params = {"rows": [CEILING_NAMES[one.ceiling] for one in found.efficiencies], "across": [start, last]}
    return Chart(_efficiencies_template(bool(found.hardware)), _efficiencies_title(found), {"bars": bars, "ends": texts}, params)


def errors(found: Calibration) -> Chart:
    """The error of every prediction of a workload by the others, a lane a figure, with the interval that nine of ten stay in."""
    spans, points, texts = [], [], []
    by_stage: dict[str, list[Row]] = {FIRST: _first_tokens(found)}
    for row in found.predictions.to_dicts():
        by_stage.setdefault(row["stage"], []).append(row)
    for lane, error in enumerate(found.errors.to_dicts()):
        figure = FIRST if error["figure"] == "ttft" else error["figure"]
        for number, row in enumerate(by_stage[figure]):
            aside = LANE * ((number * GOLDEN) % 1 - 0.5)
            points.append({"lane": lane + aside, "figure": figure, "ratio": row["ratio"] - 1, **_error(row)})
        spans.append({"lane": lane, "figure": figure, "low": -error["p90_error"], "high": error["p90_error"]})
        typical = f"median error {_percent(error['median_error'])}, nine of ten within {_percent(error['p90_error'])}"
        texts.append({"lane": lane - 0.42, "text": f"{figure}: {typical}"})
    rules = [{"ratio": -WANTED}, {"ratio": 0.0}, {"ratio": WANTED}]
    return Chart(_errors_template(len(spans)), _errors_title(found), {"points": points, "spans": spans, "texts": texts, "rules": rules})


def _first_tokens(found: Calibration) -> list[Row]:
    """Vision and prefill of the same record together."""
    both = found.predictions.filter(pl.col("stage") != "decode").group_by("record_id", maintain_order=True)
    ratio = pl.col("predicted_seconds").sum() / pl.col("measured_seconds").sum()
    summed = both.agg(pl.exclude("ratio").first(), ratio.alias("ratio"), stages=pl.len())
    return summed.filter(pl.col("stages") == 2).to_dicts()


def _error(row: Row) -> Row:
    """What every tooltip says of a prediction."""
    return {"error": _percent(row["ratio"] - 1, signed=True), "what": workload_words(row), "attention": row["attention"]}


def _percent(part: float, signed: bool = False) -> str:
    sign = ("+" if part > 0 else "−" if part < 0 else "") if signed else ""
    size = 100 * abs(part)
    return f"{sign}{size:.0f} %" if size >= 9.95 else f"{sign}{size:.1f} %"


def _unit(one: Efficiency) -> str:
    return "B/s" if one.ceiling == "bandwidth" else "FLOP/s"


def _efficiency_words(one: Efficiency) -> str:
    unit = _unit(one)
    if one.efficiency is None:
        return f"{si(one.rate.value, unit)} ({si(one.rate.low, unit)} to {si(one.rate.high, unit)})"
    value, low, high = (100 * part for part in one.efficiency)
    return f"{value:.0f} % ({low:.0f} to {high:.0f}), {si(one.rate.value, unit)} of {si(one.peak, unit)}"


def _conditions(found: Calibration) -> str:
    left = sum(found.left_out.values())
    outliers = f", {found.outliers} of their stages outliers" if found.outliers else ""
    records = f"{found.records} records of {found.workloads} workloads{outliers}" + (f"; {left} other records left out" if left else "")
    return f"{found.model.name}, {found.engine.name}, {found.dtype}: {records}"


def _predictions_title(found: Calibration) -> Title:
    within = float(((found.predictions["ratio"] - 1).abs() <= WANTED).mean())
    finding = f"{found.device}: {100 * within:.0f} % of the stages of workloads left out are predicted within {100 * WANTED:.0f} %"
    below = "no bound: the device's peaks are not known"
    if found.predictions["bound_seconds"].count():
        below = "hollow below: the bound, which nothing undercuts"
    return title(finding, _conditions(found), f"Each predicted by the other workloads; bars: the range of nine in ten; {below}", width=80)


def _efficiencies_title(found: Calibration) -> Title:
    known = [one for one in found.efficiencies if one.rate]
    if not known:
        finding = f"{found.device}: launches alone explain its records, no ceiling shows in them"
    elif found.hardware:
        parts = [f"{100 * one.efficiency.value:.0f} % of its {CEILING_NAMES[one.ceiling]}" for one in known]
        finding = f"{found.device} reaches {' and '.join([', '.join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)}"
    else:
        rates = ", ".join(f"{si(one.rate.value, _unit(one))} of {CEILING_NAMES[one.ceiling]}" for one in known)
        finding = f"{found.device} reaches {rates}; its peaks are not known"
    launches = [f"{stage} {seconds(one.value) if one else 'never shows'}" for stage, one in found.launch_seconds.items()]
    return title(finding, _conditions(found), f"An operator's launch: {', '.join(launches)}; {found.launches}", width=80)


def _errors_title(found: Calibration) -> Title:
    spans = {row["figure"]: f"within {_percent(row['p90_error'])}" for row in found.errors.to_dicts()}
    names = {"ttft": FIRST, "decode": "time per token"}
    known = [f"{name} {spans[figure]}" for figure, name in names.items() if figure in spans]
    whole = " and ".join(known) or ", ".join(f"{name} {words}" for name, words in spans.items())
    meaning = f"Predicted over measured, less 1; each workload by the others. Bars: nine of ten; dashed: ±{100 * WANTED:.0f} %"
    return title(f"{found.device}: nine of ten predictions of workloads left out have {whole}", _conditions(found), meaning, width=80)


@cache
def _predictions_template() -> Template:
    axis = alt.Axis(labelExpr=si_axis("s"), values=alt.ExprRef("ticks"))
    along = {"scale": alt.Scale(type="log", domain=alt.ExprRef("ends"), nice=False), "axis": axis}
    x, y = x_of("measured", title="measured", **along), y_of("predicted", title="predicted", **along)
    colour = painted("stage", STAGE_COLOURS, listed("stages", orient="top"))
    about = tips(stage="stage", what="workload", attention="attention", took="measured", range="predicted", error="error", least="bound")
    points = alt.Chart(data("points"))
    bounds = points.transform_filter("datum.bound").mark_point(shape="triangle-up", size=26, opacity=0.55, strokeWidth=1)
    return compiled(
        alt.Chart(data("line")).mark_line(color=INK, strokeDash=[4, 4], strokeWidth=1).encode(x, y),
        bounds.encode(x, y_of("bound", **along), colour, tips(stage="stage", least="bound")),
        points.mark_rule(opacity=0.55, strokeWidth=1.6).encode(x, y_of("low", **along), alt.Y2("high"), colour),
        points.mark_point(size=34, filled=True, opacity=0.9).encode(x, y, colour, about),
        height=380,
    )


@cache
def _efficiencies_template(of_peak: bool) -> Template:
    scale = alt.Scale(type="linear" if of_peak else "log", domain=alt.ExprRef("across"), nice=False)
    axis = alt.Axis(format=".0%", values=[0, 0.25, 0.5, 0.75, 1]) if of_peak else alt.Axis(labelExpr=si_axis(), tickCount=5)
    bars = StageBars(row_axis(), {"title": "of the peak" if of_peak else "reached, in FLOP/s or B/s", "scale": scale, "axis": axis})
    found = alt.Chart(data("bars"))
    return compiled(
        bars.segments("bars", OWN_COLOUR, start="start", end="value", band=0.33),
        found.mark_rule(strokeWidth=2, color=INK).encode(bars.rows, bars.x("low"), alt.X2("high")),
        *(found.mark_tick(thickness=2, height=12, color=INK).encode(bars.rows, bars.x(end)) for end in ("low", "high")),
        bars.words(dx=8, fontSize=12),
        height=alt.Step(44),
    )


@cache
def _errors_template(lanes: int) -> Template:
    y = y_of("lane", scale=alt.Scale(domain=[lanes - 0.4, -0.6], nice=False), axis=None)
    label = "(datum.value > 0 ? '+' : datum.value < 0 ? '−' : '') + format(abs(datum.value), '.0%')"
    x = x_of("ratio", title="error of the prediction", axis=alt.Axis(labelExpr=label, tickCount=9))
    colour = painted("figure", COLOURS)
    dash = alt.StrokeDashValue([4, 4], condition={"test": "datum.ratio == 0", "value": [1, 0]})
    texts, look = alt.Chart(data("texts")), {"align": "left", "baseline": "bottom", "fontSize": 12, "color": INK}
    spans, points = alt.Chart(data("spans")).mark_rule(strokeWidth=30, opacity=0.2), alt.Chart(data("points"))
    about = tips(figure="figure", error="error", what="workload", attention="attention")
    return compiled(
        alt.Chart(data("rules")).mark_rule(color=INK, opacity=0.8).encode(x, dash),
        spans.encode(y, x_of("low"), alt.X2("high"), colour),
        points.mark_point(filled=True, size=26, opacity=0.7).encode(y, x, colour, about),
        texts.mark_text(**look).encode(y, WORDS, x=alt.value(4)),
        height=76 * lanes,
    )
