"""DeepSeek-OCR, of any dimensions: SAM and CLIP over a page's global view and its tiles, a projector, and a decoder with experts."""

from __future__ import annotations

from dataclasses import dataclass

from ocr_flops.cost import ops
from ocr_flops.cost.blocks.experts import expert_dimensions
from ocr_flops.cost.blocks.passes import ForwardPass, View
from ocr_flops.cost.models.base import LeastWork, Pipeline
from ocr_flops.cost.models.least_work import least_language_model, least_vision
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.polynomial import Dim, Dimension
from ocr_flops.cost.run_config import RunConfig
from ocr_flops.cost.tape import Tape
from ocr_flops.cost.towers.clip import Clip
from ocr_flops.cost.towers.projector import record_projector
from ocr_flops.cost.towers.sam import Sam
from ocr_flops.spec.specs import CALL, ModelSpec
from ocr_flops.spec.tiling import queries
from ocr_flops.spec.workload import Column, Workload

Tensors = tuple[Tensor, ...]
WITH_VISION = ("vision", CALL)  # stages that encode images

BATCH, TOKENS, CONTEXT, IMAGE_TOKENS = (Dimension(name) for name in ("batch", "tokens", "context", "image_tokens"))
TILES = Dimension("tiles")  # of a page
TILE_QUERIES, TILE_ROWS = Dimension("tile_queries"), Dimension("tile_rows")  # queries of a page's tiles, and rows of queries
# The same as TILE_QUERIES, and 1, where rows of queries must be gathered from several tiles, as there are several columns of tiles of
# several queries a side; else 0.
GATHERED_QUERIES, GATHERS = Dimension("gathered_queries"), Dimension("gathers")
LOGIT_ROWS_BEFORE = Dimension("logit_rows_before")  # of the pass before a decode step, a sequence


@dataclass(frozen=True)
class Vision:
    """Everything between pixels and image tokens: a batch's views encoded in passes, and the tokens of each page assembled from them.

    Args:
        is_one: whether the batch is a single page.
        global_px, tile_px: sides of the views in pixels; tile_px 0 where there are no tiles.
    """

    tape: Tape
    config: RunConfig
    is_one: bool
    global_px: int
    tile_px: int

    @property
    def width(self) -> int:
        """Width of an image token."""
        return self.config.model.tower("projector").output_width

    @property
    def global_tokens(self) -> int:
        """Tokens of the global view, a newline after each of its rows of queries included."""
        side = queries(self.global_px)
        return side * (side + 1)

    @property
    def tile_tokens(self) -> Dim:
        """Tokens of a page's tiles, newlines included; 0 where there are none."""
        return TILE_QUERIES + TILE_ROWS if self.tile_px else 0

    @property
    def page_tokens(self) -> Dim:
        """Tokens of a page, the separator included."""
        return self.tile_tokens + self.global_tokens + 1

    def encode(self, pages: Tensor, tiles: Tensor | None, in_call: bool = False) -> Tensors:
        """Records everything from pixels to the tokens of each page.

        Args:
            pages, tiles: the pixels, of `hold_pixels`.
            in_call: whether the language model follows in the same call, which takes each page's tokens as they are made.

        Returns:
            in such a call the image features that the language model reads, then what ends its life before the logits.
        """
        engine = self.config.engine_code
        if engine.image_views and not self.config.engine.packs_images:
            return self._encode_image_by_image(pages, tiles)
        one_by_one = engine.encodes_page_by_page
        return (self._encode_page_by_page if one_by_one else self._encode_batch)(pages, tiles, in_call)

    def _encode_batch(self, pages: Tensor, tiles: Tensor | None, in_call: bool) -> Tensors:
        """All global views in one pass, all tiles in another, then the tokens of every page: rows of queries with a newline after each,
        tiles first, then the global view and a separator."""
        tape, width, before = self.tape, self.width, self.tape.live
        features = self.encode_view(View(self.global_px, BATCH, self.is_one), pages)
        tiled = None if tiles is None else self.encode_view(View(self.tile_px, BATCH * TILES, False), tiles)
        with tape.module("merge"):
            newline, separator = tape.weight(width), tape.weight(width)
            tape.hold((BATCH - 1) * self.page_tokens, width)  # the pages before the last one
            with tape.times(BATCH):
                page = features.view(queries(self.global_px) ** 2, width)
                lines = [tape(ops.copy("cat", page, newline, shape=(self.global_tokens, width)))]
                if tiled is not None:
                    previous = [] if self.is_one else [tape.hold(self.tile_tokens, width)]  # the page before, until it is replaced
                    gathered = self._gather_rows()
                    flat = ops.copy("cat", tiled.view(TILE_QUERIES, width), newline, shape=(self.tile_tokens, width))
                    lines.insert(0, tape.then_free(flat, gathered, *previous))
                tape(ops.copy("cat", *lines, separator, shape=(self.page_tokens, width)))
        tape.live = before  # what is returned outlives the function: all pages' tokens, and what the projector read
        tokens = tape.hold(BATCH * self.page_tokens, width)
        queried = BATCH * (queries(self.global_px) ** 2 + (TILE_QUERIES if self.tile_px else 0))
        joined = tape.hold(queried, self.config.model.tower("projector").input_width)
        return tokens, *self.config.engine_code.release(tape, "projector input", joined)

    def _encode_page_by_page(self, pages: Tensor, tiles: Tensor | None, in_call: bool) -> Tensors:
        """The published code's loop over pages, which sums pixels to tell whether there are any, and names what it makes: all of it lives
        until the next page's takes its place, or to the end."""
        tape, width, before = self.tape, self.width, self.tape.live
        page = pages.view(1, *pages.shape[1:])
        cuts = page.view(0) if tiles is None else tiles.view(TILES, *tiles.shape[1:])
        with tape.module("merge"):
            self._sum_pixels(page)
        held_tokens, held = (), {}
        if not self.is_one:
            if not in_call:
                tape.hold((BATCH - 1) * self.page_tokens, width)
            held_tokens, held = (tape.hold(self.page_tokens, width),), self._hold_page_before()
        with tape.times(BATCH):
            with tape.module("merge"):
                self._sum_pixels(cuts)
            tiled = None if tiles is None else self.encode_view(View(self.tile_px, TILES, False), cuts, held.get("tiles"))
            features = self.encode_view(View(self.global_px, 1, True), page, held.get("global"))
            with tape.module("merge"):
                newline, separator = tape.weight(width), tape.weight(width)
                lines = [tape.then_free(ops.copy("cat", features, newline, shape=(self.global_tokens, width)), features)]
                if tiled is not None:
                    tape.free(self._gather_rows())  # or, where it is not gathered but viewed otherwise, the features themselves
                    flat = ops.copy("cat", tiled.view(TILE_QUERIES, width), newline, shape=(self.tile_tokens, width))
                    lines.insert(0, tape.then_free(flat, tiled))
                together = tape.then_free(ops.copy("cat", *lines, separator, shape=(self.page_tokens, width)), *held_tokens)
                tokens = tape(ops.copy("cat", together))
        return tokens, ops.new((tape.live - before,), 1)  # names of the last page, its tokens among them

    def _encode_image_by_image(self, pages: Tensor, tiles: Tensor | None) -> Tensors:
        """The loop over images of engines that serve: of each its global view and its tiles as a pass each, in the engine's order, then its
        tokens. What a view leaves besides its features ends with it."""
        tape, width, engine = self.tape, self.width, self.config.engine_code
        page = pages.view(1, *pages.shape[1:])
        cuts = None if tiles is None else tiles.view(TILES, *tiles.shape[1:])
        before = tape.live
        with tape.module("merge"):
            engine.receive_images(tape, *(one for one in (pages, tiles) if one is not None))
            tape.hold((BATCH - 1) * self.page_tokens, width)  # the pages before the last one
        with tape.times(BATCH):
            lines: dict[str, Tensor] = {}
            for name in engine.image_views:
                if name == "global" or cuts is not None:
                    lines[name] = self._encode_lines(name, page if name == "global" else cuts)
            with tape.module("merge"):
                separator = tape.weight(width)
                views = [lines[one] for one in ("tiles", "global") if one in lines]
                tape(ops.copy("cat", *views, separator, shape=(self.page_tokens, width)))
                tape.free(*views)
        tape.live = before
        tokens = tape.hold(BATCH * self.page_tokens, width)
        with tape.module("merge"):
            engine.join_tokens(tape, tokens)
        return (tokens,)

    def _encode_lines(self, name: str, pixels: Tensor) -> Tensor:
        """One image's global view, or its tiles in one pass: rows of queries with a newline after each."""
        tape, width, before = self.tape, self.width, self.tape.live
        is_global = name == "global"
        if not is_global:
            with tape.module("merge"):
                self._sum_pixels(pixels)
        view = View(self.global_px, 1, True) if is_global else View(self.tile_px, TILES, False)
        features = self.encode_view(view, pixels)
        with tape.module("merge"):
            if not is_global:
                tape.synchronise()  # for the grid, which is on the device
                self._gather_rows()
            count = self.global_tokens if is_global else self.tile_tokens
            shown = features.view(queries(self.global_px) ** 2 if is_global else TILE_QUERIES, width)
            newline = tape.weight(width) if is_global else tape.buffer(width, itemsize=tape.itemsize)
            lines = tape(ops.copy("cat", shown, newline, shape=(count, width)))
        tape.live = before + lines.storage.size_bytes
        return lines

    def hold_pixels(self) -> tuple[Tensor, Tensor | None]:
        """The pixels of a batch's global views and, where there are any, of its tiles: [images, channels, px, px]."""
        channels = self.config.model.tower("sam").channels
        pages = self.tape.hold(BATCH, channels, self.global_px, self.global_px)
        return pages, self.tape.hold(BATCH * TILES, channels, self.tile_px, self.tile_px) if self.tile_px else None

    def encode_view(self, view: View, pixels: Tensor, replaced: tuple[Tensor, Tensor, Tensor] | None = None) -> Tensor:
        """One pass through both encoders and the projector: [images, q², width].

        Args:
            view: the pass, over pixels [images, channels, px, px].
            pixels: those of the views.
            replaced: what SAM's map, CLIP's states and the projector's features take the place of, and so end.
        """
        tape, config, engine = self.tape, self.config, self.config.engine_code
        old_map, old_states, old_features = ((tensor,) for tensor in replaced) if replaced else ((), (), ())
        known, sizes = dict(tape.parameters), dict(tape.weight_bytes)
        feature_map = Sam(tape, config.model.tower("sam"), engine, config.kernel("sam"), view).record(pixels)
        tape.free(*old_map)
        states = Clip(tape, config.model.tower("clip"), engine, config.kernel("clip"), view).record(feature_map)
        tape.free(*old_states)
        features = record_projector(tape, config.model.tower("projector"), engine, states, feature_map, old_features)
        tape.parameters |= known  # every pass uses the same weights
        tape.weight_bytes |= sizes
        return features

    def _hold_page_before(self) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """What the page before the last one left alive under names, by view: SAM's map, CLIP's states, image tokens."""
        map_width, states_width = self.config.model.tower("sam").output_width, self.config.model.tower("clip").width
        held = {}
        views = (("global", self.global_px, 1, self.global_tokens), ("tiles", self.tile_px, TILES, self.tile_tokens))
        for name, px, images, tokens in views:
            if px:
                count = queries(px) ** 2
                shapes = ((images, map_width, count), (images, count + 1, states_width), (tokens, self.width))
                held[name] = tuple(self.tape.hold(*shape) for shape in shapes)
        return held

    def _gather_rows(self) -> Tensor:
        """A page's rows of queries, gathered from several tiles where there are such."""
        with self.tape.times(1, launches=GATHERS):
            return self.tape(ops.copy("clone", ops.new((GATHERED_QUERIES, self.width), self.tape.itemsize)))

    def _sum_pixels(self, pixels: Tensor) -> None:
        """The sum of pixels, read on the host."""
        self.tape.free(self.tape(ops.reduction("sum", pixels, ())))
        self.tape.synchronise()


def _record_language_model(tape: Tape, config: RunConfig, forward: ForwardPass, vision: Vision | None = None) -> None:
    """The language model over a context, image tokens included, or over the last token of it.

    Args:
        tape, config: as of `Pipeline.record`.
        vision: encodes the images in the same call; None where prefill is handed their features.
    """
    engine, spec = config.engine_code, config.model.tower("decoder")
    kept: Tensors = ()
    if vision is not None:
        pixels = vision.hold_pixels()
    elif forward.is_prefill:
        features = tape.hold(BATCH * IMAGE_TOKENS, spec.width)
    elif engine.clones_logits:
        tape.hold(BATCH, LOGIT_ROWS_BEFORE, spec.vocabulary, itemsize=4)
    engine.hold_inputs(tape, forward)
    decoder = engine.decoder(tape, spec, engine, config.kernel("decoder"), forward)
    if vision is not None and engine.image_views:
        (features,) = vision.encode(*pixels, in_call=True)
        tape.free(*(one for one in pixels if one is not None))
    embedded: Tensors = (decoder.embed(),)
    if vision is not None and not engine.image_views:
        features, *kept = vision.encode(*pixels, in_call=True)
    if forward.is_prefill:
        with tape.module("merge"):
            embedded = engine.insert_features(tape, forward, embedded[0], features)
    decoder.record(*embedded, *kept)


class DeepSeekOcr(Pipeline, name="deepseek_ocr"):
    """The pipeline of DeepSeek-OCR."""

    vision = Vision

    def view_sizes(self, workload: Workload) -> tuple[Column, ...]:
        """Sides of the global view and of the tiles in pixels, 0 where there are none."""
        return workload.global_px, workload.tile_px * (workload.tiles > 0)

    def trained_sizes(self, model: ModelSpec) -> tuple[int, ...]:
        """The view that SAM was trained for, without tiles."""
        return model.tower("sam").image_px, 0

    def record(self, tape: Tape, config: RunConfig, stage: str, is_one: bool, sizes: tuple[int, ...]) -> None:
        if stage == "decode":
            _record_language_model(tape, config, ForwardPass(BATCH, 1, CONTEXT, 1, is_one, False, config.cache))
            return
        if stage == "chunk":
            _record_language_model(tape, config, ForwardPass(BATCH, TOKENS, CONTEXT, Dimension("logit_rows"), is_one, True, config.cache))
            return
        vision = self.vision(tape, config, is_one, *sizes) if stage in WITH_VISION else None
        if stage == "vision":
            vision.encode(*vision.hold_pixels())
        else:
            logit_rows = TOKENS if config.prefill_logits == "all" else 1
            _record_language_model(tape, config, ForwardPass(BATCH, TOKENS, TOKENS, logit_rows, is_one, True, config.cache), vision)

    def dimensions(
        self, config: RunConfig, stage: str, sizes: tuple[int, ...], workload: Workload, experts_hit: Column | None, step: Column
    ) -> dict[str, Column]:
        batch, tiles, found = workload.batch_size, workload.tiles, {}
        if stage in WITH_VISION:
            side = queries(sizes[1])
            several = (workload.columns > 1) & (side > 1)  # single queries are in order already
            found = {
                "batch": batch,
                "tiles": tiles,
                "tile_queries": side * side * tiles,
                "tile_rows": side * workload.rows,
                "gathered_queries": side * side * tiles * several,
                "gathers": several * 1,
            }
        if stage == "vision":
            return found
        context, spec = workload.context_tokens, config.model.tower("decoder")
        tokens = batch if stage == "decode" else batch * context
        found |= {"batch": batch} | expert_dimensions(spec, tokens, config.weight_itemsize, experts_hit)
        found |= config.engine_code.dimensions(spec, tokens)
        if stage == "decode":
            all_rows = (step == 1) & (config.prefill_logits == "all")
            return found | {"context": context + step, "logit_rows_before": 1 + (context - 1) * all_rows}
        return found | {"tokens": context, "image_tokens": workload.image_tokens}

    def input_bytes(self, config: RunConfig, workload: Workload) -> Column:
        pixels = workload.batch_size * (workload.global_px**2 + workload.tiles * workload.tile_px**2)
        return pixels * config.model.tower("sam").channels * config.itemsize

    def least_work(self, model: ModelSpec, stage: str, sizes: tuple[int, ...]) -> dict[str | None, LeastWork]:
        return least_vision(model, *sizes) if stage == "vision" else least_language_model(model, stage == "prefill")
