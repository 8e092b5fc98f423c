"""What charts with controls share: inputs inside the chart, a title that follows them, and panels whose rows Vega chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt

from ocr_flops.charts.chart import Chart, Row, Title, data, title
from ocr_flops.charts.theme import spaced

Names = tuple[str, ...]
PANELS = {  # column: what its panel is called, and the unit of its numbers
    "total_flops": ("FLOPs", ""),
    "io_bytes": ("bytes moved", "B"),
    "peak_activation_bytes": ("peak of live activations", "B"),
    "roofline_seconds": ("roofline time", "s"),
}
LARGEST = "peak_activation_bytes"  # a maximum; all else adds up
ROW_PX = 18
PER_STEP = f"(datum.decode && datum.key != '{LARGEST}' ? steps : 1)"  # divides what decode sums over its steps
NUMBER = f"(datum.value ? {spaced('.3s')} : '0 ') + datum.unit"
NOTE = "A peak is a maximum, all else adds up. Each panel has a scale of its own"
NOTE_OF_DECODE = f"Decode: mean of an output token. {NOTE}"


@dataclass(frozen=True, eq=False)
class Controlled(Chart):
    """A chart whose parameters are bound to inputs that Vega shows with it; its title follows them.

    Vega-Lite takes an expression as a subtitle, but its schema knows none, so Altair would refuse such a chart.

    Args:
        bindings: Vega-Lite's binding of each parameter of `params` that has an input.
        findings: {"text": lines, "subtitle": lines} by the values of the bound parameters, nested in their order.
    """

    bindings: dict[str, Row] = field(default_factory=dict)
    findings: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The Vega-Lite specification."""
        spec = super().to_dict()
        bound = [{**one, "bind": self.bindings[one["name"]]} if one["name"] in self.bindings else one for one in spec["params"]]
        return {**spec, "params": [*bound, {"name": "findings", "value": self.findings}]}


def grid_name(row: Row) -> str:
    """What the control calls a point's grid, or its view where the mode has no tiles."""
    if row["tile_px"]:
        return f"{row['columns']} × {row['rows']}" if row["tiles"] else "no tiles"
    return f"{row['global_px']} px view"


def numbers(row: Row, at: str, panels: Names) -> Row:
    """A row of a sweep as the chart reads it: exact totals, and where they are drawn."""
    return {"grid": grid_name(row), "mode": row["attention"], "row": at, **{panel: rounded(row[panel]) for panel in panels}}


def rounded(value: float) -> float:
    """Seconds with six digits, which keeps a page small; whole numbers as they are."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def grid_control(rows: list[Row]) -> Row:
    """The list to choose a point's grid from."""
    labels = {grid_name(row): f"{grid_name(row)} · {row['image_tokens']:,} image tokens" for row in rows}
    name = "grid (columns × rows)" if any(row["tile_px"] for row in rows) else "view"
    return {"input": "select", "options": list(labels), "labels": list(labels.values()), "name": name}


def panel_names(panels: Names) -> list[Row]:
    """The dataset "panels"."""
    return [{"start": number, "text": PANELS[panel][0]} for number, panel in enumerate(panels)]


def following(lookup: str) -> Title:
    """A title whose lines are looked up for the values chosen."""
    return Title({"expr": f"{lookup}.text"}, {"expr": f"{lookup}.subtitle"})


def title_lines(finding: str, *conditions: str) -> Row:
    """A title's lines as a chart looks them up."""
    heading = title(finding, *conditions, width=120)
    return {"text": heading.text, "subtitle": heading.subtitle}


def evidence_words(rows: Sequence[Row]) -> str:
    """Whether the stages of a point are runnable or modelled."""
    kinds = {row["evidence"] for row in rows}
    return kinds.pop() if len(kinds) == 1 else "partly modelled"


def folded(name: str, panels: Names, chosen: str) -> alt.Chart:
    """A dataset's chosen rows, one for each panel: `value`, its `number` in words, and `start`, where the panel begins.

    Args:
        name: of the dataset.
        panels: columns.
        chosen: an expression of a row.
    """
    found = alt.Chart(data(name)).transform_filter(chosen).transform_fold(list(panels), as_=["key", "total"])
    found = found.transform_calculate(
        stage="split(datum.row, '|')[0]",
        decode="split(datum.row, '|')[0] == 'decode'",
        start=f"indexof({list(panels)}, datum.key)",
        unit=f"({ {panel: PANELS[panel][1] for panel in panels} })[datum.key]",
        what=f"({ {panel: PANELS[panel][0] for panel in panels} })[datum.key]",
    )
    return found.transform_calculate(value=f"datum.total / {PER_STEP}").transform_calculate(number=NUMBER)


def scaled(chart: alt.Chart, bar: float) -> alt.Chart:
    """With `end`, where the bar of a row ends in its panel.

    Args:
        chart: from `folded`.
        bar: length of the longest, as a part of a panel's width.
    """
    length = f"{bar} * (datum.most ? datum.value / datum.most : 0)"
    return chart.transform_joinaggregate(most="max(value)", groupby=["key"]).transform_calculate(end=f"datum.start + {length}")
