"""The talk's charts, to be read from the back of a room: they fill their slide, and their type grows with the screen."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

import polars as pl

from ocr_flops.charts.bars import Bar, Panel, panel_rows, panel_template, panel_words, row_axis
from ocr_flops.charts.chart import NO_TITLE, Chart, Row, Template
from ocr_flops.charts.memory import TRAFFIC
from ocr_flops.charts.savings import saved
from ocr_flops.charts.savings_by_tiles import mode_lines
from ocr_flops.charts.theme import ATTENTION_COLOURS, FAMILIES, INK, MEMORY_COLOURS, STAGE_COLOURS, in_bytes
from ocr_flops.spec.ranged import Ranged
from ocr_flops.timing.estimate import Estimate
from ocr_flops.timing.timing import Timing
from ocr_flops.units import SECONDS_PER_HOUR, count, money, seconds

FACTOR = 1.6  # by which a chart of the app is enlarged on a screen of 1280 x 720
# 1 on such a screen; Vega asks anew whenever the chart's own size changes
SCREEN = [
    {"name": "narrow", "expr": "windowSize()[0] < 600 + 0 * width"},
    {"name": "unit", "expr": "max(narrow ? 0.5 : 0, min(windowSize()[0] / 1280, windowSize()[1] / 720)) + 0 * (width + height)"},
]
LENGTHS = {
    "fontSize", "labelFontSize", "titleFontSize", "labelLimit", "labelPadding", "titlePadding", "columnPadding", "rowPadding",
    "strokeWidth", "symbolStrokeWidth", "lineHeight", "dx", "dy",
}  # fmt: skip
AREAS = {"size", "symbolSize"}
EMBEDDING = {"embedOptions": {"renderer": "svg", "actions": False}}  # sharp at any size, in the slide's own colour, without a menu
FULL_INK = "currentColor"  # words as dark, or as light, as the slide's own
FIRST = ("vision", "prefill")  # the stages before the first token
WHERE = {  # attention that a kernel bears on, by module: what a legend calls it, and its colour; and all else
    "sam.attention_global": ("SAM global", FAMILIES["SAM"]),
    "sam.attention_windowed": ("SAM windowed", STAGE_COLOURS["decode"]),
    "clip.attention": ("CLIP", FAMILIES["CLIP"]),
    "decoder.attention": ("decoder", FAMILIES["decoder attention"]),
}
ELSE = "all but attention"
EXPERTS, OTHERS = "expert weights", "other weights"
PARTS = {EXPERTS: FAMILIES["routed experts"], OTHERS: MEMORY_COLOURS["weights"]}
DELIVERED, BUSY, COST = "pages a day of one GPU", "of the time in which the GPU works", "a million pages cost"
PARTS |= {kind: colour for kind, (_, colour) in TRAFFIC.items()} | MEMORY_COLOURS | STAGE_COLOURS
PARTS |= {DELIVERED: STAGE_COLOURS["vision"], BUSY: STAGE_COLOURS["decode"], COST: MEMORY_COLOURS["peak activations"]}
PARTS |= dict(WHERE.values()) | {ELSE: MEMORY_COLOURS["weights"]}
BAR = 0.56  # of a panel's width; the rest is for the words
BARS_FACTOR = 1.8
HEADROOM = 1.08  # of the highest point, for the words beside it
LINES = "narrow ? split(datum.value, ', ') : datum.value"  # of a row's name
AXES = ("tokens of the context", "moved by decoder attention")


def enlarged(chart: Chart, colours: Mapping[str, str] | None = None, factor: float = FACTOR) -> Chart:
    """A chart without its title that fills a slide: its type and offsets grow with the screen, its grey words take the slide's colour.

    Args:
        chart: any.
        colours: that take the place of others.
        factor: of all lengths on a screen of 1280 x 720.
    """
    swapped, rows = colours or {}, chart.datasets
    if swapped:
        rows = {name: [{key: swapped.get(value, value) for key, value in row.items()} for row in found] for name, found in rows.items()}
    return Chart(_enlarged(chart.template, factor, tuple(swapped.items())), NO_TITLE, rows, chart.params)


@lru_cache(maxsize=64)
def _enlarged(template: Template, factor: float, colours: tuple[tuple[str, str], ...]) -> Template:
    """A template as high and as wide as its place, whose lengths are multiples of the screen's; too free for Altair's schema."""
    spec = _in_units(template.spec, factor, {INK: FULL_INK, **dict(colours)})
    legend = {**spec["config"]["legend"], "symbolSize": {"expr": "260 * unit * unit"}}
    config = {**spec["config"], "legend": legend, "autosize": {"type": "fit", "contains": "padding"}}
    return Template({**spec, "height": "container", "config": config, "params": SCREEN, "usermeta": EMBEDDING})


def _in_units(part: Any, factor: float, colours: Mapping[str, str]) -> Any:
    """A specification, or a part of it, with all lengths in units of `SCREEN` and other colours."""
    if isinstance(part, list):
        return [_in_units(one, factor, colours) for one in part]
    if not isinstance(part, dict):
        return colours.get(part, part) if isinstance(part, str) else part
    grown = {name: _in_units(value, factor, colours) for name, value in part.items()}
    edges = {"x", "y"} if part.get("type") == "text" else set()  # of words that stand at an edge of the chart
    for name in (LENGTHS | AREAS | edges) & part.keys():
        if isinstance(part[name], int | float) and part[name]:
            power = 2 if name in AREAS else 1
            grown[name] = {"expr": f"{round(factor**power * part[name], 2)}{' * unit' * power}"}
    return grown


def moved_and_held(estimates: Mapping[str, Estimate]) -> Chart:
    """DRAM traffic to the first token by where it is, and the peak activation memory, by attention mode, the one to compare with first."""
    moved = {mode: traffic_to_first_token(one) for mode, one in estimates.items()}
    held = {mode: {"peak activations": one.footprint.peak_activation_bytes} for mode, one in estimates.items()}
    return _compared(Panel("moved to the first token", moved, in_bytes), Panel("held at once, beside the weights", held, in_bytes))


def traffic_to_first_token(estimate: Estimate) -> dict[str, int]:
    """Bytes moved to the first token by the attention of each part of `WHERE`, and by all else."""
    rows = {key: row["io_bytes"] for key, row in estimate.module_numbers.items() if key[0] in FIRST}
    parts = {name: sum(moved for (_, one), moved in rows.items() if one == module) for module, (name, _) in WHERE.items()}
    return parts | {ELSE: sum(rows.values()) - sum(parts.values())}


def first_token(timings: Mapping[str, Timing]) -> Chart:
    """Expected time to the first token by attention mode, and the memory that the whole run needs beside what the device has."""
    needs = {mode: dict(zip(MEMORY_COLOURS, one.estimate.footprint[:3], strict=True)) for mode, one in timings.items()}
    has = next(iter(timings.values())).hardware.memory_bytes
    times = _expected_panel("expected time to the first token", timings, FIRST)
    return _compared(times, Panel(f"memory needed, of {in_bytes(has)}", needs, in_bytes, has))


def _expected_panel(name: str, timings: Mapping[str, Timing], stages: Sequence[str], steps: int = 1) -> Panel:
    """Expected seconds of stages, or of one of their steps, as bars of attention modes; no bar of one that does not fit."""
    bars = {
        mode: {stage: float(one.lane_seconds(stage, "expected")[0]) / steps for stage in stages if one.fits}
        for mode, one in timings.items()
    }
    return Panel(name, bars, seconds)


def one_token(timings: Mapping[str, Timing]) -> Chart:
    """What a decode step moves on average, and its expected time, by attention mode."""
    moved = {mode: token_traffic(one.estimate) for mode, one in timings.items()}
    steps = next(iter(timings.values())).estimate.workload.output_tokens
    times = _expected_panel("expected time per output token", timings, ["decode"], steps)
    return _compared(Panel("moved for each output token", moved, in_bytes), times)


def pages_and_cost(timings: Mapping[str, Timing], price: float, currency: str) -> Chart:
    """Expected pages a day of one device, and what a million pages cost; nothing for what does not fit.

    Args:
        timings: of one point on one device by attention mode.
        price: of an hour of the device.
        currency: "" for any.
    """
    days = {mode: {DELIVERED: 24e6 / million_pages(one).value} if one.fits else {} for mode, one in timings.items()}
    costs = {mode: {COST: price * million_pages(one).value} if one.fits else {} for mode, one in timings.items()}
    panels = Panel(DELIVERED, days, count), Panel(COST, costs, lambda value: money(value, currency))
    return _compared(*panels)


def million_pages(timing: Timing) -> Ranged:
    """Hours of the device for a million pages, as expected, with their range."""
    pages = timing.expected_pages_per_second
    return Ranged(*(1e6 / one / SECONDS_PER_HOUR for one in (pages.value, pages.high, pages.low)), pages.source)


def from_eager_to_served(steps: Mapping[str, tuple[Any, ...]]) -> Chart:
    """Pages a day of one GPU, and the share of the time in which it works, by what runs, step by step."""
    days = {name: {DELIVERED: pages.value} for name, (pages, *_) in steps.items()}
    busy = {name: {BUSY: part} for name, (_, part, *_) in steps.items()}
    panels = Panel(DELIVERED, days, count), Panel(BUSY, busy, lambda part: f"{100 * part:.0f} %")
    rows, whole = panel_rows(panels, BAR)
    first = next(iter(days.values()))[DELIVERED]

    def difference(bar: Bar) -> str:
        return f"{bar.total / first:.3g} times" if bar.panel.name == DELIVERED and bar.total != first else ""

    rows |= panel_words(whole, lambda bar: bar.panel.words(bar.total), difference)
    params = {"rows": list(steps), "panels": 1.99, "kinds": [DELIVERED, BUSY]}
    return enlarged(Chart(_template(), NO_TITLE, rows, params), factor=1.5)


def token_traffic(estimate: Estimate) -> dict[str, float]:
    """Bytes of a decode step on average: weights of routed experts, other weights, activations, KV cache."""
    row, steps = estimate.stage_numbers["decode"], estimate.workload.output_tokens
    experts = estimate.module_numbers["decode", "decoder.routed_experts"]["weight_io_bytes"]
    parts = {EXPERTS: experts, OTHERS: row["weight_io_bytes"] - experts}
    parts |= {kind: row[TRAFFIC[kind][0]] for kind in ("activations", "KV cache")}
    return {kind: value / steps for kind, value in parts.items()}


def _compared(*panels: Panel) -> Chart:
    """Panels of the same modes beside each other; at a bar's end its sum, and how it differs from that of the first mode that has one."""
    rows, whole = panel_rows(panels, BAR)
    modes = list(panels[0].bars)

    def difference(bar: Bar) -> str:
        if not bar.panel.bars[bar.row] or (bar.panel.limit and bar.total > bar.panel.limit):
            return "does not fit"
        first = next(mode for mode, parts in bar.panel.bars.items() if parts)
        return saved(bar.total, sum(bar.panel.bars[first].values()), bar.panel.words) if bar.row != first else ""

    rows |= panel_words(whole, lambda bar: bar.panel.words(bar.total) if bar.panel.bars[bar.row] else "–", difference)
    params = {"rows": modes, "panels": len(panels) - 0.01, "kinds": list(dict.fromkeys(bar["kind"] for bar in rows["bars"]))}
    return enlarged(Chart(_template(), NO_TITLE, rows, params), factor=BARS_FACTOR)


@cache
def _template() -> Template:
    named = [{"test": f"datum.value == '{mode}'", "value": colour} for mode, colour in ATTENTION_COLOURS.items()]
    labels = row_axis(
        labelPadding=8, labelFontSize=15, labelFontWeight="bold", labelColor={"condition": named, "value": INK}, labelExpr=LINES
    )
    return panel_template(labels, PARTS, height=300)


def attention_traffic(sweep: pl.DataFrame, context_tokens: int) -> Chart:
    """Bytes that decoder attention moves in prefill against the tokens of the context, a line a mode.

    Args:
        sweep: `of.sweep(level="module")` over ascending contexts in several attention modes.
        context_tokens: the current context, marked.
    """
    mark = {"x": context_tokens, "text": f"the page: {context_tokens:,}"}
    chart = mode_lines(_attention_rows(sweep), NO_TITLE, AXES, mark, lambda end: end["size"])
    return enlarged(replace(chart, params={**chart.params, "highest": HEADROOM * chart.params["highest"]}))


def doubling(sweep: pl.DataFrame) -> dict[str, float]:
    """How many times the bytes of decoder attention the longest context takes against one of half its tokens (both in the sweep), by
    mode."""
    rows: dict[str, dict[int, int]] = {}
    for row in _attention_rows(sweep):
        rows.setdefault(row["mode"], {})[row["x"]] = row["value"]
    return {mode: by_tokens[most := max(by_tokens)] / by_tokens[most // 2] for mode, by_tokens in rows.items()}


def _attention_rows(sweep: pl.DataFrame) -> list[Row]:
    found = sweep.filter(stage="prefill", module="decoder.attention")
    return found.select(mode="attention", x="context_tokens", value="io_bytes").to_dicts()
