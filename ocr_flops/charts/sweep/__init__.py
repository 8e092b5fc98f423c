"""Charts of a sweep, shared by its files and its reports: what each measures, and in which order they come."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from ocr_flops.charts.chart import Chart
from ocr_flops.charts.sweep import titles
from ocr_flops.charts.sweep.line_chart import measure_chart
from ocr_flops.charts.sweep.lines import Measure
from ocr_flops.charts.sweep.summary import SweepSummary
from ocr_flops.charts.sweep.wording import Wording
from ocr_flops.charts.theme import STAGE_COLOURS
from ocr_flops.units import seconds

WORK_COLOURS = {"tensor": "#0077BB", "vector": "#EE7733"}
MAX_MARKS = 3
RATES = {"flops": ("tensor_flops", "matrix work", "FLOP/s"), "bandwidth": ("io_bytes", "DRAM traffic", "B/s")}
SPLIT = Measure({"tensor": "tensor_flops", "vector": "vector_flops"}, "FLOPs of all stages", "FLOPs", WORK_COLOURS)


def sweep_charts(summary: SweepSummary, targets: Mapping[str, float]) -> dict[str, Chart]:
    """Every chart of a sweep by a name that serves as a file name, in the order of a report.

    Args:
        summary: of `summarize_sweep`.
        targets: seconds by "ttft" and "tpot", whose required rates are drawn.
    """
    words, stages = Wording(summary), {name: STAGE_COLOURS[name] for name in summary.stages}
    several = len(words.ridge_points) > 1
    log = summary.layout.axis is not None and several  # times of devices differ by orders of magnitude

    def by_stage(cost: str, name: str, unit: str, log: bool = False) -> Measure:
        return Measure({stage: f"{stage}.{cost}" for stage in stages}, name, unit, stages, log)

    measures = {
        "flops": (by_stage("total_flops", "FLOPs of a stage", "FLOPs"), titles.title_flops),
        "flop_split_linear": (SPLIT, titles.title_split),
        "flop_split_log": (replace(SPLIT, log=True), titles.title_split_range),
        "traffic": (by_stage("io_bytes", "DRAM traffic of a stage", "B"), titles.title_traffic),
        "intensity": (by_stage("arithmetic_intensity", "FLOPs per byte moved", "", log=True), titles.title_intensity),
        "memory": (Measure({"": "needed_bytes"}, "device memory needed", "B"), titles.title_memory),
        "weights": (by_stage("weight_bytes", "weights that a stage uses", "B"), titles.title_weights),
        "activations": (by_stage("peak_activation_bytes", "peak activation memory", "B"), titles.title_activations),
        "kv_cache": (Measure({"": "kv_cache_bytes"}, "KV cache at its end", "B"), titles.title_kv_cache),
    }
    for phase, name in {"ttft": "time to first token (TTFT)", "tpot": "time per output token (TPOT)"}.items():
        measure = Measure({"": f"{phase}.expected_seconds"}, f"{name}, expected", "s", log=log)
        measures[phase] = (measure, partial(titles.title_times, phase=phase))
    for phase, target in targets.items():
        for name, (cost, work, unit) in RATES.items():
            measure = Measure({"": f"{phase}.{cost}"}, f"{work} for a {phase.upper()} of {seconds(target)}", unit, scale=1 / target)
            measures[f"required_{name}_{phase}"] = (measure, partial(titles.title_required, phase=phase, cost=cost, target=target))
    marks = [(value, f"balance{f' on {name}' if several else ''} {value:.3g}") for (name, _), value in words.ridge_points.items()]
    return {
        name: measure_chart(words, measure, write_title(words), marks if name == "intensity" and len(marks) <= MAX_MARKS else ())
        for name, (measure, write_title) in measures.items()
        if all(map(summary.has, measure.columns.values()))
    }
