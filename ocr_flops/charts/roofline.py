"""Operators under the ceilings of a device (Williams et al., Roofline, 2009)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from math import log10
from typing import TYPE_CHECKING, Any

import altair as alt

from ocr_flops.charts.chart import Chart, Template, Title, compiled, data, title
from ocr_flops.charts.overlay import MEASURED, measured_layer, origins
from ocr_flops.charts.theme import CEILING_COLOURS, CEILING_NAMES, FAMILIES, INK, MODULES, listed, module_name
from ocr_flops.units import seconds, share, si, workload_words

if TYPE_CHECKING:
    from ocr_flops.timing.timing import Timing

Row = dict[str, Any]
STAGE_SHAPES = {"vision": "square", "prefill": "triangle-up", "decode": "circle"}
OPERATORS = {  # ATen's names that a reader may not know
    "mm": "matrix product",
    "addmm": "matrix product",
    "bmm": "batched product",
    "_grouped_mm": "expert products",
    "cat": "concatenation",
    "clone": "copy",
    "_to_copy": "cast",
    "constant_pad_nd": "padding",
    "native_layer_norm": "layer norm",
    "_softmax": "softmax",
    "index": "gather",
    "_scaled_dot_product_flash_attention": "fused attention",
    "_scaled_dot_product_efficient_attention": "fused attention with bias",
}
HEIGHT, LABEL_PX, LABELLED, REACH_PX = 470, 15, 6, 26
SIZES = [14, 3500]  # areas in px² of points that take none and all of the time
NAMED = 0.005  # share of time from which a point can be named
FAR, TEXT_WIDTH = 0.66, 0.35  # of the width: where names stand to the left of their points, and what the longest takes
STRIP_LEAST = 0.002  # share of time of an operator without FLOPs that has a mark of its own


def roofline(timing: Timing, measured: Iterable[Row] = ()) -> Chart:
    """Operators as points under the device's ceilings: FLOPs per byte against FLOP/s attained, as large as their share of the time.

    What moves bytes without computing has no place on a log axis: it stands in a strip on the left.

    Args:
        timing: of one point. FLOP/s attained are total FLOPs over roofline seconds: where the operator runs if it reaches its ceiling.
        measured: rows with `stage`, `module` (None: the whole stage), `seconds` and `origin`: each a point at what its module, or stage,
            attained.
    """
    operators = [row for row in timing.operators.to_dicts() if row["roofline_seconds"]]
    placed = [_point(row) for row in operators if row["total_flops"]]
    idle = [row for row in operators if not row["total_flops"]]
    hardware, dtype = timing.hardware, timing.estimate.config.dtype
    peak, bandwidth = hardware.matrix_peak(dtype), hardware.memory_bandwidth_bytes_per_second
    attained = _attained(timing, measured)
    left = min([0.1, *(point["intensity"] for point in placed)]) / 1.5
    right = max([3e3, 4 * peak / bandwidth, *(1.5 * point["intensity"] for point in placed)])
    bottom, top = min([left * bandwidth, *(point["attained"] for point in (*placed, *attained))]) / 2, peak * 2.2
    edge = left / (right / left) ** 0.14 if idle else left
    strip, note = _strip(idle, edge, left, bottom, top)
    points = sorted([*placed, *strip], key=lambda point: -point["share"])
    lines, texts = _ceilings(timing, left, right)
    families = tuple(family for family in FAMILIES if any(point["family"] == family for point in points))
    stages = tuple(stage for stage in STAGE_SHAPES if any(point["stage"] == stage for point in points))
    box = (
        [{"intensity": edge, "x2": left / 1.12, "attained": bottom, "y2": top, "middle": (edge * left) ** 0.5, "text": "no FLOPs"}]
        if idle
        else []
    )
    room = [{"intensity": edge, "attained": bottom}, {"intensity": right, "attained": top}]
    return Chart(
        _roofline_template(),
        _roofline_title(timing, operators, note, attained),
        {
            "room": room,
            "box": box,
            "lines": lines,
            "points": points,
            MEASURED: attained,
            "idle": [{**point, "text": _words(point)} for point in strip if point["share"] >= 4 * NAMED],
            **_labels(placed, left, right, bottom, top, bandwidth),
            **texts,
        },
        {"families": families, "stages": stages},
    )


@cache
def _roofline_template() -> Template:
    decades = [float(f"1e{n}") for n in range(-5, 21)]
    x = alt.X(
        "intensity",
        type="quantitative",
        title="arithmetic intensity (FLOPs per byte moved)",
        scale=alt.Scale(type="log", nice=False),
        axis=alt.Axis(values=decades[:12], format="~f", grid=False),
    )
    y = alt.Y(
        "attained",
        type="quantitative",
        title="FLOP/s attained",
        scale=alt.Scale(type="log", nice=False),
        axis=alt.Axis(values=decades[5:], format="~s"),
    )
    word, painted = alt.Text("text", type="nominal"), alt.Color("colour", type="nominal", scale=None)
    box = alt.Chart(data("box"))
    return compiled(
        alt.Chart(data("room")).mark_point(opacity=0, tooltip=None).encode(x, y),
        box.mark_rect(fill=INK, fillOpacity=0.1).encode(x, y, alt.X2("x2"), alt.Y2("y2")),
        box.mark_text(baseline="top", dy=6, color=INK, fontSize=12, fontWeight="bold").encode(
            alt.X("middle", type="quantitative"), alt.Y("y2", type="quantitative"), word
        ),
        alt.Chart(data("lines")).mark_line(strokeWidth=2).encode(x, y, painted, alt.Detail("line", type="nominal")),
        alt.Chart(data("roofs"))
        .mark_text(align="right", baseline="bottom", dy=-5, fontSize=12, fontWeight="bold")
        .encode(x, y, word, painted),
        alt.Chart(data("vector"))  # below its roof and narrow: the slope passes above and to the left
        .mark_text(align="right", baseline="top", dy=6, fontSize=12, fontWeight="bold", lineBreak="\n")
        .encode(x, y, word, painted),
        alt.Chart(data("slope"))
        .mark_text(align="left", baseline="middle", dx=6, fontSize=12, fontWeight="bold")
        .encode(x, y, word, painted),
        alt.Chart(data("ridge")).mark_text(align="left", baseline="middle", dx=6, dy=17, fontSize=12).encode(x, y, word, painted),
        _marks(x, y),
        measured_layer(x, y, stage="stage", name="module", seconds="measured, median", times="of its roofline time"),
        *(
            layer
            for dataset, align, dx in (("names", "left", 9), ("far", "right", -6))
            for layer in (
                alt.Chart(data(dataset))
                .mark_rule(color=INK, strokeWidth=0.8)
                .encode(x, alt.Y("point", type="quantitative"), alt.Y2("attained")),
                alt.Chart(data(dataset)).mark_text(align=align, baseline="middle", dx=dx, color=INK, fontSize=12).encode(x, y, word),
            )
        ),
        alt.Chart(data("idle")).mark_text(align="left", baseline="middle", dx=24, color=INK, fontSize=12).encode(x, y, word),
        height=HEIGHT,
    )


def _attained(timing: Timing, measured: Iterable[Row]) -> list[Row]:
    """What modules that take a part of the time, and whole stages, were measured to attain; those without FLOPs have no place."""
    ours = {(row["stage"], row["module"]): row for row in timing.modules.to_dicts()}
    ours |= {(row["stage"], None): row for row in timing.stages.to_dicts()}
    points, rows = [], list(measured)
    least = NAMED * sum(row["seconds"] for row in rows if row["module"] is None)
    for row in rows:
        known = ours.get((row["stage"], row["module"]))
        if known and known["total_flops"] and row["seconds"] > least:
            points.append(
                {
                    "intensity": known["arithmetic_intensity"],
                    "attained": known["total_flops"] / row["seconds"],
                    "stage": row["stage"],
                    "name": module_name(row["module"]) if row["module"] else "whole stage",
                    "seconds": seconds(row["seconds"]),
                    "times": f"{row['seconds'] / known['roofline_seconds']:.3g} times",
                    "origin": row["origin"],
                }
            )
    return points


def _point(row: Row) -> Row:
    return {**_described(row), "intensity": row["arithmetic_intensity"], "attained": row["total_flops"] / row["roofline_seconds"]}


def _described(row: Row) -> Row:
    """What a point's tooltip says, and its looks."""
    return {
        "stage": row["stage"],
        "name": module_name(row["module"]),
        "operator": _operator(row["operator"]),
        "share": row["share"],
        "family": MODULES.get(row["module"], (row["module"],))[0],
        "seconds": seconds(row["roofline_seconds"]),
        "part": share(row["share"], 1),
        "work": si(row["total_flops"], "FLOPs") if row["total_flops"] else "none",
        "moved": si(row["io_bytes"], "B"),
        "ceiling": CEILING_NAMES[row["binding_ceiling"]],
        "runs": row["operators"],
    }


def _operator(name: str) -> str:
    return f"{OPERATORS[name]} ({name.strip('_')})" if name in OPERATORS and len(name) < 18 else OPERATORS.get(name, name.strip("_"))


def _strip(idle: list[Row], edge: float, left: float, bottom: float, top: float) -> tuple[list[Row], str]:
    """Operators without FLOPs as points in a column, the largest on top, the smallest as one; and what to say of them."""
    if not idle:
        return [], ""
    ordered = sorted(idle, key=lambda row: -row["share"])
    large = [_described(row) for row in ordered if row["share"] >= STRIP_LEAST]
    small = [row for row in ordered if row["share"] < STRIP_LEAST]
    if small:
        whole = {
            "share": sum(row["share"] for row in small),
            "part": share(sum(row["share"] for row in small), 1),
            "family": "norms, embedding",
            "stage": "decode",
            "name": f"{len(small)} smaller ones of all stages",
            "operator": "copies and casts",
            "work": "none",
            "seconds": seconds(sum(row["roofline_seconds"] for row in small)),
            "moved": si(sum(row["io_bytes"] for row in small), "B"),
            "ceiling": CEILING_NAMES["bandwidth"],
            "runs": sum(row["operators"] for row in small),
        }
        large.append(whole)
    height, free = log10(top / bottom), 0.77
    gap = min(0.1, free / len(large))
    for n, point in enumerate(large):
        point |= {"intensity": (edge * left) ** 0.5, "attained": bottom * 10 ** (height * (free - gap * n))}
    total = sum(row["share"] for row in idle)
    return large, f"Copies, casts and gathers: {share(total, 1)} of the time, no FLOPs; they stand in the strip on the left"


def _ceilings(timing: Timing, left: float, right: float) -> tuple[list[Row], dict[str, list[Row]]]:
    """The bandwidth's slope up to the matrix peak and the flat roofs, as the ends of lines; and their names."""
    hardware, dtype = timing.hardware, timing.estimate.config.dtype
    peak, bandwidth, vector = hardware.matrix_peak(dtype), hardware.memory_bandwidth_bytes_per_second, hardware.vector_fp32_flops_per_second
    lines = [(left, peak / bandwidth, left * bandwidth, peak, "bandwidth"), (peak / bandwidth, right, peak, peak, "matrix")]
    roofs = [(peak, f"matrix units, {dtype}: {si(peak, 'FLOP/s')}", "matrix")]
    if vector and vector != peak:
        lines.append((vector / bandwidth, right, vector, vector, "vector"))
    ends = [
        {"intensity": at, "attained": height, "line": kind, "colour": CEILING_COLOURS[kind]}
        for x1, x2, y1, y2, kind in lines
        for at, height in ((x1, y1), (x2, y2))
    ]
    corner = {"intensity": left, "attained": peak}
    return ends, {
        "vector": [
            {"intensity": right, "attained": vector, "text": f"vector, fp32\n{si(vector, 'FLOP/s')}", "colour": CEILING_COLOURS["vector"]}
            for *_, kind in lines
            if kind == "vector"
        ],
        "roofs": [{"intensity": right, "attained": height, "text": text, "colour": CEILING_COLOURS[kind]} for height, text, kind in roofs],
        "slope": [{**corner, "text": f"memory: {si(bandwidth, 'B/s')}", "colour": CEILING_COLOURS["bandwidth"]}],
        "ridge": [{**corner, "text": f"the slope meets the roof at {peak / bandwidth:.3g} FLOPs per byte", "colour": INK}],
    }


def _marks(x: alt.X, y: alt.Y) -> alt.Chart:
    quiet = {"orient": "right", "titleFontWeight": "normal", "symbolOpacity": 0.9}
    grey = {"symbolFillColor": INK, "symbolStrokeColor": INK}
    colour = alt.Color(
        "family",
        type="nominal",
        title="part of the model",
        legend=listed("families", symbolType="circle", symbolSize=90, **quiet),
        scale=alt.Scale(domain=list(FAMILIES), range=list(FAMILIES.values())),
    )
    shape = alt.Shape(
        "stage",
        type="nominal",
        title="stage",
        legend=listed("stages", symbolSize=90, **quiet, **grey),
        scale=alt.Scale(domain=list(STAGE_SHAPES), range=list(STAGE_SHAPES.values())),
    )
    size = alt.Size(
        "share",
        type="quantitative",
        title="share of the time",
        scale=alt.Scale(domain=[0, 1], range=SIZES),
        legend=alt.Legend(format=".0%", values=[0.02, 0.1, 0.4], symbolType="circle", **quiet, **grey),
    )
    tooltip = [
        alt.Tooltip(name, type="nominal", title=label)
        for name, label in (
            ("stage", "stage"),
            ("name", "module"),
            ("operator", "operator"),
            ("part", "share of the time"),
            ("seconds", "roofline time"),
            ("work", "work"),
            ("moved", "moved"),
            ("ceiling", "bound by"),
        )
    ]
    tooltip += [alt.Tooltip("runs", type="quantitative", title="launches", format=",d")]
    return (
        alt.Chart(data("points"))
        .mark_point(filled=True, opacity=0.8, stroke=INK, strokeWidth=0.6)
        .encode(x, y, colour, shape, size, tooltip=tooltip)
    )


def _labels(placed: list[Row], left: float, right: float, bottom: float, top: float, bandwidth: float) -> dict[str, list[Row]]:
    """The largest points, named below the slope where nothing lies, each on a line of its own: to their right ("names") or left ("far")."""
    chosen = [point for point in sorted(placed, key=lambda point: -point["share"])[:LABELLED] if point["share"] >= NAMED]
    per_px, width = log10(top / bottom) / HEIGHT, log10(right / left)
    texts: dict[str, list[Row]] = {"names": [], "far": []}
    wanted = []
    for point in chosen:
        height = log10(point["attained"]) - REACH_PX * per_px
        is_far = log10(point["intensity"] / left) > FAR * width
        below_slope = log10(bandwidth * point["intensity"]) - TEXT_WIDTH * width
        wanted.append((min(height, below_slope) if is_far else height, point["intensity"], is_far, point))
    above = float("inf")
    for height, intensity, is_far, point in sorted(wanted, key=lambda one: one[:2], reverse=True):
        above = min(height, above - LABEL_PX * per_px)
        texts["far" if is_far else "names"].append(
            {"intensity": intensity, "point": point["attained"], "attained": 10**above, "text": _words(point)}
        )
    return texts


def _words(point: Row) -> str:
    return f"{point['name']}, {point['stage']}: {point['operator'].split(' (')[0]}, {point['part']}"


def _roofline_title(timing: Timing, operators: list[Row], note: str, attained: list[Row]) -> Title:
    spent: dict[str, float] = {}
    for row in operators:
        spent[row["binding_ceiling"]] = spent.get(row["binding_ceiling"], 0) + row["share"]
    ceiling, widest = max(spent, key=spent.get), max(operators, key=lambda row: row["share"])
    finding = (
        f"On {timing.hardware.label} {share(spent[ceiling], 1)} of the time is bound by {CEILING_NAMES[ceiling]}; the largest point is "
        f"{module_name(widest['module'])} in {widest['stage']}, {share(widest['share'], 1)}"
    )
    config = timing.estimate.config
    row = timing.estimate.stages.row(0, named=True)
    conditions = f"{config.engine.name}, attention {config.attention.name}, {config.dtype}, {config.cache} cache"
    meaning = "Roofline time: each operator at its lowest ceiling, nothing overlaps, every operator reads and writes memory"
    return title(finding, f"{workload_words(row)}; {conditions}", meaning, *([note] if note else []), *origins(attained), width=100)
