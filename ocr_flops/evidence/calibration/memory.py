"""Memory beside the estimate: what the allocator held at most, over weights, cache and live activations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from ocr_flops.evidence.calibration.cross_validation import WORKLOAD, numbered, reach

LEAST = 4  # workloads


class Workspace(NamedTuple):
    """What comes on top of the estimated memory of a stage.

    Args:
        bytes: allocated beyond weights, cache and live activations (libraries' workspaces), the median.
        reach_bytes: nine of ten held-out errors are smaller.
        reserved: what the allocator reserves over what is allocated, the median ratio; None where no record has it.
        reserved_reach: nine of ten held-out errors of it are smaller.
        held_out: measured and predicted bytes of every row, by the other workloads' median: a frame with `record_id`, `stage`,
            `measured_bytes`, `predicted_bytes`, `ratio`.
    """

    bytes: float
    reach_bytes: float
    reserved: float | None
    reserved_reach: float
    held_out: pl.DataFrame


def workspace(rows: pl.DataFrame, estimated: np.ndarray) -> Workspace | str:
    """What the records' allocator says, or why it cannot be told.

    Args:
        rows: of `matching.usable`.
        estimated: weights, cache and live activations of each, in bytes.
    """
    known = ((rows["peak_source"] == "allocator") & rows["peak_allocated_bytes"].is_not_null()).fill_null(False).to_numpy()
    if not known.any():
        return "no record holds what an allocator had allocated at most: only CUDA's tells it (the pass `memory` of a measurement)"
    rows, estimated = rows.filter(known), estimated[known]
    workload = numbered(rows, WORKLOAD)
    if (found := len(np.unique(workload))) < LEAST:
        return f"what the allocator held is recorded of {found} workloads; {LEAST} different ones are needed"
    allocated = rows["peak_allocated_bytes"].to_numpy().astype(float)
    reserved = rows["peak_reserved_bytes"].cast(pl.Float64).fill_null(np.nan).to_numpy() / allocated
    beyond = allocated - estimated
    predicted = _others(beyond, workload)
    told = ~np.isnan(reserved)
    ratios = reserved[told]
    table = pl.DataFrame(
        {
            "record_id": rows["record_id"],
            "stage": rows["stage"],
            "measured_bytes": allocated,
            "predicted_bytes": estimated + predicted,
            "ratio": (estimated + predicted) / allocated,
        }
    )
    return Workspace(
        float(np.median(beyond)),
        reach(beyond - predicted),
        float(np.median(ratios)) if told.any() else None,
        reach(ratios - _others(ratios, workload[told])) if len(np.unique(workload[told])) > 1 else 0.0,
        table,
    )


def _others(values: np.ndarray, workload: np.ndarray) -> np.ndarray:
    """For each row the median over rows of other workloads."""
    found = np.empty(len(values))
    for one in np.unique(workload):
        mine = workload == one
        found[mine] = np.median(values[~mine]) if not mine.all() else np.nan
    return found
