"""Positions of patches: absolute ones resized to a view, and decomposed relative ones as a bias of attention scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocr_flops.cost import ops
from ocr_flops.cost.blocks.passes import Grid
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.tape import Tape

if TYPE_CHECKING:
    from ocr_flops.cost.engines.base import Engine


def look_up(tape: Tape, table: Tensor) -> Tensor:
    """All rows of a position table [tokens, width], gathered: [1, tokens, width]."""
    tokens, width = table.shape
    return tape(ops.gather("embedding", table, tape.buffer(1, tokens, itemsize=ops.INDEX_BYTES), (1, tokens, width)))


def resize_absolute(tape: Tape, engine: Engine, upcast: Tensor, side: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Bicubic interpolation of a position table in fp32 [1, trained, trained, width] to [1, side, side, width] in the model's precision.

    Returns:
        the positions, and upcast where the engine's code holds it until its function returns.
    """
    resized = tape(ops.elementwise("_upsample_bicubic2d_aa", upcast, shape=(1, side, side, upcast.shape[-1])))
    held = engine.release(tape, "upcast positions", upcast)
    positions = tape.cast(resized, tape.itemsize)
    tape.free_copy(resized, positions)
    return positions, held


@dataclass(frozen=True)
class RelativePositions:
    """Decomposed relative positions of the patches of squares (Li et al., MViTv2, 2022).

    Args:
        engine: how it computes them.
        tables: rows of relative heights and of relative widths [2·trained - 1, d].
    """

    engine: Engine
    grid: Grid
    tables: tuple[Tensor, Tensor]

    def side_biases(self, tape: Tape, query: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
        """The two factors of the bias, query x relative height and query x relative width: einsums of 2·batch·heads·n·side·d FLOPs.

        Args:
            query: [batch, heads, n, d], n = side².

        Returns:
            the factors [batch, heads, n, side], and the gathered positions [side, side, d] where they live as long as these.
        """
        side, (batch, heads, n, d) = self.grid.side, query.shape
        gathered = tuple(self._gather(tape, table) for table in self.tables)
        factors = []
        for copies, position in zip((True, self.grid.is_one), gathered, strict=True):  # rows never merge with the batch in memory
            rows = query.view(side, batch * heads * side, d)
            dense = tape(ops.copy("clone", rows)) if copies else rows
            factors.append(tape(ops.matmul(dense, position.view(side, d, side))).view(batch, heads, n, side))
            tape.free_copy(dense, rows)
        return self.engine.arrange_side_biases(tape, (factors[0], factors[1]), gathered)

    def bias(self, tape: Tape, query: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The bias [batch, heads, n, n] in memory, and what of its factors lives as long as it does."""
        sides, gathered = self.side_biases(tape, query)
        total = tape(ops.elementwise("add", *sides, shape=(*query.shape[:-1], query.shape[-2])))
        return self.engine.arrange_bias(tape, total, sides, gathered)

    def _gather(self, tape: Tape, table: Tensor) -> Tensor:
        """Rows of a table for every (query, key) pair along one side: [side, side, d]."""
        side, d = self.grid.side, table.shape[-1]
        resized = self.engine.resize_relative(tape, table, 2 * side - 1)
        coordinates = []
        for _ in range(2):
            counted = tape(ops.create("arange", (side,), ops.INDEX_BYTES))
            coordinates.append(tape.then_free(ops.elementwise("mul", counted, itemsize=4), counted))
        difference = tape(ops.elementwise("sub", *coordinates, shape=(side, side)))
        shifted = tape.then_free(ops.elementwise("add", difference), difference)
        index = tape(ops.copy("_to_copy", shifted, itemsize=ops.INDEX_BYTES))
        gathered = tape(ops.gather("index", resized, index, (side, side, d)))
        tape.free(*coordinates, shifted, index, resized)
        return gathered


def resize_relative(tape: Tape, table: Tensor, rows: int, itemsize: int) -> Tensor:
    """A table of relative positions [trained rows, d] interpolated to [rows, d] in a precision of so many bytes."""
    upcast = tape.cast(table, itemsize)
    resized = tape(ops.elementwise("upsample_linear1d", upcast, shape=(rows, table.shape[-1])))
    tape.free_copy(upcast, table)
    positions = tape.cast(resized, table.itemsize)
    tape.free_copy(resized, positions)
    return positions
