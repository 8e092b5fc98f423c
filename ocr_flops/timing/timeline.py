"""A stage played operator by operator: when the host issues each, when its kernel runs, and where one waits for the other."""

from __future__ import annotations

from itertools import islice

import numpy as np
import polars as pl

from ocr_flops.cost.execution_order import Repeated, expand_nodes, order_operations
from ocr_flops.cost.polynomial import evaluate
from ocr_flops.errors import SpecError, one_of
from ocr_flops.timing.expected import CASES, lanes_of
from ocr_flops.timing.lanes import replay
from ocr_flops.timing.timing import Timing


def timeline(timing: Timing, stage: str, case: str = "value", most: int | None = None) -> pl.DataFrame:
    """Both lanes of one pass over a stage, in decode of its last step, at one point.

    Args:
        timing: an estimate of one point on a device.
        stage: one of the estimate's.
        case: "value" as expected, "low" with all figures in favour, "high" with all against.
        most: stop after so many operators; the published code issues those of vision anew for every page.

    Returns:
        a row per executed operator in order: number, module, operator, issue_start_seconds, issue_end_seconds, kernel_start_seconds,
        kernel_end_seconds, synchronises (code reads its result back, so the host waits for its kernel), from the first operator's issue on.

    Raises:
        SpecError: the estimate has columns of points, not this stage, or a decode without output tokens.
    """
    estimate = timing.estimate
    one_of("stage", stage, estimate.chosen_stages)
    if not estimate.workload.is_single:
        raise SpecError(f"timeline: {estimate.workload.points} points; it is of one")
    if stage == "decode" and not estimate.workload.output_tokens:
        raise SpecError("timeline: no decode step with workload.output_tokens = 0")
    group = next(group for group in estimate.stage_groups() if group.stage == stage)
    lanes = lanes_of(group.program, stage, timing.hardware, estimate.config, timing.host, timing.efficiency)
    number = CASES.index(one_of("case", case, CASES))
    kernels = lanes.runs.kernels(lanes.last_values(group))[number, lanes.order.kernel, 0]
    hits, operations = int(group.values.get("experts_hit", 1)), group.program.operations
    moe_layers = max(1, int(lanes.order.expert_layers.max()))

    def times(node: Repeated) -> int:
        return max(1, round(hits / moe_layers)) if node.per_expert else int(evaluate(node.times, group.last))

    order = np.fromiter(islice(expand_nodes(order_operations(operations), times), most), int)
    issue, waits = lanes.issue[number, order], np.array([operation.synchronises for operation in operations])[order]
    if lanes.is_graph:
        issue[:1] = lanes.once[number]
    moments = replay(issue, kernels[order], waits | lanes.waits)
    names = ("issue_start_seconds", "issue_end_seconds", "kernel_start_seconds", "kernel_end_seconds")
    return pl.DataFrame(
        {
            "number": np.arange(1, len(order) + 1),
            "module": [operations[one].module for one in order],
            "operator": [operations[one].name for one in order],
            **dict(zip(names, moments.T, strict=True)),
            "synchronises": waits,
        }
    )
