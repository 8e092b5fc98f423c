"""The cost of a workload, stage by stage and module by module, for one point or for columns of many."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from html import escape
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ocr_flops.cost.polynomial import evaluate
from ocr_flops.cost.program import greatest
from ocr_flops.cost.run_config import RunConfig
from ocr_flops.cost.stage_groups import COLUMNS, Key, StageGroup, group_stages
from ocr_flops.errors import SpecError
from ocr_flops.spec.specs import CALL, STAGES
from ocr_flops.spec.workload import Column, Workload

if TYPE_CHECKING:
    import polars as pl


LIMIT = 2**62
LARGEST = ("total_flops", "io_bytes", "peak_activation_bytes")  # no other column is larger than one of these
CHUNK, LEAST = 32_768, 4_096  # points evaluated together at most, of which equal ones are looked at once; and by a thread of its own


class TablePart(NamedTuple):
    """Columns of a table, and what computes them.

    Args:
        columns: their names and kinds.
        compute: takes a group and modules (None for the whole stage); returns columns of its points, or numbers, by name [module].
    """

    columns: dict[str, type]
    compute: Callable[[StageGroup, Sequence[str | None]], dict[str, Sequence[Column]]]


class Footprint(NamedTuple):
    """Memory a run needs, in bytes: weights, KV cache at the end, the largest live activations, and their sum.

    The activations are those of `generate` on pages: vision and prefill are one call, in which the pixels and what the encoders return
    stay alive beside the language model, and the pixels are held through decode too. Of stages wanted without vision or without prefill
    they are the largest of any stage run by itself, as `peak_activation_bytes` of stages always is.
    """

    weight_bytes: Column
    kv_cache_bytes: Column
    peak_activation_bytes: Column
    total_bytes: Column


class Peak(NamedTuple):
    """The largest sum of live activations in a stage, and the operator that had just run."""

    live_bytes: int
    module: str
    operator: str


class Framed:
    """What has a method `frame(level)`: its frames, built when first read, and how it shows in a notebook."""

    @cached_property
    def stages(self) -> pl.DataFrame:
        """One row per point and stage, a point's stages together."""
        return self.frame("stage")

    @cached_property
    def modules(self) -> pl.DataFrame:
        """One row per point, stage and module."""
        return self.frame("module")

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>{self.stages._repr_html_()}"


@dataclass(frozen=True, eq=False)
class Cost(Framed):
    """The cost of a workload under a config. Numbers are computed when they are first read; frames are built when first read.

    Args:
        workload: one point, or columns of points.
        chosen_stages: the stages wanted.
        experts_hit: experts hit over all layers by stage, where they are known (else expected ones).
    """

    config: RunConfig
    workload: Workload
    chosen_stages: tuple[str, ...] = STAGES
    experts_hit: tuple[tuple[str, int], ...] = ()

    def stage_groups(self, points: slice | None = None) -> list[StageGroup]:
        """The stages of all points or of some, in groups that run the same operators."""
        workload = self.workload if points is None or self.workload.is_single else self.workload.take(points)
        return group_stages(self.config, workload, self.chosen_stages, dict(self.experts_hit))

    @cached_property
    def stage_numbers(self) -> dict[str, dict[str, Column]]:
        """Every cost column of every stage: ints for one point, int64 columns for many."""
        return {stage: row for (stage, _), row in self._numbers(self._stage_keys).items()}

    @cached_property
    def module_numbers(self) -> dict[Key, dict[str, Column]]:
        """Every cost column of every module of every stage."""
        return self._numbers(self._module_keys)

    def _numbers(self, keys: tuple[Key, ...]) -> dict[Key, dict[str, Column]]:
        if not self.workload.is_single:
            table = self.table(keys)
            return {key: {column: values[:, i] for column, values in table.items()} for i, key in enumerate(keys)}
        by_stage = {group.stage: group for group in self._single_groups}
        numbers = {(stage, module): by_stage[stage].row(self.config, module) for stage, module in keys}
        if any(row[column] > LIMIT for row in numbers.values() for column in LARGEST):
            self._refuse(numbers)
        return numbers

    def table(self, keys: tuple[Key, ...], columns: Sequence[str] = COLUMNS) -> dict[str, np.ndarray]:
        """Cost columns at [point, key]: those wanted of stages, or of stages and modules."""
        return self.fill(keys, self.costs_part(columns))[0]

    def costs_part(self, columns: Sequence[str] = COLUMNS) -> TablePart:
        """What `fill` takes for cost columns."""
        self._check_columns()

        def compute(group: StageGroup, modules: Sequence[str | None]) -> dict[str, list[Column]]:
            rows = [group.row(self.config, module, columns) for module in modules]
            return {column: [row[column] for row in rows] for column in columns}

        return TablePart(dict.fromkeys(columns, np.int64), compute)

    def fill(self, keys: tuple[Key, ...], *parts: TablePart) -> list[dict[str, np.ndarray]]:
        """The columns of every part at [point, key], evaluated in chunks of points, several at once where there are many.

        Args:
            keys: stages, or stages and modules.
            parts: columns and what computes them, all of the same points at a time.
        """
        points = self.workload.points
        tables = [{name: np.empty((points, len(keys)), kind) for name, kind in part.columns.items()} for part in parts]
        threads = os.cpu_count() or 1 if points > LEAST else 1  # which takes as long to find as a stage of one point
        size = min(CHUNK, max(LEAST, -(-points // threads)))

        def fill_chunk(start: int) -> None:
            chunk = slice(start, min(start + size, points))
            for group in self._single_groups if self.workload.is_single else self.stage_groups(chunk):
                places = [i for i, (stage, _) in enumerate(keys) if stage == group.stage]
                where, (distinct, number) = slice(None) if group.where is None else group.where, group.in_order()
                for table, part in zip(tables, parts, strict=True):
                    for name, columns in part.compute(distinct, [keys[i][1] for i in places]).items():
                        for place, column in zip(places, columns, strict=True):
                            table[name][chunk][where, place] = column[number] if np.size(column) > 1 else column

        if points <= size:
            fill_chunk(0)
        else:
            with ThreadPoolExecutor(threads) as pool:  # NumPy computes outside of Python's lock
                list(pool.map(fill_chunk, range(0, points, size)))
        return tables

    @cached_property
    def _single_groups(self) -> list[StageGroup]:
        return self.stage_groups()

    @cached_property
    def _stage_keys(self) -> tuple[Key, ...]:
        return tuple((stage, None) for stage in self.chosen_stages)

    @cached_property
    def _module_keys(self) -> tuple[Key, ...]:
        return tuple(dict.fromkeys((group.stage, module) for group in self.stage_groups(slice(0, 1)) for module in group.program.modules))

    def _check_columns(self) -> None:
        """Refuses columns with results above 2^62, where NumPy wraps silently: first their upper bound in ints, then all as floats."""
        try:
            Cost(self.config, self.workload.upper_bound(), self.chosen_stages).stage_numbers  # noqa: B018
        except SpecError:
            for group in group_stages(self.config, self.workload.as_floats(), self.chosen_stages):
                self._refuse({(group.stage, None): group.row(self.config)})

    @staticmethod
    def _refuse(numbers: dict[Key, dict[str, Column]]) -> None:
        """Raises SpecError for the first number beyond 2^62."""
        for (stage, module), row in numbers.items():
            for column, value in row.items():
                too_large = value > LIMIT
                if np.any(too_large):
                    raise SpecError(f"{column} of {module or stage} exceeds 2^62; lower the grid, the tokens or the batch size")

    @property
    def peaks(self) -> dict[str, Peak]:
        """For one point: where in each stage the most activations are alive."""
        found = {}
        for group in self.stage_groups():
            live = [(group.largest(partial(evaluate, one)), operation) for one, operation in group.program.peak_operations.items()]
            most, where = max(live, key=lambda pair: pair[0])
            found[group.stage] = Peak(most, where.module, where.name)
        return found

    @property
    def footprint(self) -> Footprint:
        """Memory the whole run needs."""
        config, rows = self.config, self.together.stage_numbers
        weight = config.model_bytes
        kv = greatest([row["kv_cache_bytes"] for row in rows.values()])
        held = config.pipeline.input_bytes(config, self.workload) if CALL in rows and not config.engine_code.image_views else 0
        peak = greatest([row["peak_activation_bytes"] + held * (stage == "decode") for stage, row in rows.items()])
        return Footprint(weight, kv, peak, weight + kv + peak)

    @cached_property
    def together(self) -> Cost:
        """The same with vision and prefill, where both are wanted, as the one call of the model that `generate` makes of them."""
        if not {"vision", "prefill"} <= {*self.chosen_stages}:
            return self
        hits = tuple((CALL if stage == "prefill" else stage, hit) for stage, hit in self.experts_hit)
        return replace(self, chosen_stages=(CALL, *(stage for stage in self.chosen_stages if stage == "decode")), experts_hit=hits)

    def with_workload(self, **changes: Column) -> Cost:
        """The same config for a workload with some fields changed."""
        return replace(self, workload=replace(self.workload, **changes))

    def keys(self, level: str) -> tuple[Key, ...]:
        """The rows of a point: stages ("stage"), or stages and modules ("module")."""
        return self._stage_keys if level == "stage" else self._module_keys

    def frame(self, level: str = "stage", columns: Sequence[str] = COLUMNS) -> pl.DataFrame:
        """The frame of a level, "stage" or "module", with the cost columns wanted."""
        from ocr_flops.cost.frames import build_frame

        keys = self.keys(level)
        if self.workload.is_single:
            rows = (self.stage_numbers if level == "stage" else self.module_numbers).values()
            table = {column: np.array([[row[column] for row in rows]], np.int64) for column in columns}
        else:
            table = self.table(keys, columns)
        return build_frame(self.config, self.workload, keys, table)
