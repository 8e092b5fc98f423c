"""A built model and how its stages are run: vision, prefill and decode steps of the real model, and the call that is both vision and
prefill, each under an observer's eyes."""

import contextlib
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

from ocr_flops import __version__
from ocr_flops.measure.protocol import Point, Request
from ocr_flops.measure.worker import inputs
from ocr_flops.measure.worker.labels import count_parameters
from ocr_flops.measure.worker.machine import device_name, resolve_device

STAGES = ("vision", "prefill", "decode", "call")
Progress = Callable[[str], None]
Tensors = list[torch.Tensor]


class Observer(Protocol):
    """Observes every pass of a stage: of decode each step.

    Attributes:
        wants_fresh_features: whether prefill must begin with features that vision did not leave behind.
    """

    wants_fresh_features: bool = False

    def watch(self, stage: str, held: Tensors, cache: Any) -> contextlib.AbstractContextManager[None]:
        """Within it one pass of a stage runs; `held` are its inputs, `cache` is None for vision."""


class Session:
    """A built model and how its stages are run.

    Args:
        request: what to run; its engine builds the model.

    Attributes:
        device: "meta", "cpu" or "cuda".
        engine: how the model is called, with `model`, `labels` and `experts`.
    """

    def __init__(self, request: Request):
        if request.engine == "remote_code":  # either engine's module may not be importable where the other one runs
            from ocr_flops.measure.worker.remote_engine import Remote as Engine
        else:
            from ocr_flops.measure.worker.transformers_engine import Transformers as Engine
        self.request = request
        self.device = resolve_device(request.device, request.kind == "time")
        self.engine = Engine(request, self.device)
        self.stages = tuple(stage for stage in STAGES if stage in request.stages)

    @property
    def model(self) -> torch.nn.Module:
        """The model that the engine built."""
        return self.engine.model

    def cached_bytes(self, cache: Any) -> list[int]:
        """Bytes of each layer's keys and values."""
        return [keys.nbytes + values.nbytes for keys, values in self.engine.cached(cache)]

    def facts(self) -> dict[str, Any]:
        """What a result says of what ran, but for its times."""
        import transformers

        request = self.request
        weights = "random" if request.checkpoint is None else f"checkpoint {Path(request.checkpoint).name}"
        kernels = "/".join(dict.fromkeys(request.attention.values()))
        what = "random weights" if request.checkpoint is None else weights
        return {
            "engine": request.engine,
            "attention": request.attention,
            "dtype": request.dtype,
            "device": self.device,
            "experts": self.engine.experts,
            "prefill_logits": request.prefill_logits,
            "kind": request.kind,
            "weights": weights,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "layer_parameters": count_parameters(self.model, self.engine.labels),
            "device_name": device_name(self.device),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "ocr_flops": __version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "label": f"transformers, {self.engine.code}, {what}, {kernels}, {self.device}",
        }

    def run_stages(self, point: Point, observer: Observer, progress: Progress = lambda text: None) -> None:
        """Runs the stages of a point under an observer, with the same inputs every time; `progress` is called before each pass."""
        torch.manual_seed(0)  # so that experts that are counted in one run are those hit in the others
        with torch.no_grad(), self.engine.running():
            features: list[Tensors] = []  # at most one, taken out by whom it is for: nobody else keeps it alive
            if "vision" in self.stages:
                progress("vision")
                held, encode = self.engine.vision(point)
                with observer.watch("vision", held, None):
                    features.append(encode())
                del held, encode
            if "prefill" in self.stages or "decode" in self.stages:
                self._run_language(point, features, observer, progress)
            if "call" in self.stages:
                progress("call")
                cache = self.engine.new_cache()
                held, run = self.engine.call(point, cache)
                with observer.watch("call", held, cache):
                    run()

    def _run_language(self, point: Point, encoded: list[Tensors], observer: Observer, progress: Progress) -> None:
        features = encoded.pop() if encoded else None
        if features is None or observer.wants_fresh_features:
            features = inputs.features(point, self.request, self.device)
        cache = self.engine.new_cache()
        progress("prefill")
        held, fill = self.engine.prefill(point, features, cache)
        with observer.watch("prefill", held, cache) if "prefill" in self.stages else contextlib.nullcontext():
            left = fill()
        del features, held, fill
        for step in range(point.output_tokens if "decode" in self.stages else 0):
            progress(f"decode step {step + 1}")
            held, decode = self.engine.step(point, step, cache)
            with observer.watch("decode", [*held, *left], cache):
                left = decode()
