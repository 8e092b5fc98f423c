"""CLIP-L: a plain vision transformer over SAM's feature map, which serves as its patch embeddings."""

from dataclasses import dataclass

from ocr_flops.cost import ops
from ocr_flops.cost.blocks import positions
from ocr_flops.cost.blocks.attention import Kernel, Layout
from ocr_flops.cost.blocks.passes import View
from ocr_flops.cost.engines.base import Engine
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.tape import Tape
from ocr_flops.spec.towers import ClipSpec


@dataclass(frozen=True)
class Clip:
    """What CLIP executes in one pass."""

    tape: Tape
    spec: ClipSpec
    engine: Engine
    kernel: Kernel
    view: View

    def record(self, feature_map: Tensor) -> Tensor:
        """Records the pass over SAM's feature map [images, width, q, q], which stays alive.

        Returns hidden states [images, q² + 1, width], class token first.
        """
        x, *held = self._embed(feature_map)
        first_input = x
        # The engines' code keeps the first layer's input to the end; in all later layers it lives beside their own.
        for layers in (range(1), range(1, self.spec.layers)):
            if layers:
                x = self._record_layers(x, layers, keeps_input=x is first_input)
        self.tape.free(first_input, *held)
        return x

    def _embed(self, feature_map: Tensor) -> tuple[Tensor, ...]:
        """Class token and SAM's features, plus positions, plus a norm; also returns what stays alive beside the result to the end."""
        tape, spec, view = self.tape, self.spec, self.view
        side, trained = feature_map.shape[-1], spec.image_px // spec.patch_px
        with tape.module("clip.embed"):
            for shape in self.engine.unused_clip_weights(spec):
                tape.weight(*shape)
            class_token, table = tape.weight(1, spec.width), tape.weight(trained**2 + 1, spec.width)
            patches = feature_map.view(view.images, side**2, spec.width)
            embedded = tape(ops.copy("cat", class_token, patches, shape=(view.images, side**2 + 1, spec.width)))
            added = positions.look_up(tape, table) if side == trained else self._resize_positions(table, side, class_token)
            summed = tape.then_free(ops.elementwise("add", embedded, added), embedded, added)
            normed = tape(ops.layer_norm(summed, tape.weight(spec.width), tape.weight(spec.width)), keep=1)
            return normed, *self.engine.release(tape, "clip embeddings", summed)

    def _resize_positions(self, table: Tensor, side: int, class_token: Tensor) -> Tensor:
        """The position table for a view of side x side queries, with the class token's row first: [1, side² + 1, width]."""
        tape, width, trained = self.tape, self.spec.width, self.spec.image_px // self.spec.patch_px
        class_row, rows, held = self.engine.clip_positions(tape, table, class_token)
        upcast = tape.cast(rows.view(1, trained, trained, width), 4)
        tape.free_copy(rows, upcast)
        resized, upcast_held = positions.resize_absolute(tape, self.engine, upcast, side)
        joined = ops.copy("cat", class_row, resized.view(1, side**2, width), shape=(1, side**2 + 1, width))
        return tape.then_free(joined, resized, *held, *upcast_held)

    def _record_layers(self, x: Tensor, layers: range, keeps_input: bool) -> Tensor:
        """Layers that run at the same cost: norm, attention, residual, norm, MLP, residual."""
        tape, spec = self.tape, self.spec
        with tape.module("clip.attention", layers):
            normed = tape(ops.layer_norm(x, tape.weight(spec.width), tape.weight(spec.width)), keep=1)
            attended, kept = self._attend(normed)
            tape.free(normed)
        with tape.module("clip.mlp", layers):
            residual = tape(ops.elementwise("add", x, attended))
            held = self.engine.release(tape, "clip attention", attended)
            normed = tape(ops.layer_norm(residual, tape.weight(spec.width), tape.weight(spec.width)), keep=1)
            branch = self._record_mlp(normed)
            tape.free(normed)
        # The addition that ends a layer belongs to the block it feeds: the next layer's attention, or the projector.
        feeds: dict[str, list[int]] = {}
        if following := [layer + 1 for layer in layers if layer + 1 < spec.layers]:
            feeds["clip.attention"] = following
        if layers[-1] + 1 == spec.layers:
            feeds["projector"] = []
        added = ops.elementwise("add", residual, branch)
        return tape.then_free(added, residual, branch, *kept, *held, *([] if keeps_input else [x]), feeds=feeds)

    def _attend(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Multi-head attention over the tokens of each view; also returns what stays alive until the layer ends."""
        tape, spec = self.tape, self.spec
        heads = (self.view.images, spec.heads, x.shape[1], spec.head_dim)
        projections = self.engine.project_qkv(tape, x, spec.width)
        query, key, value = (projected.view(*heads) for projected in projections)
        layout = Layout(copies=(not self.view.is_one,) * 3)
        out, local, kept = self.kernel.attend(tape, query, key, value, layout)
        projected = self.engine.clip_linear(tape, out.view(*x.shape), spec.width)
        tape.free(out, *local, *dict.fromkeys(projections))
        return projected, kept

    def _record_mlp(self, x: Tensor) -> Tensor:
        """Two linear layers around quick GELU."""
        tape, spec = self.tape, self.spec
        active = self.engine.quick_gelu(tape, self.engine.clip_linear(tape, x, spec.mlp_width))
        branch = self.engine.clip_linear(tape, active, spec.width)
        tape.free(active)
        return branch
