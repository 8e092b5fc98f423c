"""The language model: a DeepSeek-V2-style decoder with plain multi-head attention and a mixture of experts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocr_flops.cost import ops
from ocr_flops.cost.blocks.attention import Kernel, Layout
from ocr_flops.cost.blocks.experts import Experts, route
from ocr_flops.cost.blocks.layers import concatenate_cache, gated_mlp, rms_norm, rotate, write_cache
from ocr_flops.cost.blocks.passes import ForwardPass
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.tape import Tape
from ocr_flops.spec.towers import DecoderSpec

if TYPE_CHECKING:
    from ocr_flops.cost.engines.base import Engine


@dataclass(frozen=True)
class Decoder:
    """What the language model executes in one forward pass."""

    tape: Tape
    spec: DecoderSpec
    engine: Engine
    kernel: Kernel
    forward: ForwardPass

    def embed(self) -> Tensor:
        """Records the token embedding: the rows gathered, not the table. Returns [batch, tokens, width]."""
        tape, spec, forward = self.tape, self.spec, self.forward
        with tape.module("decoder.embed"):
            index = tape.hold(forward.batch, forward.tokens, itemsize=ops.INDEX_BYTES)
            table = tape.weight(spec.vocabulary, spec.width)
            return tape(ops.gather("embedding", table, index, (forward.batch, forward.tokens, spec.width)))

    def record(self, embedded: Tensor, *made_of: Tensor) -> None:
        """Records everything from token embeddings to the choice of the next token.

        Args:
            embedded: [batch, tokens, width].
            made_of: what the engine's code keeps alive until the logits, beside the embeddings.
        """
        tape, spec, engine, forward = self.tape, self.spec, self.engine, self.forward
        with tape.module("decoder.attention"):
            mask, built = engine.build_masks(tape, self.kernel, forward)
            angles = engine.angles_of_pass(tape, spec.head_dim, forward)
        x = embedded
        first, dense, sparse = range(min(1, spec.dense_layers)), range(1, spec.dense_layers), range(spec.dense_layers, spec.layers)
        for layers, record_mlp in ((first, self._record_mlp), (dense, self._record_mlp), (sparse, self._record_experts)):
            if layers:  # the engines keep the embeddings alive to the end
                x = self._record_layers(x, layers, record_mlp, mask, angles, () if x is embedded else (x,))
        with tape.module("decoder.norm_residual"):
            normed = rms_norm(tape, x)
            tape.free(x, *angles, *built, embedded, *made_of)
        with tape.module("lm_head"):
            rows = normed.view(forward.batch, forward.logit_rows, spec.width)
            logits = tape(ops.linear(rows, tape.weight(spec.vocabulary, spec.width)))
            finished = engine.finish_logits(tape, logits)
            tape.free(normed)
            tape.free_copy(logits, finished)
            if engine.clones_logits:
                tape(ops.copy("clone", finished))

    def _record_layers(
        self, x: Tensor, layers: range, record_mlp: Callable, mask: Tensor | None, angles: tuple[Tensor, ...], replaced: tuple[Tensor, ...]
    ) -> Tensor:
        """Layers of one kind: norm, attention, residual, norm, MLP, residual; the result takes the place of `replaced`."""
        tape = self.tape
        with tape.module("decoder.norm_residual", layers):
            normed = rms_norm(tape, x)
        with tape.module("decoder.attention", layers):
            attended, kept = self._attend(normed, mask, angles)
            tape.free(normed)
        with tape.module("decoder.norm_residual", layers):
            residual = tape.then_free(ops.elementwise("add", x, attended), attended)
            normed = rms_norm(tape, residual)
        branch = record_mlp(normed, layers)
        tape.free(normed)
        with tape.module("decoder.norm_residual", layers):
            return tape.then_free(ops.elementwise("add", residual, branch), residual, branch, *kept, *replaced)

    def _attend(self, x: Tensor, mask: Tensor | None, angles: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Multi-head attention over the cache; also returns what stays alive until the layer ends."""
        tape, spec, engine, forward = self.tape, self.spec, self.engine, self.forward
        heads = (forward.batch, spec.heads, forward.tokens, spec.head_dim)
        query, key, value = (tape(ops.linear(x, tape.weight(spec.width, spec.width))).view(*heads) for _ in range(3))
        own_angles = engine.angles_of_layer(tape, spec.head_dim, forward)
        rotated_query, rotated_key = (rotate(tape, one, own_angles or angles) for one in (query, key))
        tape.free(query, key)
        cached_key, cached_value = self._update_cache(rotated_key, value)
        copies = forward.is_prefill and not forward.is_one
        copies_cached = copies and not engine.prefill_cache_is_contiguous
        layout = Layout((copies, copies_cached, copies_cached), transposes_output=forward.is_prefill, scale_name=engine.scale_name)
        out, local, kept = self.kernel.attend(tape, rotated_query, cached_key, cached_value, layout, mask)
        attended = tape.then_free(ops.linear(out.view(*x.shape), tape.weight(spec.width, spec.width)), out)
        tape.free(rotated_query, *own_angles, *local)
        return attended, engine.release(tape, "attention probabilities", *kept)

    def _update_cache(self, key: Tensor, value: Tensor) -> list[Tensor]:
        """Hands new keys and values [batch, heads, tokens, head_dim] to the cache and returns what attention reads; frees them."""
        tape, forward = self.tape, self.forward
        cached = []
        for fresh in (key, value):
            if forward.cache == "static":
                cached.append(write_cache(tape, fresh, forward.context))
            elif forward.is_prefill:
                cached.append(self.engine.fill_cache(tape, fresh))
            else:
                cached.append(concatenate_cache(tape, fresh, forward.context, forward.context - 1))
        tape.free(key, value)
        return cached

    def _record_mlp(self, x: Tensor, layers: range) -> Tensor:
        """The MLP of the first layers."""
        with self.tape.module("decoder.dense_mlp", layers):
            return self._mlp(x, self.spec.dense_width)

    def _mlp(self, x: Tensor, inner: int) -> Tensor:
        """SwiGLU; x stays alive."""
        return gated_mlp(self.tape, x, self.spec.width, inner)

    def _record_experts(self, x: Tensor, layers: range) -> Tensor:
        """Router, routed experts and shared experts."""
        tape, spec, tokens = self.tape, self.spec, self.forward.batch * self.forward.tokens
        rows, sizes = x.view(tokens, spec.width), Experts(spec.experts, spec.experts_per_token, spec.expert_width)
        with tape.module("decoder.router", layers):
            logits, weights, index = route(tape, sizes, rows)
        held = self.engine.release(tape, "router logits", logits)
        with tape.module("decoder.routed_experts", layers):
            routed = self.engine.run_experts(tape, sizes, rows, weights, index)
        with tape.module("decoder.shared_experts", layers):
            shared = self._mlp(x, spec.shared_experts * spec.expert_width)
            return tape.then_free(ops.elementwise("add", x.view(*x.shape), shared), routed, shared, weights, index, *held)
