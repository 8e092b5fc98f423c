"""What one executed operator computes, reads and writes: one small pure function per operator kind.

A multiply-add is 2 FLOPs. Matrix work goes to `tensor_flops`; `vector_flops` is one per output element of an elementwise operator, one
per input element of a reduction, and for composites the factor in `COMPOSITES`. Copies, casts, gathers and scatters compute nothing.
Every function takes tensors (and dimensions) and returns an `Operator`; sizes may be ints or polynomials (`polynomial.Dimension`).
"""

from __future__ import annotations

from dataclasses import dataclass

from ocr_flops.cost.polynomial import Dim, product

# FLOPs per element of operators that are several elementwise passes in one.
COMPOSITES = {"softmax": 5, "layer_norm": 8, "rms_norm": 4, "gelu": 5, "silu": 4, "sigmoid": 4}
INDEX_BYTES = 8  # int64


@dataclass(slots=True, eq=False)
class Storage:
    """The memory behind tensors: its size in bytes and whether it holds weights, cache or activations."""

    size_bytes: Dim
    role: str = "activation"


@dataclass(slots=True, eq=False)
class Tensor:
    """A tensor as its shape, bytes per element and storage; views share their storage."""

    shape: tuple[Dim, ...]
    itemsize: int
    storage: Storage

    @property
    def elements(self) -> Dim:
        """Number of elements."""
        return product(self.shape)

    @property
    def size_bytes(self) -> Dim:
        """Bytes of the elements shown."""
        return self.elements * self.itemsize

    def view(self, *shape: Dim) -> Tensor:
        """The same storage under another shape (also a slice: fewer elements)."""
        return Tensor(shape, self.itemsize, self.storage)


def new(shape: tuple[Dim, ...], itemsize: int, role: str = "activation") -> Tensor:
    """A tensor with a storage of its own."""
    return Tensor(shape, itemsize, Storage(product(shape) * itemsize, role))


@dataclass(slots=True, eq=False)
class Operator:
    """One executed operator.

    Args:
        name: ATen's name for it.
        outputs: tensors it makes, the result first.
        reads: tensors it reads, whole.
        writes: tensors it writes besides its outputs (in-place work).
        tensor_flops, vector_flops: its work.
        visible: whether torch's FLOP counter sees its tensor_flops.
    """

    name: str
    outputs: tuple[Tensor, ...]
    reads: tuple[Tensor, ...] = ()
    writes: tuple[Tensor, ...] = ()
    tensor_flops: Dim = 0
    vector_flops: Dim = 0
    visible: bool = True

    @property
    def matrix_itemsize(self) -> int:
        """Bytes per element of a matrix product's inputs, which decides the peak it can reach; 0 where there is none."""
        return self.reads[0].itemsize if self.tensor_flops else 0


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Operator:
    """x [..., in] times weight [out, in]: 2·rows·in·out (torch.utils.flop_counter `addmm_flop`; the bias is not counted)."""
    features_out, features_in = weight.shape
    name, reads = ("mm", (x, weight)) if bias is None else ("addmm", (bias, x, weight))
    out = new((*x.shape[:-1], features_out), x.itemsize)
    return Operator(name, (out,), reads, tensor_flops=2 * features_in * features_out * product(x.shape[:-1]))


def matmul(a: Tensor, b: Tensor) -> Operator:
    """Batched a [..., m, k] times b [..., k, n]: 2·m·k·n each (torch.utils.flop_counter `bmm_flop`)."""
    *batch, m, k = a.shape
    n = b.shape[-1]
    return Operator("bmm", (new((*batch, m, n), a.itemsize),), (a, b), tensor_flops=2 * product(batch) * m * k * n)


def grouped_matmul(x: Tensor, features_out: int) -> Operator:
    """Rows of x [rows, in], each times the matrix of its expert [in, out]: 2·rows·in·out. The experts' bytes are charged by the tape."""
    rows, features_in = x.shape
    return Operator("_grouped_mm", (new((rows, features_out), x.itemsize),), (x,), tensor_flops=2 * features_in * features_out * rows)


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, out_side: int) -> Operator:
    """x [images, in, side, side], weight [out, in, k, k]: 2·images·out_side²·out·in·k² (torch.utils.flop_counter `conv_flop`)."""
    channels_out, channels_in, kernel, _ = weight.shape
    out = new((x.shape[0], channels_out, out_side, out_side), x.itemsize)
    reads = (x, weight) if bias is None else (x, weight, bias)
    return Operator("convolution", (out,), reads, tensor_flops=2 * x.shape[0] * out_side**2 * channels_out * channels_in * kernel**2)


def elementwise(name: str, *inputs: Tensor, shape: tuple | None = None, itemsize: int | None = None) -> Operator:
    """One FLOP per element of the output, which has the first input's shape and dtype unless given."""
    out = new(inputs[0].shape if shape is None else shape, itemsize or inputs[0].itemsize)
    return Operator(name, (out,), inputs, vector_flops=out.elements)


def activation(kind: str, x: Tensor) -> Operator:
    """gelu, silu or sigmoid of x, by the factor in `COMPOSITES`."""
    return Operator(kind, (new(x.shape, x.itemsize),), (x,), vector_flops=COMPOSITES[kind] * x.elements)


def softmax(x: Tensor) -> Operator:
    """Softmax over the last dimension: maximum, difference, exp, sum, quotient."""
    return Operator("_softmax", (new(x.shape, x.itemsize),), (x,), vector_flops=COMPOSITES["softmax"] * x.elements)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Operator:
    """LayerNorm over the last dimension, which also writes mean and reciprocal deviation (fp32, one each a row)."""
    rows = product(x.shape[:-1])
    outputs = (new(x.shape, x.itemsize), new((rows,), 4), new((rows,), 4))
    return Operator("native_layer_norm", outputs, (x, weight, bias), vector_flops=COMPOSITES["layer_norm"] * x.elements)


def reduction(name: str, x: Tensor, shape: tuple, itemsize: int | None = None) -> Operator:
    """One FLOP per input element."""
    return Operator(name, (new(shape, itemsize or x.itemsize),), (x,), vector_flops=x.elements)


def copy(name: str, *inputs: Tensor, shape: tuple | None = None, itemsize: int | None = None, role: str = "activation") -> Operator:
    """Reads its inputs and writes a new tensor, computing nothing: clone, cast, cat, pad."""
    out = new(inputs[0].shape if shape is None else shape, itemsize or inputs[0].itemsize, role)
    return Operator(name, (out,), inputs)


def gather(name: str, table: Tensor, index: Tensor, shape: tuple) -> Operator:
    """Rows of a table: reads the index and the rows gathered, not the table."""
    out = new(shape, table.itemsize)
    return Operator(name, (out,), (table.view(*shape), index))


def create(name: str, shape: tuple, itemsize: int) -> Operator:
    """Writes a new tensor out of nothing: arange, zeros."""
    return Operator(name, (new(shape, itemsize),))


def in_place(name: str, target: Tensor, *reads: Tensor, vector_flops: Dim = 0) -> Operator:
    """Writes the part of an existing tensor that target shows: scatter, fill, in-place arithmetic."""
    return Operator(name, (), reads, (target,), vector_flops=vector_flops)


def fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None = None,
    *,
    side_biases: tuple[Tensor, ...] = (),
    statistics: tuple[Tensor, ...] = (),
    visible: bool = True,
) -> Operator:
    """softmax(q·kᵀ·scale + bias)·v in one kernel, no score leaving the chip: 2·2·rows·keys·d (torch.utils.flop_counter `sdpa_flop_count`).

    Counted dense, as torch counts it. Each score costs a softmax, the scaling and, where there is one, the addition of the bias. Traffic is
    the least such a kernel can move: every operand read once, output and softmax statistics written once. (Dao et al., FlashAttention,
    2022, avoid writing scores; their algorithm 1 reads blocks again, which the caches of today's devices absorb at these sizes.)

    Args:
        query: [..., rows, d]; key, value: [..., keys, d].
        bias: additive bias [..., rows, keys] read from memory.
        side_biases: the two factors [..., rows, side] from which a kernel could build the bias on chip; their sum costs a FLOP a score.
        statistics: what the kernel writes beside the output.
        visible: whether torch's FLOP counter knows the kernel.
    """
    *batch, rows, width = query.shape
    keys = key.shape[-2]
    scores = product(batch) * rows * keys
    per_score = COMPOSITES["softmax"] + 1 + (bias is not None) + 2 * bool(side_biases)
    reads = (query, key, value, *([bias] if bias is not None else []), *side_biases)
    name = "_scaled_dot_product_efficient_attention" if bias is not None else "_scaled_dot_product_flash_attention"
    return Operator(
        name,
        (new(query.shape, query.itemsize), *statistics),
        reads,
        tensor_flops=4 * width * scores,
        vector_flops=per_score * scores,
        visible=visible,
    )
