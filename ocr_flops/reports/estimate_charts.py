"""The charts of one estimate, by name: those of its HTML page, and every chart of the app."""

import polars as pl

from ocr_flops import charts
from ocr_flops.charts import Chart
from ocr_flops.charts.interactive import explorer, grid_name, modes_by_stage
from ocr_flops.charts.savings_by_tiles import by_tiles
from ocr_flops.charts.timeline import timelines
from ocr_flops.charts.times import halves
from ocr_flops.reports.estimate_subject import Subject
from ocr_flops.spec.workload import growing_outputs, neighbours


def page_charts(subject: Subject) -> dict[str, Chart]:
    """The charts of the HTML report, two of them with controls; none where no stage does any work."""
    estimate, device = subject.estimate, subject.hardware.label if subject.hardware else ""
    if not subject.busy_stages:
        return {}
    around = neighbours(estimate.workload, itself=True)
    stages, modules = subject.sweep(around), subject.sweep(around, "module")
    grid = grid_name(estimate.stages.row(0, named=True))
    found: dict[str, Chart] = {
        "explorer": explorer(stages, modules, grid, subject.mode, device),
        "modes": modes_by_stage(stages, grid, device),
        "memory": charts.memory(subject.by_mode, subject.hardware),
    }
    if "vision" in estimate.chosen_stages and stages["tiles"].n_unique() > 1:
        found["tiles"] = charts.savings_by_tiles(_distinct_in_vision(subject, stages), "io_bytes", estimate.workload.tiles)
    return found | ({"roofline": charts.roofline(subject.timing), **timelines(subject.timing)} if subject.timing else {})


def all_charts(subject: Subject) -> dict[str, Chart]:
    """Every chart of the app that the estimate, its stages and the device allow, by names that serve as file names."""
    estimate, workload, timing = subject.estimate, subject.estimate.workload, subject.timing
    found = {} if workload.page_rule else {"tiling": charts.tiling_picture(workload)}  # of DeepSeek-OCR's views
    if not subject.busy_stages:
        return found
    around = subject.sweep(neighbours(workload, itself=True))
    found["flops_by_module"] = charts.flops_by_module(estimate.modules)
    found["vector_flops_by_module"] = charts.flops_by_module(estimate.modules, work="vector_flops")
    found["flops_by_tokens"] = charts.flops_by_tokens(around.filter(attention=subject.mode), estimate.stages)
    found["memory"] = charts.memory(subject.by_mode, subject.hardware)
    if "decode" in estimate.chosen_stages:
        growing = subject.sweep(growing_outputs(workload)).filter(attention=subject.mode)
        found["growth"] = charts.growth(growing, workload.output_tokens)
    found["savings"] = charts.savings(subject.by_mode, subject.timings if timing and timing.ttft_seconds is not None else None)
    if "vision" in subject.busy_stages:
        found |= by_tiles(_distinct_in_vision(subject, around), workload.tiles)
    return found | ({"roofline": charts.roofline(timing), **halves(timing), **timelines(timing)} if timing else {})


def _distinct_in_vision(subject: Subject, points: pl.DataFrame) -> pl.DataFrame:
    return points.filter(pl.col("attention").cast(pl.String).is_in(subject.distinct_in_vision))
