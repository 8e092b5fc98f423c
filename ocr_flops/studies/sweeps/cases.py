"""Cases of a sweep: every combination of model, engine, attention, precision, device, resolution and their fields."""

import itertools
import math
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ocr_flops.errors import SpecError
from ocr_flops.evidence.calibration.conditions import with_records
from ocr_flops.spec.catalog import group_config
from ocr_flops.spec.overrides import GROUPS
from ocr_flops.spec.run_spec import RunSpec, WorkloadKeys, read_run, read_workload
from ocr_flops.spec.workload import Workload
from ocr_flops.studies.sweeps.ranges import Axes, Value
from ocr_flops.timing.estimate import Estimate, estimate_run, time_run

WITH_COLUMN = ("model", "engine", "attention", "hardware", "host", "dtype", "cache", "prefill_logits")  # keys that a frame has columns for
WITH_COLUMN += ("workload", "workload.global_px", "workload.tile_px")
MAX_CASES = 100_000


@dataclass(frozen=True)
class Case:
    """One choice of everything but the numbers of the workload.

    Args:
        keys: the workload's keys, of which sweeps change the numbers.
        labels: by key, the values that no column of a frame shows by itself.
        choices: by key, its value of every axis that is no number of the workload.
    """

    run: RunSpec
    keys: WorkloadKeys
    labels: tuple[tuple[str, Value], ...] = ()
    choices: tuple[tuple[str, Value], ...] = ()

    def estimate(self, workload: Workload) -> Estimate:
        """The cost of points in this case."""
        return estimate_run(self.run, workload)

    def frame(self, workload: Workload, level: str) -> pl.DataFrame:
        """A row per point and stage (and module), with times where the case has a device; of stages also needed_bytes (memory of the whole
        run) and fits (null without a device)."""
        costs = self.estimate(workload)
        frame = (time_run(self.run, costs) or costs).frame(level)
        if level != "stage":
            return frame
        needed = pl.Series("needed_bytes", np.repeat(np.broadcast_to(costs.footprint.total_bytes, workload.points), len(self.run.stages)))
        fits = pl.lit(None, pl.Boolean) if self.run.hardware is None else pl.col("needed_bytes") <= self.run.hardware.memory_bytes
        return frame.with_columns(needed).with_columns(fits=fits)


def list_cases(config: dict[str, Any], axes: Axes, plain: Sequence[str], together: Sequence[str] = ()) -> Iterable[Case]:
    """Every combination of the axes that are no numbers of the workload.

    Args:
        config: everything else.
        axes: their values; those of groups are applied first, so that fields are set in what was chosen.
        plain: the command line's other overrides, which apply to every choice of a group.
        together: axes whose first values make a case, then their second, and so on.
    """
    keys = sorted(axes, key=lambda key: "." in key)
    free = [key for key in keys if key not in together]
    pairs = list(zip(*(axes[key] for key in together), strict=True)) if together else [()]
    if len(pairs) * math.prod(len(axes[key]) for key in free) > MAX_CASES:
        raise SpecError(f"{', '.join(keys)}: more than {MAX_CASES:,} combinations; vary numbers of the workload instead, or fewer values")
    groups = {
        key: {name: group_config(key, name, [text for text in plain if text.startswith(f"{key}.")]) for name in axes[key]}
        for key in keys
        if key in GROUPS
    }
    if config["efficiency"] is None and any(key.startswith("efficiency.") for key in keys):
        config = {**config, "efficiency": group_config("efficiency", "published")}
    for pair, *values in itertools.product(pairs, *(axes[key] for key in free)):
        chosen = dict(zip((*together, *free), (*pair, *values), strict=True))
        choices = {key: chosen[key] for key in keys}
        tree = deepcopy(config)
        for key, value in choices.items():
            if key in groups:
                tree[key] = deepcopy(groups[key][value])
            else:
                _set_field(tree, key, value)
        labels = tuple((key, _as_label(axes[key], value)) for key, value in choices.items() if key not in WITH_COLUMN)
        yield Case(with_records(read_run(tree)), read_workload(tree["workload"]), labels, tuple(choices.items()))


def _as_label(axis: Iterable[Value], value: Value) -> Value:
    """A value as a column shows it: all of an axis are of one type."""
    kinds = {type(other) for other in axis}
    return value if len(kinds) == 1 else float(value) if kinds == {int, float} else str(value)


def _set_field(tree: dict[str, Any], key: str, value: Value) -> None:
    """Sets a field of a composed config, such as "hardware.memory_bytes"; a SpecError where there is none."""
    *path, name = key.split(".")
    for part in path:
        tree = tree.get(part) if isinstance(tree, dict) else None
    if not isinstance(tree, dict) or name not in tree:
        have = ", ".join(tree) if isinstance(tree, dict) else "no keys; choose one by name too" if len(path) == 1 else "no such keys"
        raise SpecError(f"{key}: unknown key; {path[0]} has {have}")
    tree[name] = value
