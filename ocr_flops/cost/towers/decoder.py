"""The language model: a DeepSeek-V2-style decoder with plain multi-head attention and a mixture of experts."""

from __future__ import annotations

from collections.abc import Callable

from ocr_flops.cost import ops
from ocr_flops.cost.blocks import attention, experts, rotary
from ocr_flops.cost.blocks.experts import Experts, gated_mlp
from ocr_flops.cost.blocks.forward_pass import ForwardPass
from ocr_flops.cost.blocks.masks import masks
from ocr_flops.cost.blocks.norms import rms_norm
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.tape import Tape
from ocr_flops.spec.specs import EngineSpec
from ocr_flops.spec.towers import DecoderSpec


def run(
    tape: Tape, spec: DecoderSpec, engine: EngineSpec, mode: str, step: ForwardPass, embedded: Tensor, held: tuple[Tensor, ...]
) -> Tensor:
    """Records what the language model executes in one pass, from token embeddings to logits.

    Args:
        tape: takes the operators.
        spec, engine: dimensions and habits.
        mode: attention mode.
        step: the pass.
        embedded: [batch, tokens, width].
        held: what the engine's code keeps alive until the logits: the embeddings and what they were made of.

    Returns:
        logits [batch, logit_rows, vocabulary].
    """
    with tape.module("decoder.attention"):
        mask, built = masks(tape, engine, mode, step)
        angles = () if engine.rope_matmul else rotary.angles(tape, spec.head_dim, step)
    x = embedded
    dense, sparse = range(spec.dense_layers), range(spec.dense_layers, spec.layers)
    for layers, mlp in ((dense[:1], _dense_mlp), (dense[1:], _dense_mlp), (sparse, _experts_mlp)):
        if layers:
            x = _layers(tape, spec, engine, mode, step, x, mask, angles, layers, mlp, keeps_input=x is embedded)
    with tape.module("decoder.norm_residual"):
        normed = rms_norm(tape, x)
        tape.free(x, *angles, *built, *held)
    with tape.module("lm_head"):
        rows = normed.view(step.batch, step.logit_rows, spec.width)
        logits = tape(ops.linear(rows, tape.weight(spec.vocabulary, spec.width)))
        if engine.upcasts_logits:
            logits = tape.cast(logits, 4)
    return logits


def embed(tape: Tape, spec: DecoderSpec, step: ForwardPass) -> Tensor:
    """Records the token embedding: the rows gathered, not the table. Returns [batch, tokens, width]."""
    with tape.module("decoder.embed"):
        index = tape.input(step.batch, step.tokens, itemsize=ops.INDEX_BYTES)
        table = tape.weight(spec.vocabulary, spec.width)
        return tape(ops.gather("embedding", table, index, (step.batch, step.tokens, spec.width)))


def _layers(
    tape: Tape,
    spec: DecoderSpec,
    engine: EngineSpec,
    mode: str,
    step: ForwardPass,
    x: Tensor,
    mask: Tensor | None,
    angles: tuple[Tensor, ...],
    layers: range,
    mlp: Callable,
    keeps_input: bool,
) -> Tensor:
    """Layers of one kind: norm, attention, residual, norm, MLP, residual. The engines keep the embeddings alive to the end."""
    with tape.module("decoder.norm_residual", layers):
        normed = rms_norm(tape, x)
    with tape.module("decoder.attention", layers):
        attended, kept = _attention(tape, spec, engine, mode, step, normed, mask, angles)
        tape.free(normed)
    with tape.module("decoder.norm_residual", layers):
        residual = tape.then_free(ops.elementwise("add", x, attended), attended)
        normed = rms_norm(tape, residual)
    branch = mlp(tape, spec, engine, step, normed, layers)
    tape.free(normed)
    with tape.module("decoder.norm_residual", layers):
        out = tape.then_free(ops.elementwise("add", residual, branch), residual, branch, *kept, *([] if keeps_input else [x]))
    return out


def _attention(
    tape: Tape,
    spec: DecoderSpec,
    engine: EngineSpec,
    mode: str,
    step: ForwardPass,
    x: Tensor,
    mask: Tensor | None,
    angles: tuple[Tensor, ...],
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Multi-head attention over the cache; also returns what stays alive until the layer ends."""
    heads = (step.batch, spec.heads, step.tokens, spec.head_dim)
    query, key, value = (tape(ops.linear(x, tape.weight(spec.width, spec.width))).view(*heads) for _ in range(3))
    layer_angles = rotary.angles_by_matmul(tape, spec.head_dim, step) if engine.rope_matmul else angles
    rotated_query = rotary.rotate(tape, query, layer_angles)
    rotated_key = rotary.rotate(tape, key, layer_angles)
    tape.free(query, key)
    cached_key, cached_value = _update_cache(tape, engine, step, rotated_key, value)
    fresh = step.is_prefill and not step.is_one
    out, probabilities = attention.run(
        mode,
        tape,
        rotated_query,
        cached_key,
        cached_value,
        mask=mask,
        scale_name="div" if engine.rope_matmul else "mul",
        copies=(fresh, fresh and not engine.copies_cache, fresh and not engine.copies_cache),
        transposes_output=step.is_prefill,
    )
    attended = tape.then_free(ops.linear(out.view(*x.shape), tape.weight(spec.width, spec.width)), out)
    tape.free(rotated_query, *(layer_angles if engine.rope_matmul else ()))
    kept = (probabilities,) if probabilities is not None else ()
    if engine.published_lifetimes:
        tape.free(*kept)
        return attended, ()
    return attended, kept


def _update_cache(tape: Tape, engine: EngineSpec, step: ForwardPass, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Hands new keys and values [batch, heads, tokens, head_dim] to the cache and returns what attention reads; frees them.

    A dynamic cache concatenates: it reads what it has, writes all of it and the new token again. A static one is written in place.
    """
    cached = []
    for fresh in (key, value):
        *batch, tokens, width = fresh.shape
        full = (*batch, step.context, width)
        if step.cache == "static":
            stored = ops.new(full, fresh.itemsize, "cache")
            tape(ops.in_place("index_copy_", stored.view(*fresh.shape), fresh))
        elif step.is_prefill and not engine.copies_cache:
            stored = ops.new(full, fresh.itemsize, "cache")  # the cache takes the tensors themselves
            tape.free(fresh)
            fresh = stored
        else:
            old = [] if step.is_prefill else [ops.new((*batch, step.context - 1, width), fresh.itemsize, "cache")]
            stored = tape(ops.copy("cat", *old, fresh, shape=full, itemsize=fresh.itemsize, role="cache"))
            tape.live = tape.live - stored.storage.size_bytes  # transient until the cache has taken it
        cached.append((stored, fresh))
    tape.free(*(fresh for stored, fresh in cached if fresh is not stored))
    return cached[0][0], cached[1][0]


def _dense_mlp(tape: Tape, spec: DecoderSpec, engine: EngineSpec, step: ForwardPass, x: Tensor, layers: range) -> Tensor:
    """The MLP of the first layers."""
    with tape.module("decoder.dense_mlp", layers):
        return gated_mlp(tape, x, spec.width, spec.dense_width)


def _experts_mlp(tape: Tape, spec: DecoderSpec, engine: EngineSpec, step: ForwardPass, x: Tensor, layers: range) -> Tensor:
    """Router, routed experts and shared experts."""
    tokens = step.batch * step.tokens
    rows, sizes = x.view(tokens, spec.width), Experts(spec.experts, spec.experts_per_token, spec.expert_width)
    with tape.module("decoder.router", layers):
        logits, weights, index = experts.route(tape, sizes, rows)
    named = (logits, weights, index)
    if engine.published_lifetimes:  # the logits do not leave the router
        tape.free(logits)
        named = (weights, index)
    with tape.module("decoder.routed_experts", layers):
        run_experts = experts.grouped if engine.grouped_experts else experts.looped
        routed = run_experts(tape, sizes, rows, weights, index)
    with tape.module("decoder.shared_experts", layers):
        shared = gated_mlp(tape, x, spec.width, spec.shared_experts * spec.expert_width)
        return tape.then_free(ops.elementwise("add", x.view(*x.shape), shared), routed, shared, *named)
