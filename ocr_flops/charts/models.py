"""What a page costs on several models, against its size."""

from collections.abc import Sequence
from functools import cache
from math import exp, log

import altair as alt
import numpy as np
import polars as pl

from ocr_flops.charts.chart import Chart, Row, Template, Title, compiled, data, title
from ocr_flops.charts.corpus import ranged_chart, ranged_row
from ocr_flops.charts.encoding import OWN_COLOUR, WORDS, from_zero, log_ticks, si_axis, tips, x_of, y_of
from ocr_flops.charts.overlay import mark_layers
from ocr_flops.charts.theme import FAMILIES, STAGE_COLOURS
from ocr_flops.spec.run_spec import RunSpec
from ocr_flops.studies.models import PageText
from ocr_flops.units import SECONDS_PER_DAY, attention_words, count, hour_price, seconds, si

SECONDS, PRICE, MEMORY = "expected_page_seconds", "cost_per_1000_pages", "memory_bytes"
ASIDE = 1.03  # of the end of a line, where its name stands
ROOM = 1.3  # of the longest line, with its name behind it
HEIGHT = 420
A_DAY = "pages a day"
LEAST_GAP = 0.045  # of the axis, between two names


def cost_by_size_chart(points: pl.DataFrame, run: RunSpec, page: PageText) -> Chart:
    """Expected cost of a page against its size, a line a model, named at its end: a price where there is one, else seconds of the device.

    Args:
        points: of `studies.models.cost_by_size`.
        run: what they are of.
        page: the page that is marked.
    """
    value, found = PRICE if PRICE in points.columns else SECONDS, points.to_dicts()
    rows = [
        {
            "x": row["megapixels"],
            "value": row[value],
            "label": row["label"],
            "size": f"{row['width_px']} x {row['height_px']} px, {row['image_tokens']:,} image tokens",
            "cost": _words(row, value),
        }
        for row in found
    ]
    mark = {"x": page.width_px * page.height_px / 1e6, "text": f"{page.width_px} x {page.height_px} px"}
    return _lines_chart(rows, value, _title(found, run, page, value), mark)


def cost_by_model_chart(found: pl.DataFrame, run: RunSpec, page: PageText, currency: str = "") -> Chart:
    """Expected cost of a thousand pages by model, with its range: pages a day without a price.

    Args:
        found: of `studies.models.compare_models`, of models that have a number.
        run: what they are of.
        page: the page.
        currency: of the price; "" for any.
    """
    column, unit, factor, rows = "expected_pages_per_second{}", A_DAY, SECONDS_PER_DAY, []
    prices = [row[PRICE] / row["gpu_hours_per_1000_pages"] for row in found.to_dicts() if row[PRICE] is not None]
    if is_priced := bool(prices):
        column, unit, factor = "cost{}_per_1000_pages", currency, 1
    columns = [column.format(case) for case in ("", "_low", "_high")]
    for row in found.to_dicts():
        bar = ranged_row({name: row[name] * factor for name in columns}, column, unit)
        colour = STAGE_COLOURS["prefill" if row["model"] == run.model.name else "vision"]
        rows.append({**bar, "row": row["label"], "colour": colour, "text": f"{bar['text']}, batch {row['batch_size']}"})
    most, words = f"{count(rows[0]['end'])} {unit}".strip(), "A thousand pages cost " * is_priced
    finding = f"{words}{most} on {rows[0]['row']}"
    if len(rows) > 1:
        finding += f", {count(rows[-1]['end'])} on {rows[-1]['row']}"
    where = run.hardware.label + (f" at {hour_price(prices[0], currency)}" if is_priced else "")
    ran = f"{where}, {run.engine.name}, {attention_words(run.attention.name)}, {run.dtype}"
    line = f"{ran}; {page.width_px} x {page.height_px} px, {page.characters:,} characters; bars as expected, lines the ranges"
    return ranged_chart(title(finding, line), rows, f"{unit} for a thousand pages" if is_priced else unit)


def memory_by_output_chart(points: pl.DataFrame, run: RunSpec) -> Chart:
    """Memory needed against the tokens that are written, a line a model, named at its end.

    Args:
        points: of `studies.models.memory_by_output`.
        run: what they are of.
    """
    rows = [
        {
            "x": row["output_tokens"],
            "value": row["memory_bytes"],
            "label": row["label"],
            "size": f"{row['output_tokens']:,} tokens",
            "cost": f"{si(row['memory_bytes'], 'B')}, of it {si(row['kv_cache_bytes'], 'B')} KV cache",
        }
        for row in points.to_dicts()
    ]
    ends = [edge(row["x"] for row in rows) for edge in (min, max)]
    first, last = ({row["label"]: row["value"] for row in rows if row["x"] == end} for end in ends)
    growth = sorted(((last[label] - first[label], label) for label in last), key=lambda pair: pair[0])
    finding = f"{ends[1]:,} tokens of output add {si(growth[-1][0], 'B')} on {growth[-1][1]}"
    if len(growth) > 1:
        finding += f", {si(growth[0][0], 'B')} on {growth[0][1]}"
    ran = f"{run.engine.name}, {attention_words(run.attention.name)}, {run.dtype}, batch {run.workload.batch_size}"
    return _lines_chart(rows, MEMORY, title(finding, f"Weights, KV cache and activations; {ran}"))


def _lines_chart(rows: Sequence[Row], value: str, heading: Title, *marks: Row) -> Chart:
    """A line a label on a logarithmic axis, named at its end; rows have x, value, label, size and cost."""
    colours = dict(zip(dict.fromkeys(row["label"] for row in rows), FAMILIES.values(), strict=False))
    rows = [{**row, "colour": colours[row["label"]]} for row in rows]
    bottom, top = (edge(row["value"] for row in rows) for edge in (min, max))
    last, domain = max(row["x"] for row in rows), [bottom / 1.3, top * 1.5]
    ends = _spread_ends([row for row in rows if row["x"] == last], bottom, top)
    params = {"room": ROOM * last, "ends_y": domain, "ticks": log_ticks(*domain)}
    return Chart(_template(value), heading, {"points": rows, "ends": ends, "mark": list(marks)}, params)


def _words(row: Row, value: str) -> str:
    if value == PRICE:
        return f"{row[PRICE]:.3g} ({row['cost_low_per_1000_pages']:.3g} to {row['cost_high_per_1000_pages']:.3g})"
    return f"{seconds(row[SECONDS])} ({seconds(row['expected_page_low_seconds'])} to {seconds(row['expected_page_high_seconds'])})"


def _spread_ends(ends: Sequence[Row], bottom: float, top: float) -> list[Row]:
    """The ends of lines with names far enough apart to be read, moved as little as can be, on a logarithmic axis."""
    from scipy.optimize import isotonic_regression

    ordered = sorted(ends, key=lambda row: row["value"])
    gaps = LEAST_GAP * log(1.95 * top / bottom) * np.arange(len(ordered))
    places = isotonic_regression(np.log([row["value"] for row in ordered]) - gaps).x + gaps
    return [
        {**row, "at": row["value"], "value": exp(place), "aside": ASIDE * row["x"], "text": row["label"]}
        for place, row in zip(places, ordered, strict=True)
    ]


@cache
def _template(value: str) -> Template:
    words = {PRICE: "cost of a thousand pages", SECONDS: "seconds of the device a page", MEMORY: "memory needed"}[value]
    x = x_of("x", **from_zero("tokens of output" if value == MEMORY else "size of the page in megapixels", "room"))
    scale = alt.Scale(type="log", domain=alt.ExprRef("ends_y"), nice=False)
    axis = alt.Axis(
        labelExpr="format(datum.value, '~g')" if value == PRICE else si_axis("s" if value == SECONDS else "B"), values=alt.ExprRef("ticks")
    )
    y = y_of("value", title=words, scale=scale, axis=axis)
    tooltip = tips(label="model", size="output" if value == MEMORY else "page", cost=words)
    points, ends = alt.Chart(data("points")), alt.Chart(data("ends"))
    return compiled(
        points.mark_line(strokeWidth=2.5).encode(x, y, OWN_COLOUR),
        points.mark_point(size=36, filled=True, opacity=1).encode(x, y, OWN_COLOUR, tooltip),
        ends.mark_rule().encode(x, OWN_COLOUR, y_of("at", scale=scale), x2="aside:Q", y2="value:Q"),
        ends.mark_text(align="left", baseline="middle", dx=4, fontSize=12, fontWeight="bold").encode(
            x_of("aside", **from_zero("", "room")), y, WORDS, OWN_COLOUR
        ),
        *mark_layers(x),
        height=HEIGHT,
    )


def _title(points: Sequence[Row], run: RunSpec, page: PageText, value: str) -> Title:
    nearest = min(abs(row["width_px"] - page.width_px) for row in points)
    here = sorted((row for row in points if abs(row["width_px"] - page.width_px) == nearest), key=lambda row: row[value])
    first, last = here[0], here[-1]
    words = {PRICE: "cost of a thousand pages", SECONDS: "time of a page"}[value]
    finding = f"At {first['width_px']} x {first['height_px']} px the {words} is {_words(first, value)} on {first['label']}"
    if len(here) > 1:
        finding += f", {last[value] / first[value]:.3g} times as much on {last['label']}"
    return title(
        finding,
        f"{run.hardware.label}, {run.engine.name}, {attention_words(run.attention.name)}, {run.dtype}, "
        f"batch {run.workload.batch_size}; expected",
        f"Every model writes the same {page.characters:,} characters, whatever the size of the page",
        *page.cut_words(dict.fromkeys(row["model"] for row in points)),
    )
