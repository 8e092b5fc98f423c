"""Kernels that engines which serve have in place of several operators: one operator each. Names are those of vLLM's kernels."""

from ocr_flops.cost import ops
from ocr_flops.cost.blocks.experts import Experts
from ocr_flops.cost.ops import Operator, Tensor
from ocr_flops.cost.polynomial import Dimension, product
from ocr_flops.cost.tape import Tape

PADDED_ROWS_NAME = "padded_rows"
PADDED_ROWS = Dimension(PADDED_ROWS_NAME)  # of one layer's routed experts, each expert's rows filled up to whole blocks
LARGEST_BLOCK = 64
SLOT_BYTES = 4  # int32: places in blocks, experts, rows
ROTATION = 3  # FLOPs an element: two products and a sum


def norm(tape: Tape, x: Tensor) -> Tensor:
    """RMSNorm of x [rows, width] in one kernel; x stays alive."""
    weight = tape.weight(x.shape[-1])
    return tape(Operator("rms_norm", (ops.new(x.shape, x.itemsize),), (x, weight), vector_flops=ops.COMPOSITES["rms_norm"] * x.elements))


def add_and_norm(tape: Tape, x: Tensor, residual: Tensor) -> Tensor:
    """The sum of x and the residual takes the residual's place, its RMSNorm that of x, which is returned: [rows, width] all."""
    weight = tape.weight(x.shape[-1])
    flops = (ops.COMPOSITES["rms_norm"] + 1) * x.elements
    tape(Operator("fused_add_rms_norm", (), (x, residual, weight), (x, residual), vector_flops=flops))
    return x


def rotate_in_place(tape: Tape, query: Tensor, key: Tensor, head_dim: int) -> None:
    """Rotary embedding of query and key [rows, width], with cosines and sines looked up by position in a table."""
    rows = query.shape[0]
    table = tape.buffer(1, itemsize=query.itemsize).view(rows, head_dim)
    positions = ops.new((rows,), ops.INDEX_BYTES)
    flops = ROTATION * (query.elements + key.elements)
    tape(Operator("rotary_embedding", (), (query, key, table, positions), (query, key), vector_flops=flops))


def write_paged_cache(tape: Tape, key: Tensor, value: Tensor, itemsize: int) -> None:
    """Keys and values [rows, width] go to their places in the cache's blocks, in the cache's precision."""
    slots = ops.new((key.shape[0],), ops.INDEX_BYTES)
    written = tuple(ops.new(one.shape, itemsize, "cache") for one in (key, value))
    tape(Operator("reshape_and_cache", (), (key, value, slots), written))


def silu_and_mul(tape: Tape, x: Tensor) -> Tensor:
    """silu of the first half of every row times the second half; x [rows, 2·inner] ends."""
    out = ops.new((*x.shape[:-1], x.shape[-1] // 2), x.itemsize)
    return tape.then_free(Operator("silu_and_mul", (out,), (x,), vector_flops=(ops.COMPOSITES["silu"] + 1) * out.elements), x)


def quantise(tape: Tape, x: Tensor) -> tuple[Tensor, Tensor]:
    """x [rows, width] in fp8, with one scale a row: its largest absolute value, then a product an element. x stays alive."""
    scales = ops.new((product(x.shape[:-1]),), 4)
    out = tape(Operator("scaled_fp8_quant", (ops.new(x.shape, 1), scales), (x,), vector_flops=2 * x.elements))
    return out, scales


def linear(tape: Tape, x: Tensor, features_out: int, bias: bool, itemsize: int | None) -> Tensor:
    """x [..., in] times a weight [out, in], both in fp8 where itemsize is 1, the result in x's precision; x stays alive."""
    features_in = x.shape[-1]
    weight = tape.weight(features_out, features_in, itemsize=itemsize)
    added = tape.weight(features_out) if bias else None
    if itemsize is None:
        return tape(ops.linear(x, weight, added))
    narrow, scales = quantise(tape, x)
    product = ops.linear(narrow, weight, added)
    product.outputs = (ops.new(product.outputs[0].shape, x.itemsize),)
    product.name, product.reads = "_scaled_mm", (*(one for one in product.reads if one is not added), scales, tape.scale())
    if added is not None:
        product.reads = (*product.reads, added)
    return tape.then_free(product, narrow, scales)


def run_experts(tape: Tape, sizes: Experts, x: Tensor, weights: Tensor, index: Tensor, aligns: int, itemsize: int | None) -> Tensor:
    """Routed experts over x [rows, width], which stays alive: rows in whole blocks of one expert each, two products, their weighted sum.

    The products multiply whole blocks, also what fills them up. `PADDED_ROWS` says how many rows these are; of the experts only those hit
    are read.

    Args:
        tape, sizes, x: as in `experts.run_grouped`.
        weights, index: of each row's experts, [rows, per_token].
        aligns: kernels that sort rows into blocks.
        itemsize: 1 for experts in fp8, None for the tape's precision.
    """
    tokens, width = x.shape
    rows = tokens * sizes.per_token
    blocks = tape(ops.copy("moe_align_block_size", index, shape=(rows + sizes.count * (LARGEST_BLOCK - 1),), itemsize=SLOT_BYTES))
    for _ in range(aligns - 1):
        tape(ops.in_place("count_and_sort_expert_tokens", blocks, index))

    def multiply(source: Tensor, features_out: int, thirds: int, *row_weights: Tensor) -> Tensor:
        narrow, scales = (source, ()) if itemsize is None else quantise(tape, source)
        read = narrow.view(rows, source.shape[-1])  # in the first product each token once for each of its experts
        operator = Operator(
            "fused_moe_kernel",
            (ops.new((rows, features_out), x.itemsize),),
            (read, *([scales, tape.scale(sizes.count)] if scales else []), *row_weights),
            tensor_flops=2 * source.shape[-1] * features_out * PADDED_ROWS,
            vector_flops=rows * features_out if row_weights else 0,
            visible=False,
        )
        out = tape.multiply_experts(operator, blocks, sizes.count, thirds, itemsize)
        if scales:
            tape.free(narrow, scales)
        return out

    active = silu_and_mul(tape, multiply(x, 2 * sizes.width, 2))
    down = multiply(active, width, 1, weights)
    tape.free(active, blocks)
    return tape.then_free(ops.reduction("moe_sum", down, (tokens, width)), down)
