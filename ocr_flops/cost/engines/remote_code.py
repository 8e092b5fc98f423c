"""The code published with DeepSeek-OCR's weights, as `generate` runs it under transformers 4.46.3, without autocast."""

from __future__ import annotations

from collections.abc import Sequence

from ocr_flops.cost import ops
from ocr_flops.cost.blocks import attention, layers
from ocr_flops.cost.blocks.passes import ForwardPass
from ocr_flops.cost.blocks.positions import look_up
from ocr_flops.cost.engines.base import Engine, Tensors
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.polynomial import Dimension
from ocr_flops.cost.tape import Tape
from ocr_flops.spec.towers import ClipSpec


class RemoteVision(Engine):
    """The vision towers as the published code executes them, and engines that took their code from it."""

    def arrange_side_biases(self, tape: Tape, sides: Tensors, gathered: Tensors) -> tuple[Tensors, Tensors]:
        """It makes both factors contiguous instead of their sum."""
        dense = tuple(tape.then_free(ops.copy("clone", side), side) for side in sides)
        tape.free(*gathered)
        return dense, ()

    def normalise_neck(self, tape: Tape, x: Tensor, width: int) -> Tensor:
        """LayerNorm2d, spelled out in elementwise operators."""
        images, _, side, _ = x.shape
        per_pixel = (images, 1, side, side)
        weight, bias = tape.weight(width), tape.weight(width)
        mean = tape(ops.reduction("mean", x, per_pixel))
        squares = tape(ops.elementwise("sub", x, mean))
        squares = tape.then_free(ops.elementwise("pow", squares), squares)
        variance = tape.then_free(ops.reduction("mean", squares, per_pixel), squares)
        centred = tape(ops.elementwise("sub", x, mean))
        shifted = tape(ops.elementwise("add", variance))
        deviation = tape.then_free(ops.elementwise("sqrt", shifted), shifted)
        normed = tape.then_free(ops.elementwise("div", centred, deviation), centred, deviation)
        scaled = tape(ops.elementwise("mul", weight, normed, shape=x.shape))
        return tape.then_free(ops.elementwise("add", scaled, bias), scaled, normed, mean, variance, x)

    def unused_clip_weights(self, spec: ClipSpec) -> Sequence[tuple[int, ...]]:
        """CLIP's own patch convolution, in whose place SAM's map comes."""
        return ((spec.width, spec.channels, spec.patch_px, spec.patch_px),)

    def clip_positions(self, tape: Tape, table: Tensor, class_row: Tensor) -> tuple[Tensor, Tensor, Tensors]:
        """It looks all positions up as an embedding, and makes those of patches contiguous."""
        tokens, width = table.shape
        looked_up = look_up(tape, table)
        return looked_up.view(1, width), tape(ops.copy("clone", looked_up.view(tokens - 1, width))), (looked_up,)

    def project_qkv(self, tape: Tape, x: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """One matrix product for all three."""
        together = self.clip_linear(tape, x, 3 * width)
        return together, together, together


class RemoteCode(RemoteVision, name="remote_code"):
    """What the published code executes."""

    named = frozenset({"side biases", "clip attention", "clip embeddings", "upcast positions", "encoder outputs"})
    scale_name = "div"
    encodes_page_by_page = True
    clones_logits = True  # transformers 4.46.3, generation/utils.py:3219

    def hand_on_map(self, tape: Tape, x: Tensor) -> Tensors:
        """It clones the map between the convolutions."""
        return x, tape(ops.copy("clone", x))

    def hold_inputs(self, tape: Tape, forward: ForwardPass) -> None:
        """Position ids, a padding mask and, in prefill, the places of image tokens."""
        tape.hold(forward.batch, forward.tokens, itemsize=ops.INDEX_BYTES)
        tape.hold(forward.batch, forward.context, itemsize=ops.INDEX_BYTES)
        if forward.is_prefill:
            tape.hold(forward.batch, forward.tokens, itemsize=1)

    def insert_features(self, tape: Tape, forward: ForwardPass, embedded: Tensor, features: Tensor) -> Tensors:
        """In place, page by page."""
        page, places = features.view(Dimension("image_tokens"), features.shape[1]), ops.new((forward.tokens, 1), 1)
        with tape.times(forward.batch):
            tape(ops.in_place("masked_scatter_", page, places, page))
        return (embedded,)

    def build_masks(self, tape: Tape, kernel: attention.Kernel, forward: ForwardPass) -> tuple[Tensor | None, Tensors]:
        """`_prepare_4d_causal_attention_mask` of 4.46: a lower-triangular mask plus the padding mask, one for each sequence."""
        if not kernel.reads_mask:
            return None, ()
        square = (forward.tokens, forward.context)
        batched = (forward.batch, *square)
        causal = None
        if forward.is_prefill:
            filled = tape(ops.create("full", (forward.tokens, forward.tokens), 4))  # in torch's default precision
            index = tape(ops.create("arange", (forward.tokens,), ops.INDEX_BYTES))
            shifted = tape(ops.elementwise("add", index))
            below = tape.then_free(ops.elementwise("lt", index, shifted, shape=square, itemsize=1), shifted)
            tape(ops.in_place("masked_fill_", filled, filled, below, vector_flops=filled.elements))
            tape.free(below)
            causal = tape.cast(filled, tape.itemsize)
            tape.free(index)
            tape.free_copy(filled, causal)
        attend = ops.new((forward.batch, forward.context), ops.INDEX_BYTES)
        padding = tape(ops.copy("_to_copy", attend, shape=batched, itemsize=tape.itemsize))
        inverted = tape(ops.elementwise("rsub", padding))
        blocked = tape(ops.copy("_to_copy", inverted, itemsize=1))
        mask = tape.then_free(ops.elementwise("masked_fill", inverted, blocked), padding, inverted, blocked)
        if causal is not None:
            hidden = tape(ops.copy("_to_copy", mask, itemsize=1))
            mask = tape.then_free(ops.elementwise("masked_fill", causal, hidden, shape=batched), hidden, mask, causal)
        return mask, (mask,)

    def angles_of_pass(self, tape: Tape, head_dim: int, forward: ForwardPass) -> Tensors:
        """None: every layer computes its own."""
        return ()

    def angles_of_layer(self, tape: Tape, head_dim: int, forward: ForwardPass) -> Tensors:
        """Angles as a matrix product, 2·head_dim/2·tokens FLOPs a sequence."""
        half = head_dim // 2
        index = ops.new((forward.batch, forward.tokens), ops.INDEX_BYTES)
        positions = tape(ops.copy("_to_copy", index, itemsize=4)).view(forward.batch, 1, forward.tokens)
        frequencies = tape.buffer(half, itemsize=4)
        product = ops.matmul(frequencies.view(forward.batch, half, 1), positions)
        product.reads = (frequencies, positions)  # which all sequences share
        angles = tape(product)
        doubled = tape(ops.copy("cat", angles, angles, shape=(forward.batch, forward.tokens, head_dim)))
        both = [tape(ops.elementwise(function, doubled)) for function in ("cos", "sin")]
        return layers.scale_and_cast(tape, both, positions, angles, doubled)

    def finish_logits(self, tape: Tape, logits: Tensor) -> Tensor:
        """Logits are cast to fp32; within `forward` they are alive in both precisions."""
        return tape.cast(logits, 4)
