"""What fused attention saves: DRAM traffic, peak activation memory and time of eager, sdpa and flash, side by side."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from types import MappingProxyType

import altair as alt

from ocr_flops.charts.bars import Panel, StageBars, headed_rows, panel_rows
from ocr_flops.charts.chart import Chart, Row, Template, Title, compiled, data, title
from ocr_flops.charts.encoding import OWN_COLOUR, tips
from ocr_flops.charts.overlay import MEASURED, measured_layer, origins
from ocr_flops.charts.theme import attention_colour, conditions, in_bytes
from ocr_flops.timing.estimate import Estimate
from ocr_flops.timing.hidden_savings import hidden_saving
from ocr_flops.timing.timing import Timing
from ocr_flops.units import seconds, share, si

MEASURES = {
    "io_bytes": "DRAM traffic",
    "peak_activation_bytes": "peak activation memory",
    "device_seconds": "device time",
    "expected_seconds": "expected time",
}
TRACED = {MEASURES["io_bytes"]: "io_bytes", MEASURES["peak_activation_bytes"]: "peak_bytes"}  # names of columns, "measured_" before them
LETTER_PX = 5.6  # of the words beside bars
BAR = 0.42  # of a panel's width; the rest is for the words
WHOLE = "all stages"
Table = dict[str, dict[str, Row]]  # {stage: {attention mode: its numbers}}, the mode to compare with first


def savings(
    estimates: Mapping[str, Estimate],
    timings: Mapping[str, Timing] | None = None,
    traced: Mapping[str, Mapping[str, Row]] = MappingProxyType({}),
) -> Chart:
    """DRAM traffic, peak activation memory and (with a device) device time and expected time per stage and attention mode; savings written
    at the bars.

    Each panel has a scale of its own, from zero. The thin inner bar marks weights and KV cache, which no attention mode changes.

    Args:
        estimates: of one point by attention mode, the one to compare with first: {"eager": ..., "sdpa": ..., "flash": ...}.
        timings: of the same modes on one device.
        traced: by mode and stage what the real model moved and held, as `spot_checks.find_traced` has it, laid over the bars.
    """
    table: Table = {}
    for mode, estimate in estimates.items():
        for stage, row in _by_stage(estimate, timings and timings[mode]).items():
            table.setdefault(stage, {})[mode] = row
    busy = {stage: rows for stage, rows in table.items() if any(next(iter(rows.values())).values())}
    measures = [name for name in MEASURES if timings or not name.endswith("_seconds")]
    datasets = mode_bars(busy, measures)
    for bar in datasets["bars"]:
        stage, mode = bar["row"].split("|")
        row, column = traced.get(mode, {}).get(stage), TRACED.get(bar["what"])
        if row and column:
            length = (bar["end"] - bar["start"]) * row[f"measured_{column}"] / row[f"analytic_{column}"]
            about = {"value": in_bytes(row[f"measured_{column}"]), "what": bar["what"], "origin": f"traced: {row['ran']}"}
            datasets[MEASURED].append({"row": bar["row"], "end": bar["start"] + length, **about})
    heading = _title(estimates, timings, table, origins(datasets[MEASURED]))
    return Chart(mode_template(next(iter(estimates))), heading, datasets, mode_params(datasets))


def mode_bars(table: Table, measures: Sequence[str]) -> dict[str, list[Row]]:
    """Bars of attention modes under the headings of stages, a panel a measure.

    Args:
        table: what is compared, with `fixed`: bytes of weights and KV cache, which are part of `io_bytes`.
        measures: keys of `MEASURES`, "io_bytes" first.
    """
    base, *others = next(iter(table.values()))
    panels = []
    for measure in measures:
        bars = {f"{stage}|{mode}": {mode: row[measure]} for stage, rows in table.items() for mode, row in rows.items()}
        panels.append(Panel(MEASURES[measure], bars, seconds if measure.endswith("_seconds") else in_bytes))
    rows, whole = panel_rows(panels, BAR)
    fixed = []
    for bar, drawn in zip(whole, rows["bars"], strict=True):
        stage, mode = bar.row.split("|")
        first = bar.panel.bars[f"{stage}|{base}"][base]
        before = {later: mode for mode, later in pairwise(others)}.get(mode)
        difference = saved(bar.total, first, bar.panel.words)
        words = "" if mode == base else difference
        if before and bar.total == bar.panel.bars[f"{stage}|{before}"][before]:
            words = f"as {before}"
        texts = {"text": words, "brief": words.rpartition(", ")[2]}
        drawn |= {name: f"{drawn['value']} ({text})" if text else drawn["value"] for name, text in texts.items()}
        drawn |= {"stage": stage, "colour": attention_colour(mode), "saved": difference or "–", "kept": share(bar.total, first)}
        if bar.panel is panels[0]:
            part = table[stage][mode]["fixed"] / bar.total if bar.total else 0
            fixed.append({"row": bar.row, "start": 0, "end": part * bar.end})
    return {"bars": rows["bars"], "panels": rows["panels"], "fixed": fixed, MEASURED: []}


def mode_params(datasets: Mapping[str, Sequence[Row]]) -> Row:
    """The parameters of `mode_template`; "least" is the width in px from which words are written in full."""
    panels = len(datasets["panels"])
    least = max(len(end["text"]) for end in datasets["bars"]) * LETTER_PX / (1 - BAR) * panels
    return {"rows": headed_rows(bar["row"] for bar in datasets["bars"]), "panels": panels - 0.02, "least": round(least)}


@cache
def mode_template(base: str, chosen: str = "true") -> Template:
    """Panels of bars, the words after them in brief where a panel is narrow; `chosen` is an expression of the rows that are drawn."""
    bars = StageBars()
    about = tips(stage="stage", kind="attention", what="what", value="value", saved=f"against {base}", kept=f"of {base}'s")
    segments, fixed = (alt.Chart(data(name)).transform_filter(chosen) for name in ("bars", "fixed"))
    inner = fixed.mark_bar(height={"band": 0.26}, color="#333333", opacity=0.75, tooltip=None)
    return compiled(
        bars.panel_heads(),
        bars.segments(segments, OWN_COLOUR, about, start="start", band=0.82),
        inner.encode(bars.rows, bars.x("start"), alt.X2("end")),
        bars.words(segments.transform_calculate(text="narrow || width < least ? datum.brief : datum.text"), dx=9),
        measured_layer(bars.x("end"), bars.rows, what="what", value="traced"),
        height=alt.Step(19),
    )


def _by_stage(estimate: Estimate, timing: Timing | None) -> dict[str, Row]:
    """What is compared, by stage and over all stages (peaks: the largest)."""
    table = {}
    for stage, row in estimate.stage_numbers.items():
        table[stage] = {name: row[name] for name in ("io_bytes", "peak_activation_bytes")}
        table[stage]["fixed"] = row["weight_io_bytes"] + row["kv_io_bytes"]
        if timing:
            table[stage] |= {f"{lane}_seconds": float(timing.lane_seconds(stage, lane)[0]) for lane in ("device", "expected")}
    return {**table, WHOLE: add_stages(table.values())} if len(table) > 1 else table


def add_stages(rows: Iterable[Row]) -> Row:
    """The numbers of several stages as one: sums, and of peaks the largest."""
    rows = list(rows)
    return {name: (max if name == "peak_activation_bytes" else sum)(row[name] for row in rows) for name in rows[0]}


def saved(value: float, base: float, words: Callable[[float], str] = in_bytes) -> str:
    """A saving in absolute and relative terms: −36.5 GB, −65 %; empty where there is nothing to save."""
    if not base:
        return ""
    if value == base:
        return "no change"
    sign = "−" if value < base else "+"
    return f"{sign}{words(abs(base - value))}, {sign}{share(abs(base - value), base)}"


def _title(estimates: Mapping[str, Estimate], timings: Mapping[str, Timing] | None, table: Table, origin: Sequence[str]) -> Title:
    """What the last mode saves of the first one, where, and where it saves nothing."""
    modes = list(estimates)
    base, best = ({stage: rows[mode] for stage, rows in table.items()} for mode in (modes[0], modes[-1]))
    less = {stage: base[stage]["io_bytes"] - best[stage]["io_bytes"] for stage in base if stage != WHOLE}
    where = max(less, key=less.get)
    finding = f"{modes[-1]} moves {si(less[where], 'B')} ({share(less[where], base[where]['io_bytes'])}) less than {modes[0]} in {where}"
    decode, limits = base.get("decode", {}).get("io_bytes"), ""
    if decode:  # where fused attention helps little, and why
        fixed = f"Decode is {share(base['decode']['fixed'], decode)} weights and KV cache"
        limits = f"{fixed}: {modes[-1]} saves {share(less['decode'], decode)} of its bytes"
    hidden = []
    if timings and timings[modes[0]].expected_ttft:
        ends = [timings[mode] for mode in (modes[0], modes[-1])]
        instead = " or ".join(f"{seconds(timings[mode].expected_ttft.value)} ({mode})" for mode in modes[:-1])
        finding += (
            f"; to the first token an expected {seconds(ends[1].expected_ttft.value)} instead of {instead} on {ends[0].hardware.label}"
        )
        hidden = [hidden_saving(*ends, ("vision", "prefill")).describe("the time to first token")]
    elif decode:
        finding += f", and {share(less['decode'], decode)} less in decode"
    flops = {sum(row["tensor_flops"] for row in estimate.stage_numbers.values()) for estimate in estimates.values()}
    same = f"Matrix FLOPs are the same in every mode: {si(min(flops), 'FLOPs')}" if len(flops) == 1 else "Matrix FLOPs differ"
    return title(
        finding,
        *hidden,
        f"{same}. {limits}",
        f"{conditions(estimates[modes[0]].stages.row(0, named=True), with_attention=False)}. {_evidence(estimates)}",
        "Inner bar: weights and KV cache, which no attention kernel changes. Each panel has its own scale",
        *origin,
        width=105,
    )


def _evidence(estimates: Mapping[str, Estimate]) -> str:
    """Which modes were traced on the real model, and which are modelled."""
    modelled = [mode for mode, one in estimates.items() if any(one.config.evidence(stage) == "modelled" for stage in one.chosen_stages)]
    if not modelled:
        return "All can be traced here"
    return "Modelled" if len(modelled) == len(estimates) else f"Modelled: {', '.join(modelled)}; the others can be traced here"
