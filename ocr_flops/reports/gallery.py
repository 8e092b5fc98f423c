"""Every chart of the app for one estimate, by name."""

from __future__ import annotations

import polars as pl

from ocr_flops import charts
from ocr_flops.charts import Chart
from ocr_flops.charts.savings import by_tiles
from ocr_flops.charts.times import halves
from ocr_flops.reports.estimate_subject import Subject


def gallery(subject: Subject) -> dict[str, Chart]:
    """The charts that the estimate, its stages and the device allow, by names that serve as file names.

    Args:
        subject: what they are about.

    Raises:
        SpecError: a number beyond 2^62.
    """
    estimate, timing = subject.estimate, subject.timing
    stages = [stage for stage, row in estimate.stage_numbers.items() if row["io_bytes"]]
    found = {"tiling": charts.tiling_picture(estimate.workload)}
    if not stages:
        return found
    around = subject.sweep(subject.neighbours)
    found["flops_by_module"] = charts.flops_by_module(estimate.modules)
    found["vector_flops_by_module"] = charts.flops_by_module(estimate.modules, work="vector_flops")
    found["flops_by_tokens"] = charts.flops_by_tokens(around.filter(attention=subject.mode), estimate.stages)
    found["memory"] = charts.memory(subject.by_mode, subject.hardware)
    if "decode" in estimate.chosen_stages:
        found["growth"] = charts.growth(subject.sweep(subject.lengths).filter(attention=subject.mode), estimate.workload.output_tokens)
    found["savings"] = charts.savings(subject.by_mode, subject.timings if timing and timing.ttft_seconds is not None else None)
    if "vision" in stages:
        apart = around.filter(pl.col("attention").cast(pl.String).is_in(subject.apart_in_vision))
        found |= by_tiles(apart, estimate.workload.tiles)
    if timing:
        found |= {"roofline": charts.roofline(timing), **halves(timing)}
    return found
