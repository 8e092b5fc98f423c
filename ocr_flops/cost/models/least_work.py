"""The work of DeepSeek-OCR's stages that no implementation avoids, as plain formulas beside the tapes.

Products and convolutions are taken as sums of products (no Strassen, no Winograd). What only enlarges them is left out: windows' padding, scores
above the diagonal, rows of a last layer that nothing reads. Vector work is norms, softmax, activations and rotary embedding; what a product can
take in on its way (additions, scales, the parameters of norms) is not counted, nor is what can be prepared from weights alone. Every weight
is read once a pass: in vision once for all pages.
"""

from __future__ import annotations

from ocr_flops.cost.models.base import LeastWork
from ocr_flops.cost.polynomial import Dim, Dimension
from ocr_flops.spec.specs import ModelSpec
from ocr_flops.spec.tiling import queries

BATCH, TILES, TOKENS, CONTEXT = (Dimension(name) for name in ("batch", "tiles", "tokens", "context"))
TILE_TOKENS = Dimension("tile_queries") + Dimension("tile_rows")

SOFTMAX = 4  # FLOPs a score: maximum, difference, exp, sum; the quotient is taken of the result
LAYER_NORM, RMS_NORM = 6, 3  # FLOPs an element, without parameters
ACTIVATION = 5  # FLOPs an element of gelu, of x·sigmoid(x), and of silu(x)·y
ROTATION = 3  # FLOPs an element: two products and a sum


def least_vision(model: ModelSpec, global_px: int, tile_px: int) -> dict[str | None, LeastWork]:
    """Vision by module, with the pixels in and the image tokens out under None; sides of the views in pixels, tile_px 0 for no tiles."""
    sam, clip, projector = (model.tower(name) for name in ("sam", "clip", "projector"))
    views = [(_view(model, px), images) for px, images in ((global_px, BATCH), (tile_px, BATCH * TILES)) if px]
    side, q, wide = global_px // sam.patch_px, queries(global_px), len(sam.global_layers)
    first, second = sam.downsample_widths
    projections = 4 * (sam.width + 1) * sam.width
    weights = {  # positions as prepared for the global view
        "sam.patch": sam.width * (sam.channels * sam.patch_px**2 + 1 + side**2),
        "sam.attention_windowed": (sam.layers - wide) * (projections + 2 * (2 * sam.window - 1) * sam.head_dim),
        "sam.attention_global": wide * (projections + 2 * (2 * side - 1) * sam.head_dim),
        "sam.mlp": sam.layers * (2 * sam.width * sam.mlp_width + sam.width + sam.mlp_width),
        "sam.neck": sam.neck_width * (sam.width + 9 * (sam.neck_width + first)) + 9 * first * second,
        "clip.embed": clip.width * (q**2 + 2),
        "clip.attention": clip.layers * 4 * (clip.width + 1) * clip.width,
        "clip.mlp": clip.layers * (2 * clip.width * clip.mlp_width + clip.width + clip.mlp_width),
        "projector": (projector.input_width + 1) * projector.output_width,
        "merge": 2 * projector.output_width,
    }
    found: dict[str | None, LeastWork] = {}
    for name, count in weights.items():
        flops = [(matrix * images, vector * images) for view, images in views for matrix, vector in [view.get(name, (0, 0))]]
        found[name] = LeastWork(*map(sum, zip(*flops, strict=True)), count)
    pixels = sam.channels * (BATCH * global_px**2 + BATCH * TILES * tile_px**2)
    tokens = q * (q + 1) + 1 + (TILE_TOKENS if tile_px else 0)
    return found | {None: LeastWork(elements=pixels + BATCH * tokens * projector.output_width)}


def _view(model: ModelSpec, px: int) -> dict[str, tuple[int, int]]:
    """Matrix and vector FLOPs of a square view, by module."""
    sam, clip, projector = (model.tower(name) for name in ("sam", "clip", "projector"))
    side, q, neck = px // sam.patch_px, queries(px), sam.neck_width
    half = -(-side // 2)
    rows, width, wide = side**2, sam.width, len(sam.global_layers)
    in_windows = (side // sam.window * sam.window**2 + (side % sam.window) ** 2) ** 2  # pairs of patches that share a window
    found = {}
    for kind, layers, pairs, span in (("windowed", sam.layers - wide, in_windows, sam.window), ("global", wide, rows**2, side)):
        matrix = rows * width * (8 * width + 4 * span) + 4 * width * pairs
        found[f"sam.attention_{kind}"] = layers * matrix, layers * (LAYER_NORM * rows * width + SOFTMAX * sam.heads * pairs)
    first, second = sam.downsample_widths
    taps = _taps(side, side, 1) * neck * neck + _taps(side, half, 2) * neck * first + _taps(half, q, 2) * first * second
    found["sam.patch"] = 2 * rows * width * sam.channels * sam.patch_px**2, 0
    found["sam.mlp"] = _mlp(sam, sam.layers * rows)
    found["sam.neck"] = 2 * rows * width * neck + 2 * taps, 2 * LAYER_NORM * rows * neck
    tokens, width = q**2 + 1, clip.width
    stored, used = clip.layers * tokens, clip.layers * tokens - 1  # rows over all layers; nothing reads the class token of the last one
    vector = LAYER_NORM * stored * width + SOFTMAX * clip.heads * tokens * used
    found["clip.embed"] = 0, LAYER_NORM * tokens * width
    found["clip.attention"] = 4 * width**2 * (stored + used) + 4 * width * tokens * used, vector
    found["clip.mlp"] = _mlp(clip, used)
    found["projector"] = 2 * q**2 * projector.input_width * projector.output_width, 0
    return found


def _mlp(spec, rows: int) -> tuple[int, int]:
    """Norm, two products and the activation between them."""
    return 4 * rows * spec.width * spec.mlp_width, rows * (LAYER_NORM * spec.width + ACTIVATION * spec.mlp_width)


def _taps(side: int, out: int, stride: int) -> int:
    """Places of a 3 x 3 convolution with padding 1 from side² to out², times the inputs each of them reads: without the padding."""
    return (3 * out - 1 - (stride * (out - 1) + 1 >= side)) ** 2


def least_language_model(model: ModelSpec, is_prefill: bool) -> dict[str | None, LeastWork]:
    """Prefill or a decode step by module, with image features in and the last position's logits out under None.

    The last layer of prefill needs no more than the last position's row, and the keys and values of the others. A pass reads the experts
    that one token visits: more tokens may all visit the same. The cache is written once in prefill, and read once by a step.
    """
    spec = model.tower("decoder")
    layers, width, tokens = spec.layers, spec.width, TOKENS if is_prefill else 1
    sparse = layers - spec.dense_layers

    def rows(count: int, has_last: bool) -> Dim:
        return BATCH * (tokens * count - (tokens - 1) * has_last) if count else 0

    stored, used = rows(layers, False), rows(layers, True)
    pairs = BATCH * (TOKENS * (TOKENS + 1) * (layers - 1) + TOKENS * 2 if is_prefill else CONTEXT * (2 * layers))  # twice their number
    dense, routed = rows(spec.dense_layers, sparse == 0), rows(sparse, True)
    cached = BATCH * (TOKENS if is_prefill else CONTEXT) * (2 * layers * width)
    found: dict[str | None, LeastWork] = {
        "decoder.attention": LeastWork(
            (stored + used) * (4 * width**2) + pairs * (2 * width),
            pairs * (SOFTMAX // 2 * spec.heads) + (stored + used) * (ROTATION * width),
            layers * 4 * width**2 + cached,
        ),
        "decoder.norm_residual": LeastWork(vector_flops=(stored + used + BATCH) * (RMS_NORM * width)),
        "decoder.router": LeastWork(routed * (2 * width * spec.experts), routed * (SOFTMAX * spec.experts), sparse * width * spec.experts),
        "lm_head": LeastWork(BATCH * (2 * width * spec.vocabulary), 0, width * spec.vocabulary),
    }
    chosen, shared = (count * spec.expert_width for count in (spec.experts_per_token, spec.shared_experts))
    mlps = (("dense_mlp", dense, spec.dense_layers, spec.dense_width), ("routed_experts", routed, sparse, chosen))
    for name, count, where, inner in (*mlps, ("shared_experts", routed, sparse, shared)):
        found[f"decoder.{name}"] = LeastWork(count * (6 * width * inner), count * (ACTIVATION * inner), where * 3 * width * inner)
    features = BATCH * Dimension("image_tokens") * width if is_prefill else 0
    return found | {None: LeastWork(elements=features + BATCH * spec.vocabulary)}
