"""What each stage runs: vision over all views, prefill of the language model, one decode step."""

from __future__ import annotations

from ocr_flops.cost import ops
from ocr_flops.cost.blocks.forward_pass import ForwardPass
from ocr_flops.cost.models import vision as passes
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.polynomial import Dimension
from ocr_flops.cost.tape import Tape
from ocr_flops.cost.towers import decoder
from ocr_flops.spec.specs import AttentionSpec, EngineSpec, ModelSpec

BATCH, TOKENS, CONTEXT = Dimension("batch"), Dimension("tokens"), Dimension("context")


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
        the operators, over `batch`, `tiles` (of a page) and the sizes of the assembled picture (see `vision.run`).
    """
    tape = Tape(itemsize)
    passes.run(tape, model, engine, attention, passes.Views(global_px, tile_px, is_one))
    return tape


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
    step = ForwardPass(BATCH, TOKENS, TOKENS, TOKENS if logits == "all" else 1, is_one, True, cache)
    spec = model.tower("decoder")
    features = tape.input(BATCH * Dimension("image_tokens"), spec.width)
    _handed(tape, engine, step)
    embedded = decoder.embed(tape, spec, step)
    with tape.module("merge"):
        embedded, *made_of = _insert_features(tape, engine, step, embedded, features)
    decoder.run(tape, spec, engine, attention.kernel("decoder"), step, embedded, (embedded, *made_of))
    return tape


def _handed(tape: Tape, engine: EngineSpec, step: ForwardPass) -> None:
    """Holds what the language model is handed besides token ids and image features."""
    if not engine.takes_masks:
        return
    tape.input(step.batch, step.tokens, itemsize=ops.INDEX_BYTES)  # position ids
    tape.input(step.batch, step.context, itemsize=ops.INDEX_BYTES)  # padding mask
    if step.is_prefill:
        tape.input(step.batch, step.tokens, itemsize=1)  # places of image tokens


def _insert_features(tape: Tape, engine: EngineSpec, step: ForwardPass, embedded: Tensor, features: Tensor) -> tuple[Tensor, ...]:
    """Puts the image features at the places of the image tokens.

    Returns the embeddings [batch, tokens, width] and what stays alive beside them.
    """
    if engine.images_one_by_one:  # in place, page by page
        page, places = features.view(Dimension("image_tokens"), features.shape[1]), ops.new((step.tokens, 1), 1)
        with tape.times(BATCH):
            tape(ops.in_place("masked_scatter_", page, places, page))
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
    step = ForwardPass(BATCH, 1, CONTEXT, 1, is_one, False, cache)
    spec = model.tower("decoder")
    _handed(tape, engine, step)
    embedded = decoder.embed(tape, spec, step)
    decoder.run(tape, spec, engine, attention.kernel("decoder"), step, embedded, (embedded,))
    return tape
