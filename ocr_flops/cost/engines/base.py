"""The plain way to run a model; what an engine does differently, its subclass overrides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ocr_flops.cost import ops
from ocr_flops.cost.blocks import attention, experts, layers, positions
from ocr_flops.cost.blocks.passes import ForwardPass
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.registry import Registry
from ocr_flops.cost.tape import Tape
from ocr_flops.cost.towers.decoder import Decoder
from ocr_flops.spec.specs import EngineSpec
from ocr_flops.spec.towers import ClipSpec, DecoderSpec
from ocr_flops.spec.workload import Column

Tensors = tuple[Tensor, ...]


class Engine:
    """What a piece of software executes. A subclass is defined with its name, `class Mine(Engine, name="mine")`, and found by it.

    Attributes:
        named: intermediates that the engine's code holds by a name until the function that makes them returns; others end their life with
            their last use. They are named in the calls of `release`. This decides peaks, not work.
        experts: how routed experts run, as records of measurements name it.
        scale_name: the operator that scales the language model's eager scores, "mul" or "div".
        encodes_page_by_page: whether vision encodes one page after the other, its tiles before its global view; otherwise all global views
            of a batch are one pass, and all tiles another.
        prefill_cache_is_contiguous: whether attention in prefill reads keys and values as the cache laid them out for it.
        clones_logits: whether `generate` clones all logits that `forward` returned; the clone lives until that of the next pass is made.
        image_views: the order of "global" and "tiles" in an engine that serves: it encodes one image after the other before the pass of
            the language model that takes them in, and frees what it made of pixels. Empty where vision and prefill are one call.
        decoder: what records the language model.
    """

    named: frozenset[str] = frozenset()
    experts = "loop"
    scale_name = "mul"
    encodes_page_by_page = False
    prefill_cache_is_contiguous = False
    clones_logits = False
    image_views: tuple[str, ...] = ()
    decoder: Any = Decoder

    def __init_subclass__(cls, name: str = "") -> None:
        if name:
            ENGINES.add(name, cls())

    def with_options(self, spec: EngineSpec) -> Engine:
        """The engine as a config sets it, where it has options."""
        return self

    def release(self, tape: Tape, name: str, *tensors: Tensor) -> Tensors:
        """Ends the life of intermediates after their last use, unless the engine's code holds them by a name: those are returned, for the
        caller to free where the code's function returns."""
        if name in self.named:
            return tensors
        tape.free(*tensors)
        return ()

    # Vision

    def pad_windows(self, tape: Tape, x: Tensor, padded: tuple) -> Tensor:
        """A grid of patches [images, side, side, width] as a whole number of windows; x itself where it is one."""
        return x if x.shape == padded else tape(ops.copy("constant_pad_nd", x, shape=padded))

    def resize_relative(self, tape: Tape, table: Tensor, rows: int) -> Tensor:
        """Relative positions [trained rows, d] for another size of square, interpolated in fp32: [rows, d]."""
        return table if rows == table.shape[0] else positions.resize_relative(tape, table, rows, 4)

    def arrange_side_biases(self, tape: Tape, sides: Tensors, gathered: Tensors) -> tuple[Tensors, Tensors]:
        """The factors of SAM's relative-position bias in the layout that the code wants, and what else stays alive beside them.

        Args:
            sides: the factors [batch, heads, n, side], freed here where others take their place.
            gathered: the positions that they were made of.
        """
        return sides, gathered

    def arrange_bias(self, tape: Tape, bias: Tensor, sides: Tensors, gathered: Tensors) -> tuple[Tensor, Tensors]:
        """The bias [batch, heads, n, n] in the layout that the code wants, and what stays alive beside it."""
        tape.free(*gathered)
        return bias, self.release(tape, "side biases", *sides)

    def normalise_neck(self, tape: Tape, x: Tensor, width: int) -> Tensor:
        """LayerNorm over the channels of SAM's map [images, width, side, side]; frees x."""
        images, _, side, _ = x.shape
        out = tape(ops.layer_norm(x.view(images, side, side, width), tape.weight(width), tape.weight(width)), keep=1)
        tape.free(x)
        return out.view(*x.shape)

    def hand_on_map(self, tape: Tape, x: Tensor) -> Tensors:
        """SAM's map between its last two convolutions, as the second reads it, last of what stays alive until that has run."""
        return (x,)

    def unused_clip_weights(self, spec: ClipSpec) -> Sequence[tuple[int, ...]]:
        """Shapes of CLIP's parameters that no operator reads."""
        return ()

    def clip_positions(self, tape: Tape, table: Tensor, class_row: Tensor) -> tuple[Tensor, Tensor, Tensors]:
        """CLIP's position table [trained² + 1, width] as it is resized.

        Returns:
            the class token's row, the table as resizing reads it, and what stays alive beside them.
        """
        return class_row, table, ()

    def project_qkv(self, tape: Tape, x: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """CLIP's projections of x [images, tokens, width] to query, key and value."""
        query, key, value = (self.clip_linear(tape, x, width) for _ in range(3))
        return query, key, value

    def clip_linear(self, tape: Tape, x: Tensor, features_out: int) -> Tensor:
        """A linear layer of CLIP with its bias; x stays alive."""
        return tape(ops.linear(x, tape.weight(features_out, x.shape[-1]), tape.weight(features_out)))

    def quick_gelu(self, tape: Tape, x: Tensor) -> Tensor:
        """x·sigmoid(1.702·x) as three operators; x ends."""
        scaled = tape(ops.elementwise("mul", x))
        gate = tape.then_free(ops.activation("sigmoid", scaled), scaled)
        return tape.then_free(ops.elementwise("mul", x, gate), x, gate)

    def receive_images(self, tape: Tape, pixels: Tensor, *tiles: Tensor) -> None:
        """What an engine that serves does with a batch's pixels before it encodes the first image."""

    def join_tokens(self, tape: Tape, tokens: Tensor) -> None:
        """What an engine that serves does with the tokens of a batch's images after the last one."""

    # The language model

    def dimensions(self, spec: DecoderSpec, tokens: Column) -> dict[str, Column]:
        """Values of the symbolic dimensions that this engine's operators have beside those of all, in a pass over so many tokens."""
        return {}

    def cached_tokens(self, tokens: Column) -> Column:
        """Tokens of cache that a sequence of so many takes."""
        return tokens

    def hold_inputs(self, tape: Tape, forward: ForwardPass) -> None:
        """Holds what the language model is handed besides token ids and image features."""

    def insert_features(self, tape: Tape, forward: ForwardPass, embedded: Tensor, features: Tensor) -> Tensors:
        """Puts image features [batch · image tokens, width] among the token embeddings [batch, tokens, width].

        Returns the embeddings, then what stays alive beside them until the logits.
        """
        places = tape(ops.elementwise("eq", ops.new((forward.batch, forward.tokens), ops.INDEX_BYTES), itemsize=1))
        out = tape.then_free(ops.copy("masked_scatter", embedded, places, features), embedded)
        return out, places

    def build_masks(self, tape: Tape, kernel: attention.Kernel, forward: ForwardPass) -> tuple[Tensor | None, Tensors]:
        """Records the masks built before the first layer.

        Returns:
            the additive causal mask [batch, tokens, context] for kernels that read one (else None), and everything that stays alive.
        """
        if not kernel.reads_mask:
            return None, ()
        queries, keys = (attention.count_positions(tape, length) for length in (forward.tokens, forward.context))
        allowed = attention.allow_causal(tape, queries, keys)
        tape.free(queries, keys)
        mask = attention.to_additive(tape, forward, allowed)
        return mask, (mask,)

    def angles_of_pass(self, tape: Tape, head_dim: int, forward: ForwardPass) -> Tensors:
        """Cosines and sines of the rotary embedding, for all layers; empty where every layer computes its own."""
        return layers.rotary_angles(tape, head_dim, forward)

    def angles_of_layer(self, tape: Tape, head_dim: int, forward: ForwardPass) -> Tensors:
        """Cosines and sines that a layer computes for itself, where those of the pass are empty."""
        return ()

    def fill_cache(self, tape: Tape, fresh: Tensor) -> Tensor:
        """Keys or values of prefill [batch, heads, tokens, head_dim] in a dynamic cache, which takes the tensor itself."""
        return ops.new(fresh.shape, fresh.itemsize, "cache")

    def run_experts(self, tape: Tape, sizes: experts.Experts, x: Tensor, weights: Tensor, index: Tensor) -> Tensor:
        """Routed experts over x [tokens, width], which stays alive."""
        return experts.run_looped(tape, sizes, x, weights, index)

    def finish_logits(self, tape: Tape, logits: Tensor) -> Tensor:
        """Logits in the precision that is handed on."""
        return logits


ENGINES: Registry[Engine] = Registry("engine", "ocr_flops.cost.engines")
