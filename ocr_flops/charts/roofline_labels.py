"""What stands in a roofline chart beside its points: the ceilings with their names, and the names of the largest points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

from ocr_flops.charts.chart import Row
from ocr_flops.charts.theme import CEILING_COLOURS, INK
from ocr_flops.timing.timing import Timing
from ocr_flops.units import si

HEIGHT, LABEL_PX, LABELLED, DROP_PX = 470, 15, 6, 26
NAMED = 0.005  # share of time from which a point can be named
FAR, TEXT_WIDTH = 0.66, 0.35  # of the width: where names stand to the left of their points, and what the longest takes


@dataclass(frozen=True)
class Frame:
    """Where a chart ends, in FLOPs per byte and FLOP/s, and the slope that crosses it.

    Args:
        left, right, bottom, top: of what has FLOPs; its strip for what has none lies further left.
        bandwidth: bytes per second.
    """

    left: float
    right: float
    bottom: float
    top: float
    bandwidth: float


def ceilings(timing: Timing, frame: Frame) -> dict[str, list[Row]]:
    """The bandwidth's slope up to the matrix peak and the flat roofs, as the ends of lines; and their names.

    The vector roof's name stands below it and is narrow: the slope passes above and to the left.
    """
    hardware, dtype = timing.hardware, timing.estimate.config.dtype
    peak, bandwidth, vector = hardware.matrix_peak(dtype), frame.bandwidth, hardware.vector_fp32_flops_per_second
    ends = {"bandwidth": ((frame.left, frame.left * bandwidth), (peak / bandwidth, peak))}
    ends["matrix"] = ((peak / bandwidth, peak), (frame.right, peak))
    names = {"bandwidth": [], "vector": []}
    if vector and vector != peak:
        ends["vector"] = ((vector / bandwidth, vector), (frame.right, vector))
        names["vector"] = [_name(frame.right, vector, f"vector, fp32\n{si(vector, 'FLOP/s')}", CEILING_COLOURS["vector"])]
    ridge = f"the slope meets the roof at {peak / bandwidth:.3g} FLOPs per byte"
    lines = [_name(x, y, "", CEILING_COLOURS[ceiling]) | {"line": ceiling} for ceiling, two in ends.items() for x, y in two]
    return {
        "lines": lines,
        "roofs": [_name(frame.right, peak, f"matrix units, {dtype}: {si(peak, 'FLOP/s')}", CEILING_COLOURS["matrix"])],
        "vector": names["vector"],
        "slope": [_name(frame.left, peak, f"memory: {si(bandwidth, 'B/s')}", CEILING_COLOURS["bandwidth"])],
        "ridge": [_name(frame.left, peak, ridge, INK)],
    }


def _name(x: float, y: float, text: str, colour: str) -> Row:
    return {"intensity": x, "attained": y, "text": text, "colour": colour}


def point_names(points: Sequence[Row], frame: Frame) -> dict[str, list[Row]]:
    """The largest points, named below the slope where nothing lies, each on a line of its own: to their right ("names") or left ("far").

    Args:
        points: with FLOPs.
        frame: of the chart.
    """
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
        names["far" if is_far else "names"].append({**place, "text": point_words(point)})
    return names


def point_words(point: Row) -> str:
    """What a point is called: its module, stage and operator, and its share of the time."""
    return f"{point['name']}, {point['stage']}: {point['operator'].split(' (')[0]}, {point['part']}"
