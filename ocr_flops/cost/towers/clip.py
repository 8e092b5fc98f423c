"""CLIP-L: a plain vision transformer over SAM's feature map, which serves as its patch embeddings."""

from __future__ import annotations

from ocr_flops.cost import ops
from ocr_flops.cost.blocks import attention, positions
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.tape import Tape
from ocr_flops.cost.towers.sam import View
from ocr_flops.spec.specs import EngineSpec
from ocr_flops.spec.towers import ClipSpec


def run(tape: Tape, spec: ClipSpec, engine: EngineSpec, mode: str, view: View, feature_map: Tensor) -> Tensor:
    """Records what CLIP executes for one pass.

    Args:
        tape: takes the operators.
        spec, engine: dimensions and habits.
        mode: attention mode.
        view: the pass.
        feature_map: SAM's [images, width, q, q]; stays alive.

    Returns:
        hidden states [images, q² + 1, width], class token first.
    """
    queries = feature_map.shape[-1] ** 2
    x, *named = _embed(tape, spec, engine, view, queries, feature_map)
    first_input = x
    # The engines' code keeps the first layer's input to the end; in all later layers it lives beside their own.
    for layers in (range(1), range(1, spec.layers)):
        if layers:
            x = _layers(tape, spec, engine, mode, view, x, layers, keeps_input=x is first_input)
    tape.free(first_input, *named)
    return x


def _layers(tape: Tape, spec: ClipSpec, engine: EngineSpec, mode: str, view: View, x: Tensor, layers: range, keeps_input: bool) -> Tensor:
    """Layers that run at the same cost: norm, attention, residual, norm, MLP, residual."""
    with tape.module("clip.attention", layers):
        normed = tape(ops.layer_norm(x, tape.weight(spec.width), tape.weight(spec.width)), keep=1)
        attended, kept = _attention(tape, spec, engine, mode, view, normed)
        tape.free(normed)
    with tape.module("clip.mlp", layers):
        residual = tape(ops.elementwise("add", x, attended))
        if engine.published_lifetimes:
            kept = (*kept, attended)
        else:
            tape.free(attended)
        normed = tape(ops.layer_norm(residual, tape.weight(spec.width), tape.weight(spec.width)), keep=1)
        branch = _mlp(tape, spec, normed)
        tape.free(normed)
    # The addition that ends a layer belongs to the block it feeds: the next layer's attention, or the projector.
    following = [layer + 1 for layer in layers if layer + 1 < spec.layers]
    feeds = {**({"clip.attention": following} if following else {}), **({"projector": ()} if layers[-1] + 1 == spec.layers else {})}
    out = tape(ops.elementwise("add", residual, branch), feeds=feeds)
    tape.free(residual, branch, *kept, *([] if keeps_input else [x]))
    return out


def _embed(tape: Tape, spec: ClipSpec, engine: EngineSpec, view: View, queries: int, feature_map: Tensor) -> tuple[Tensor, ...]:
    """Class token and SAM's features, plus positions, plus a norm; also returns what stays alive beside the result to the end."""
    tokens, trained = queries + 1, spec.image_px // spec.patch_px
    with tape.module("clip.embed"):
        if engine.unused_clip_patch:
            tape.weight(spec.width, spec.channels, spec.patch_px, spec.patch_px)
        class_token, table = tape.weight(1, spec.width), tape.weight(trained**2 + 1, spec.width)
        patches = feature_map.view(view.images, queries, spec.width)
        embedded = tape(ops.copy("cat", class_token, patches, shape=(view.images, tokens, spec.width)))
        if queries == trained**2:
            added = _looked_up(tape, table)
        else:
            added = _resized(tape, spec, engine, table, feature_map.shape[-1], class_token)
        summed = tape.then_free(ops.elementwise("add", embedded, added), embedded, added)
        normed = tape(ops.layer_norm(summed, tape.weight(spec.width), tape.weight(spec.width)), keep=1)
        if engine.published_lifetimes:
            return normed, summed
        tape.free(summed)
    return (normed,)


def _looked_up(tape: Tape, table: Tensor) -> Tensor:
    """All rows of the position table [tokens, width], gathered: [1, tokens, width]."""
    tokens, width = table.shape
    return tape(ops.gather("embedding", table, tape.buffer(1, tokens, itemsize=ops.INDEX_BYTES), (1, tokens, width)))


def _resized(tape: Tape, spec: ClipSpec, engine: EngineSpec, table: Tensor, side: int, class_token: Tensor) -> Tensor:
    """The position table for a view of side x side queries, with the class token's row first: [1, side² + 1, width]."""
    trained, shape = spec.image_px // spec.patch_px, (1, side**2 + 1, spec.width)
    square, named = table.view(1, trained, trained, spec.width), ()
    if engine.looks_up_positions:
        looked_up = _looked_up(tape, table)
        class_token, named = looked_up.view(1, spec.width), (looked_up,)
        square = tape(ops.copy("clone", looked_up.view(*square.shape)))
    upcast = tape.cast(square, 4)
    tape.free(*([square] if upcast is not square else []))
    resized = positions.resized(tape, engine, upcast, side)
    rows = tape(ops.copy("cat", class_token, resized.view(1, side**2, spec.width), shape=shape))
    tape.free(resized, *named, *([upcast] if engine.published_lifetimes else []))
    return rows


def _attention(tape: Tape, spec: ClipSpec, engine: EngineSpec, mode: str, view: View, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Multi-head attention over the tokens of each view; also returns what stays alive until the layer ends."""
    tokens = x.shape[1]
    heads = (view.images, spec.heads, tokens, spec.head_dim)
    if engine.fused_clip_qkv:
        projections = [tape(ops.linear(x, tape.weight(3 * spec.width, spec.width), tape.weight(3 * spec.width)))] * 3
    else:
        projections = [tape(ops.linear(x, tape.weight(spec.width, spec.width), tape.weight(spec.width))) for _ in range(3)]
    query, key, value = (projected.view(*heads) for projected in projections)
    out, probabilities = attention.run(mode, tape, query, key, value, copies=(not view.is_one,) * 3)
    attended = tape.then_free(
        ops.linear(out.view(*x.shape), tape.weight(spec.width, spec.width), tape.weight(spec.width)), out, *dict.fromkeys(projections)
    )
    return attended, (probabilities,) if probabilities is not None else ()


def _mlp(tape: Tape, spec: ClipSpec, x: Tensor) -> Tensor:
    """Two linear layers around quick GELU, x·sigmoid(1.702·x) as three operators."""
    inner = tape(ops.linear(x, tape.weight(spec.mlp_width, spec.width), tape.weight(spec.mlp_width)))
    scaled = tape(ops.elementwise("mul", inner))
    gate = tape.then_free(ops.activation("sigmoid", scaled), scaled)
    active = tape.then_free(ops.elementwise("mul", inner, gate), inner, gate)
    return tape.then_free(ops.linear(active, tape.weight(spec.width, spec.mlp_width), tape.weight(spec.width)), active)
