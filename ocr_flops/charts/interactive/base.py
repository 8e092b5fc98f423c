"""What charts with controls share: inputs inside the chart, a title that follows them, and panels of bars beside each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import altair as alt

from ocr_flops.charts.chart import Chart, Title, data, title
from ocr_flops.charts.theme import INK, row_axis, spaced

Row = dict[str, Any]
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
WORDS = {"align": "left", "baseline": "middle", "color": INK}
HEAD = {"align": "left", "baseline": "bottom", "y": -4, "fontSize": 13, "fontWeight": "bold", "color": INK}


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
    return {"grid": grid_name(row), "mode": row["attention"], "row": at, **{panel: short(row[panel]) for panel in panels}}


def short(value: float) -> float:
    """Seconds with six digits, which keeps a page small; whole numbers as they are."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def grid_control(rows: list[Row]) -> Row:
    """The list to choose a point's grid from."""
    labels = {grid_name(row): f"{grid_name(row)} · {row['image_tokens']:,} image tokens" for row in rows}
    name = "grid (columns × rows)" if any(row["tile_px"] for row in rows) else "view"
    return {"input": "select", "options": list(labels), "labels": list(labels.values()), "name": name}


def panel_heads(panels: Names) -> list[Row]:
    """Names over the panels."""
    return [{"x": number, "text": PANELS[panel][0]} for number, panel in enumerate(panels)]


def following(lookup: str) -> Title:
    """A title whose lines are looked up for the values chosen."""
    return Title({"expr": f"{lookup}.text"}, {"expr": f"{lookup}.subtitle"})


def lines(finding: str, *conditions: str) -> Row:
    """A title's lines as a chart looks them up."""
    heading = title(finding, *conditions, width=120)
    return {"text": heading.text, "subtitle": heading.subtitle}


def headed_rows(of_decode: str = "", head: str = "upper({})") -> alt.Y:
    """Rows under headings, in the order of the parameter "rows": "stage|" is a heading, "stage|name" a row of it.

    Args:
        of_decode: what decode's heading says besides.
        head: expression of a heading's words, which take the place of {}.
    """
    heading = "split(datum.value, '|')[1] == ''"
    words = f"(datum.value == 'decode|' ? 'decode{of_decode}' : split(datum.value, '|')[0])" if of_decode else "split(datum.value, '|')[0]"
    return row_axis(
        labelPadding=6,
        labelExpr=f"{heading} ? {head.format(words)} : split(datum.value, '|')[1]",
        labelFontWeight={"condition": {"test": heading, "value": "bold"}, "value": "normal"},
    )


def placed(name: str, panels: Names, chosen: str) -> alt.Chart:
    """A dataset with a row for each panel of those rows that are chosen: `value`, `unit`, and `x` where the panel begins."""
    found = alt.Chart(data(name)).transform_filter(chosen).transform_fold(list(panels), as_=["key", "total"])
    units = {panel: PANELS[panel][1] for panel in panels}
    return found.transform_calculate(
        decode="split(datum.row, '|')[0] == 'decode'",
        x=f"indexof({list(panels)}, datum.key)",
        unit=f"({units})[datum.key]",
    ).transform_calculate(value=f"datum.total / {PER_STEP}")


def scaled(chart: alt.Chart, bar: float) -> alt.Chart:
    """With `end`, where the bar of a row ends in its panel."""
    return chart.transform_joinaggregate(most="max(value)", groupby=["key"]).transform_calculate(
        end=f"datum.x + {bar} * (datum.most ? datum.value / datum.most : 0)"
    )


def axes(panels: Names) -> tuple[alt.X, alt.X]:
    """Where a panel's bars begin and end: each panel takes a width of 1."""
    scale = alt.Scale(domain=[0, len(panels) - 0.02], nice=False)
    return alt.X("x", type="quantitative", axis=None, scale=scale), alt.X("end", type="quantitative", axis=None, scale=scale)


def tips(*names: tuple[str, str]) -> list[alt.Tooltip]:
    """Tooltips of text fields."""
    return [alt.Tooltip(name, type="nominal", title=words) for name, words in names]
