"""How the published code is run, stage by stage: vision up to the image's features, prefill and decode as its `generate` calls it."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import torch

from ocr_flops.measure.protocol import Point, Request
from ocr_flops.measure.worker import inputs
from ocr_flops.measure.worker.labels import RemoteLabels
from ocr_flops.measure.worker.machine import DTYPES, need_flash
from ocr_flops.measure.worker.remote_shims import Shims
from ocr_flops.measure.worker.remote_snapshot import build_model

Tensors = list[torch.Tensor]
IMAGE_TOKEN = 128_815


class Remote:
    """The published code from a local folder.

    The code encodes images inside the language model's `forward`. Here that `forward` is called twice: for vision it ends where the
    features would be put into the embeddings, for prefill it begins there, with features made before. So each stage is the code's own
    operators, and vision is separate from prefill. ValueError: a kernel is missing; other errors as of `build_model`.
    """

    code, experts = "the published code", "loop"

    def __init__(self, request: Request, device: str):
        self._is_flash = request.attention["decoder"] == "flash"
        if self._is_flash:
            need_flash("decoder", device, "eager")
        self.model = build_model(request, device)
        self._image_token = min(IMAGE_TOKEN, request.towers["decoder"]["vocabulary"] - 1)
        self._request, self._device, self.labels = request, device, RemoteLabels(request.towers)
        self._shims = Shims(device)
        self._cache_class = _cache_class(self.model)

    @contextlib.contextmanager
    def countable_kernels(self) -> Iterator[None]:
        """Within it the decoder runs the eager attention that its flash attention inherits from: torch's FLOP counter knows no other."""
        attentions = [layer.self_attn for layer in self.model.model.layers] if self._is_flash else []
        flash = {attention: type(attention) for attention in attentions}
        for attention, kind in flash.items():
            attention.__class__ = kind.__bases__[0]
        try:
            with patch.object(self.model.model, "_use_flash_attention_2", False):
                yield
        finally:
            for attention, kind in flash.items():
                attention.__class__ = kind

    def uncounted_kernels(self, stage: str) -> list[str]:
        """What torch's counter could not have counted in a stage's own kernels, and what is counted instead; a line each."""
        names = ("sam", "clip") if stage == "vision" and self._device == "cpu" else ()
        notes = [f"{tower}: the CPU's fused attention is not counted; counted with its plain one" for tower in names]
        return notes + ["decoder: flash-attn is not counted; counted with eager"] * (self._is_flash and stage != "vision")

    @property
    def assumed_experts(self) -> int:
        """Experts hit so far in loops without data to route by."""
        return self._shims.assumed

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Within it the model runs on this device."""

        def routed(module: Any, args: Any, output: Any) -> None:
            self._shims.rows, self._shims.per_token = output[0].numel(), output[0].shape[-1]

        with contextlib.ExitStack() as stack:
            for name, module in self.model.named_modules():
                if name.endswith("mlp.gate"):
                    stack.callback(module.register_forward_hook(routed).remove)
            stack.enter_context(self._shims)
            yield

    @staticmethod
    def picked(output: Any) -> torch.Tensor:
        """The experts that a router's output picks."""
        return output[0]

    def vision(self, point: Point) -> tuple[Tensors, Callable[[], Tensors]]:
        """The stage's inputs, and what runs it and returns the features of each page."""
        held, images = self._images(point)
        batch, width = point.batch_size, self._request.towers["projector"]["output_width"]
        arguments = images | {
            "input_ids": torch.empty(batch, 2, dtype=torch.long, device=self._device),  # of its width it is asked only whether it is 1
            "inputs_embeds": torch.empty(batch, 0, width, dtype=DTYPES[self._request.dtype], device=self._device),
            "images_seq_mask": torch.empty(batch, 0, dtype=torch.bool, device=self._device),
        }

        def run() -> Tensors:
            with _no_language_model(self.model.model), _Features() as features:
                self.model.model(**arguments)
            return features.found

        return held, run

    def _images(self, point: Point) -> tuple[Tensors, dict[str, Any]]:
        """Pixels, and the arguments that hand them to the code, page by page."""
        self.labels.has_tiles = point.tiles > 0
        views = inputs.views(point, self._request, self._device)
        pages, batch = views["pixel_values"], point.batch_size
        cuts = views.get("pixel_values_local", pages[:0])  # a page without tiles has none, whose sum is zero
        images = [(cuts[number * point.tiles : (number + 1) * point.tiles], pages[number : number + 1]) for number in range(batch)]
        held = [view for view in views.values() if isinstance(view, torch.Tensor)]
        return held, {"images": images, "images_spatial_crop": [[point.columns, point.rows]] * batch}

    def prefill(self, point: Point, features: Tensors, cache: Any) -> tuple[Tensors, Callable[[], Tensors]]:
        """The stage's inputs, and what runs it: token embeddings, the features put in, all layers, logits of every position. It returns
        what lives on beside the next pass, as of `_next_logits`."""
        arguments, places = self._context(point)

        def run() -> Tensors:
            with _image_in(self.model.model, places, features):
                return self._next_logits(**arguments, past_key_values=cache)

        return [*features, *arguments.values(), places], run

    def call(self, point: Point, cache: Any) -> tuple[Tensors, Callable[[], Tensors]]:
        """The inputs of one call for vision and prefill, and what makes it."""
        pixels, images = self._images(point)
        arguments, places = self._context(point)
        held = [*pixels, *arguments.values(), places]
        return held, lambda: self._next_logits(**arguments, **images, images_seq_mask=places, past_key_values=cache)

    def step(self, point: Point, number: int, cache: Any) -> tuple[Tensors, Callable[[], Tensors]]:
        """A decode step's inputs, and what runs it (as of `prefill`), after so many steps."""
        token = inputs.step_ids(point, number, self._image_token, self._device)
        arguments = self._at(point, token, point.image_tokens + point.prompt_tokens + number)
        return list(arguments.values()), lambda: self._next_logits(**arguments, past_key_values=cache)

    def _next_logits(self, **arguments: Any) -> Tensors:
        """Calls the code as `generate` of transformers 4.46.3 does (generation/utils.py:3219), which clones all logits to read the last
        position's: a view by which the whole clone lives until the next pass has made its own."""
        return [self.model(**arguments, use_cache=True).logits.clone()[:, -1, :].float()]

    def _context(self, point: Point) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """What prefill is passed for the whole context, and where in it the image's tokens are."""
        ids = inputs.token_ids(point, self._image_token, self._device)
        places = (torch.arange(ids.shape[1], device=self._device) < point.image_tokens).expand(ids.shape).contiguous()
        return self._at(point, ids, 0), places

    def _at(self, point: Point, ids: torch.Tensor, start: int) -> dict[str, torch.Tensor]:
        """What `generate` passes for tokens from a position on: a mask of the whole context, and a row of positions for each sequence."""
        end = start + ids.shape[1]
        return {
            "input_ids": ids,
            "attention_mask": torch.ones(point.batch_size, end, dtype=torch.long, device=self._device),
            "position_ids": torch.arange(start, end, device=self._device).expand(ids.shape).contiguous(),
        }

    def new_cache(self) -> Any:
        """An empty cache, as the code itself would make it."""
        return self._cache_class()

    @staticmethod
    def cached(cache: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values of each layer."""
        return list(zip(cache.key_cache, cache.value_cache, strict=True))


def _cache_class(model: torch.nn.Module) -> type:
    """The cache that the code itself uses: the DynamicCache of the first module that defines or imports one."""
    modules = (sys.modules[base.__module__] for base in type(model).__mro__)
    return next(found for module in modules if (found := getattr(module, "DynamicCache", None)) is not None)


class _Features(torch.overrides.TorchFunctionMode):
    """Takes what would be scattered into the embeddings: each page's features."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Tensors = []

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is torch.Tensor.masked_scatter_:
            self.found.append(args[2])
            return args[0]
        return func(*args, **(kwargs or {}))


def _no_language_model(inner: torch.nn.Module) -> contextlib.AbstractContextManager[Any]:
    """Ends `inner.forward` where it hands the embeddings to the class it inherits from."""
    parent = next(base for base in type(inner).__mro__[1:] if "forward" in vars(base))
    return patch.object(parent, "forward", lambda self, *args, **rest: None)


@contextlib.contextmanager
def _image_in(inner: torch.nn.Module, places: torch.Tensor, features: Tensors) -> Iterator[None]:
    """Hides the vision tower, whose absence the code provides for, and puts features into the embeddings as the code would."""

    def scatter(module: Any, args: Any, output: torch.Tensor) -> None:
        for number, page in enumerate(features):
            output[number].masked_scatter_(places[number].unsqueeze(-1), page)

    with patch.dict(inner._modules), inner.embed_tokens.register_forward_hook(scatter):
        del inner._modules["sam_model"]
        yield
