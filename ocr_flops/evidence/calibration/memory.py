"""Memory beside the estimate: what the allocator held at most, over weights, cache and live activations."""

from typing import NamedTuple

import numpy as np
import polars as pl

from ocr_flops.evidence.calibration.cross_validation import WORKLOAD, half_width, number_groups

LEAST_WORKLOADS = 4


class Workspace(NamedTuple):
    """What comes on top of the estimated memory of a stage.

    Args:
        bytes: allocated beyond weights, cache and live activations (workspaces of libraries), the median.
        half_width_bytes: nine of ten errors under leave-one-out cross-validation are smaller.
        reserved: what the allocator reserves over what is allocated, the median ratio; None where no record has it.
        reserved_half_width: nine of ten cross-validation errors of that ratio are smaller.
    """

    bytes: float
    half_width_bytes: float
    reserved: float | None
    reserved_half_width: float


def fit_workspace(rows: pl.DataFrame, estimated_bytes: np.ndarray) -> Workspace | str:
    """Return what the allocator held beyond the estimated weights, cache and live activations of each row, or why that is not known."""
    known = ((rows["peak_source"] == "allocator") & rows["peak_allocated_bytes"].is_not_null()).fill_null(False).to_numpy()
    if not known.any():
        return "no record holds what an allocator had allocated at most: only CUDA's tells it (the pass `memory` of a measurement)"
    rows, estimated = rows.filter(known), estimated_bytes[known]
    workload = number_groups(rows, WORKLOAD)
    if (found := len(np.unique(workload))) < LEAST_WORKLOADS:
        return f"what the allocator held is recorded of {found} workloads; {LEAST_WORKLOADS} different ones are needed"
    allocated = rows["peak_allocated_bytes"].to_numpy().astype(float)
    beyond = allocated - estimated
    ratios = rows["peak_reserved_bytes"].cast(pl.Float64).fill_null(np.nan).to_numpy() / allocated
    has_ratio = ~np.isnan(ratios)
    ratios, of_workload = ratios[has_ratio], workload[has_ratio]
    return Workspace(
        float(np.median(beyond)),
        half_width(beyond - _median_of_others(beyond, workload)),
        float(np.median(ratios)) if len(ratios) else None,
        half_width(ratios - _median_of_others(ratios, of_workload)) if len(np.unique(of_workload)) > 1 else 0.0,
    )


def _median_of_others(values: np.ndarray, workload: np.ndarray) -> np.ndarray:
    """For each row the median over the rows of other workloads; NaN where there are none."""
    found = np.full(len(values), np.nan)
    for one in np.unique(workload):
        mine = workload == one
        if not mine.all():
            found[mine] = np.median(values[~mine])
    return found
