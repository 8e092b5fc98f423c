"""Results of the worker beside the estimate of exactly what ran."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from ocr_flops.measure.events import Result
from ocr_flops.spec.specs import STAGES, AttentionSpec, ModelSpec
from ocr_flops.spec.workload import Workload
from ocr_flops.timing.estimate import Estimate, estimate

if TYPE_CHECKING:
    import polars as pl

ALL = "total"


def analytic(model: ModelSpec, result: Result) -> Estimate:
    """The estimate of exactly what ran.

    Args:
        model: the dimensions that were sent.
        result: from the worker.
    """
    ran, stages = result.ran, tuple(stage for stage in STAGES if stage in result.stages)
    kernels = ran["attention"]
    name = kernels["sam"] if len(set(kernels.values())) == 1 else "mixed"
    hits = {stage: result.stages[stage].get("experts", {}).get("hit", 0) for stage in stages}
    return estimate(
        model,
        Workload(**asdict(result.workload)),
        AttentionSpec(name, kernels),
        engine=ran["engine"],
        dtype=ran["dtype"],
        prefill_logits=ran["prefill_logits"],
        stages=stages,
        experts_hit={stage: hit for stage, hit in hits.items() if hit},
    )


def compare(model: ModelSpec, result: Result) -> pl.DataFrame:
    """Counted against analytic FLOPs of one result, per stage and module, with a row "total" per stage.

    Columns: stage, module, counted_flops, analytic_flops, difference (integers), note. For a trace the counted FLOPs are the tracer's.
    """
    import polars as pl

    numbers = analytic(model, result)
    rows = []
    for stage, seen in result.stages.items():
        missed = ", ".join(seen["missed"])
        expected = {module: row["torch_flops"] for (of, module), row in numbers.module_numbers.items() if of == stage}
        for module in [*dict.fromkeys([*expected, *seen["modules"]]), ALL]:
            counted = seen["flops"] if module == ALL else seen["modules"].get(module, 0)
            wanted = sum(expected.values()) if module == ALL else expected.get(module, 0)
            rows.append((stage, module, counted, wanted, counted - wanted, f"torch cannot see: {missed}" if missed else ""))
    schema = {
        "stage": pl.String,
        "module": pl.String,
        "counted_flops": pl.Int64,
        "analytic_flops": pl.Int64,
        "difference": pl.Int64,
        "note": pl.String,
    }
    return pl.DataFrame(rows, schema, orient="row")
