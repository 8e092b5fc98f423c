"""Everything between pixels and image tokens: a batch's views encoded in passes, and the tokens of each page assembled from them."""

from __future__ import annotations

from typing import NamedTuple

from ocr_flops.cost import ops
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.polynomial import Dim, Dimension
from ocr_flops.cost.tape import Tape
from ocr_flops.cost.towers import clip, projector, sam
from ocr_flops.spec.specs import AttentionSpec, EngineSpec, ModelSpec
from ocr_flops.spec.tiling import queries

BATCH, TILES, TILE_QUERIES, TILE_ROWS = Dimension("batch"), Dimension("tiles"), Dimension("tile_queries"), Dimension("tile_rows")


class Views(NamedTuple):
    """What is encoded.

    Args:
        global_px, tile_px: sides of the views in pixels; tile_px 0 where there are no tiles.
        is_one: whether the batch is a single page.
    """

    global_px: int
    tile_px: int
    is_one: bool

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


def run(tape: Tape, model: ModelSpec, engine: EngineSpec, attention: AttentionSpec, views: Views) -> None:
    """Records the stage.

    Sizes: `batch`, `tiles` (of a page); `tile_queries` and `tile_rows` are a page's queries and rows of queries in its tiles;
    `moved_tile_queries` and `moves` are tile_queries and 1 where the grid has several columns of tiles of several queries a side, so that
    rows of queries must be gathered from several tiles (else 0).

    Args:
        tape: takes the operators.
        model, engine, attention: what runs, with attention resolved.
        views: what is encoded.
    """
    channels = model.tower("sam").channels
    pages = tape.input(BATCH, channels, views.global_px, views.global_px)
    tiles = tape.input(BATCH * TILES, channels, views.tile_px, views.tile_px) if views.tile_px else None
    if engine.images_one_by_one:
        _page_by_page(tape, model, engine, attention, views, pages, tiles)
        return
    features = _encoded(tape, model, engine, attention, sam.View(views.global_px, BATCH, views.is_one), pages)
    tiled = None
    if tiles is not None:
        tiled = _encoded(tape, model, engine, attention, sam.View(views.tile_px, BATCH * TILES, False), tiles)
    with tape.module("merge"):
        _assembled(tape, model, views, features, tiled)


def _encoded(
    tape: Tape,
    model: ModelSpec,
    engine: EngineSpec,
    attention: AttentionSpec,
    view: sam.View,
    pixels: Tensor,
    before: tuple[tuple[Tensor, ...], ...] = ((), (), ()),
) -> Tensor:
    """One pass through both encoders and the projector: [images, q², width].

    Args:
        view: the pass, over pixels [images, channels, px, px].
        before: what SAM's map, CLIP's states and the projector's features take the place of, and so end.
    """
    known = dict(tape.parameters)
    feature_map = sam.run(tape, model.tower("sam"), engine, attention.kernel("sam"), view, pixels)
    tape.free(*before[0])
    states = clip.run(tape, model.tower("clip"), engine, attention.kernel("clip"), view, feature_map)
    tape.free(*before[1])
    features = projector.run(tape, model.tower("projector"), engine, states, feature_map, before[2])
    if known:
        tape.parameters = known  # every pass uses the same weights
    return features


def _assembled(tape: Tape, model: ModelSpec, views: Views, features: Tensor, tiled: Tensor | None) -> None:
    """Rows of queries with a newline after each, tiles first, then the global view and a separator; once for every page."""
    width = model.tower("projector").output_width
    newline, separator = tape.weight(width), tape.weight(width)
    tape.hold(ops.new(((BATCH - 1) * views.page_tokens, width), tape.itemsize))  # the pages before the last one
    with tape.times(BATCH):
        page = features.view(queries(views.global_px) ** 2, width)
        flat = tape(ops.copy("cat", page, newline, shape=(views.global_tokens, width)))
        parts = [flat]
        if tiled is not None:
            lines = (views.tile_tokens, width)
            previous = [] if views.is_one else [tape.hold(ops.new(lines, tape.itemsize))]  # the page before, until it is replaced
            gathered = _gathered(tape, width)
            parts.insert(0, tape(ops.copy("cat", tiled.view(TILE_QUERIES, width), newline, shape=lines)))
            tape.free(gathered, *previous)
        tape(ops.copy("cat", *parts, separator, shape=(views.page_tokens, width)))


def _gathered(tape: Tape, width: int) -> Tensor:
    """A page's rows of queries, gathered from several tiles where there are such."""
    with tape.times(1, launches=Dimension("moves")):
        return tape(ops.copy("clone", ops.new((Dimension("moved_tile_queries"), width), tape.itemsize)))


def _page_by_page(
    tape: Tape, model: ModelSpec, engine: EngineSpec, attention: AttentionSpec, views: Views, pages: Tensor, tiles: Tensor | None
) -> None:
    """The published code's loop over pages, which sums pixels to tell whether there are any, and names what it makes: all of it lives until
    the next page's takes its place, or to the end."""
    width = model.tower("projector").output_width
    page = pages.view(1, *pages.shape[1:])
    cuts = tiles.view(TILES, *tiles.shape[1:]) if tiles is not None else page.view(0)
    with tape.module("merge"):
        _summed(tape, page)
    before = {} if views.is_one else _of_the_page_before(tape, model, views)
    passes = {"global": (sam.View(views.global_px, 1, True), page)}
    if tiles is not None:
        passes = {"tiles": (sam.View(views.tile_px, TILES, False), cuts)} | passes
    with tape.times(BATCH):
        with tape.module("merge"):
            _summed(tape, cuts)
        features = {
            name: _encoded(tape, model, engine, attention, view, pixels, tuple(before.get((name, made), ()) for made in MADE))
            for name, (view, pixels) in passes.items()
        }
        with tape.module("merge"):
            newline, separator = tape.weight(width), tape.weight(width)
            lines = [tape(ops.copy("cat", features["global"], newline, shape=(views.global_tokens, width)))]
            tape.free(features["global"])
            if tiles is not None:
                tape.free(_gathered(tape, width))  # or, where it is not gathered but shown otherwise, the features themselves
                tiled = features["tiles"].view(TILE_QUERIES, width)
                lines.insert(0, tape.then_free(ops.copy("cat", tiled, newline, shape=(views.tile_tokens, width)), features["tiles"]))
            together = tape(ops.copy("cat", *lines, separator, shape=(views.page_tokens, width)))
            tape.free(*before.get(("page", "tokens"), ()))
            tape(ops.copy("cat", together))


MADE = ("map", "states", "tokens")  # what a pass makes and names, in this order


def _of_the_page_before(tape: Tape, model: ModelSpec, views: Views) -> dict[tuple[str, str], tuple[Tensor, ...]]:
    """What the page before the last one left alive under names, by view and name; and, nameless, the tokens of all pages before it."""
    map_width, states_width = model.tower("sam").output_width, model.tower("clip").width
    width = model.tower("projector").output_width
    shapes: dict[tuple[str, str], tuple[Dim, ...]] = {("page", "tokens"): (views.page_tokens, width)}
    for name, px, images, tokens in (
        ("global", views.global_px, 1, views.global_tokens),
        ("tiles", views.tile_px, TILES, views.tile_tokens),
    ):
        if px:
            count = queries(px) ** 2
            made = ((images, map_width, count), (images, count + 1, states_width), (tokens, width))
            shapes |= {(name, kind): shape for kind, shape in zip(MADE, made, strict=True)}
    tape.hold(ops.new(((BATCH - 1) * views.page_tokens, width), tape.itemsize))
    return {key: (tape.hold(ops.new(shape, tape.itemsize)),) for key, shape in shapes.items()}


def _summed(tape: Tape, pixels: Tensor) -> None:
    """The sum of pixels, read on the host."""
    tape.free(tape(ops.reduction("sum", pixels, ())))
