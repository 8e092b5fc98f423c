"""What an attention kernel is: how it attends, plainly or with relative positions, and how long what it makes stays alive."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from ocr_flops.cost.blocks.positions import RelativePositions
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.registry import Registry
from ocr_flops.cost.tape import Tape
from ocr_flops.spec.catalog import kernels
from ocr_flops.spec.specs import DTYPE_BYTES


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
        order: place among the kernels shown side by side, the most wasteful first.
        dtypes: the precisions it takes.
        reads_mask: whether it reads a causal mask from memory.
    """

    name = ""
    order = 100
    dtypes = tuple(DTYPE_BYTES)
    reads_mask = False

    def __init_subclass__(cls, name: str = "") -> None:
        if name:
            cls.name = name
            KERNELS.add(name, cls())

    @abstractmethod
    def attend(self, tape: Tape, query: Tensor, key: Tensor, value: Tensor, layout: Layout, mask: Tensor | None = None) -> Attended:
        """Records attention of query [batch, heads, rows, d] to key and value [batch, heads, keys, d], all of which stay alive.

        Args:
            tape: takes the operators.
            query, key, value: the projections.
            layout: what surrounds it.
            mask: additive mask [batch, rows, keys], shared by the heads, for kernels that read one.
        """

    @abstractmethod
    def attend_with_positions(self, tape: Tape, query: Tensor, key: Tensor, value: Tensor, positions: RelativePositions) -> Attended:
        """The same inside squares of patches, n = rows = keys, with the bias of relative positions added to the scores."""


KERNELS: Registry[Kernel] = Registry("attention", "ocr_flops.cost.kernels")


def attention_modes(dtype: str) -> tuple[str, ...]:
    """The attention modes that run one kernel everywhere and take a precision, the most wasteful first."""
    found = sorted(map(KERNELS.find, kernels()), key=lambda kernel: kernel.order)
    return tuple(kernel.name for kernel in found if dtype in kernel.dtypes)
