"""Operators under the ceilings of a device (Williams et al., Roofline, 2009)."""

from collections.abc import Iterable, Sequence
from functools import cache
from math import log10
from typing import NamedTuple

import altair as alt

from ocr_flops.charts.bars import briefly
from ocr_flops.charts.chart import Chart, Row, Template, Title, compiled, data, title
from ocr_flops.charts.encoding import OWN_COLOUR, WORDS, listed, occurring, painted, tips, x_of, y_of
from ocr_flops.charts.overlay import MEASURED, measured_layer, origins
from ocr_flops.charts.theme import CEILING_COLOURS, CEILING_NAMES, FAMILIES, INK, MODULES, conditions, module_name, sum_by
from ocr_flops.timing.timing import Timing
from ocr_flops.units import seconds, share, si

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
SIZES = [14, 3500]  # areas in px² of points that take none and all of the time
STRIP, STRIP_GAP = 0.77, 0.1  # of the height: what the points of the strip can take, and their largest distance
STRIP_WIDTH = 0.14  # of the width
STRIP_LEAST = 0.002  # share of time of an operator without FLOPs that has a mark of its own
HEIGHT, LABEL_PX, LABELLED, DROP_PX = 470, 15, 6, 26
NAMED = 0.005  # share of time from which a point can be named
FAR, TEXT_WIDTH = 0.66, 0.35  # of the width: where names stand to the left of their points, and what the longest takes


class Frame(NamedTuple):
    """Where the chart of what has FLOPs ends, in FLOPs per byte and FLOP/s, and the slope that crosses it, in bytes per second."""

    left: float
    right: float
    bottom: float
    top: float
    bandwidth: float


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
    idle = sorted((row for row in operators if not row["total_flops"]), key=lambda row: -row["share"])
    attained = _attained(timing, measured)
    peak, bandwidth = timing.hardware.matrix_peak(timing.estimate.config.dtype), timing.hardware.memory_bandwidth_bytes_per_second
    left = min([0.1, *(point["intensity"] for point in placed)]) / 1.5
    right = max([3e3, 4 * peak / bandwidth, *(1.5 * point["intensity"] for point in placed)])
    bottom = min([left * bandwidth, *(point["attained"] for point in (*placed, *attained))]) / 2
    frame = Frame(left, right, bottom, 2.2 * peak, bandwidth)
    edge = left / (right / left) ** STRIP_WIDTH if idle else left
    strip = _strip(idle, (edge * left) ** 0.5, frame)
    points = sorted([*placed, *strip], key=lambda point: -point["share"])
    middle = (edge * left) ** 0.5
    box = {"intensity": edge, "x2": left / 1.12, "attained": bottom, "y2": frame.top, "middle": middle, "text": "no FLOPs"}
    datasets = {
        "box": [box] if idle else [],
        "points": points,
        MEASURED: attained,
        "idle": [{**point, "text": _point_words(point)} for point in strip if point["share"] >= 4 * NAMED],
        **_point_names(placed, frame),
        **_ceilings(timing, frame),
    }
    params = {"across": [edge, right], "up": [bottom, frame.top], "families": occurring(FAMILIES, points, "family")}
    params["least_px"] = 400
    params["stages"] = occurring(STAGE_SHAPES, points, "stage")
    return Chart(_template(), _title(timing, operators, sum(row["share"] for row in idle), attained), datasets, params)


def _attained(timing: Timing, measured: Iterable[Row]) -> list[Row]:
    """What modules that take a part of the time, and whole stages, were measured to attain; those without FLOPs have no place."""
    ours = {(row["stage"], row["module"]): row for row in timing.modules.to_dicts()}
    ours |= {(row["stage"], None): row for row in timing.stages.to_dicts()}
    points, rows = [], list(measured)
    least = NAMED * sum(row["seconds"] for row in rows if row["module"] is None)
    for row in rows:
        known = ours.get((row["stage"], row["module"]))
        if known and known["total_flops"] and row["seconds"] > least:
            place = {"intensity": known["arithmetic_intensity"], "attained": known["total_flops"] / row["seconds"], "stage": row["stage"]}
            name = module_name(row["module"]) if row["module"] else "whole stage"
            times = f"{row['seconds'] / known['roofline_seconds']:.3g} times"
            points.append({**place, "name": name, "seconds": seconds(row["seconds"]), "times": times, "origin": row["origin"]})
    return points


def _point(row: Row) -> Row:
    """An operator: where it is, its looks, and what its tooltip says."""
    return {
        "intensity": row["arithmetic_intensity"],
        "attained": row["total_flops"] / row["roofline_seconds"],
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
        "runs": f"{row['operators']:,}",
    }


def _operator(name: str) -> str:
    return f"{OPERATORS[name]} ({name.strip('_')})" if name in OPERATORS and len(name) < 18 else OPERATORS.get(name, name.strip("_"))


def _strip(idle: list[Row], x: float, frame: Frame) -> list[Row]:
    """Operators without FLOPs, from the largest on, as points in a column at `x`, the largest on top, the smallest as one."""
    points = [_point(row) for row in idle if row["share"] >= STRIP_LEAST]
    small = [row for row in idle if row["share"] < STRIP_LEAST]
    if small:
        sums = {name: sum(row[name] for row in small) for name in ("share", "roofline_seconds", "io_bytes", "operators")}
        names = {"name": f"{len(small)} smaller ones of all stages", "operator": "copies and casts", "family": "norms, embedding"}
        points.append(_point({**small[0], **sums}) | names | {"stage": "decode"})
    gap, height = min(STRIP_GAP, STRIP / max(1, len(points))), log10(frame.top / frame.bottom)
    levels = (frame.bottom * 10 ** (height * (STRIP - gap * number)) for number in range(len(points)))
    return [{**point, "intensity": x, "attained": level} for point, level in zip(points, levels, strict=True)]


@cache
def _template() -> Template:
    decades = [float(f"1e{power}") for power in range(-5, 21)]
    across, up = (alt.Scale(type="log", domain=alt.ExprRef(name), nice=False) for name in ("across", "up"))
    axis = alt.Axis(values=decades[:12], format="~f", grid=False)
    x = x_of("intensity", title="arithmetic intensity (FLOPs per byte moved)", scale=across, axis=axis)
    y = y_of("attained", title="FLOP/s attained", scale=up, axis=alt.Axis(values=decades[5:], format="~s"))
    box, bold = alt.Chart(data("box")), {"fontSize": 12, "fontWeight": "bold"}
    placed = {  # how words stand
        "roofs": {"align": "right", "baseline": "bottom", "dy": -5, **bold},
        "vector": {"align": "right", "baseline": "top", "dy": 6, "lineBreak": "\n", **bold},
        "slope": {"align": "left", "baseline": "middle", "dx": 6, **bold},
        "ridge": {"align": "left", "baseline": "middle", "dx": 6, "dy": 17, "fontSize": 12},
    }
    grey = {"baseline": "middle", "color": INK, "fontSize": 12}
    beside = {"names": {"align": "left", "dx": 9}, "far": {"align": "right", "dx": -6}}
    rules = [alt.Chart(data(name)).mark_rule(color=INK, strokeWidth=0.8).encode(x, y_of("point"), alt.Y2("attained")) for name in beside]
    names = beside | {"idle": {"align": "left", "dx": 24}}
    return compiled(
        box.mark_rect(fill=INK, fillOpacity=0.1).encode(x, y, alt.X2("x2"), alt.Y2("y2")),
        box.mark_text(baseline="top", dy=6, color=INK, **bold).encode(x_of("middle"), y_of("y2"), WORDS),
        alt.Chart(data("lines")).mark_line(strokeWidth=2).encode(x, y, OWN_COLOUR, alt.Detail("line", type="nominal")),
        *(briefly(name).mark_text(**look).encode(x, y, WORDS, OWN_COLOUR) for name, look in placed.items()),
        _points(x, y),
        measured_layer(x, y, stage="stage", name="module", seconds="measured, median", times="of its roofline time"),
        *rules,
        *(briefly(name).mark_text(**grey, **look).encode(x, y, WORDS) for name, look in names.items()),
        height=HEIGHT,
    )


def _points(x: alt.X, y: alt.Y) -> alt.Chart:
    """Operators: the part of the model as colour, the stage as shape, the share of the time as area."""
    look = {"orient": "right", "titleFontWeight": "normal", "symbolOpacity": 0.9}
    grey = {"symbolFillColor": INK, "symbolStrokeColor": INK, **look}
    colour = painted("family", FAMILIES, listed("families", title="part of the model", symbolType="circle", symbolSize=90, **look))
    shapes = alt.Scale(domain=list(STAGE_SHAPES), range=list(STAGE_SHAPES.values()))
    shape = alt.Shape("stage", type="nominal", title="stage", scale=shapes, legend=listed("stages", symbolSize=90, **grey))
    legend = alt.Legend(format=".0%", values=[0.02, 0.1, 0.4], symbolType="circle", **grey)
    areas = alt.Scale(domain=[0, 1], range=SIZES)
    size = alt.Size("share", type="quantitative", title="share of the time", scale=areas, legend=legend)
    spent = {"part": "share of the time", "seconds": "roofline time"}
    about = tips("stage", "operator", name="module", **spent, work="work", moved="DRAM traffic", ceiling="bound by", runs="launches")
    points = alt.Chart(data("points")).mark_point(filled=True, opacity=0.8, stroke=INK, strokeWidth=0.6)
    return points.encode(x, y, colour, shape, size, about)


def _title(timing: Timing, operators: list[Row], idle: float, attained: list[Row]) -> Title:
    """Which ceiling binds most of the time, and the largest point; `idle` is the share of the time without FLOPs."""
    spent = sum_by(operators, "binding_ceiling", "share")
    ceiling, widest = max(spent, key=spent.get), max(operators, key=lambda row: row["share"])
    row = timing.estimate.stages.row(0, named=True)
    note = f"Copies, casts and gathers: {share(idle, 1)} of the time, no FLOPs; they stand in the strip on the left"
    return title(
        f"On {timing.hardware.label} {share(spent[ceiling], 1)} of roofline time is bound by {CEILING_NAMES[ceiling]}; the largest point "
        f"is {module_name(widest['module'])} in {widest['stage']}, {share(widest['share'], 1)}",
        f"{conditions(row)}, {row['cache']} cache",
        "Roofline time, the device at its peaks: each operator at its lowest ceiling, nothing overlaps, all read and write memory",
        *([note] if idle else []),
        *origins(attained),
        width=100,
    )


def _ceilings(timing: Timing, frame: Frame) -> dict[str, list[Row]]:
    """The bandwidth's slope up to the matrix peak and the flat roofs, as the ends of lines; and their names.

    The vector roof's name stands below it and is narrow: the slope passes above and to the left.
    """
    hardware, dtype = timing.hardware, timing.estimate.config.dtype
    peak, bandwidth, vector = hardware.matrix_peak(dtype), frame.bandwidth, hardware.vector_fp32_flops_per_second
    ends = {"bandwidth": ((frame.left, frame.left * bandwidth), (peak / bandwidth, peak))}
    ends["matrix"] = ((peak / bandwidth, peak), (frame.right, peak))
    below = []
    if vector and vector != peak:
        ends["vector"] = ((vector / bandwidth, vector), (frame.right, vector))
        below = [_name(frame.right, vector, f"vector, fp32\n{si(vector, 'FLOP/s')}", CEILING_COLOURS["vector"])]
    ridge = f"the slope meets the roof at {peak / bandwidth:.3g} FLOPs per byte"
    lines = [_name(x, y, "", CEILING_COLOURS[ceiling]) | {"line": ceiling} for ceiling, two in ends.items() for x, y in two]
    return {
        "lines": lines,
        "roofs": [_name(frame.right, peak, f"matrix units, {dtype}: {si(peak, 'FLOP/s')}", CEILING_COLOURS["matrix"])],
        "vector": below,
        "slope": [_name(frame.left, peak, f"memory: {si(bandwidth, 'B/s')}", CEILING_COLOURS["bandwidth"])],
        "ridge": [{**_name(frame.left, peak, ridge, INK), "brief": ""}],
    }


def _name(x: float, y: float, text: str, colour: str) -> Row:
    return {"intensity": x, "attained": y, "text": text, "colour": colour}


def _point_names(points: Sequence[Row], frame: Frame) -> dict[str, list[Row]]:
    """The largest points, named below the slope where nothing lies, each on a line of its own: to their right ("names") or left ("far")."""
    largest = [point for point in sorted(points, key=lambda point: -point["share"])[:LABELLED] if point["share"] >= NAMED]
    per_px, width = log10(frame.top / frame.bottom) / HEIGHT, log10(frame.right / frame.left)
    wanted = []
    for point in largest:
        height = log10(point["attained"]) - DROP_PX * per_px
        is_far = log10(point["intensity"] / frame.left) > FAR * width
        below_slope = log10(frame.bandwidth * point["intensity"]) - TEXT_WIDTH * width
        wanted.append((min(height, below_slope) if is_far else height, point["intensity"], is_far, point))
    names: dict[str, list[Row]] = {"names": [], "far": []}
    above = float("inf")
    for height, intensity, is_far, point in sorted(wanted, key=lambda one: one[:2], reverse=True):
        above = min(height, above - LABEL_PX * per_px)
        place = {"intensity": intensity, "point": point["attained"], "attained": 10**above}
        names["far" if is_far else "names"].append({**place, "text": _point_words(point)})
    return names


def _point_words(point: Row) -> str:
    """What a point, whose shape says its stage, is called: its module and operator, and its share of the time."""
    return f"{point['name']}: {point['operator'].split(' (')[0]}, {point['part']}"
