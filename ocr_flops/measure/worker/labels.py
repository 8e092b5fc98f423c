"""Which module of our frames an executed operator belongs to, by the path of the nn.Module that runs it."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_LAYER = re.compile(r"(?:sam_encoder|vision_encoder\.encoder|language_model)\.layers\.(\d+)")
_RULES = [  # first match wins; paths as in transformers' UnlimitedOcrForConditionalGeneration
    (r"sam_encoder\.layers\.(\d+)\.(layer_norm2|mlp)", "sam.mlp"),
    (r"sam_encoder\.(neck|proj)\b", "sam.neck"),
    (r"sam_encoder", "sam.patch"),
    (r"vision_encoder\.encoder\.layers\.\d+\.(layer_norm2|mlp)", "clip.mlp"),
    (r"vision_encoder\.encoder", "clip.attention"),
    (r"vision_encoder", "clip.embed"),
    (r"multi_modal_projector|vision_tower", "projector"),
    (r"embed_tokens", "decoder.embed"),
    (r"layers\.\d+\.self_attn|rotary_emb", "decoder.attention"),
    (r"layers\.\d+\.mlp\.gate$", "decoder.router"),
    (r"layers\.\d+\.mlp\.experts", "decoder.routed_experts"),
    (r"lm_head", "lm_head"),
    (r"language_model\.(layers\.\d+$|layers\.\d+\.\w*layernorm|norm)", "decoder.norm_residual"),
    (r"language_model$", "decoder.attention"),  # masks
]

_REMOTE_LAYER = re.compile(r"model\.(sam_model\.blocks|vision_model\.transformer\.layers|layers)\.(\d+)(?:\.(.*))?")
_REMOTE_RULES = [  # outside layers; paths as in the published DeepseekOCRForCausalLM
    (r"model\.sam_model\.(neck|net_)", "sam.neck"),
    (r"model\.sam_model", "sam.patch"),
    (r"model\.vision_model", "clip.embed"),
    (r"model\.projector", "projector"),
    (r"model\.embed_tokens", "decoder.embed"),
    (r"model\.norm", "decoder.norm_residual"),
    (r"", "lm_head"),
]


class Labels:
    """Labels operators by path, with a module or with a place, "module/layer" (outside layers the module alone); a layer's residual
    additions go to the block they feed. Towers are dimensions, as in the request."""

    def __init__(self, towers: dict[str, dict[str, Any]]):
        self._global = set(towers["sam"]["global_layers"])
        self._sam_layers, self._clip_layers = towers["sam"]["layers"], towers["clip"]["layers"]
        self._dense_layers = towers["decoder"]["dense_layers"]

    def __call__(self, path: str, name: str = "", order: int = 0) -> str:
        """The module of an operator (arguments as in `place`)."""
        return self.place(path, name, order).partition("/")[0]

    def place(self, path: str, name: str = "", order: int = 0) -> str:
        """The module and layer of an operator.

        Args:
            path: of the nn.Module that runs it.
            name: ATen's name for it.
            order: how often that operator already ran at that path.
        """
        layer = _LAYER.search(path)
        if layer is None:
            return self._module(path)
        number = int(layer[1])
        if layer.end() == len(path) and layer[0].startswith("sam"):
            return self._sam_layer(number, name, order)
        if layer.end() == len(path) and layer[0].startswith("vision"):
            return f"clip.mlp/{number}" if order % 2 == 0 else _fed("clip.attention", number + 1, self._clip_layers, "projector")
        return f"{self._module(path)}/{number}"

    def _module(self, path: str) -> str:
        if sam := re.search(r"sam_encoder\.layers\.(\d+)\.(layer_norm1|attn)", path):
            return self._attention(int(sam[1]))
        if mlp := re.search(r"language_model\.layers\.(\d+)\.mlp(?!\.(gate$|experts))", path):
            return "decoder.dense_mlp" if int(mlp[1]) < self._dense_layers else "decoder.shared_experts"
        return next((label for pattern, label in _RULES if re.search(pattern, path)), "merge")

    def _attention(self, layer: int) -> str:
        return "sam.attention_global" if layer in self._global else "sam.attention_windowed"

    def _sam_layer(self, layer: int, name: str, order: int) -> str:
        """Operators of the layer itself: window partition belongs to attention, its two additions to what they feed."""
        if name != "add":
            return f"{self._attention(layer)}/{layer}"
        return f"sam.mlp/{layer}" if order % 2 == 0 else _fed(self._attention(layer + 1), layer + 1, self._sam_layers, "sam.neck")


class RemoteLabels(Labels):
    """The same for the published code (paths as in its DeepseekOCRForCausalLM).

    Its CLIP blocks call the `forward` of their parts, so the blocks themselves run what happens between the linear layers. The model's own
    `forward` concatenates both encoders' features for the projector, assembles the image's tokens and builds the mask.

    Args:
        towers: dimensions, as in the request.

    Attributes:
        has_tiles: whether the pages being encoded have tiles.
    """

    has_tiles = False

    def place(self, path: str, name: str = "", order: int = 0) -> str:
        """The module and layer of an operator (arguments as in `Labels.place`)."""
        if path == "model":
            return self._between(name, order)
        if layer := _REMOTE_LAYER.fullmatch(path):
            of = {"sam_model.blocks": self._of_sam, "layers": self._of_decoder}.get(layer[1], self._of_clip)
            return of(int(layer[2]), layer[3] or "", name, order)
        if path == "model.sam_model" and name == "clone":  # between the last two convolutions
            return "sam.neck"
        return next(label for pattern, label in _REMOTE_RULES if re.match(pattern, path))

    def _between(self, name: str, order: int) -> str:
        """Operators of the model's `forward`, by name: features are joined once or twice a page, then put in order by other `cat`s."""
        if name == "cat":
            joins, rest = (2, 4) if self.has_tiles else (1, 3)
            return "projector" if order % (joins + rest) < joins else "merge"
        return "merge" if name in ("", "sum", "clone", "masked_scatter_") else "decoder.attention"

    def _of_sam(self, number: int, inside: str, name: str, order: int) -> str:
        inside = re.sub(r"^norm", ".layer_norm", inside) if inside.startswith("norm") else f".{inside}" if inside else ""
        return super().place(f"sam_encoder.layers.{number}{inside}", name, order)

    def _of_clip(self, number: int, inside: str, name: str, order: int) -> str:
        if not inside and name == "add" and order % 2:
            return _fed("clip.attention", number + 1, self._clip_layers, "projector")
        to_mlp = inside.startswith(("mlp", "layer_norm2")) or (not inside and name in ("mul", "sigmoid", "add"))
        return f"{'clip.mlp' if to_mlp else 'clip.attention'}/{number}"

    def _of_decoder(self, number: int, inside: str, name: str, order: int) -> str:
        part, _, deeper = inside.partition(".")
        if part != "mlp":
            module = "decoder.attention" if part == "self_attn" else "decoder.norm_residual"
        elif number < self._dense_layers:
            module = "decoder.dense_mlp"
        elif deeper == "gate":
            module = "decoder.router"
        else:
            shared = deeper.startswith("shared_experts") or (not deeper and name == "add")
            module = "decoder.shared_experts" if shared else "decoder.routed_experts"
        return f"{module}/{number}"


def _fed(module: str, layer: int, layers: int, after: str) -> str:
    """Where an addition that feeds a layer belongs: to that layer, or behind the last one to what comes after."""
    return f"{module}/{layer}" if layer < layers else after


def count_parameters(model: torch.nn.Module, labels: Labels) -> dict[str, int]:
    """Counts the parameters of the model by place."""
    counts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        counts[labels.place(name.rpartition(".")[0])] += parameter.numel()
    return dict(counts)
