"""The work of DeepSeek-OCR's stages that no implementation avoids, as plain formulas beside the tapes.

Products and convolutions are taken as sums of products (no Strassen, no Winograd). What only enlarges them is left out: windows' padding,
scores above the diagonal, rows of a last layer that nothing reads. Vector work is norms, softmax, activations and rotary embedding; what
a product can take in on its way (additions, scales, the parameters of norms) is not counted, nor is what can be prepared from weights
alone. Every weight is read once a pass: in vision once for all pages.
"""

from ocr_flops.cost.models.base import LeastWork
from ocr_flops.cost.polynomial import Dim, Dimension
from ocr_flops.spec.specs import ModelSpec
from ocr_flops.spec.tiling import queries
from ocr_flops.spec.towers import ClipSpec, EncoderSpec, ProjectorSpec, SamSpec

BATCH, TILES, TOKENS, CONTEXT = (Dimension(name) for name in ("batch", "tiles", "tokens", "context"))
TILE_TOKENS = Dimension("tile_queries") + Dimension("tile_rows")

SOFTMAX = 4  # FLOPs a score: maximum, difference, exp, sum; the quotient is taken of the result
LAYER_NORM, RMS_NORM = 6, 3  # FLOPs an element, without parameters
ACTIVATION = 5  # FLOPs an element of gelu, of x·sigmoid(x), and of silu(x)·y
ROTATION = 3  # FLOPs an element: two products and a sum


def least_vision(model: ModelSpec, global_px: int, tile_px: int) -> dict[str | None, LeastWork]:
    """Vision by module, with the pixels in and the image tokens out under None; sides of the views in pixels, tile_px 0 for no tiles."""
    width, channels, q = model.language_model.width, model.towers[0].channels, queries(global_px)
    found: dict[str | None, LeastWork] = {"merge": LeastWork(elements=2 * width)}  # newline and separator
    for spec in model.towers[:-1]:
        tile = TOWERS[spec.tower](spec, tile_px) if tile_px else {}
        for module, page in TOWERS[spec.tower](spec, global_px).items():
            flops = (one * BATCH + other * BATCH * TILES for one, other in zip(page, tile.get(module, LeastWork()), strict=True))
            found[module] = LeastWork(*flops)._replace(elements=page.elements)
    tokens = q * (q + 1) + 1 + (TILE_TOKENS if tile_px else 0)
    pixels = channels * (global_px**2 + TILES * tile_px**2)
    return found | {None: LeastWork(elements=BATCH * pixels + BATCH * tokens * width)}


def _sam(spec: SamSpec, px: int) -> dict[str, LeastWork]:
    """SAM over one view by module, elements being its weights, with positions as prepared for the view."""
    side, width, neck, wide = px // spec.patch_px, spec.width, spec.neck_width, len(spec.global_layers)
    (first, second), rows, half = spec.downsample_widths, side**2, -(-side // 2)
    in_windows = (side // spec.window * spec.window**2 + (side % spec.window) ** 2) ** 2  # pairs of patches that share a window
    found = {}
    for kind, layers, pairs, span in (("windowed", spec.layers - wide, in_windows, spec.window), ("global", wide, rows**2, side)):
        matrix = rows * width * (8 * width + 4 * span) + 4 * width * pairs
        vector = LAYER_NORM * rows * width + SOFTMAX * spec.heads * pairs
        weights = 4 * (width + 1) * width + 2 * (2 * span - 1) * spec.head_dim
        found[f"sam.attention_{kind}"] = LeastWork(layers * matrix, layers * vector, layers * weights)
    taps = _taps(side, side, 1) * neck * neck + _taps(side, half, 2) * neck * first + _taps(half, queries(px), 2) * first * second
    patch = spec.channels * spec.patch_px**2
    return found | {
        "sam.patch": LeastWork(2 * rows * width * patch, 0, width * (patch + 1 + rows)),
        "sam.mlp": _mlp(spec, spec.layers * rows),
        "sam.neck": LeastWork(
            2 * rows * width * neck + 2 * taps, 2 * LAYER_NORM * rows * neck, neck * (width + 9 * (neck + first)) + 9 * first * second
        ),
    }


def _clip(spec: ClipSpec, px: int) -> dict[str, LeastWork]:
    """CLIP over one view; nothing reads the class token of the last layer."""
    tokens, width = queries(px) ** 2 + 1, spec.width
    stored, used = spec.layers * tokens, spec.layers * tokens - 1  # rows over all layers
    return {
        "clip.embed": LeastWork(0, LAYER_NORM * tokens * width, width * (tokens + 1)),
        "clip.attention": LeastWork(
            4 * width**2 * (stored + used) + 4 * width * tokens * used,
            LAYER_NORM * stored * width + SOFTMAX * spec.heads * tokens * used,
            spec.layers * 4 * (width + 1) * width,
        ),
        "clip.mlp": _mlp(spec, used),
    }


def _projector(spec: ProjectorSpec, px: int) -> dict[str, LeastWork]:
    return {
        "projector": LeastWork(2 * queries(px) ** 2 * spec.input_width * spec.output_width, 0, (spec.input_width + 1) * spec.output_width)
    }


TOWERS = {"sam": _sam, "clip": _clip, "projector": _projector}


def _mlp(spec: EncoderSpec, rows: int) -> LeastWork:
    """Norm, two products and the activation between them, in all layers."""
    width, inner = spec.width, spec.mlp_width
    vector = rows * (LAYER_NORM * width + ACTIVATION * inner)
    return LeastWork(4 * rows * width * inner, vector, spec.layers * (2 * width * inner + width + inner))


def _taps(side: int, out: int, stride: int) -> int:
    """Inputs that the places of a 3 x 3 convolution with padding 1 read, from side² to out², the padding left out."""
    return (3 * out - 1 - (stride * (out - 1) + 1 >= side)) ** 2


def least_language_model(model: ModelSpec, is_prefill: bool) -> dict[str | None, LeastWork]:
    """Prefill or a decode step by module, with image features in and the last position's logits out under None.

    The last layer of prefill needs no more than the last position's row, and the keys and values of the others. A pass reads the experts
    that one token visits: more tokens may all visit the same. The cache is written once in prefill, and read once by a step.
    """
    spec = model.tower("decoder")
    layers, width, tokens = spec.layers, spec.width, TOKENS if is_prefill else 1
    sparse = spec.sparse_layers

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
