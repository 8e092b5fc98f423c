"""Attention kernels, what runs between the projections of query, key and value and the output projection; and the masks that some read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from ocr_flops.cost import ops
from ocr_flops.cost.blocks.passes import ForwardPass
from ocr_flops.cost.blocks.positions import RelativePositions
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.polynomial import Dim, product
from ocr_flops.cost.tape import Tape
from ocr_flops.errors import one_of
from ocr_flops.spec.catalog import kernels
from ocr_flops.spec.specs import DTYPE_BYTES, HardwareSpec

RANDOM_STATE_BYTES = 8  # the seed or the offset of a fused kernel's random state: one int64 each
ALIGNMENT = 8  # elements that a row of the memory-efficient kernel's bias must be a multiple of
KERNELS: dict[str, Kernel] = {}  # by name, the most wasteful first


class Attended(NamedTuple):
    """The result of attention.

    Args:
        output: [batch, heads, rows, d].
        local: what stays alive until the function that attends returns.
        kept: what stays alive until the layer ends, or longer than `local` at least: probabilities.
    """

    output: Tensor
    local: tuple[Tensor, ...] = ()
    kept: tuple[Tensor, ...] = ()


class Layout(NamedTuple):
    """What the memory layout around attention asks of kernels that are plain operators.

    Args:
        copies: whether query, key and value need a contiguous copy before their matrix products.
        transposes_output: whether the output must be copied to [batch, rows, heads, d].
        scale_name: the operator that scales scores, "mul" or "div".
    """

    copies: tuple[bool, bool, bool]
    transposes_output: bool = True
    scale_name: str = "mul"


class Kernel(ABC):
    """An attention kernel. A subclass is defined with its name, `class Flash(Kernel, name="flash")`, and found by it.

    Attributes:
        name: as configs call it.
        dtypes: the precisions it takes.
        reads_mask: whether it reads a causal mask from memory.
    """

    name = ""
    dtypes = tuple(DTYPE_BYTES)
    reads_mask = False

    def __init_subclass__(cls, name: str = "") -> None:
        if name:
            cls.name = name
            KERNELS[name] = cls()

    def runs_on(self, hardware: HardwareSpec) -> bool:
        """Whether a device has the kernel."""
        return True

    @abstractmethod
    def attend(self, tape: Tape, query: Tensor, key: Tensor, value: Tensor, layout: Layout, mask: Tensor | None = None) -> Attended:
        """Records attention of query [batch, heads, rows, d] to key and value [batch, heads, keys, d], all of which stay alive.

        Args:
            mask: additive mask [batch, rows, keys], shared by the heads, for kernels that read one.
        """

    @abstractmethod
    def attend_with_positions(self, tape: Tape, query: Tensor, key: Tensor, value: Tensor, positions: RelativePositions) -> Attended:
        """The same inside squares of patches, n = rows = keys, with the bias of relative positions added to the scores."""


def find_kernel(name: str | None) -> Kernel:
    """The kernel called name.

    Raises:
        SpecError: there is none.
    """
    return KERNELS[one_of("attention", name, KERNELS)]


def attention_modes(dtype: str, hardware: HardwareSpec | None = None) -> tuple[str, ...]:
    """The attention modes that run one kernel everywhere, take a precision and exist on a device (None: any), the most wasteful first."""
    there = {name: kernel for name, kernel in KERNELS.items() if hardware is None or kernel.runs_on(hardware)}
    return tuple(name for name, kernel in there.items() if name in kernels() and dtype in kernel.dtypes)


class Eager(Kernel, name="eager"):
    """Scores and probabilities are materialised by separate operators, the softmax taken in fp32."""

    reads_mask = True

    def attend(self, tape: Tape, query: Tensor, key: Tensor, value: Tensor, layout: Layout, mask: Tensor | None = None) -> Attended:
        *batch, _, width = query.shape
        copies_query, copies_key, copies_value = layout.copies
        dense_query = tape(ops.copy("clone", query)) if copies_query else query
        dense_key = tape(ops.copy("clone", key)) if copies_key else key
        scores = tape(ops.matmul(dense_query, dense_key.view(*batch, width, key.shape[-2])))
        tape.free_copy(dense_query, query)
        tape.free_copy(dense_key, key)
        scores = tape.then_free(ops.elementwise(layout.scale_name, scores), scores)
        if mask is not None:
            scores = tape.then_free(ops.elementwise("add", scores, mask), scores)
        out, probabilities = _weighted_values(tape, scores, value, copies_value)
        if layout.transposes_output:
            out = tape.then_free(ops.copy("clone", out), out)
        return Attended(out, kept=(probabilities,))

    def attend_with_positions(self, tape: Tape, query: Tensor, key: Tensor, value: Tensor, positions: RelativePositions) -> Attended:
        batch, heads, n, d = query.shape
        scaled = tape(ops.elementwise("mul", query))
        scores = tape.then_free(ops.matmul(scaled, key.view(batch, heads, d, n)), scaled)
        bias, held = positions.bias(tape, query)
        biased = tape.then_free(ops.elementwise("add", scores, bias), scores)
        product, probabilities = _weighted_values(tape, biased, value, copies_value=False)
        return Attended(tape.then_free(ops.copy("clone", product), product), (*held, bias), (probabilities,))


def _weighted_values(tape: Tape, scores: Tensor, value: Tensor, copies_value: bool) -> tuple[Tensor, Tensor]:
    """Softmax of scores [..., rows, keys] in fp32, back to the model's dtype, times value [..., keys, d]; frees the scores.

    Returns the output [..., rows, d] and the probabilities, which the engines' code keeps alive until attention or the layer returns.
    """
    upcast = tape.cast(scores, 4)
    exponentials = tape(ops.softmax(upcast))
    tape.free_copy(upcast, scores)
    probabilities = tape.cast(exponentials, scores.itemsize)
    tape.free(scores)
    tape.free_copy(exponentials, probabilities)
    dense = tape(ops.copy("clone", value)) if copies_value else value
    out = tape(ops.matmul(probabilities, dense))
    tape.free_copy(dense, value)
    return out, probabilities


class Sdpa(Kernel, name="sdpa"):
    """PyTorch's `scaled_dot_product_attention` as CUDA chooses its kernel: flash attention without a mask, the memory-efficient one with
    an additive bias."""

    visible = True  # to torch's FLOP counter

    def attend(self, tape: Tape, query: Tensor, key: Tensor, value: Tensor, layout: Layout, mask: Tensor | None = None) -> Attended:
        """Query, key and value are read once, the output and the logsumexp of every row written once. fp32 takes the memory-efficient
        kernel, which keeps no logsumexp in inference."""
        *batch, rows, _ = query.shape
        logsumexp = (ops.new((product(batch) * rows,), 4), *random_state()[:1]) if query.itemsize != 4 else ()
        statistics = (*logsumexp, *random_state())
        return Attended(tape(ops.fused_attention(query, key, value, statistics=statistics, visible=self.visible), keep=1))

    def attend_with_positions(self, tape: Tape, query: Tensor, key: Tensor, value: Tensor, positions: RelativePositions) -> Attended:
        """The bias [batch, heads, n, n] is written, padded and read.

        The kernel needs its rows to be a multiple of 8 elements; PyTorch pads them first (`preprocess_mask` in ATen's attention.cpp).
        """
        bias, held = positions.bias(tape, query)
        *batch, rows, keys = bias.shape
        read = bias
        if keys % ALIGNMENT:
            read = tape(ops.copy("constant_pad_nd", bias, shape=(*batch, rows, keys + ALIGNMENT - keys % ALIGNMENT))).view(*bias.shape)
        out = tape(ops.fused_attention(query, key, value, read, statistics=random_state()), keep=1)
        tape.free_copy(read, bias)
        return Attended(out, (*held, bias))


def random_state() -> tuple[Tensor, ...]:
    """Seed and offset of the random state, which the fused kernels return even without dropout."""
    return ops.new((1,), RANDOM_STATE_BYTES), ops.new((1,), RANDOM_STATE_BYTES)


class Flash(Sdpa, name="flash"):
    """The flash-attn package's kernel, which torch's FLOP counter does not know; and one that nobody has written, which builds SAM's bias
    on chip: sdpa without writing, copying, padding and reading n x n numbers. The einsums stay, and the kernel reads their results."""

    dtypes = ("bf16", "fp16")
    visible = False

    def runs_on(self, hardware: HardwareSpec) -> bool:
        return hardware.flash_attention

    def attend_with_positions(self, tape: Tape, query: Tensor, key: Tensor, value: Tensor, positions: RelativePositions) -> Attended:
        sides, gathered = positions.side_biases(tape, query)
        out = tape(ops.fused_attention(query, key, value, side_biases=sides, statistics=random_state()), keep=1)
        return Attended(out, (*sides, *gathered))


def count_positions(tape: Tape, length: Dim) -> Tensor:
    """Positions [length] from where the cache ends: an arange, and its sum with that number."""
    counted = tape(ops.create("arange", (length,), ops.INDEX_BYTES))
    return tape.then_free(ops.elementwise("add", counted), counted)


def allow_causal(tape: Tape, queries: Tensor, keys: Tensor) -> Tensor:
    """Whether a key is not after a query: [tokens, context] bool."""
    return tape(ops.elementwise("le", keys, queries, shape=(*queries.shape, *keys.shape), itemsize=1))


def to_additive(tape: Tape, forward: ForwardPass, allowed: Tensor) -> Tensor:
    """0 where attention is allowed, the lowest number elsewhere: [batch, tokens, context]; frees allowed."""
    zero, lowest = (tape(ops.create(name, (1,), tape.itemsize)) for name in ("zeros", "scalar_tensor"))
    choice = ops.elementwise("where", allowed, zero, lowest, shape=(forward.batch, forward.tokens, forward.context), itemsize=tape.itemsize)
    return tape.then_free(choice, zero, lowest, allowed)
