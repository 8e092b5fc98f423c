"""What charts with controls share: inputs inside the chart, and a title that follows them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ocr_flops.charts.chart import Chart, Row, Title, title

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


def grid_control(rows: list[Row]) -> Row:
    """The list to choose a point's grid from."""
    labels = {grid_name(row): f"{grid_name(row)} · {row['image_tokens']:,} image tokens" for row in rows}
    name = "grid (columns × rows)" if any(row["tile_px"] for row in rows) else "view"
    return {"input": "select", "options": list(labels), "labels": list(labels.values()), "name": name}


def following(lookup: str) -> Title:
    """A title whose lines are looked up for the values chosen."""
    return Title({"expr": f"{lookup}.text"}, {"expr": f"{lookup}.subtitle"})


def title_lines(finding: str, *conditions: str) -> Row:
    """A title's lines as a chart looks them up."""
    heading = title(finding, *conditions, width=120)
    return {"text": heading.text, "subtitle": heading.subtitle}
