"""The model's FLOPs by family of operators: linear layers, attention cores, experts, norms."""

import polars as pl

from ocr_flops.cost.polynomial import evaluate
from ocr_flops.cost.tape import Operation
from ocr_flops.timing.estimate import Estimate

TENSOR, VECTOR = "tensor_flops", "vector_flops"
WHOLE = "all stages"
BY_NAME = {  # the family of an operator whose name says it
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
FAMILIES = (*dict.fromkeys(BY_NAME.values()), "RMSNorm", "rotary positions", "other elementwise work")


def family_flops(estimated: Estimate) -> pl.DataFrame:
    """Sum up the model's FLOPs by family of operators; the rows of a stage sum up to its total_flops.

    Columns: stage ("all stages" last), family, tensor_flops, vector_flops, share (of the stage's FLOPs).
    """
    sums = {(stage, family): [0, 0] for stage in (*estimated.chosen_stages, WHOLE) for family in FAMILIES}
    for group in estimated.stage_groups():
        before = ""
        for operation in group.program.operations:
            family, before = _family(operation, before), operation.name
            for column, name in enumerate((TENSOR, VECTOR)):
                flops = evaluate(operation.costs[name], group.summed)
                sums[group.stage, family][column] += flops
                sums[WHOLE, family][column] += flops
    schema = {"stage": pl.String, "family": pl.String, TENSOR: pl.Int64, VECTOR: pl.Int64}
    frame = pl.DataFrame([(*key, *flops) for key, flops in sums.items()], schema, orient="row")
    return frame.with_columns(share=(pl.col(TENSOR) + pl.col(VECTOR)) / stage_flops())


def stage_flops() -> pl.Expr:
    """The FLOPs of each row's stage, in a frame of `family_flops`; 1 where it has none, to divide by."""
    return (pl.col(TENSOR) + pl.col(VECTOR)).sum().over("stage").clip(1)


def _family(operation: Operation, before: str) -> str:
    """The family of an operator, by its name, its module and the operator that ran before it."""
    name, module = operation.name, operation.module
    if name in BY_NAME:
        return BY_NAME[name]
    if module == "decoder.norm_residual" and (name in ("pow", "mean", "rsqrt", "mul") or (name == "add" and before == "mean")):
        return "RMSNorm"
    if module == "decoder.attention" and (name in ("mul", "neg", "cos", "sin") or (name == "add" and before != "arange")):
        return "rotary positions"
    return "other elementwise work"
