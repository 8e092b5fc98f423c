"""The language model as engines that serve run it: fused kernels over the rows of all sequences, and a cache in blocks."""

from dataclasses import dataclass

from ocr_flops.cost import ops
from ocr_flops.cost.blocks import fused
from ocr_flops.cost.blocks.attention import Layout
from ocr_flops.cost.blocks.experts import Experts
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.polynomial import Dim
from ocr_flops.cost.towers.decoder import Decoder


@dataclass(frozen=True)
class FusedDecoder(Decoder):
    """What the language model executes in one forward pass; the engine is a `Vllm`.

    All rows of a pass run together; only attention knows which sequence a row is of.
    """

    @property
    def rows(self) -> Dim:
        """Tokens of the pass, all sequences together."""
        return self.forward.batch * self.forward.tokens

    def embed(self) -> Tensor:
        """Records the token embedding of all rows: [rows, width]."""
        tape, spec = self.tape, self.spec
        with tape.module("decoder.embed"):
            index = tape.hold(self.rows, itemsize=ops.INDEX_BYTES)
            table = tape.weight(spec.vocabulary, spec.width)
            embedded = tape(ops.gather("embedding", table, index, (self.rows, spec.width)))
            self.engine.copy_embeddings(tape, embedded)
            return embedded

    def record(self, embedded: Tensor, *made_of: Tensor) -> None:
        """Records everything from the embeddings [rows, width] to the token sampled for each sequence."""
        tape, spec, engine, forward = self.tape, self.spec, self.engine, self.forward
        with tape.module("decoder.attention"):
            for _ in range(2):  # positions, and slots of the cache
                tape.hold(self.rows, itemsize=ops.INDEX_BYTES)
            mask, built = engine.build_masks(tape, self.kernel, forward)
        residual = embedded
        dense, sparse = range(spec.dense_layers), range(spec.dense_layers, spec.layers)
        branch = None
        for layers in (range(1), dense[1:], sparse if dense else sparse[1:]):
            if layers:
                record_mlp = self._record_mlp if layers[0] in dense else self._record_experts
                with tape.module("decoder.norm_residual", layers):
                    normed = fused.norm(tape, residual) if branch is None else fused.add_and_norm(tape, branch, residual)
                attended = self._attend_rows(normed, layers, mask)
                with tape.module("decoder.norm_residual", layers):
                    normed = fused.add_and_norm(tape, attended, residual)
                branch = record_mlp(normed, layers)
                tape.free(normed)
        with tape.module("decoder.norm_residual"):
            normed = fused.add_and_norm(tape, branch, residual)
            tape.free(residual, *made_of, *built)
        self._sample(normed)

    def _attend_rows(self, x: Tensor, layers: range, mask: Tensor | None) -> Tensor:
        """Attention of x [rows, width], which ends, over the cache that takes their keys and values first."""
        tape, spec, engine, forward = self.tape, self.spec, self.engine, self.forward
        with tape.module("decoder.attention", layers):
            together = engine.decoder_linear(tape, x, 3 * spec.width)
            tape.free(x)
            query, key, value = (together.view(self.rows, spec.width) for _ in range(3))
            fused.rotate_in_place(tape, query, key, spec.head_dim)
            itemsize = engine.cache_itemsize(tape)
            fused.write_paged_cache(tape, key, value, itemsize)
            shown = together.view(forward.batch, spec.heads, forward.tokens, spec.head_dim)
            cached = (ops.new((forward.batch, spec.heads, forward.context, spec.head_dim), itemsize, "cache") for _ in range(2))
            out, local, probabilities = self.kernel.attend(tape, shown, *cached, Layout((False,) * 3, False), mask)
            if not forward.is_prefill:
                out = engine.combine_splits(tape, out)
            tape.free(together, *local, *probabilities)
            projected = engine.decoder_linear(tape, out.view(self.rows, spec.width), spec.width)
            tape.free(out)
            return projected

    def _mlp(self, x: Tensor, inner: int) -> Tensor:
        """SwiGLU with gate and up as one product; x stays alive."""
        tape, engine = self.tape, self.engine
        active = fused.silu_and_mul(tape, engine.decoder_linear(tape, x, 2 * inner))
        out = engine.decoder_linear(tape, active, self.spec.width)
        tape.free(active)
        return out

    def _record_experts(self, x: Tensor, layers: range) -> Tensor:
        """Router in the model's precision, routed experts, shared experts as one MLP, and their sum."""
        tape, spec, engine = self.tape, self.spec, self.engine
        sizes = Experts(spec.experts, spec.experts_per_token, spec.expert_width)
        with tape.module("decoder.router", layers):
            logits = tape(ops.linear(x, tape.weight(spec.experts, spec.width)))
            weights, index = engine.choose_experts(tape, sizes, logits)
        with tape.module("decoder.routed_experts", layers):
            routed = engine.run_fused_experts(tape, sizes, x, weights, index, self.forward.is_prefill)
            tape.free(weights, index)
        with tape.module("decoder.shared_experts", layers):
            shared = self._mlp(x, spec.shared_experts * spec.expert_width)
            return tape.then_free(ops.elementwise("add", routed, shared), routed, shared)

    def _sample(self, x: Tensor) -> None:
        """Logits of the rows that are sampled, and the most likely token of each; x [rows, width] ends."""
        tape, spec, forward = self.tape, self.spec, self.forward
        with tape.module("lm_head"):
            sampled = forward.batch * forward.logit_rows
            index = ops.new((sampled,), ops.INDEX_BYTES)
            rows = tape.then_free(ops.gather("index", x, index, (sampled, spec.width)), x)
            logits = tape.then_free(ops.linear(rows, tape.weight(spec.vocabulary, spec.width)), rows)
            upcast = tape.cast(logits, 4)
            tape.free_copy(logits, upcast)
            tape.free(tape.then_free(ops.reduction("argmax", upcast, (sampled,), ops.INDEX_BYTES), upcast))
