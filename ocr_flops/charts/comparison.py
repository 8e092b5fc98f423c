"""Settings side by side: time to first token, time per token, pages a day and memory, stacked by what they consist of."""

from collections.abc import Sequence
from functools import cache
from typing import Protocol

from ocr_flops.charts.bars import Bar, Panel, panel_rows, panel_template, panel_words, row_axis
from ocr_flops.charts.chart import Chart, Template, Title, title
from ocr_flops.charts.encoding import occurring
from ocr_flops.charts.theme import FAMILIES, MEMORY_COLOURS, STAGE_COLOURS, in_bytes
from ocr_flops.timing.estimate import Estimate
from ocr_flops.timing.timing import Timing
from ocr_flops.units import change, seconds, si

PAGES, DEVICE_MEMORY = "pages a day", "device memory"
COLOURS = STAGE_COLOURS | MEMORY_COLOURS | {PAGES: FAMILIES["lm_head"]}
NAME_PX = 140  # of a setting's name, so that panels have room; the table has all of it
BAR = 0.62  # of a panel's width; the rest is for the words
PANELS = {"first token": seconds, "per token": seconds, PAGES: si, DEVICE_MEMORY: in_bytes}


class Compared(Protocol):
    """A setting to compare: its name, its cost, and its times, None where its device has no figure for its precision."""

    label: str
    estimate: Estimate
    timing: Timing | None


def comparison(settings: Sequence[Compared]) -> Chart:
    """Bars by setting, one panel a figure, each on a scale of its own from zero; differences from the first setting as numbers."""
    found = [Panel(name, {one.label: _parts(name, one) for one in settings}, words) for name, words in PANELS.items()]
    rows, whole = panel_rows([panel for panel in found if any(panel.bars.values())], BAR)

    unfit = [one.label for one in settings if one.timing and not one.timing.fits]

    def value(bar: Bar) -> str:
        if not bar.panel.bars[bar.row]:
            return "–" if bar.row in unfit else "no figure"
        return bar.panel.words(bar.total)

    def difference(bar: Bar) -> str:
        if bar.row in unfit:
            return "does not fit"
        return change(bar.total, bar.base) if bar.row != settings[0].label and bar.panel.bars[bar.row] and bar.base else ""

    params = {"rows": [one.label for one in settings], "panels": len(rows["panels"]) - 0.02}
    params["kinds"] = occurring(COLOURS, rows["bars"], "kind")
    return Chart(_template(len(settings)), _title(settings), rows | panel_words(whole, value, difference), params)


def _parts(panel: str, one: Compared) -> dict[str, float]:
    """What a panel's bar consists of; empty where the figure does not exist."""
    if panel == DEVICE_MEMORY:
        return dict(zip(MEMORY_COLOURS, one.estimate.footprint[:3], strict=True))
    if one.timing is None or not one.timing.fits:
        return {}
    if panel == PAGES:
        return {PAGES: one.timing.expected_pages_per_day.value}
    times = dict(one.timing.stages["stage", "expected_seconds"].rows())
    if panel == "first token":
        return {stage: times[stage] for stage in ("vision", "prefill")}
    steps = one.estimate.workload.output_tokens
    return {"decode": times["decode"] / steps} if steps else {}


@cache
def _template(settings: int) -> Template:
    names = row_axis(labelPadding=8, labelFontSize=13, labelFontWeight="bold", labelLimit=NAME_PX)
    return panel_template(names, COLOURS, max(90, 46 * settings))


def _figures(one: Compared) -> dict[str, float | None]:
    """What the title compares, by panel."""
    timing = one.timing
    found = (timing.expected_ttft, timing.expected_tpot, timing.expected_pages_per_day) if timing and timing.fits else ()
    times = dict(zip(PANELS, (figure and figure.value for figure in found), strict=False))
    return dict.fromkeys(PANELS) | times | {DEVICE_MEMORY: one.estimate.footprint.total_bytes}


def _title(settings: Sequence[Compared]) -> Title:
    """What the others change of the first."""
    line = "Expected times on each setting's own device and host; every panel has a scale of its own, from zero"
    base, *others = settings
    if not others:
        return title(f"Only {base.label} so far: pin it, then change a control", line, width=105)
    first, findings = _figures(base), []
    for one in others[:3]:
        here = _figures(one)
        changed = [name for name, value in here.items() if value is not None and first[name] and value != first[name]]
        parts = [f"{name} {PANELS[name](first[name])} → {PANELS[name](here[name])} ({change(here[name], first[name])})" for name in changed]
        findings.append(f"{one.label} instead of {base.label}: {', '.join(parts) or 'no change'}")
    return title(*findings, line, width=105)
