"""The language model: a DeepSeek-V2-style decoder with plain multi-head attention and a mixture of experts."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ocr_flops import attention, ops
from ocr_flops.ops import Tensor
from ocr_flops.sizes import Size
from ocr_flops.specs import EngineSpec, SpecError, divisible, positive
from ocr_flops.tape import Tape


@dataclass(frozen=True)
class Spec:
    """Dimensions of the decoder.

    Args:
        width, layers, heads: of the transformer; a head is width / heads wide.
        dense_layers: how many of the first layers have a dense MLP instead of experts.
        dense_width: inner width of that MLP.
        experts, experts_per_token, expert_width: routed experts of a layer, how many a token visits, their inner width.
        shared_experts: experts every token visits, run as one MLP of shared_experts x expert_width.
        vocabulary: tokens of the embedding and of lm_head, which are not tied.
    """

    width: int
    layers: int
    heads: int
    dense_layers: int
    dense_width: int
    experts: int
    experts_per_token: int
    expert_width: int
    shared_experts: int
    vocabulary: int

    tower = "decoder"

    def __post_init__(self) -> None:
        positive(self, "decoder", "width", "layers", "heads", "dense_width", "experts", "experts_per_token", "expert_width",
                 "shared_experts", "vocabulary")
        divisible("decoder", "width", self.width, "heads", self.heads)
        if not isinstance(self.dense_layers, int) or not 0 <= self.dense_layers <= self.layers:
            raise SpecError(f"decoder.dense_layers: {self.dense_layers!r} is not a whole number from 0 to decoder.layers = {self.layers}")
        if self.experts_per_token > self.experts:
            raise SpecError(f"decoder.experts_per_token: {self.experts_per_token} exceeds decoder.experts = {self.experts}")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads


class Step(NamedTuple):
    """One forward pass of the language model.

    Args:
        batch: sequences.
        tokens: new tokens a sequence: the context in prefill, 1 in decode.
        context: keys every new token attends to, itself included.
        logit_rows: positions a sequence for which logits are computed.
        is_one: whether batch is one, which spares some copies.
        is_prefill: prefill (empty cache) or a decode step.
        cache: "dynamic" (grows by concatenation) or "static" (written in place).
    """

    batch: Size | int
    tokens: Size | int
    context: Size | int
    logit_rows: Size | int
    is_one: bool
    is_prefill: bool
    cache: str


def run(tape: Tape, spec: Spec, engine: EngineSpec, mode: str, step: Step, embedded: Tensor, held: tuple[Tensor, ...]) -> Tensor:
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
        mask, masks = _masks(tape, engine, mode, step)
        angles = () if engine.rope_matmul else _rotary_angles(tape, spec, step)
    x = embedded
    sparse = spec.layers - spec.dense_layers
    for layers, mlp in ((spec.dense_layers, _dense_mlp), (sparse, _experts_mlp)):
        if layers:
            x = _layers(tape, spec, engine, mode, step, x, mask, angles, layers, mlp, keeps_input=x is embedded)
    with tape.module("decoder.norm_residual"):
        normed = _rms_norm(tape, spec, x)
        tape.free(x, *angles, *masks, *held)
    with tape.module("lm_head"):
        rows = normed.view(step.batch, step.logit_rows, spec.width)
        logits = tape(ops.linear(rows, tape.weight(spec.vocabulary, spec.width)))
        if engine.upcasts_logits:
            logits = tape.cast(logits, 4)
    return logits


def embed(tape: Tape, spec: Spec, step: Step) -> Tensor:
    """Records the token embedding: the rows gathered, not the table. Returns [batch, tokens, width]."""
    with tape.module("decoder.embed"):
        index = tape.input(step.batch, step.tokens, itemsize=ops.INDEX_BYTES)
        table = tape.weight(spec.vocabulary, spec.width)
        return tape(ops.gather("embedding", table, index, (step.batch, step.tokens, spec.width)))


def _layers(tape: Tape, spec: Spec, engine: EngineSpec, mode: str, step: Step, x: Tensor, mask: Tensor | None, angles: tuple[Tensor, ...],
            layers: int, mlp: Callable, keeps_input: bool) -> Tensor:
    """Layers of one kind: norm, attention, residual, norm, MLP, residual. The engines keep the embeddings alive to the end."""
    with tape.module("decoder.norm_residual", layers):
        normed = _rms_norm(tape, spec, x)
    with tape.module("decoder.attention", layers):
        attended, kept = _attention(tape, spec, engine, mode, step, normed, mask, angles)
        tape.free(normed)
    with tape.module("decoder.norm_residual", layers):
        residual = tape.then_free(ops.elementwise("add", x, attended), attended)
        normed = _rms_norm(tape, spec, residual)
    branch = mlp(tape, spec, engine, step, normed, layers)
    tape.free(normed)
    with tape.module("decoder.norm_residual", layers):
        out = tape.then_free(ops.elementwise("add", residual, branch), residual, branch, *kept, *([] if keeps_input else [x]))
    return out


def _rms_norm(tape: Tape, spec: Spec, x: Tensor) -> Tensor:
    """RMSNorm in fp32: square, mean, epsilon, rsqrt, product, and the weight in the model's dtype. x stays alive."""
    weight = tape.weight(spec.width)
    row = (*x.shape[:-1], 1)
    upcast = tape.cast(x, 4)
    squares = tape(ops.elementwise("pow", upcast))
    variance = tape.then_free(ops.reduction("mean", squares, row), squares)
    shifted = tape(ops.elementwise("add", variance))
    inverse = tape.then_free(ops.elementwise("rsqrt", shifted), shifted)
    normed = tape.then_free(ops.elementwise("mul", upcast, inverse), inverse, *([upcast] if upcast is not x else []))
    downcast = tape.cast(normed, x.itemsize)
    out = tape(ops.elementwise("mul", weight, downcast, shape=x.shape))
    tape.free(variance, normed, *([downcast] if downcast is not normed else []))
    return out


def _masks(tape: Tape, engine: EngineSpec, mode: str, step: Step) -> tuple[Tensor | None, tuple[Tensor, ...]]:
    """The masks built before the first layer.

    transformers also builds the mask of Unlimited-OCR's sliding window, which no layer of DeepSeek-OCR uses, and keeps it.

    Returns:
        the additive causal mask [batch, tokens, context] that eager attention reads (else None), and everything that stays alive.
    """
    eager, index = mode == "eager", ops.INDEX_BYTES
    if not engine.builds_window_mask:
        return _vendor_mask(tape, step) if eager else (None, ())
    counted = tape(ops.create("arange", (step.tokens,), index))
    positions = tape.then_free(ops.elementwise("add", counted), counted)
    kept = []
    for window in (False, True) if eager else (True,):
        indices = [tape(ops.create("arange", (length,), index)) for length in (step.batch, 1)]
        for length in (step.tokens, step.context):
            counted = tape(ops.create("arange", (length,), index))
            indices.append(tape.then_free(ops.elementwise("add", counted), counted))
        queries, keys = indices[2:]
        if window:
            allowed = _window_mask(tape, queries, keys)
        else:
            allowed = tape(ops.elementwise("le", keys, queries, shape=(step.tokens, step.context), itemsize=1))
        tape.free(*indices)
        kept.append(_additive(tape, step, allowed) if eager else allowed)
    return kept[0] if eager else None, (positions, *kept)


def _additive(tape: Tape, step: Step, allowed: Tensor) -> Tensor:
    """0 where attention is allowed, the lowest number elsewhere: [batch, tokens, context]; frees allowed."""
    zero, lowest = (tape(ops.create(name, (1,), tape.itemsize)) for name in ("zeros", "scalar_tensor"))
    choice = ops.elementwise("where", allowed, zero, lowest, shape=(step.batch, step.tokens, step.context), itemsize=tape.itemsize)
    return tape.then_free(choice, zero, lowest, allowed)


def _window_mask(tape: Tape, queries: Tensor, keys: Tensor) -> Tensor:
    """(in the window and causal) or (causal and in the prefix), as transformers nests its mask functions: [tokens, context] bool."""
    tokens, context = queries.shape[0], keys.shape[0]

    def both(name: str, *inputs: Tensor) -> Tensor:
        return tape(ops.elementwise(name, *inputs, shape=(tokens, context), itemsize=1))

    nothing = tape(ops.create("new_zeros", (tokens,), 1))
    everything = tape(ops.create("new_ones", (tokens,), 1))
    bound = tape(ops.elementwise("sub", queries))
    inside = both("gt", keys, bound)
    tape.free(bound)
    first = both("bitwise_and", everything, inside)
    tape.free(everything, inside)
    causal = both("le", keys, queries)
    window = both("bitwise_and", first, causal)
    tape.free(first, causal)
    result = both("bitwise_or", nothing, window)
    tape.free(nothing, window)
    everything = tape(ops.create("new_ones", (tokens,), 1))
    causal = both("le", keys, queries)
    first = both("bitwise_and", everything, causal)
    tape.free(everything, causal)
    offset = tape(ops.elementwise("sub", keys))
    inside = tape.then_free(ops.elementwise("lt", offset, itemsize=1), offset)
    prefix = both("bitwise_and", first, inside)
    tape.free(first, inside)
    union = both("bitwise_or", result, prefix)
    tape.free(result, prefix)
    return union


def _vendor_mask(tape: Tape, step: Step) -> tuple[Tensor, tuple[Tensor, ...]]:
    """transformers 4.46's `_prepare_4d_causal_attention_mask`: a lower-triangular mask plus the padding mask, one for each sequence."""
    square = (step.tokens, step.context)
    batched = (step.batch, *square)
    causal = None
    if step.is_prefill:
        filled = tape(ops.create("full", (step.tokens, step.tokens), tape.itemsize))
        index = tape(ops.create("arange", (step.tokens,), ops.INDEX_BYTES))
        shifted = tape(ops.elementwise("add", index))
        below = tape.then_free(ops.elementwise("lt", index, shifted, shape=square, itemsize=1), index, shifted)
        tape(ops.in_place("masked_fill_", filled, below, vector_flops=filled.elements))
        tape.free(below)
        causal = filled
    attend = tape.input(step.batch, step.context, itemsize=ops.INDEX_BYTES)
    padding = tape(ops.copy("_to_copy", attend, shape=batched, itemsize=tape.itemsize))
    inverted = tape.then_free(ops.elementwise("rsub", padding), padding)
    blocked = tape(ops.copy("_to_copy", inverted, itemsize=1))
    mask = tape.then_free(ops.elementwise("masked_fill", inverted, blocked), inverted, blocked)
    if causal is not None:
        hidden = tape(ops.copy("_to_copy", mask, itemsize=1))
        combined = tape.then_free(ops.elementwise("masked_fill", causal, hidden, shape=batched), hidden, mask, causal)
        mask = combined
    return mask, (mask,)


def _rotary_angles(tape: Tape, spec: Spec, step: Step) -> tuple[Tensor, Tensor]:
    """Cosines and sines [1, tokens, head_dim] of the rotary embedding, elementwise, once for all layers."""
    half, rows = spec.head_dim // 2, (1, step.tokens)
    positions = tape(ops.copy("_to_copy", ops.new(rows, ops.INDEX_BYTES), itemsize=4))
    frequencies = tape.buffer(half, itemsize=4)
    angles = tape.then_free(ops.elementwise("mul", positions, frequencies, shape=(*rows, half)), positions)
    return _cosines_and_sines(tape, spec, rows, angles)


def _cosines_and_sines(tape: Tape, spec: Spec, rows: tuple, angles: Tensor) -> tuple[Tensor, Tensor]:
    """Both halves of a head get the same angles; cosine and sine, scaled, in the model's dtype. Frees angles."""
    doubled = tape(ops.copy("cat", angles, angles, shape=(*rows, spec.head_dim)))
    scaled = []
    for function in ("cos", "sin"):
        raw = tape(ops.elementwise(function, doubled))
        scaled.append(tape.then_free(ops.elementwise("mul", raw), raw))
    cast = [tape.cast(table, tape.itemsize) for table in scaled]
    tape.free(angles, doubled, *(table for table in scaled if table not in cast))
    return cast[0], cast[1]


def _rotary_angles_by_matmul(tape: Tape, spec: Spec, step: Step) -> tuple[Tensor, Tensor]:
    """transformers 4.46's rotary embedding, run in every layer: angles as a matrix product, 2·head_dim/2·tokens FLOPs a sequence."""
    half = spec.head_dim // 2
    index = ops.new((step.batch, step.tokens), ops.INDEX_BYTES)
    positions = tape(ops.copy("_to_copy", index, itemsize=4)).view(step.batch, 1, step.tokens)
    frequencies = ops.Tensor((step.batch, half, 1), 4, tape.buffer(half, itemsize=4).storage)
    angles = tape.then_free(ops.matmul(frequencies, positions), positions)
    return _cosines_and_sines(tape, spec, (step.batch, step.tokens), angles)


def _rotate(tape: Tape, x: Tensor, angles: tuple[Tensor, Tensor], deinterleaves: bool) -> Tensor:
    """Rotary embedding of x [batch, heads, tokens, head_dim]: x·cos + rotate_half(x)·sin. x stays alive."""
    cosines, sines = angles
    *batch, width = x.shape
    straight = tape(ops.elementwise("mul", x, cosines))
    negated = tape(ops.elementwise("neg", x.view(*batch, width // 2)))
    rotated = tape.then_free(ops.copy("cat", negated, x.view(*batch, width // 2), shape=x.shape), negated)
    turned = tape.then_free(ops.elementwise("mul", rotated, sines), rotated)
    return tape.then_free(ops.elementwise("add", straight, turned), straight, turned)


def _attention(tape: Tape, spec: Spec, engine: EngineSpec, mode: str, step: Step, x: Tensor, mask: Tensor | None,
               angles: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Multi-head attention over the cache; also returns what stays alive until the layer ends."""
    heads = (step.batch, spec.heads, step.tokens, spec.head_dim)
    query, key, value = (tape(ops.linear(x, tape.weight(spec.width, spec.width))).view(*heads) for _ in range(3))
    layer_angles = _rotary_angles_by_matmul(tape, spec, step) if engine.rope_matmul else angles
    rotated_query = _rotate(tape, query, layer_angles, engine.rope_matmul)
    rotated_key = _rotate(tape, key, layer_angles, engine.rope_matmul)
    tape.free(query, key)
    cached_key, cached_value = _update_cache(tape, engine, step, rotated_key, value)
    fresh = step.is_prefill and not step.is_one
    out, probabilities = attention.run(
        mode, tape, rotated_query, cached_key, cached_value, mask=mask, scale_name="div" if engine.rope_matmul else "mul",
        copies=(fresh, fresh and not engine.copies_cache, fresh and not engine.copies_cache), transposes_output=step.is_prefill)
    attended = tape.then_free(ops.linear(out.view(*x.shape), tape.weight(spec.width, spec.width)), out)
    tape.free(rotated_query, *(layer_angles if engine.rope_matmul else ()))
    return attended, (probabilities,) if probabilities is not None else ()


def _update_cache(tape: Tape, engine: EngineSpec, step: Step, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
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


def _gated(tape: Tape, x: Tensor, width: int, inner: int) -> Tensor:
    """SwiGLU: down(silu(gate(x))·up(x)); x stays alive."""
    gate = tape(ops.linear(x, tape.weight(inner, width)))
    active = tape.then_free(ops.activation("silu", gate), gate)
    up = tape(ops.linear(x, tape.weight(inner, width)))
    product = tape.then_free(ops.elementwise("mul", active, up), active, up)
    return tape.then_free(ops.linear(product, tape.weight(width, inner)), product)


def _dense_mlp(tape: Tape, spec: Spec, engine: EngineSpec, step: Step, x: Tensor, layers: int) -> Tensor:
    """The MLP of the first layers."""
    with tape.module("decoder.dense_mlp", layers):
        return _gated(tape, x, spec.width, spec.dense_width)


def _experts_mlp(tape: Tape, spec: Spec, engine: EngineSpec, step: Step, x: Tensor, layers: int) -> Tensor:
    """Router, routed experts and shared experts."""
    tokens = step.batch * step.tokens
    rows = x.view(tokens, spec.width)
    with tape.module("decoder.router", layers):
        logits, weights, index = _route(tape, spec, rows)
    with tape.module("decoder.routed_experts", layers):
        run_experts = _grouped_experts if engine.grouped_experts else _looped_experts
        routed = run_experts(tape, spec, rows, weights, index)
    with tape.module("decoder.shared_experts", layers):
        shared = _gated(tape, x, spec.width, spec.shared_experts * spec.expert_width)
        return tape.then_free(ops.elementwise("add", x.view(*x.shape), shared), routed, shared, logits, weights, index)


def _route(tape: Tape, spec: Spec, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The router in fp32: logits, softmax, the best experts of each token and their weights. x [tokens, width] stays alive."""
    tokens = x.shape[0]
    upcast, weight = tape.cast(x, 4), tape.weight(spec.experts, spec.width)
    weight32 = tape.cast(weight, 4)
    logits = tape(ops.linear(upcast, weight32))
    tape.free(*([upcast] if upcast is not x else []), weight32)
    scores = tape(ops.softmax(logits))
    chosen = (tokens, spec.experts_per_token)
    top = ops.reduction("topk", scores, chosen)
    index = ops.new(chosen, ops.INDEX_BYTES)
    top.outputs = (*top.outputs, index)
    best = tape(top)
    scaled = tape.then_free(ops.elementwise("mul", best), best, scores)
    return logits, scaled, index


def _grouped_experts(tape: Tape, spec: Spec, x: Tensor, weights: Tensor, index: Tensor) -> Tensor:
    """transformers' grouped experts: rows sorted by expert, two grouped matrix products, weights, rows back in order, summed."""
    tokens, width = x.shape
    rows = tokens * spec.experts_per_token
    b, i = x.itemsize, ops.INDEX_BYTES
    flat = index.view(rows)
    sorting = ops.Operator("sort", (ops.new((rows,), i), ops.new((rows,), i)), (flat,))
    ordered, order = tape(sorting), sorting.outputs[1]
    token = tape(ops.elementwise("floor_divide", order))
    picked = tape.then_free(ops.gather("index", x, token, (rows, width)), token)
    picked_weights = tape(ops.gather("index", weights, order, (rows,)))
    narrow = tape(ops.copy("_to_copy", ordered, itemsize=4))
    counts = tape(ops.reduction("histc", narrow, (spec.experts,)))
    offsets = tape(ops.reduction("cumsum", counts, (spec.experts,)))
    up = tape.experts(ops.grouped_matmul(picked, 2 * spec.expert_width), offsets, spec.experts, 2)
    half = up.view(rows, spec.expert_width)
    gate = tape(ops.activation("silu", half))
    active = tape(ops.elementwise("mul", gate, half))
    tape.free(up, gate)
    down = tape.experts(ops.grouped_matmul(active, width), offsets, spec.experts, 1)
    tape.free(active)
    weighted = tape(ops.elementwise("mul", down, picked_weights, itemsize=4))
    inverse = tape.hold(ops.new((rows,), i))
    counted = tape(ops.create("arange", (rows,), i))
    tape(ops.in_place("index_put_", inverse, order, counted))
    tape.free(counted)
    back = tape.then_free(ops.gather("index", weighted, inverse, (rows, width)), weighted)
    summed = tape(ops.reduction("sum", back, (tokens, width)))
    out = tape.cast(summed, b)
    tape.free(ordered, order, picked, picked_weights, narrow, counts, offsets, down, inverse, back, *([summed] if out is not summed else []))
    return out


def _looped_experts(tape: Tape, spec: Spec, x: Tensor, weights: Tensor, index: Tensor) -> Tensor:
    """The vendor's loop over the experts hit (`moe_infer`): the same products, expert by expert, on sorted rows."""
    tokens, width = x.shape
    rows = tokens * spec.experts_per_token
    i = ops.INDEX_BYTES
    counts = tape(ops.create("new_zeros", (tokens, spec.experts), i))
    tape(ops.in_place("scatter_", index, index))
    totals = tape(ops.reduction("sum", counts, (spec.experts,)))
    sorting = ops.Operator("sort", (ops.new((rows,), i), ops.new((rows,), i)), (index.view(rows),))
    tape(sorting)
    order = sorting.outputs[1]
    tape.free(sorting.outputs[0])
    token = tape(ops.elementwise("floor_divide", order))
    picked = tape.then_free(ops.gather("index", x, token, (rows, width)), token)
    outputs = tape.hold(ops.new((rows, width), x.itemsize))
    with tape.per_expert():  # 5 operators for each expert hit, which together see every row once
        gate = tape.experts(ops.grouped_matmul(picked, spec.expert_width), None, spec.experts, 1)
        active = tape.then_free(ops.activation("silu", gate), gate)
        up = tape.experts(ops.grouped_matmul(picked, spec.expert_width), None, spec.experts, 1)
        product = tape.then_free(ops.elementwise("mul", active, up), active, up)
        tape.free(tape.experts(ops.grouped_matmul(product, width), None, spec.experts, 1), product)
    joined = tape(ops.copy("cat", outputs))
    tape.free(outputs)
    restored = tape.hold(ops.new((rows, width), x.itemsize))
    tape(ops.in_place("index_put_", restored, order, joined))
    upcast = tape.cast(restored, 4)
    tape(ops.in_place("mul_", upcast, upcast, weights, vector_flops=upcast.elements))
    summed = tape.then_free(ops.reduction("sum", upcast, (tokens, width)), *([upcast] if upcast is not restored else []))
    out = tape.cast(summed, x.itemsize)
    tape.free(counts, totals, order, picked, joined, restored, *([summed] if out is not summed else []))
    return out
