"""Charts of a sweep, shared by its files and its reports: what each measures, and in which order they come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ocr_flops.charts.chart import Chart
from ocr_flops.charts.sweep import titles
from ocr_flops.charts.sweep.line_chart import chart
from ocr_flops.charts.sweep.lines import Measure
from ocr_flops.charts.sweep.summary import Shown
from ocr_flops.charts.sweep.wording import balances
from ocr_flops.charts.theme import STAGE_COLOURS
from ocr_flops.units import seconds

WORK = {"tensor": "#0077BB", "vector": "#EE7733"}
MOST_MARKS = 3
SPLIT = {"tensor": "tensor_flops", "vector": "vector_flops"}


def charts(shown: Shown, targets: Mapping[str, float]) -> dict[str, Chart]:
    """Every chart of a sweep by a name that serves as a file name, in the order of a report.

    Args:
        shown: of `reading.shown`.
        targets: seconds by "ttft" and "tpot", whose required rates are drawn.
    """
    stages = {name: STAGE_COLOURS[name] for name in shown.stages}

    def by_stage(cost: str, name: str, unit: str, log: bool = False) -> Measure:
        return Measure({stage: f"{stage}.{cost}" for stage in stages}, name, unit, stages, log)

    apart = shown.axis is not None and len(balances(shown)) > 1  # devices, whose times differ by orders of magnitude
    split = Measure(SPLIT, "FLOPs of all stages", "", WORK)
    measures = {
        "flops": (by_stage("total_flops", "FLOPs of a stage", "FLOPs"), titles.flops),
        "flop_split_linear": (replace(split, unit="FLOPs"), titles.split),
        "flop_split_log": (replace(split, unit="FLOPs", log=True), titles.split_range),
        "traffic": (by_stage("io_bytes", "bytes moved by a stage", "B"), titles.traffic),
        "intensity": (by_stage("arithmetic_intensity", "FLOPs per byte moved", "", log=True), titles.intensity),
        "memory": (Measure({"": "needed_bytes"}, "device memory needed", "B"), titles.memory),
        "weights": (by_stage("weight_bytes", "weights that a stage uses", "B"), titles.weights),
        "activations": (by_stage("peak_activation_bytes", "peak of live activations", "B"), titles.activations),
        "kv_cache": (Measure({"": "kv_cache_bytes"}, "KV cache at its end", "B"), titles.kv_cache),
        "ttft": (Measure({"": "ttft.roofline_seconds"}, "time to first token (TTFT), roofline", "s", log=apart), titles.ttft),
        "tpot": (Measure({"": "tpot.roofline_seconds"}, "time per output token (TPOT), roofline", "s", log=apart), titles.tpot),
    }
    for phase, target in targets.items():
        for column, unit, short in (("tensor_flops", "FLOP/s", "flops"), ("io_bytes", "B/s", "bandwidth")):
            work = "matrix work" if unit == "FLOP/s" else "memory traffic"
            name = f"{work} for a {phase.upper()} of {seconds(target)}"
            measure = Measure({"": f"{phase}.{column}"}, name, unit, scale=1 / target)
            measures[f"required_{short}_{phase}"] = (measure, titles.required(phase, column, target))
    found = {}
    for name, (measure, say) in measures.items():
        if all(shown.has(column) for column in measure.columns.values()):
            found[name] = chart(shown, measure, say(shown), _balances(shown) if name == "intensity" else ())
    return found


def _balances(shown: Shown) -> list[tuple[float, str]]:
    """Marks where a device's matrix units and memory are in balance; none where there are many devices."""
    found = balances(shown)
    names = [f"balance on {name}" if len(found) > 1 else "balance" for name, _ in found]
    return [(value, f"{name} {value:.3g}") for name, value in zip(names, found.values(), strict=True)] if len(found) <= MOST_MARKS else []
