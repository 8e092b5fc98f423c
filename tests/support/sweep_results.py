"""Results of sweeps as reports get them, without a folder."""

from functools import cache

import polars as pl

from ocr_flops.studies.sweeps.plan import load_sweep
from ocr_flops.studies.sweeps.results import STAGES, Results, Table, find_files

SWEEPS = {
    "reference": ["sweep=reference", "attention=[eager,flash]", "hardware=h200"],
    "vendor, no device": ["sweep=vendor", "attention=vendor"],
    "modes": ["sweep=modes", "hardware=l4"],
    "one point": ["workload=tiny", "hardware=l4"],
    "no output": ["sweep=vendor", "workload.output_tokens=0", "hardware=l4"],
    "vision": ["sweep=vendor", "stages=[vision]", "hardware=l4"],
    "two GPUs, batches": ["sweep=vendor", "hardware=[l4,h200]", "workload.batch_size=[1,8]", "attention=[eager,sdpa,flash]"],
    "published code": ["sweep=vendor", "engine=remote_code", "attention=[eager,flash]", "hardware=l4"],
    "lengths": ["workload.columns=2", "workload.rows=3", "workload.output_tokens=0:512:128", "hardware=l4"],
}


@cache
def results_named(name):
    """The results of one of `SWEEPS`."""
    return results_of(load_sweep(SWEEPS[name]))


def results_of(sweep):
    """The results of a sweep, its table in memory."""
    return Results(None, sweep, {STAGES: Table(STAGES, sweep.stages_frame())})


def results_in_parts(sweep, folder, points):
    """The results of a sweep, its table in Parquet files of so many points."""
    parts = []
    for first in range(0, sweep.points, points):
        parts.append(folder / f"part-{first:06d}.parquet")
        sweep.stages_frame(first, min(first + points, sweep.points)).write_parquet(parts[-1])
    return Results(None, sweep, {STAGES: Table(STAGES, tuple(parts))})


def read_table(folder, table=STAGES):
    """A table of a finished sweep that has Parquet files."""
    return pl.scan_parquet(find_files(folder, table))
