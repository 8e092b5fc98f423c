"""Charts of a sweep: each measure against the quantity that varies most, a colour a stage or series."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import altair as alt

from ocr_flops.charts.style import INK, SI, STAGE_COLOURS, Chart, Title, compiled, data, seconds, si, title

if TYPE_CHECKING:
    import polars as pl

Row = dict[str, Any]
Names = tuple[str, ...]
AXES = {  # columns that may run along a chart, the first that varies is taken
    "image_tokens": "image tokens of a page",
    "batch_size": "pages in a batch",
    "output_tokens": "output tokens",
    "prompt_tokens": "prompt tokens",
}
SERIES = ("model", "engine", "attention", "dtype", "cache", "prefill_logits", "hardware")  # told apart where they vary
COLOURS = ("#0077BB", "#EE7733", "#009988", "#CC3311", "#33BBEE", "#AA3377", "#DDAA33", "#888888")
MOST_SERIES = 6
DASHES = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [1, 3], [10, 4])
WORK = {"tensor_flops": ("tensor (matrix units)", "#0077BB"), "vector_flops": ("vector (CUDA cores)", "#EE7733")}
PHASES = {"ttft": ("vision", "prefill"), "tpot": ("decode",)}


@dataclass(frozen=True)
class Cut:
    """The rows of a sweep that charts show: along one axis, the other numbers held at their smallest, and not too many series.

    Args:
        frame: those rows.
        axis: a key of `AXES`.
        held: what is held, by column.
        series: the columns that tell series apart.
        left_out: series that are not shown.
    """

    frame: pl.DataFrame
    axis: str
    held: dict[str, int]
    series: Names
    left_out: int

    @property
    def words(self) -> str:
        """What is held fixed and left out, for a subtitle; empty where nothing is."""
        held = ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in self.held.items())
        told = [f"Held at {held}, the smallest of the sweep"] if held else []
        return "; ".join([*told, *([f"{self.left_out} more series are in the data files"] if self.left_out else [])])


def cut(read: Callable[[], Iterable[pl.DataFrame]]) -> Cut:
    """The cut of a sweep that charts show.

    Args:
        read: gives the "stages" table, a part at a time; called twice, so that a sweep of any length fits in memory.
    """
    import polars as pl

    values: dict[str, set[Any]] = {name: set() for name in AXES}
    kinds: dict[tuple[str, ...], None] = {}
    for part in read():
        for name, known in values.items():
            known.update(part[name].unique().to_list())
        told = [name for name in SERIES if name in part.columns]
        kinds |= dict.fromkeys(part.select(pl.col(told).cast(pl.String)).unique(maintain_order=True).rows())
    axis = next((name for name, known in values.items() if len(known) > 1), "image_tokens")
    held = {name: min(known) for name, known in values.items() if name != axis and len(known) > 1}
    series = tuple(name for number, name in enumerate(told) if len({kind[number] for kind in kinds}) > 1)
    first = pl.DataFrame(list(kinds)[:MOST_SERIES], schema=told, orient="row")
    rows = [
        part.filter(*(pl.col(name) == value for name, value in held.items()))
        .with_columns(pl.col(told).cast(pl.String))
        .join(first, on=told, how="semi", nulls_equal=True)
        for part in read()
    ]
    return Cut(pl.concat(rows), axis, held, series, max(0, len(kinds) - MOST_SERIES))


def by_stage(shown: Cut, column: str, words: Callable[[float], str], name: str, *, log: bool = False) -> Chart:
    """A measure of every stage.

    Args:
        shown: of `cut`.
        column: of the frame.
        words: a value in words.
        name: of the measure, on its axis and in the title.
        log: whether the axis is logarithmic; values of 0 are then left out.
    """
    rows = [
        {**_place(shown, row), "kind": row["stage"], "value": row[column]}
        for row in shown.frame.to_dicts()
        if row[column] is not None and (row[column] > 0 or not log)
    ]
    return _lines(shown, rows, words, name, log, STAGE_COLOURS)


def split(shown: Cut, *, log: bool = False) -> Chart:
    """Tensor and vector FLOPs of all stages together."""
    sums: dict[tuple[Any, ...], Row] = {}
    for row in shown.frame.to_dicts():
        for column, (kind, _) in WORK.items():
            place = _place(shown, row)
            found = sums.setdefault((row["point"], kind), {**place, "kind": kind, "value": 0})
            found["value"] += row[column]
    rows = [row for row in sums.values() if row["value"] > 0 or not log]
    return _lines(shown, rows, si, "FLOPs of all stages", log, dict(WORK.values()))


def rows_of_phase(shown: Cut, phase: str, column: str) -> list[Row]:
    """A column summed over the stages of "ttft", or the mean per output token of "tpot"; none where a stage or a value is missing."""
    sums: dict[Any, Row] = {}
    for row in shown.frame.to_dicts():
        steps = row["output_tokens"] if phase == "tpot" else 1
        if row["stage"] in PHASES[phase] and row.get(column) is not None and steps:
            found = sums.setdefault(row["point"], {**_place(shown, row), "kind": series_of(shown, row), "value": 0, "stages": 0})
            found["value"] += row[column] / steps
            found["stages"] += 1
    return [row for row in sums.values() if row["stages"] == len(PHASES[phase])]


def by_phase(shown: Cut, phase: str, column: str, words: Callable[[float], str], name: str, scale: float = 1.0) -> Chart | None:
    """A column to the first token ("ttft") or for a mean output token ("tpot"), a colour a series; None where the sweep has none.

    Args:
        scale: by which values are multiplied: 1 / a target for the rate that it needs.
    """
    rows = [{**row, "value": scale * row["value"]} for row in rows_of_phase(shown, phase, column)]
    kinds = dict.fromkeys(row["kind"] for row in rows)
    colours = {kind: COLOURS[number % len(COLOURS)] for number, kind in enumerate(kinds)}
    return _lines(shown, [{**row, "series": ""} for row in rows], words, name, False, colours) if rows else None


def series_of(shown: Cut, row: Row) -> str:
    """What tells a row's series from the others."""
    return ", ".join(str(row[name]) for name in shown.series) or "this sweep"


def _place(shown: Cut, row: Row) -> Row:
    grid = f"{row['columns']} × {row['rows']}" if row["tiles"] else f"{row['global_px']} px view"
    return {"x": row[shown.axis], "series": series_of(shown, row), "grid": grid, "vendor": "yes" if row["vendor_supported"] else "no"}


def _lines(shown: Cut, rows: list[Row], words: Callable[[float], str], name: str, log: bool, colours: dict[str, str]) -> Chart:
    rows = sorted(rows, key=lambda row: row["x"])
    kinds = tuple(kind for kind in colours if any(row["kind"] == kind for row in rows))
    series = tuple(dict.fromkeys(row["series"] for row in rows))
    known = any(row["vendor"] == "yes" for row in rows) and any(row["vendor"] == "no" for row in rows)
    points = [{**row, "words": words(row["value"])} for row in rows]
    unit = words(0).strip("0 ").lstrip(".") if words is not seconds else "s"
    template = _template(kinds, tuple(colours[kind] for kind in kinds), series, AXES[shown.axis], name, unit, log, known)
    return Chart(template, _title(shown, rows, words, name, series), {"points": points})


@lru_cache(maxsize=128)
def _template(kinds: Names, colours: Names, series: Names, axis: str, name: str, unit: str, log: bool, known: bool) -> dict[str, Any]:
    x = alt.X("x", type="quantitative", title=axis, scale=alt.Scale(zero=False), axis=alt.Axis(format=",d", tickCount=8))
    y = alt.Y(
        "value",
        type="quantitative",
        title=name,
        scale=alt.Scale(type="log" if log else "linear", nice=not log),
        axis=alt.Axis(labelExpr=f"format(datum.value, '{SI}') + '{unit}'", tickCount=6),
    )
    top = alt.Legend(orient="top", labelLimit=400, columns=3)
    colour = alt.Color("kind", type="nominal", title=None, legend=top, scale=alt.Scale(domain=kinds, range=colours))
    several = len(series) > 1
    dash = alt.StrokeDash(
        "series",
        type="nominal",
        title=None,
        legend=alt.Legend(orient="top", labelLimit=400, columns=3, symbolStrokeColor=INK) if several else None,
        scale=alt.Scale(domain=series, range=[DASHES[number % len(DASHES)] for number in range(len(series))]),
    )
    tips = [("kind", "what"), *([("series", "series")] if several else []), ("grid", "grid"), ("vendor", "vendor's grid"), ("words", name)]
    tooltip = [alt.Tooltip(field, type="nominal", title=label) for field, label in tips]
    points = alt.Chart(data("points"))
    hollow = alt.FillOpacityValue(1, condition={"test": "datum.vendor == 'no'", "value": 0}) if known else alt.FillOpacityValue(1)
    line = points.mark_line(strokeWidth=2, opacity=0.7).encode(x, y, colour, dash)
    dots = points.mark_point(size=38, strokeWidth=1.5).encode(
        x, y, colour, alt.Fill("kind", type="nominal", legend=None, scale=alt.Scale(domain=kinds, range=colours)), hollow, tooltip=tooltip
    )
    return compiled(line, dots, height=330)


def _title(shown: Cut, rows: list[Row], words: Callable[[float], str], name: str, series: Names) -> Title:
    """From where to where the measure goes."""
    if not rows:
        return title(f"{name[0].upper()}{name[1:]}: nothing to show")
    largest, least = max(rows, key=lambda row: row["value"]), min(rows, key=lambda row: row["value"])
    top = _called(largest, series)
    finding = (
        f"{name[0].upper()}{name[1:]}: up to {words(largest['value'])} ({top}, at {largest['x']:,} {AXES[shown.axis].split(' of ')[0]})"
    )
    if least["value"] != largest["value"]:
        finding += f", down to {words(least['value'])} ({_called(least, series)})"
    notes = [shown.words] if shown.words else []
    kinds = {row["vendor"] for row in rows}
    notes += ["Filled points: grids of the vendor's code; hollow: beyond it"] if len(kinds) > 1 else []
    return title(finding, *notes, width=100)


def _called(row: Row, series: Names) -> str:
    return ", ".join(part for part in (row["kind"], row["series"] if len(series) > 1 else "") if part)


def charts(shown: Cut, targets: Mapping[str, float]) -> dict[str, Chart]:
    """Every chart of a sweep by a name that serves as a file name.

    Args:
        shown: of `cut`.
        targets: seconds by "ttft" and "tpot", whose required rates are drawn.
    """

    def bytes_(value: float) -> str:
        return si(value, "B")

    found: dict[str, Chart | None] = {
        "flops": by_stage(shown, "total_flops", si, "FLOPs"),
        "flop_split_linear": split(shown),
        "flop_split_log": split(shown, log=True),
        "traffic": by_stage(shown, "io_bytes", bytes_, "bytes moved"),
        "intensity": by_stage(shown, "arithmetic_intensity", lambda value: f"{value:.3g} FLOPs/B", "FLOPs per byte moved", log=True),
        "weights": by_stage(shown, "weight_bytes", bytes_, "weights used"),
        "activations": by_stage(shown, "peak_activation_bytes", bytes_, "peak of live activations"),
        "kv_cache": by_stage(shown, "kv_cache_bytes", bytes_, "KV cache at the stage's end"),
        "ttft": by_phase(shown, "ttft", "roofline_seconds", seconds, "time to first token, roofline"),
        "tpot": by_phase(shown, "tpot", "roofline_seconds", seconds, "time per output token, roofline"),
    }
    for phase, target in targets.items():
        told = f"for a {phase.upper()} of {seconds(target)}"
        found[f"required_flops_{phase}"] = by_phase(
            shown, phase, "tensor_flops", lambda value: si(value, "FLOP/s"), f"matrix FLOP/s {told}", 1 / target
        )
        found[f"required_bandwidth_{phase}"] = by_phase(
            shown, phase, "io_bytes", lambda value: si(value, "B/s"), f"bytes/s {told}", 1 / target
        )
    return {name: chart for name, chart in found.items() if chart is not None}
