"""SAM ViT-B: windowed and global attention with decomposed relative positions, a neck, and two stride-2 convolutions."""

from collections.abc import Sequence
from dataclasses import dataclass

from ocr_flops.cost import ops
from ocr_flops.cost.blocks import positions
from ocr_flops.cost.blocks.attention import Kernel
from ocr_flops.cost.blocks.passes import Grid, View
from ocr_flops.cost.engines.base import Engine
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.tape import Tape
from ocr_flops.spec.towers import SamSpec

WINDOWED, GLOBAL = "sam.attention_windowed", "sam.attention_global"


@dataclass(frozen=True)
class Sam:
    """What SAM executes in one pass."""

    tape: Tape
    spec: SamSpec
    engine: Engine
    kernel: Kernel
    view: View

    @property
    def side(self) -> int:
        """Patches along a side of the view."""
        return self.view.px // self.spec.patch_px

    @property
    def trained(self) -> int:
        """Patches along a side of the view that the position tables were trained for."""
        return self.spec.image_px // self.spec.patch_px

    def record(self, pixels: Tensor) -> Tensor:
        """Records the pass over pixels [images, channels, px, px].

        Returns the feature map [images, downsample_widths[-1], q, q], q = ceil(px / 64).
        """
        spec = self.spec
        x = self._embed_patches(pixels)
        kinds = [GLOBAL if layer in spec.global_layers else WINDOWED for layer in range(spec.layers)]
        for kind in dict.fromkeys(kinds):
            layers = [layer for layer, of in enumerate(kinds) if of == kind]
            # The addition that ends a layer belongs to the block it feeds: the next layer's attention, or the neck.
            feeds: dict[str, list[int]] = {}
            for following in (layer + 1 for layer in layers):
                if following < spec.layers:
                    feeds.setdefault(kinds[following], []).append(following)
                else:
                    feeds["sam.neck"] = []
            x = self._record_layers(x, kind, layers, feeds)
        return self._record_neck(x)

    def _embed_patches(self, pixels: Tensor) -> Tensor:
        """Patch embedding plus absolute positions, interpolated unless the view has the size they were trained for."""
        tape, spec, side = self.tape, self.spec, self.side
        with tape.module("sam.patch"):
            weight = tape.weight(spec.width, spec.channels, spec.patch_px, spec.patch_px)
            patches = tape(ops.convolution(pixels, weight, tape.weight(spec.width), side)).view(self.view.images, side, side, spec.width)
            table = tape.weight(1, self.trained, self.trained, spec.width)
            if side != self.trained:
                table, held = positions.resize_absolute(tape, self.engine, tape.cast(table, 4), side)
                tape.free(*held)
            return tape.then_free(ops.elementwise("add", patches, table), patches, table)

    def _record_layers(self, x: Tensor, kind: str, layers: Sequence[int], feeds: dict[str, list[int]]) -> Tensor:
        """All layers of one kind: norm, attention, residual, norm, MLP, residual."""
        tape, spec = self.tape, self.spec
        with tape.module(kind, layers):
            normed = tape(ops.layer_norm(x, tape.weight(spec.width), tape.weight(spec.width)), keep=1)
            if kind == WINDOWED:
                attended, kept = self._attend_in_windows(normed)
            else:
                attended, kept = self._attend(Grid(self.view.images, self.side, self.view.is_one), normed, self.trained)
                tape.free(normed)
        with tape.module("sam.mlp", layers):
            residual = tape.then_free(ops.elementwise("add", x, attended), attended)
            normed = tape(ops.layer_norm(residual, tape.weight(spec.width), tape.weight(spec.width)), keep=1)
            inner = tape(ops.linear(normed, tape.weight(spec.mlp_width, spec.width), tape.weight(spec.mlp_width)))
            active = tape.then_free(ops.activation("gelu", inner), inner)
            branch = tape.then_free(ops.linear(active, tape.weight(spec.width, spec.mlp_width), tape.weight(spec.width)), active)
        held = self.engine.release(tape, "sam mlp input", normed)
        return tape.then_free(ops.elementwise("add", residual, branch), residual, branch, x, *kept, *held, feeds=feeds)

    def _attend_in_windows(self, normed: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Pads the grid to whole windows, attends inside each, and puts the picture together again without the padding; frees its input.

        Returns the picture [images, side, side, width] and the tensors that stay alive until the layer ends.
        """
        tape, view, window, width = self.tape, self.view, self.spec.window, self.spec.width
        per_side = -(-self.side // window)
        several, padded = per_side > 1, (view.images, per_side * window, per_side * window, width)
        x = self.engine.pad_windows(tape, normed, padded)
        if several:
            windows = tape(ops.copy("clone", x))
            tape.free_copy(x, normed)
            x = windows
        tape.free_copy(normed, x)
        grid = Grid(view.images * per_side**2, window, view.is_one and not several)
        attended, kept = self._attend(grid, x.view(grid.batch, window, window, width), window)
        tape.free(x)
        picture = tape(ops.copy("clone", attended, shape=padded)) if several else attended.view(*padded)
        if padded != normed.shape:
            whole, picture = picture, tape(ops.copy("clone", picture.view(*normed.shape)))
            tape.free_copy(whole, attended)
        tape.free_copy(attended, picture)
        return picture, kept

    def _attend(self, grid: Grid, x: Tensor, trained: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Attention with decomposed relative positions over each square of `grid`.

        Args:
            x: [batch, side, side, width].
            trained: side in patches that the relative-position tables were trained for.

        Returns:
            the output, shaped as x, and the tensors that stay alive until the layer ends.
        """
        tape, spec, head_dim = self.tape, self.spec, self.spec.head_dim
        projected = tape(ops.linear(x, tape.weight(3 * spec.width, spec.width), tape.weight(3 * spec.width)))
        qkv = projected if grid.is_one else tape(ops.copy("clone", projected))
        heads = qkv.view(grid.batch, spec.heads, grid.side**2, head_dim)
        tables = tape.weight(2 * trained - 1, head_dim), tape.weight(2 * trained - 1, head_dim)
        relative = positions.RelativePositions(self.engine, grid, tables)
        out, local, kept = self.kernel.attend_with_positions(tape, heads, heads, heads, relative)
        attended = tape.then_free(ops.linear(out.view(*x.shape), tape.weight(spec.width, spec.width), tape.weight(spec.width)), out)
        tape.free(projected, *local)
        tape.free_copy(qkv, projected)
        return attended, kept

    def _record_neck(self, x: Tensor) -> Tensor:
        """1x1 and 3x3 convolutions with norms, then two stride-2 convolutions down to one query per 64 px."""
        tape, spec, side, neck = self.tape, self.spec, self.side, self.spec.neck_width
        half, (first, second) = -(-side // 2), spec.downsample_widths
        with tape.module("sam.neck"):
            picture = x.view(self.view.images, spec.width, side, side)
            narrow = tape(ops.convolution(picture, tape.weight(neck, spec.width, 1, 1), None, side))
            normed = self.engine.normalise_neck(tape, narrow, neck)
            mixed = tape.then_free(ops.convolution(normed, tape.weight(neck, neck, 3, 3), None, side), normed)
            normed = self.engine.normalise_neck(tape, mixed, neck)
            tape.free(x)
            maps = self.engine.hand_on_map(tape, tape(ops.convolution(normed, tape.weight(first, neck, 3, 3), None, half)))
            return tape.then_free(ops.convolution(maps[-1], tape.weight(second, first, 3, 3), None, -(-half // 2)), normed, *maps)
