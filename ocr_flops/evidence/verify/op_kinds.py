"""The model's FLOPs by what kind of operator they are: linear layers, attention cores, experts, norms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocr_flops.cost.program import Operation, evaluate
from ocr_flops.timing.estimate import Estimate

if TYPE_CHECKING:
    import polars as pl

TENSOR, VECTOR = "tensor_flops", "vector_flops"
WHOLE = "all stages"
FAMILIES = (
    "linear layers",
    "relative positions",
    "convolutions",
    "attention",
    "attention with a bias",
    "routed experts",
    "softmax",
    "LayerNorm",
    "RMSNorm",
    "GELU",
    "SiLU",
    "rotary positions",
    "other elementwise work",
)


def shares(estimated: Estimate) -> pl.DataFrame:
    """The model's FLOPs by family of operators; a stage's rows sum up to its total_flops.

    Args:
        estimated: from `modelled`.

    Returns:
        stage ("all stages" last), family, tensor_flops, vector_flops, share (of the stage's FLOPs).
    """
    import polars as pl

    table = {stage: dict.fromkeys(FAMILIES, (0, 0)) for stage in (*estimated.chosen_stages, WHOLE)}
    for group in estimated.stage_groups():
        before = ""
        for operation in group.program.operations:
            tensor, vector = (evaluate(operation.costs[name], group.summed) for name in (TENSOR, VECTOR))
            family = _family(operation, before)
            before = operation.name
            for stage in (group.stage, WHOLE):
                sums = table[stage][family]
                table[stage][family] = (sums[0] + tensor, sums[1] + vector)
    rows = []
    for stage, families in table.items():
        whole = sum(map(sum, families.values()))
        rows += [(stage, family, *sums, sum(sums) / whole if whole else 0.0) for family, sums in families.items()]
    schema = {"stage": pl.String, "family": pl.String, TENSOR: pl.Int64, VECTOR: pl.Int64, "share": pl.Float64}
    return pl.DataFrame(rows, schema, orient="row")


def _family(operation: Operation, before: str) -> str:
    """What kind of work an operator is, by its name, its module and the operator that ran before it."""
    name, module = operation.name, operation.module
    by_name = {
        "mm": "linear layers",
        "addmm": "linear layers",
        "bmm": "relative positions",
        "convolution": "convolutions",
        "_scaled_dot_product_flash_attention": "attention",
        "_scaled_dot_product_efficient_attention": "attention with a bias",
        "_grouped_mm": "routed experts",
        "_softmax": "softmax",
        "native_layer_norm": "LayerNorm",
        "gelu": "GELU",
        "silu": "SiLU",
    }
    if name in by_name:
        return by_name[name]
    added = name == "add"
    if module == "decoder.norm_residual" and (name in ("pow", "mean", "rsqrt", "mul") or (added and before == "mean")):
        return "RMSNorm"
    if module == "decoder.attention" and (name in ("mul", "neg", "cos", "sin") or (added and before != "arange")):
        return "rotary positions"
    return "other elementwise work"
