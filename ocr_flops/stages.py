"""What each stage runs: vision over all views, prefill of the language model, one decode step."""

from __future__ import annotations

from ocr_flops import ops
from ocr_flops.blocks.step import Step
from ocr_flops.ops import Tensor
from ocr_flops.sizes import Size
from ocr_flops.specs import AttentionSpec, EngineSpec, ModelSpec
from ocr_flops.tape import Tape
from ocr_flops.tiling import queries
from ocr_flops.towers import clip, decoder, projector, sam

BATCH, TILES, TOKENS, CONTEXT = Size("batch"), Size("tiles"), Size("tokens"), Size("context")


def vision(
    model: ModelSpec, engine: EngineSpec, attention: AttentionSpec, itemsize: int, global_px: int, tile_px: int, is_one: bool
) -> Tape:
    """Everything between pixels and image tokens.

    Args:
        model, engine, attention: what runs, with attention resolved.
        itemsize: bytes per element of weights and activations.
        global_px, tile_px: sides of the views in pixels; tile_px 0 where there are no tiles.
        is_one: whether the batch is a single page.

    Returns:
        the operators, over `batch`, `tiles` (of a page) and the sizes of the assembled picture (see `_assemble`).
    """
    tape = Tape(itemsize)
    channels = model.tower("sam").channels
    one_by_one = engine.images_one_by_one
    global_pixels = tape.input(BATCH, channels, global_px, global_px)
    tile_pixels = tape.input(BATCH * TILES, channels, tile_px, tile_px) if tile_px else None
    passes = [(global_px, 1 if one_by_one else BATCH, one_by_one or is_one, global_pixels)]
    if tile_px:
        passes.append((tile_px, TILES if one_by_one else BATCH * TILES, False, tile_pixels))
    features = []
    for px, images, single, pixels in reversed(passes) if engine.tiles_first else passes:
        view = sam.View(px, images, single)
        shown = pixels.view(images, *pixels.shape[1:])
        parameters = dict(tape.parameters)
        with tape.times(BATCH if one_by_one else 1):
            feature_map = sam.run(tape, model.tower("sam"), engine, attention.sam, view, shown)
            states = clip.run(tape, model.tower("clip"), engine, attention.clip, view, feature_map)
            features.append(projector.run(tape, model.tower("projector"), states, feature_map))
        if parameters:
            tape.parameters = parameters  # both passes use the same weights
    if engine.tiles_first:
        features.reverse()
    with tape.module("merge"):
        _assemble(tape, model, global_px, tile_px, features, is_one)
    return tape


def _assemble(tape: Tape, model: ModelSpec, global_px: int, tile_px: int, features: list[Tensor], is_one: bool) -> None:
    """Rows of queries with a newline after each, tiles first, then the global view and a separator; once for every page.

    Sizes: `tile_queries` and `tile_rows` are a page's queries and rows of queries in its tiles; `moved_tile_queries` and `moves` are
    tile_queries and 1 where the grid has several columns of tiles of several queries a side, so that rows of queries must be gathered from
    several tiles (else 0).
    """
    width, side = model.tower("projector").output_width, queries(global_px)
    newline, separator = tape.weight(width), tape.weight(width)
    tokens = side * (side + 1)
    page_tokens = tokens + 1 + (Size("tile_queries") + Size("tile_rows") if tile_px else 0)
    tape.hold(ops.new(((BATCH - 1) * page_tokens, width), tape.itemsize))  # the pages before the last one
    with tape.times(BATCH):
        page = features[0].view(side * side, width)
        flat = tape(ops.copy("cat", page, newline, shape=(tokens, width)))
        parts = [flat]
        if tile_px:
            tile_queries, tile_rows = Size("tile_queries"), Size("tile_rows")
            moved = ops.new((Size("moved_tile_queries"), width), tape.itemsize)
            tiled_shape = (tile_queries + tile_rows, width)
            previous = [] if is_one else [tape.hold(ops.new(tiled_shape, tape.itemsize))]  # the page before, until it is replaced
            with tape.times(1, launches=Size("moves")):
                gathered = tape(ops.copy("clone", moved))
            tiles = features[1].view(tile_queries, width)
            tiled = tape(ops.copy("cat", tiles, newline, shape=tiled_shape))
            parts.insert(0, tiled)
            tape.free(gathered, *previous)
        tape(ops.copy("cat", *parts, separator, shape=(page_tokens, width)))


def prefill(model: ModelSpec, engine: EngineSpec, attention: AttentionSpec, itemsize: int, is_one: bool, cache: str, logits: str) -> Tape:
    """The language model over the whole context, image tokens included.

    Args:
        cache: "dynamic" or "static".
        logits: "all" positions or the "last" one.
        (others as in `vision`)

    Returns:
        the operators, over `batch`, `tokens` (the context of a page) and `image_tokens`.
    """
    tape = Tape(itemsize)
    step = Step(BATCH, TOKENS, TOKENS, TOKENS if logits == "all" else 1, is_one, True, cache)
    spec = model.tower("decoder")
    features = tape.input(BATCH * Size("image_tokens"), spec.width)
    embedded = decoder.embed(tape, spec, step)
    with tape.module("merge"):
        embedded, *made_of = _insert_features(tape, engine, step, embedded, features)
    decoder.run(tape, spec, engine, attention.decoder, step, embedded, (embedded, *made_of))
    return tape


def _insert_features(tape: Tape, engine: EngineSpec, step: Step, embedded: Tensor, features: Tensor) -> tuple[Tensor, ...]:
    """Puts the image features at the places of the image tokens.

    Returns the embeddings [batch, tokens, width] and what stays alive beside them.
    """
    if engine.images_one_by_one:  # in place, page by page
        tape(ops.in_place("masked_scatter_", features, features))
        return (embedded,)
    joined = tape(ops.copy("cat", features))
    places = tape(ops.elementwise("eq", ops.new((step.batch, step.tokens), ops.INDEX_BYTES), itemsize=1))
    count = tape(ops.reduction("sum", places, (1,), ops.INDEX_BYTES))
    product = tape(ops.elementwise("mul", count))
    same = tape.then_free(ops.elementwise("eq", product, itemsize=1), product)
    tape.free(tape(ops.reduction("_is_all_true", same, (1,))), same, count)
    out = tape(ops.copy("masked_scatter", embedded, places, joined))
    tape.free(embedded)
    return out, joined, places


def decode(model: ModelSpec, engine: EngineSpec, attention: AttentionSpec, itemsize: int, is_one: bool, cache: str) -> Tape:
    """One decode step (arguments as in `prefill`): the operators over `batch` and `context`, the keys attended, the new one included."""
    tape = Tape(itemsize)
    step = Step(BATCH, 1, CONTEXT, 1, is_one, False, cache)
    spec = model.tower("decoder")
    embedded = decoder.embed(tape, spec, step)
    decoder.run(tape, spec, engine, attention.decoder, step, embedded, (embedded,))
    return tape
