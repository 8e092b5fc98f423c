"""A workload cut into stages, and each stage into groups of points that run the same operators."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from ocr_flops.cost.polynomial import Monomial, evaluate, product
from ocr_flops.cost.program import Program, greatest
from ocr_flops.cost.run_config import RunConfig, stage_program
from ocr_flops.cost.tape import COSTS
from ocr_flops.errors import SpecError
from ocr_flops.spec.specs import CALL, STAGES
from ocr_flops.spec.workload import Column, Workload

KV_MODULE = "decoder.attention"
FEW = 64  # points for which it does not pay to look for equal ones
COLUMNS = (*COSTS, "weight_bytes", "kv_cache_bytes", "peak_activation_bytes")
Key = tuple[str, str | None]  # stage and module; None for the whole stage


@dataclass(eq=False)
class StageGroup:
    """A stage of those points of a workload that run the same operators.

    Args:
        stage: "vision", "prefill", "decode", or "call": vision and prefill in one.
        values: the symbolic dimensions at the points; for decode those of the last step.
        where: indices of the points, None for all.
        sizes: of the views, where vision takes part; see `Pipeline.view_sizes`.
        steps: decode steps; None for stages that run once.
        context_sum: keys attended, summed over the steps.
        by_step: of a model with a window, the dimensions at the first steps, as many as it takes: [step, prompt], for each length of prompt
            once, as whole divisions of the context are no lines.
        prompts: of every point, the place of its length there.
        growing_steps: decode steps whose context is one longer than that of the step before, the first among them; the others, where a
            model's window is full, are like the last.
        others: other decode steps in which more can be alive than in the last.
    """

    stage: str
    program: Program
    workload: Workload
    values: dict[str, Column]
    where: np.ndarray | None = None
    sizes: tuple[int, ...] = ()
    steps: Column | None = None
    context_sum: Column = 0
    others: tuple[StageGroup, ...] = ()
    growing_steps: Column | None = None
    by_step: dict[str, np.ndarray] | None = None
    prompts: np.ndarray | None = None
    _sums: dict[Monomial, Column] = field(default_factory=dict)
    _last: dict[Monomial, Column] = field(default_factory=dict)

    def summed(self, monomial: Monomial) -> Column:
        """A monomial's value, in decode summed over the steps (every cost is at most linear in the context)."""
        if self.steps is None:
            return self.last(monomial)
        if monomial not in self._sums and self.by_step is not None:
            self._sums[monomial] = self._sum_by_step(monomial)
        elif monomial not in self._sums:
            growing = "context" in monomial
            rest = tuple(name for name in monomial if name != "context")
            if len(monomial) - len(rest) > 1:
                raise ValueError(f"{monomial}: a decode step must be linear in the context")
            self._sums[monomial] = self.last(rest) * (self.context_sum if growing else self.steps)
        return self._sums[monomial]

    def _sum_by_step(self, monomial: Monomial) -> Column:
        """A monomial's value over the steps, one by one until the window is full."""
        moving = tuple(name for name in monomial if np.ndim(self.by_step[name]) > 1)
        rest = self.last(tuple(name for name in monomial if name not in moving))
        if not moving:
            return rest * self.steps
        last = np.asarray(np.maximum(self.growing_steps, 1) - 1, int)
        grown = np.cumsum(product(self.by_step[name] for name in moving), axis=0)[last, self.prompts]
        total = rest * (grown * (self.growing_steps > 0) + self.last(moving) * (self.steps - self.growing_steps))
        return int(total[0]) if self.workload.is_single else total

    def last(self, monomial: Monomial) -> Column:
        """A monomial's value, in decode at the last step."""
        if monomial not in self._last:
            self._last[monomial] = self.values[monomial[-1]] * self.last(monomial[:-1]) if monomial else 1
        return self._last[monomial]

    def largest(self, live: Callable[[Callable[[Monomial], Column]], Column]) -> Column:
        """The largest of what is a function of monomials' values, over the steps: live sums grow with the context, but for what prefill
        left alive through the first step, and for what padding takes at a step whose context is no multiple of it."""
        return greatest([live(self.last), *(live(step.last) for step in self.others)]) if self.others else live(self.last)

    def monomial_values(self, without: str | None = None) -> np.ndarray:
        """All of the program's monomials, in decode summed over the steps: floats [monomial, point].

        Args:
            without: a dimension to leave out of them; they are then those of the last step.
        """
        if without is None:
            columns = [self.summed(monomial) for monomial in self.program.monomials]
        else:
            columns = [self.last(tuple(name for name in monomial if name != without)) for monomial in self.program.monomials]
        values = np.empty((len(columns), self.workload.points))
        for row, column in zip(values, columns, strict=True):
            row[:] = column
        return values

    def find_distinct(self, without: str | None = None, size: Column = 0) -> tuple[np.ndarray, np.ndarray]:
        """Points at which costs differ, from small to large.

        Args:
            without: a dimension that does not count.
            size: by which to order them.

        Returns:
            indices of points [distinct], and which of these each point equals [point].
        """
        points = self.workload.points
        if points == 1:
            return np.zeros(1, np.int64), np.zeros(1, np.int64)
        values = [column for name, column in self.values.items() if name != without]
        values += [self.workload.batch_size, self.workload.context_tokens] if self.stage == "prefill" else []
        table = np.array([np.broadcast_to(column, points) for column in values], float)
        differing = np.sqrt(np.arange(2, len(table) + 2)) @ table
        order = np.argsort(size + differing * (1e-6 * np.max(size) / differing.max() or 1.0))
        ordered = table.take(order, axis=1)
        differs = (ordered[:, 1:] != ordered[:, :-1]).any(axis=0)
        number = np.empty(points, np.int64)
        number[order] = np.concatenate([[0], differs.cumsum()])
        return order[np.concatenate([[0], np.flatnonzero(differs) + 1])], number

    def in_order(self) -> tuple[StageGroup, np.ndarray | slice]:
        """The points of a stage that runs once at which costs differ, from small to large, and which of them each point is; decode, and a
        few points, as they are."""
        if self.steps is not None or self.workload.points < FEW:
            return self, slice(None)
        first, number = self.find_distinct(size=evaluate(self.program.costs()["total_flops"], self.last))
        values = {name: column[first] if np.size(column) > 1 else column for name, column in self.values.items()}
        return replace(self, workload=self.workload.take(first), values=values, where=None, _sums={}, _last={}), number

    def row(self, config: RunConfig, module: str | None = None, columns: Iterable[str] = COLUMNS) -> dict[str, Column]:
        """Cost columns of the stage, or of one module in it.

        Args:
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
                row[column] = self.cached_tokens(config) * config.kv_bytes_per_token if module in (None, KV_MODULE) else 0
            else:
                peak = self.largest(lambda values: self.program.peak(values, module))
                row[column] = peak if self.steps is None else peak * (self.steps > 0)
        return row

    def cached_tokens(self, config: RunConfig) -> Column:
        """Tokens that the KV cache of the whole batch has room for at the end of the stage."""
        if self.stage == "vision":
            return 0
        outputs = config.pipeline.kept_outputs(config.model, self.workload.output_tokens) if self.stage == "decode" else 0
        tokens = self.workload.context_tokens + outputs
        return config.engine_code.cached_tokens(tokens) * self.workload.batch_size


def group_stages(
    config: RunConfig, workload: Workload, stages: Iterable[str] = STAGES, experts_hit: dict[str, Column] | None = None
) -> list[StageGroup]:
    """Splits a workload into stages, and each stage into points that run the same operators.

    Args:
        stages: those wanted.
        experts_hit: experts hit in a pass over all layers, by stage; expected ones where not given. Of decode an int is of one step, a
            column (floats) the mean of each point's steps.
    """
    hits = {stage: (experts_hit or {}).get(stage) for stage in stages}
    return [
        _stage_group(config, stage, where, points, hit[where] if isinstance(hit, np.ndarray) and where is not None else hit)
        for stage, hit in hits.items()
        for where, points in _alike(config, workload, stage)
    ]


def _alike(config: RunConfig, workload: Workload, stage: str) -> Iterable[tuple[np.ndarray | None, Workload]]:
    """Groups of points whose operators are the same: one page or several, and with vision the sizes of the views."""
    if workload.is_single:
        return [(None, workload)]
    code = np.broadcast_to(workload.batch_size, workload.points) == 1
    for size in config.pipeline.view_sizes(workload) if stage in ("vision", CALL) else ():
        code = code * np.int64(32_768) + size
    distinct = np.unique(code)
    if len(distinct) == 1:
        return [(None, workload)]
    return [(where, workload.take(where)) for where in (np.flatnonzero(code == value) for value in distinct)]


def _stage_group(config: RunConfig, stage: str, where: np.ndarray | None, workload: Workload, experts_hit: Column | None) -> StageGroup:
    sizes = tuple(map(_constant, config.pipeline.view_sizes(workload))) if stage in ("vision", CALL) else ()
    program = stage_program(config, stage, bool(np.all(workload.batch_size == 1)), sizes)
    context, steps = workload.context_tokens, workload.output_tokens
    dimensions = partial(config.pipeline.dimensions, config, stage, sizes, workload, experts_hit)
    if stage != "decode":
        return StageGroup(stage, program, workload, dimensions(steps), where, sizes)
    if isinstance(experts_hit, int) and np.any(steps != 1):
        raise SpecError(f"experts_hit: decode takes one step with the experts of that step, not output_tokens = {steps}")
    growing = config.pipeline.kept_outputs(config.model, steps)
    others = [dimensions(1)] if config.engine_code.clones_logits else []
    if config.pipeline.window(config.model):
        others.append(dimensions(growing - 1 * (growing > 1)))
    context_sum = steps * context + growing * (growing + 1) // 2 + (steps - growing) * growing
    beside = tuple(StageGroup(stage, program, workload, values) for values in others)
    group = StageGroup(stage, program, workload, dimensions(steps), where, sizes, steps, context_sum, beside, growing)
    if config.pipeline.window(config.model):
        _, first, group.prompts = np.unique(np.atleast_1d(context), return_index=True, return_inverse=True)
        sample, numbers = workload if workload.is_single else workload.take(first), np.arange(1, max(1, np.max(growing)) + 1)
        group.by_step = config.pipeline.dimensions(config, stage, sizes, sample, None, numbers[:, None])
    return group


def _constant(column: Column) -> int:
    return int(column[0]) if isinstance(column, np.ndarray) else column
