"""Modules of learned classes by the path of the nn.Module that runs: names that are the same for all models."""

import re
from typing import Any

from ocr_flops.cost.learning.stage_learning import LAYER
from ocr_flops.measure.worker.labels import Labels

_LANGUAGE = re.compile(r"language_model|text_model|lm_head")
_RULES = {
    True: [  # of the language model; first match wins
        (r"lm_head", "lm_head"),
        (r"embed_tokens", "decoder.embed"),
        (r"self_attn|rotary|attention", "decoder.attention"),
        (r"mlp\.(gate|router)$", "decoder.router"),
        (r"mlp\.experts", "decoder.routed_experts"),
        (r"shared_expert", "decoder.shared_experts"),
        (r"mlp", "decoder.dense_mlp"),
        (r"norm|layers\.\d+$", "decoder.norm_residual"),
        (r"", "decoder.attention"),  # masks and positions
    ],
    False: [
        (r"merger|projector|projection|downsample|connector|resampler", "projector"),
        (r"attn|attention|rotary|position", "vision.attention"),
        (r"mlp|feed_forward|\bfc\d|ffn", "vision.mlp"),
        (r"patch|embed|neck", "vision.embed"),
        (r"\d+(\.|$)|norm|ln_", "vision.norm_residual"),
    ],
}
_VISION = re.compile(r"visual|vision|encoder|projector|connector")


class ClassLabels(Labels):
    """Labels of operators of any class; those of DeepSeek-OCR's own class are as in its tape."""

    def __init__(self, config: Any):
        vision, text = getattr(config, "vision_config", None), config.get_text_config()
        self._is_own = config.model_type == "unlimited_ocr"
        if self._is_own:
            sam, clip = vision.sam_config, vision.encoder_config
            towers = {
                "sam": {"global_layers": sam.global_attn_indexes, "layers": sam.num_hidden_layers},
                "clip": {"layers": clip.num_hidden_layers},
                "decoder": {"dense_layers": list(text.mlp_layer_types).count("dense")},
            }
            super().__init__(towers)

    def place(self, path: str, name: str = "", order: int = 0) -> str:
        """The module and layer of an operator (arguments as in `Labels.place`)."""
        if self._is_own:
            return super().place(path, name, order)
        layer = LAYER.match(path)
        module = self._module_of(path)
        return f"{module}/{layer[2]}" if layer else module

    @staticmethod
    def _module_of(path: str) -> str:
        is_language = bool(_LANGUAGE.search(path))
        if not is_language and not _VISION.search(path):
            return "merge"
        return next((label for pattern, label in _RULES[is_language] if re.search(pattern, path)), "vision.embed")
