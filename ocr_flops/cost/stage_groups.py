"""A workload cut into stages, and each stage into groups of points that run the same operators."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from ocr_flops.cost.polynomial import Monomial
from ocr_flops.cost.program import COSTS, Program, evaluate, greatest
from ocr_flops.cost.run_config import RunConfig, decode_program, prefill_program, vision_program
from ocr_flops.errors import SpecError
from ocr_flops.spec.specs import STAGES
from ocr_flops.spec.tiling import queries
from ocr_flops.spec.workload import Column, Workload

KV_MODULE = "decoder.attention"
COLUMNS = (*COSTS, "weight_bytes", "kv_cache_bytes", "peak_activation_bytes")


@dataclass(eq=False)
class StageGroup:
    """A stage of those points of a workload that run the same operators.

    Args:
        stage: "vision", "prefill" or "decode".
        program: the compiled operators.
        workload: the points.
        values: sizes at the points; for decode those of the last step.
        where: indices of the points, None for all.
        steps: decode steps; None for stages that run once.
        context_sum: keys attended, summed over the steps.
    """

    stage: str
    program: Program
    workload: Workload
    values: dict[str, Column]
    where: np.ndarray | None = None
    steps: Column | None = None
    context_sum: Column = 0
    _known: dict[Monomial, Column] = field(default_factory=dict)
    _last: dict[Monomial, Column] = field(default_factory=dict)

    def summed(self, monomial: Monomial) -> Column:
        """A monomial's value, in decode summed over the steps (every cost is at most linear in the context)."""
        if self.steps is None:
            return self.last(monomial)
        if monomial not in self._known:
            growing = "context" in monomial
            rest = tuple(name for name in monomial if name != "context")
            if len(monomial) - len(rest) > 1:
                raise ValueError(f"{monomial}: a decode step must be linear in the context")
            self._known[monomial] = self.last(rest) * (self.context_sum if growing else self.steps)
        return self._known[monomial]

    def last(self, monomial: Monomial) -> Column:
        """A monomial's value, in decode at the last step."""
        if monomial not in self._last:
            self._last[monomial] = self.values[monomial[-1]] * self.last(monomial[:-1]) if monomial else 1
        return self._last[monomial]

    def row(self, config: RunConfig, module: str | None = None, columns: Iterable[str] = COLUMNS) -> dict[str, Column]:
        """Cost columns of the stage, or of one module in it.

        Args:
            config: what runs.
            module: a module's label; None for the stage.
            columns: those wanted, of `COLUMNS`.
        """
        costs = self.program.costs(module)
        row: dict[str, Column] = {}
        for column in columns:
            if column in costs:
                row[column] = evaluate(costs[column], self.summed)
            elif column == "weight_bytes":
                row[column] = config.weight_bytes(self.stage, module)
            elif column == "kv_cache_bytes":
                row[column] = self.cached_tokens * config.kv_bytes_per_token if module in (None, KV_MODULE) else 0
            else:
                peak = self.program.peak(self.last, module)
                row[column] = peak if self.steps is None else peak * (self.steps > 0)
        return row

    @property
    def cached_tokens(self) -> Column:
        """Tokens in the KV cache of the whole batch at the end of the stage."""
        if self.stage == "vision":
            return 0
        tokens = self.workload.context_tokens + (self.workload.output_tokens if self.stage == "decode" else 0)
        return tokens * self.workload.batch_size


def group_stages(
    config: RunConfig, workload: Workload, stages: Iterable[str] = STAGES, experts_hit: dict[str, int] | None = None
) -> list[StageGroup]:
    """Splits a workload into stages and programs.

    Args:
        config, workload: what runs.
        stages: those wanted.
        experts_hit: experts hit, summed over layers, by stage (decode: over its steps too); expected ones where not given.
    """
    found = []
    for stage in stages:
        for where, view in _alike(workload, stage):
            found.append(_stage_group(config, stage, where, view, (experts_hit or {}).get(stage)))
    return found


def _alike(workload: Workload, stage: str) -> Iterable[tuple[np.ndarray | None, Workload]]:
    """Groups of points whose operators are the same: one page or several, and for vision the sides of the views."""
    if workload.is_single:
        return [(None, workload)]
    keys = [np.broadcast_to(workload.batch_size, workload.points) == 1]
    if stage == "vision":
        tiled = workload.tiles > 0
        keys += [np.broadcast_to(workload.global_px, workload.points), np.broadcast_to(workload.tile_px * tiled, workload.points)]
    code = keys[0].astype(np.int64)
    for key in keys[1:]:
        code = code * 32_768 + key
    distinct = np.unique(code)
    if len(distinct) == 1:
        return [(None, workload)]
    return [(where, workload.take(where)) for where in (np.flatnonzero(code == value) for value in distinct)]


def _stage_group(config: RunConfig, stage: str, where: np.ndarray | None, workload: Workload, experts_hit: int | None) -> StageGroup:
    batch = workload.batch_size
    is_one = bool(np.all(batch == 1))
    if stage == "vision":
        tiles = workload.tiles
        tiled = bool(np.any(tiles > 0))
        tile_px = _constant(workload.tile_px) if tiled else 0
        side = queries(tile_px)
        several = (workload.columns > 1) & (side > 1)  # single queries are in order already
        tile_queries = side * side * tiles
        values = {
            "batch": batch,
            "tiles": tiles,
            "tile_queries": tile_queries,
            "tile_rows": side * workload.rows,
            "moved_tile_queries": tile_queries * several,
            "moves": several * 1,
        }
        return StageGroup(stage, vision_program(config, _constant(workload.global_px), tile_px, is_one), workload, values, where)
    context, steps = workload.context_tokens, workload.output_tokens
    tokens = batch * context if stage == "prefill" else batch
    hit, hit_bytes = _experts(config, tokens, experts_hit)
    values = {"batch": batch, "expert_bytes": hit_bytes, "experts_hit": hit, "expert_rows": _rows_of_one(config, tokens, hit)}
    if stage == "prefill":
        values |= {"tokens": context, "image_tokens": workload.image_tokens}
        return StageGroup(stage, prefill_program(config, is_one), workload, values, where)
    if experts_hit is not None and np.any(steps != 1):
        raise SpecError(f"experts_hit: decode takes one step with the experts of that step, not output_tokens = {steps}")
    context_sum = steps * context + steps * (steps + 1) // 2
    return StageGroup(stage, decode_program(config, is_one), workload, {**values, "context": context + steps}, where, steps, context_sum)


def _constant(value: Column) -> int:
    return int(value[0]) if isinstance(value, np.ndarray) else value


def _rows_of_one(config: RunConfig, tokens: Column, hit: Column) -> Column:
    """Rows of an expert, where all that are hit share them evenly."""
    decoder = config.model.tower("decoder")
    return tokens * decoder.experts_per_token * (decoder.layers - decoder.dense_layers) // greatest([hit, 1])


def _experts(config: RunConfig, tokens: Column, given: int | None) -> tuple[Column, Column]:
    """Experts hit in one pass over all layers, and the bytes of their down projections (a third of an expert).

    Expected when each token picks experts_per_token of them uniformly: experts · (1 − (1 − k / experts)^tokens) a layer, times the bytes
    of an expert, rounded once a layer.
    """
    decoder = config.model.tower("decoder")
    layers = decoder.layers - decoder.dense_layers
    third = decoder.width * decoder.expert_width * config.itemsize
    if given is not None:
        return given, given * third
    missed = 1 - decoder.experts_per_token / decoder.experts
    expected = decoder.experts * (1 - np.power(missed, np.atleast_1d(np.asarray(tokens, dtype=np.float64))))
    hit, hit_bytes = (np.rint(expected).astype(np.int64) * layers, np.rint(expected * third).astype(np.int64) * layers)
    return (hit, hit_bytes) if isinstance(tokens, np.ndarray) else (int(hit[0]), int(hit_bytes[0]))
