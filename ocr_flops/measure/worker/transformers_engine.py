"""The real model as transformers' UnlimitedOcr class at DeepSeek-OCR's dimensions: how it is built and how its stages are run."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from transformers import DynamicCache, GenerationConfig, UnlimitedOcrConfig, UnlimitedOcrForConditionalGeneration
from transformers.integrations import moe
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ocr_flops.measure.protocol import Point, Request
from ocr_flops.measure.worker import checkpoint as checkpoints
from ocr_flops.measure.worker import inputs
from ocr_flops.measure.worker.labels import Labels
from ocr_flops.measure.worker.machine import DTYPES, FLASH, need_flash
from ocr_flops.measure.worker.remote_snapshot import DECODER_FIELDS

Tensors = list[torch.Tensor]


def config_fields(towers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What the class's config is made of, with the given dimensions; every decoder layer attends to everything."""
    sam, clip, decoder = towers["sam"], towers["clip"], towers["decoder"]
    vision = {
        "sam_config": {
            "hidden_size": sam["width"],
            "output_channels": sam["neck_width"],
            "num_hidden_layers": sam["layers"],
            "num_attention_heads": sam["heads"],
            "num_channels": sam["channels"],
            "image_size": sam["image_px"],
            "patch_size": sam["patch_px"],
            "window_size": sam["window"],
            "global_attn_indexes": list(sam["global_layers"]),
            "mlp_dim": sam["mlp_width"],
            "downsample_channels": list(sam["downsample_widths"]),
        },
        "encoder_config": {
            "hidden_size": clip["width"],
            "intermediate_size": clip["mlp_width"],
            "num_hidden_layers": clip["layers"],
            "num_attention_heads": clip["heads"],
            "num_channels": clip["channels"],
            "image_size": clip["image_px"],
            "patch_size": clip["patch_px"],
        },
    }
    layers, dense = decoder["layers"], decoder["dense_layers"]
    text = {name: decoder[dimension] for name, dimension in DECODER_FIELDS.items() if dimension != "dense_layers"} | {
        "num_key_value_heads": decoder["heads"],
        "layer_types": ["full_attention"] * layers,
        "mlp_layer_types": ["dense"] * dense + ["sparse"] * (layers - dense),
    }
    return {"vision_config": vision, "text_config": text, "image_token_id": min(128_815, decoder["vocabulary"] - 1)}


def build_model(request: Request, device: str, experts: str) -> torch.nn.Module:
    """Builds the model with random weights, or those of a checkpoint, which is loaded with the dimensions given, never with its own
    config.json: with that of DeepSeek-OCR transformers would start from random weights, silently.

    Args:
        request: towers, attention (eager or sdpa), dtype and checkpoint.
        device: "meta", "cpu" or "cuda".
        experts: transformers' experts implementation, "batched_mm", "grouped_mm" or "eager".

    Raises:
        ValueError: an attention mode that this class does not have, or a checkpoint that does not hold all of its parameters.
    """
    attention, checkpoint, model_class = request.attention, request.checkpoint, UnlimitedOcrForConditionalGeneration
    for tower, mode in attention.items():
        if mode not in ("eager", "sdpa"):
            raise ValueError(f"attention.{tower}: {mode!r} cannot be run by transformers' UnlimitedOcr class; choose eager or sdpa")
    settings = UnlimitedOcrConfig(**config_fields(request.towers))
    options = {"attn_implementation": attention["sam"], "dtype": DTYPES[request.dtype]}
    if checkpoint is None:
        with torch.device(device):
            model = model_class._from_config(settings, **options)
    else:
        checkpoints.files(checkpoint)
        options |= {"use_safetensors": True, "local_files_only": True, "output_loading_info": True}
        options |= {"generation_config": GenerationConfig()}  # else it is looked for in the folder, and must be there
        model, report = model_class.from_pretrained(checkpoint, config=settings, **options)
        checkpoints.complain(checkpoint, set(report["missing_keys"]) | {name for name, *_ in report["mismatched_keys"]})
        model = model.to(device)
    for tower in ("clip", "decoder"):
        _attention_config(model, tower)._attn_implementation = attention[tower]
    model.set_experts_implementation(experts)
    return model.eval()


def _attention_config(model: torch.nn.Module, tower: str) -> Any:
    """The config that CLIP or the decoder reads its attention from."""
    return {"clip": model.model.vision_tower.vision_encoder, "decoder": model.model.language_model}[tower].config


class Transformers:
    """How transformers' class is run, stage by stage.

    Args:
        device: where it runs.

    Raises:
        ValueError: a kernel is missing, or as `build_model`.
    """

    code = "UnlimitedOcr class"
    assumed_experts = 0  # a grouped product is handed all experts, so none need be assumed

    def __init__(self, request: Request, device: str):
        usual = "grouped_mm" if request.kind in ("trace", "time", "host") else "batched_mm" if device == "meta" else "eager"
        self._request, self._device, self.experts = request, device, request.experts or usual
        self._flash = [tower for tower, kernel in request.attention.items() if kernel == "flash" and request.kind == "time"]
        if "sam" in self._flash:
            raise ValueError(
                "kernel missing: attention.sam: 'flash' cannot be run, since no kernel builds SAM's bias on chip; choose attention.sam=sdpa"
            )
        for tower in self._flash:
            need_flash(tower, device, "sdpa")
        plain = replace(request, attention=request.attention | dict.fromkeys(self._flash, "sdpa"))
        self.model = build_model(plain, device, self.experts)
        self._set_attention(self._flash, FLASH)
        self.labels = Labels(request.towers)
        self._image_token = self.model.config.image_token_id
        self._keep = int(request.prefill_logits == "last")  # positions that get logits in prefill, 0 for all

    def running(self) -> contextlib.AbstractContextManager[None]:
        """Within it the model runs on this device; to measure the host's lane, without the slow grouped products of a CPU."""
        return plain_products() if self._request.kind == "host" else meta_shims(self._device)

    @contextlib.contextmanager
    def countable_kernels(self) -> Iterator[None]:
        """Within it, kernels that torch's FLOP counter has no formula for are exchanged for ones that it knows."""
        self._set_attention(self._flash, "sdpa")
        self.model.set_experts_implementation("eager")
        try:
            yield
        finally:
            self.model.set_experts_implementation(self.experts)
            self._set_attention(self._flash, FLASH)

    def uncounted_kernels(self, stage: str) -> list[str]:
        """What torch's counter could not have counted in a stage's own kernels, and what is counted instead; a line each."""
        notes = []
        for tower in ("sam", "clip") if stage == "vision" else ("decoder",):
            if self._request.attention[tower] == "flash":
                notes.append(f"{tower}: flash-attn is not counted; counted with sdpa")
            elif self._request.attention[tower] == "sdpa" and self._device == "cpu":
                notes.append(f"{tower}: the CPU's fused attention is not counted; counted with its plain one")
        if stage != "vision" and self.experts == "grouped_mm":
            notes.append("decoder.routed_experts: grouped products are not counted; counted expert by expert")
        return notes

    def _set_attention(self, towers: list[str], kernel: str) -> None:
        for tower in towers:
            _attention_config(self.model, tower)._attn_implementation = kernel

    @staticmethod
    def picked(output: Any) -> torch.Tensor:
        """The experts that a router's output picks."""
        return output[2]

    def vision(self, point: Point) -> tuple[Tensors, Callable[[], Tensors]]:
        """The stage's inputs, and what runs it and returns the features of each page."""
        held, views = self._views(point)
        encode = self.model.model.get_image_features
        return held, lambda: encode(**views, return_dict=True).pooler_output

    def _views(self, point: Point) -> tuple[Tensors, dict[str, Any]]:
        """Pixels, and the arguments that hand them to the model."""
        views = inputs.views(point, self._request, self._device)
        return [view for view in views.values() if isinstance(view, torch.Tensor)], views

    def prefill(self, point: Point, features: Tensors, cache: DynamicCache) -> tuple[Tensors, Callable[[], Tensors]]:
        """The stage's inputs, and what runs it and returns what lives on beside the next pass: nothing."""
        ids = inputs.token_ids(point, self._image_token, self._device)

        settings = {"input_ids": ids, "past_key_values": cache, "logits_to_keep": self._keep}

        def run() -> Tensors:
            return self._pass(mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=features)}, **settings)

        return [*features, ids], run

    def call(self, point: Point, cache: DynamicCache) -> tuple[Tensors, Callable[[], object]]:
        """The inputs of one call for vision and prefill, and what makes it."""
        ids = inputs.token_ids(point, self._image_token, self._device)
        held, views = self._views(point)
        return [ids, *held], lambda: self.model(input_ids=ids, **views, past_key_values=cache, use_cache=True, logits_to_keep=self._keep)

    def step(self, point: Point, number: int, cache: DynamicCache) -> tuple[Tensors, Callable[[], Tensors]]:
        """A decode step's inputs, and what runs it (as of `prefill`)."""
        token = inputs.step_ids(point, number, self._image_token, self._device)
        return [token], lambda: self._pass(input_ids=token, past_key_values=cache, logits_to_keep=1)

    def _pass(self, **arguments: Any) -> Tensors:
        """Runs the model, of whose output nothing lives on."""
        self.model(**arguments, use_cache=True)
        return []

    def new_cache(self) -> DynamicCache:
        """An empty cache."""
        return DynamicCache(config=self.model.config.text_config)

    @staticmethod
    def cached(cache: DynamicCache) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values of each layer."""
        return [(layer.keys, layer.values) for layer in cache.layers if layer.is_initialized]


def plain_products() -> contextlib.AbstractContextManager[Any]:
    """Lets one plain matrix product of the same rows and widths stand in for each grouped one, where torch has that function.

    To the host both are one operator, but a CPU runs a grouped product expert by expert.
    """
    functions = torch.nn.functional
    if not hasattr(functions, "grouped_mm"):
        return contextlib.nullcontext()
    return patch.object(functions, "grouped_mm", lambda rows, weights, *, offs: torch.mm(rows, weights[0]))


@contextlib.contextmanager
def meta_shims(device: str) -> Iterator[None]:
    """Lets the model run on meta: a check that reads a value on the host is run up to the reading, and grouped matrix products of other
    dtypes than bf16, which have no meta kernel, go through transformers' own fallback operator (same shapes, same sizes)."""
    if device != "meta":
        yield
        return
    checks = patch.object(torch, "_check_tensor_all_with", lambda error, condition, message=None: condition._is_all_true())
    with checks, patch.object(moe, "_can_use_grouped_mm", lambda x, weight, offs: x.dtype == torch.bfloat16):
        yield
