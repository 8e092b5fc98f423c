"""Gated MLPs and mixtures of experts: the router, grouped or looped experts."""

from functools import cache
from math import lgamma, log, log1p, sqrt
from typing import Any, NamedTuple

import numpy as np

from ocr_flops.cost import ops
from ocr_flops.cost.ops import Operator, Tensor
from ocr_flops.cost.polynomial import Dimension
from ocr_flops.cost.tape import Tape
from ocr_flops.spec.towers import DecoderSpec
from ocr_flops.spec.workload import Column

EXPERT_ROWS = Dimension("expert_rows")
CODE = 1024  # above every number of rows of a block


class Experts(NamedTuple):
    """Routed experts of a layer: how many, how many a token visits, their inner width."""

    count: int
    per_token: int
    width: int


def expected_hits(spec: Any, tokens: Column, third: int, given: Column | None) -> tuple[Column, Column]:
    """Experts hit in one pass over all layers, and the bytes of their down projections (a third of an expert).

    Expected when each token picks experts_per_token of them uniformly: experts · (1 − (1 − k / experts)^tokens) a layer, times the bytes
    of an expert, rounded once a layer.

    Args:
        spec: `DecoderSpec` or `LearnedExperts`: how many experts there are, how many a token visits, and in how many layers.
        tokens: of the pass, all sequences together.
        third: bytes of one of an expert's three equal matrices.
        given: experts hit over all layers, where they are known.
    """
    layers = spec.sparse_layers
    if given is not None:
        return given, given * third
    missed = 1 - spec.experts_per_token / spec.experts
    enough = 60 * log(2) / -log(missed) if missed else 1.0  # tokens: from there on all experts are hit, to the last bit
    expected = spec.experts * (1 - np.power(missed, np.minimum(np.atleast_1d(np.asarray(tokens, np.float64)), enough)))
    hit, hit_bytes = (np.rint(expected).astype(np.int64) * layers, np.rint(expected * third).astype(np.int64) * layers)
    return (hit, hit_bytes) if isinstance(tokens, np.ndarray) else (int(hit[0]), int(hit_bytes[0]))


def expert_dimensions(spec: DecoderSpec, tokens: Column, itemsize: int, given: Column | None = None) -> dict[str, Column]:
    """Values of the symbolic dimensions of experts in a pass, those that are hit sharing its rows evenly; itemsize in bytes per element of
    weights, other arguments as of `expected_hits`."""
    hit, hit_bytes = expected_hits(spec, tokens, spec.width * spec.expert_width * itemsize, given)
    rows = tokens * spec.experts_per_token * spec.sparse_layers // (hit + (hit == 0))
    return {"expert_bytes": hit_bytes, "experts_hit": hit, "expert_rows": rows}


def expected_padded_rows(spec: DecoderSpec, tokens: Column, block: Column) -> Column:
    """Rows of one layer's experts where the rows of every expert are filled up to whole blocks, as expected when each token picks
    experts_per_token of them uniformly: experts · E[⌈n / block⌉ · block], n binomial in the tokens, rounded to a whole number.

    Args:
        tokens: of the pass, all sequences together.
        block: rows of a block.
    """
    code = np.atleast_1d(np.asarray(tokens, np.int64) * CODE + block)
    distinct, place = np.unique(code, return_inverse=True)
    found = np.array([_padded_rows(spec.experts, spec.experts_per_token, *divmod(one, CODE)) for one in distinct.tolist()], np.int64)[place]
    return found if isinstance(tokens, np.ndarray) else int(found[0])


@cache
def _padded_rows(experts: int, per_token: int, tokens: int, block: int) -> int:
    """`expected_padded_rows` of a number of tokens, by the probabilities within eight deviations of the mean.

    Where rows spread over several blocks, the last one is filled evenly: (block - 1) / 2 rows more. By Poisson's summation formula what is
    neglected so of an expert is block / π · exp(-2π² · variance / block²).
    """
    part = per_token / experts
    if not tokens or per_token == experts:
        return experts * -(-tokens // block) * block
    mean, variance = tokens * part, tokens * part * (1 - part)
    if variance >= 0.6 * block**2:
        return round(experts * (mean + (block - 1) / 2))
    spread = 8 * sqrt(variance) + 12
    rows = np.arange(max(0, int(mean - spread)), min(tokens, int(mean + spread)) + 1)
    first = rows[0]
    log_first = lgamma(tokens + 1) - lgamma(first + 1) - lgamma(tokens - first + 1) + first * log(part) + (tokens - first) * log1p(-part)
    steps = np.log((tokens - rows[:-1]) / rows[1:]) + log(part) - log1p(-part)
    chances = np.exp(log_first + np.concatenate([[0.0], steps.cumsum()]))
    return round(experts * block * float(chances @ -(-rows // block) / chances.sum()))


def route(tape: Tape, sizes: Experts, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The router in fp32: logits, softmax, the best experts of each token and their weights. x [tokens, width] stays alive."""
    tokens = x.shape[0]
    upcast, weight = tape.cast(x, 4), tape.weight(sizes.count, x.shape[-1])
    weight32 = tape.cast(weight, 4)
    logits = tape(ops.linear(upcast, weight32))
    tape.free(*([upcast] if upcast is not x else []), weight32)
    scores = tape(ops.softmax(logits))
    best_shape = (tokens, sizes.per_token)
    top = ops.reduction("topk", scores, best_shape)
    index = ops.new(best_shape, ops.INDEX_BYTES)
    top.outputs = (*top.outputs, index)
    best = tape(top)
    scaled = tape.then_free(ops.elementwise("mul", best), best, scores)
    return logits, scaled, index


def run_grouped(tape: Tape, sizes: Experts, x: Tensor, weights: Tensor, index: Tensor) -> Tensor:
    """transformers' grouped experts: rows sorted by expert, two grouped matrix products, weights, rows back in order, summed."""
    tokens, width = x.shape
    rows = tokens * sizes.per_token
    b, i = x.itemsize, ops.INDEX_BYTES
    flat = index.view(rows)
    sorting = ops.Operator("sort", (ops.new((rows,), i), ops.new((rows,), i)), (flat,))
    ordered, order = tape(sorting), sorting.outputs[1]
    token = tape(ops.elementwise("floor_divide", order))
    picked = tape.then_free(ops.gather("index", x, token, (rows, width)), token)
    picked_weights = tape(ops.gather("index", weights, order, (rows,)))
    narrow = tape(ops.copy("_to_copy", ordered, itemsize=4))
    counts = tape(ops.reduction("histc", narrow, (sizes.count,)))
    offsets = tape(ops.reduction("cumsum", counts, (sizes.count,)))
    up = tape.multiply_experts(ops.grouped_matmul(picked, 2 * sizes.width), offsets, sizes.count, 2)
    half = up.view(rows, sizes.width)
    gate = tape(ops.activation("silu", half))
    active = tape(ops.elementwise("mul", gate, half))
    tape.free(up, gate)
    down = tape.multiply_experts(ops.grouped_matmul(active, width), offsets, sizes.count, 1)
    tape.free(active)
    weighted = tape(ops.elementwise("mul", down, picked_weights, itemsize=4))
    inverse = tape.hold(rows, itemsize=i)
    counted = tape(ops.create("arange", (rows,), i))
    tape(ops.in_place("index_put_", inverse, order, counted))
    tape.free(counted)
    back = tape.then_free(ops.gather("index", weighted, inverse, (rows, width)), weighted)
    summed = tape(ops.reduction("sum", back, (tokens, width)))
    out = tape.cast(summed, b)
    tape.free(
        ordered, order, picked, picked_weights, narrow, counts, offsets, down, inverse, back, *([summed] if out is not summed else [])
    )
    return out


def run_looped(tape: Tape, sizes: Experts, x: Tensor, weights: Tensor, index: Tensor) -> Tensor:
    """The published code's loop over the experts hit (`moe_infer`): the same products, expert by expert, on sorted rows.

    Symbolic dimension: `expert_rows`, rows of the last expert hit, beside whose products the outputs of all others are alive.
    """
    tokens, width = x.shape
    rows = tokens * sizes.per_token
    i = ops.INDEX_BYTES
    counts = tape(ops.create("new_zeros", (tokens, sizes.count), i))
    tape(ops.in_place("scatter_", index, index))
    totals = tape(ops.reduction("sum", counts, (sizes.count,)))
    sorting = ops.Operator("sort", (ops.new((rows,), i), ops.new((rows,), i)), (index.view(rows),))
    tape(sorting)
    order = sorting.outputs[1]
    tape.free(sorting.outputs[0])
    token = tape(ops.elementwise("floor_divide", order))
    picked = tape.then_free(ops.gather("index", x, token, (rows, width)), token, totals)  # the host has a copy of the totals
    tape.synchronise()  # for that copy
    others = tape.hold(rows - EXPERT_ROWS, width, itemsize=x.itemsize)
    with tape.per_expert():  # 5 operators for each expert hit, which together see every row once
        gate = tape.multiply_experts(_of_one(ops.grouped_matmul(picked, sizes.width)), None, sizes.count, 1)
        active = tape.then_free(_of_one(ops.activation("silu", gate)), gate)
        up = tape.multiply_experts(_of_one(ops.grouped_matmul(picked, sizes.width)), None, sizes.count, 1)
        product = tape.then_free(_of_one(ops.elementwise("mul", active, up)), active, up)
        last = tape.multiply_experts(_of_one(ops.grouped_matmul(product, width)), None, sizes.count, 1)
        tape.free(product)
    joined = tape(ops.copy("cat", last))
    restored = tape.hold(rows, width, itemsize=x.itemsize)
    tape(ops.in_place("index_put_", restored, order, joined))
    upcast = tape.cast(restored, 4)
    tape(ops.in_place("mul_", upcast, upcast, weights, vector_flops=upcast.elements))
    summed = tape.then_free(ops.reduction("sum", upcast, (tokens, width)), *([upcast] if upcast is not restored else []))
    out = tape.cast(summed, x.itemsize)
    tape.free(counts, order, picked, others, last, joined, restored, *([summed] if out is not summed else []))
    return out


def _of_one(operator: Operator) -> Operator:
    """An operator over the rows of all experts, whose result is alive for one expert at a time."""
    (result,) = operator.outputs
    result.storage.size_bytes = EXPERT_ROWS * result.shape[-1] * result.itemsize
    return operator
