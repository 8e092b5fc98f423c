"""SAM ViT-B: windowed and global attention with decomposed relative positions, a neck, and two stride-2 convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ocr_flops.cost import ops
from ocr_flops.cost.blocks import attention, norms, positions
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.polynomial import Dim
from ocr_flops.cost.tape import Tape
from ocr_flops.spec.specs import EngineSpec
from ocr_flops.spec.towers import SamSpec


class View(NamedTuple):
    """One pass over square views.

    Args:
        px: side in pixels.
        images: views in the pass.
        is_one: whether that is a single view, which spares some copies.
    """

    px: int
    images: Dim
    is_one: bool


def run(tape: Tape, spec: SamSpec, engine: EngineSpec, mode: str, view: View, pixels: Tensor) -> Tensor:
    """Records what SAM executes for one pass.

    Args:
        tape: takes the operators.
        spec, engine: dimensions and habits.
        mode: attention mode.
        view: the pass.
        pixels: [images, channels, px, px].

    Returns:
        the feature map [images, downsample_widths[-1], q, q], q = ceil(px / 64).
    """
    side = view.px // spec.patch_px
    x = _patches(tape, spec, engine, view, side, pixels)
    kinds = ["sam.attention_global" if layer in spec.global_layers else "sam.attention_windowed" for layer in range(spec.layers)]
    for kind in dict.fromkeys(kinds):
        layers = [layer for layer, of in enumerate(kinds) if of == kind]
        # The addition that ends a layer belongs to the block it feeds: the next layer's attention, or the neck.
        feeds: dict[str, list[int]] = {}
        for following in (layer + 1 for layer in layers):
            if following < spec.layers:
                feeds.setdefault(kinds[following], []).append(following)
            else:
                feeds["sam.neck"] = []
        x = _layers(tape, spec, engine, mode, view, side, x, kind, layers, feeds)
    return _neck(tape, spec, engine, view, side, x)


def _patches(tape: Tape, spec: SamSpec, engine: EngineSpec, view: View, side: int, pixels: Tensor) -> Tensor:
    """Patch embedding plus absolute positions, interpolated unless the view has the size they were trained for."""
    trained = spec.image_px // spec.patch_px
    with tape.module("sam.patch"):
        weight = tape.weight(spec.width, spec.channels, spec.patch_px, spec.patch_px)
        patches = tape(ops.convolution(pixels, weight, tape.weight(spec.width), side)).view(view.images, side, side, spec.width)
        table = tape.weight(1, trained, trained, spec.width)
        if side != trained:
            upcast = tape.cast(table, 4)
            table = positions.resized(tape, engine, upcast, side)
            if engine.published_lifetimes:
                tape.free(upcast)
        return tape.then_free(ops.elementwise("add", patches, table), patches, table)


def _layers(
    tape: Tape,
    spec: SamSpec,
    engine: EngineSpec,
    mode: str,
    view: View,
    side: int,
    x: Tensor,
    kind: str,
    layers: Sequence[int],
    feeds: dict[str, list[int]],
) -> Tensor:
    """All layers of one kind: norm, attention, residual, norm, MLP, residual."""
    with tape.module(kind, layers):
        normed = tape(ops.layer_norm(x, tape.weight(spec.width), tape.weight(spec.width)), keep=1)
        if kind == "sam.attention_windowed":
            attended, kept = _in_windows(tape, spec, engine, mode, view, side, normed)
        else:
            attended, kept = _attention(
                tape, spec, engine, mode, positions.Grid(view.images, side, view.is_one), normed, spec.image_px // spec.patch_px
            )
            tape.free(normed)
    with tape.module("sam.mlp", layers):
        residual = tape.then_free(ops.elementwise("add", x, attended), attended)
        normed = tape(ops.layer_norm(residual, tape.weight(spec.width), tape.weight(spec.width)), keep=1)
        inner = tape(ops.linear(normed, tape.weight(spec.mlp_width, spec.width), tape.weight(spec.mlp_width)))
        active = tape.then_free(ops.activation("gelu", inner), inner)
        branch = tape.then_free(ops.linear(active, tape.weight(spec.width, spec.mlp_width), tape.weight(spec.width)), active)
    if engine.published_lifetimes:  # it has no name there
        tape.free(normed)
    out = tape(ops.elementwise("add", residual, branch), feeds=feeds)
    tape.free(residual, branch, x, *kept, *([] if engine.published_lifetimes else [normed]))
    return out


def _in_windows(tape: Tape, spec: SamSpec, engine: EngineSpec, mode: str, view: View, side: int, normed: Tensor):
    """Pads the grid to whole windows, attends inside each, and puts the picture together again without the padding.

    Returns the picture [images, side, side, width] and the tensors that stay alive until the layer ends.
    """
    per_side = -(-side // spec.window)
    padded = (view.images, per_side * spec.window, per_side * spec.window, spec.width)
    pads, several = per_side * spec.window != side, per_side > 1
    x = normed
    if pads or engine.always_resizes_positions:  # transformers also pads by nothing
        x = tape(ops.copy("constant_pad_nd", x, shape=padded))
    if several:
        windows = tape(ops.copy("clone", x))
        tape.free(*([x] if x is not normed else []))
        x = windows
    tape.free(*([normed] if x is not normed else []))
    grid = positions.Grid(view.images * per_side**2, spec.window, view.is_one and not several)
    attended, kept = _attention(tape, spec, engine, mode, grid, x.view(grid.batch, grid.side, grid.side, spec.width), spec.window)
    tape.free(x)
    picture = tape(ops.copy("clone", attended, shape=padded)) if several else attended.view(*padded)
    if pads:
        cropped = (view.images, side, side, spec.width)
        whole = picture
        picture = tape(ops.copy("clone", picture.view(*cropped), shape=cropped))
        tape.free(*([whole] if several else []))
    tape.free(*([attended] if picture.storage is not attended.storage else []))
    return picture, kept


def _attention(tape: Tape, spec: SamSpec, engine: EngineSpec, mode: str, grid: positions.Grid, x: Tensor, trained: int):
    """Attention with decomposed relative positions over each square of `grid`.

    Args:
        x: [batch, side, side, width].
        trained: side in patches that the relative-position tables were trained for.

    Returns:
        the output, shaped as x, and the tensors that stay alive until the layer ends.
    """
    n, heads, d = grid.side**2, spec.heads, spec.head_dim
    projected = tape(ops.linear(x, tape.weight(3 * spec.width, spec.width), tape.weight(3 * spec.width)))
    qkv = projected if grid.is_one else tape(ops.copy("clone", projected))
    query = key = value = qkv.view(grid.batch, heads, n, d)
    tables = tape.weight(2 * trained - 1, d), tape.weight(2 * trained - 1, d)
    scores = None
    if mode == "eager":
        scaled = tape(ops.elementwise("mul", query))
        scores = tape.then_free(ops.matmul(scaled, key.view(grid.batch, heads, d, n)), scaled)
    sides, relative = positions.side_biases(tape, engine, grid, query, tables)
    local: list[Tensor] = [projected] if qkv is projected else [projected, qkv]  # what lives until this function of the engine's returns
    kept: tuple[Tensor, ...] = ()
    if not engine.copies_bias:  # the vendor's code makes both factors contiguous instead of their sum, and keeps them
        sides = tuple(tape.then_free(ops.copy("clone", side), side) for side in sides)
        tape.free(*relative)
        relative = ()
    local += (*sides, *relative) if mode == "flash" else () if engine.copies_bias else sides
    if mode == "flash":
        out = tape(ops.fused_attention(query, key, value, side_biases=sides, statistics=attention.philox()), keep=1)
    else:
        bias = tape(ops.elementwise("add", *sides, shape=(grid.batch, heads, n, n)))
        tape.free(*(sides if engine.copies_bias else ()), *relative)
        if engine.copies_bias:
            bias = tape.then_free(ops.copy("clone", bias), bias)
        local.append(bias)
        if mode == "eager":
            biased = tape.then_free(ops.elementwise("add", scores, bias), scores)
            product, probabilities = attention.eager_scores_to_output(tape, biased, value, copies_value=False)
            out = tape.then_free(ops.copy("clone", product), product)
            kept = (probabilities,)
        else:
            out = attention.memory_efficient(tape, query, key, value, bias)
    attended = tape.then_free(ops.linear(out.view(*x.shape), tape.weight(spec.width, spec.width), tape.weight(spec.width)), out)
    tape.free(*local)
    return attended, kept


def _neck(tape: Tape, spec: SamSpec, engine: EngineSpec, view: View, side: int, x: Tensor) -> Tensor:
    """1x1 and 3x3 convolutions with norms, then two stride-2 convolutions down to one query per 64 px."""
    half = -(-side // 2)
    first, second = spec.downsample_widths
    neck = spec.neck_width
    norm = norms.layer_norm_2d_elementwise if engine.elementwise_neck_norm else norms.layer_norm_2d
    with tape.module("sam.neck"):
        narrow = tape(ops.convolution(x.view(view.images, spec.width, side, side), tape.weight(neck, spec.width, 1, 1), None, side))
        normed = norm(tape, narrow, neck)
        mixed = tape.then_free(ops.convolution(normed, tape.weight(neck, neck, 3, 3), None, side), normed)
        normed = norm(tape, mixed, neck)
        tape.free(x)
        smaller = tape(ops.convolution(normed, tape.weight(first, neck, 3, 3), None, half))
        # The vendor's code clones the map between the convolutions.
        maps = (smaller, tape(ops.copy("clone", smaller))) if engine.elementwise_neck_norm else (smaller,)
        return tape.then_free(ops.convolution(maps[-1], tape.weight(second, first, 3, 3), None, -(-half // 2)), normed, *maps)
