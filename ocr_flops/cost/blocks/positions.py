"""Absolute positions resized to a view, and decomposed relative positions."""

from __future__ import annotations

from typing import NamedTuple

from ocr_flops.cost import ops
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.polynomial import Dim
from ocr_flops.cost.tape import Tape
from ocr_flops.spec.specs import EngineSpec


class Grid(NamedTuple):
    """What attention runs on: `batch` squares of `side` x `side` patches, and whether batch is one."""

    batch: Dim
    side: int
    is_one: bool


def resized(tape: Tape, engine: EngineSpec, upcast: Tensor, side: int) -> Tensor:
    """Bicubic interpolation of a position table in fp32 [1, trained, trained, width] to [1, side, side, width] in the model's precision.

    The published code keeps upcast alive until its function returns, so there it is the caller's to free; otherwise it is freed here.
    """
    resized = tape(ops.elementwise("_upsample_bicubic2d_aa", upcast, shape=(1, side, side, upcast.shape[-1])))
    if not engine.published_lifetimes:
        tape.free(upcast)
    positions = tape.cast(resized, tape.itemsize)
    if positions is not resized:
        tape.free(resized)
    return positions


def side_biases(tape: Tape, engine: EngineSpec, grid: Grid, query: Tensor, tables: tuple[Tensor, Tensor]):
    """The two factors of the decomposed relative-position bias, query x relative height and query x relative width.

    Source: Li et al., MViTv2 (2022). Each is an einsum over one side: 2·batch·heads·n·side·d FLOPs.

    Returns:
        the two factors [batch, heads, n, side], and the gathered positions [side, side, d], which live as long as they do.
    """
    side, (batch, heads, n, d) = grid.side, query.shape
    relative = [_relative_positions(tape, engine, table, side) for table in tables]
    factors = []
    for copies, position in zip((True, grid.is_one), relative, strict=True):  # rows never merge with the batch in memory, columns do
        rows = query.view(side, batch * heads * side, d)
        dense = tape(ops.copy("clone", rows)) if copies else rows
        factors.append(tape(ops.matmul(dense, position.view(side, d, side))).view(batch, heads, n, side))
        tape.free(*([dense] if copies else []))
    return tuple(factors), tuple(relative)


def _relative_positions(tape: Tape, engine: EngineSpec, table: Tensor, side: int) -> Tensor:
    """Rows of a relative-position table for every (query, key) pair along one side: [side, side, d]."""
    rows, d = table.shape
    resized = table
    if rows != 2 * side - 1 or engine.always_resizes_positions:
        upcast = table if engine.always_resizes_positions else tape.cast(table, 4)
        resized = tape(ops.elementwise("upsample_linear1d", upcast, shape=(2 * side - 1, d)))
        tape.free(*([upcast] if upcast is not table else []))
        downcast = tape.cast(resized, table.itemsize)
        tape.free(*([resized] if downcast is not resized else []))
        resized = downcast
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
