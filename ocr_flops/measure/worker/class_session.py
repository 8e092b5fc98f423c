"""Any class of transformers on `meta`, and traces of its vision, prefill and decode by the doors that all classes share."""

import contextlib
import gc
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any

import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from ocr_flops.cost.learning.dimensions import with_parts
from ocr_flops.cost.learning.folding import COLUMNS, Launch, Trace, Unlearnable
from ocr_flops.measure.worker.class_doors import DOORS, Sizes
from ocr_flops.measure.worker.class_doors import FEATURES as FEATURES_SIZE
from ocr_flops.measure.worker.class_labels import ClassLabels
from ocr_flops.measure.worker.counting import trace_pass
from ocr_flops.measure.worker.machine import DTYPES
from ocr_flops.measure.worker.tracer import Tracer, follow_modules
from ocr_flops.measure.worker.transformers_engine import meta_shims

FEATURES = ("pooler_output", "deepstack_features")  # of what vision returns, those that prefill reads
KERNELS = ("eager", "sdpa")
aten = torch.ops.aten
PICKS = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)


def find_class(architecture: str) -> Any:
    """A class of transformers that can be learned.

    Raises:
        Unlearnable: there is none of that name, or none that is handed pages in a way that is known here.
    """
    found = getattr(transformers, architecture, None)
    if found is None:
        raise Unlearnable(f"architecture: {architecture!r} is no class of transformers {transformers.__version__}")
    if (kind := found.config_class.model_type) not in DOORS:
        raise Unlearnable(f"architecture: {architecture} ({kind}) is not one of {', '.join(DOORS)}, which can be handed pages here")
    return found


class ClassTracer(Tracer):
    """A tracer to which a copy from the CPU to `meta` is no operator: on one device nothing moves."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is aten._to_copy.default and _only_moves(args[0], kwargs):
            self.hold([moved := func(*args, **kwargs)])
            return moved
        return super().__torch_dispatch__(func, types, args, kwargs)


def _only_moves(tensor: torch.Tensor, options: dict[str, Any]) -> bool:
    """Whether a copy goes from the CPU to `meta` and changes nothing."""
    same = options.get("dtype") in (None, tensor.dtype)
    return same and tensor.device.type == "cpu" and str(options.get("device")) == "meta"


class MixedDevices(TorchDispatchMode):
    """Lets code mix tensors on `meta` with CPU ones that it reads back: the latter are moved for as long as an operator runs.

    Args:
        keeps_masks: whether masks stay on the CPU that code copies to the device of the model and then picks by.
    """

    def __init__(self, keeps_masks: bool = False):
        super().__init__()
        self._keeps_masks = keeps_masks

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self._keeps_masks and func is aten._to_copy.default and args[0].dtype == torch.bool and _only_moves(args[0], kwargs):
            return args[0]
        devices = {leaf.device.type for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        if devices == {"cpu", "meta"}:
            if func in PICKS:  # what a mask picks is known on the CPU only
                args = (args[0], [position for index in args[1] for position in _positions(index)], *args[2:])
            args, kwargs = tree_map(_move, args), tree_map(_move, kwargs)
        return func(*args, **kwargs)


def _positions(index: Any) -> list[Any]:
    is_mask = isinstance(index, torch.Tensor) and index.dtype == torch.bool and index.device.type == "cpu"
    return list(index.nonzero(as_tuple=True)) if is_mask else [index]


def _move(value: Any) -> Any:
    is_cpu = isinstance(value, torch.Tensor) and value.device.type == "cpu" and value.ndim
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta") if is_cpu else value


class ClassSession:
    """A class at some dimensions with one attention kernel, and traces of its stages.

    Args:
        architecture: the class.
        config: where its config differs from the class's defaults.
        attention: "eager" or "sdpa".

    Raises:
        Unlearnable: the class is not there, or does not have the kernel.
        ValueError: its config refuses the dimensions.
    """

    def __init__(self, architecture: str, config: dict[str, Any], attention: str):
        found = find_class(architecture)
        settings = found.config_class(**config)
        try:
            with torch.device("meta"):
                self.model = found._from_config(settings, attn_implementation=attention, dtype=DTYPES["bf16"]).eval()
        except ValueError as problem:
            if "does not support" in str(problem):
                raise Unlearnable(f"attention: {architecture} has no {attention}") from None
            raise
        if any(name.endswith(".experts") for name, _ in self.model.named_modules()):
            self.model.set_experts_implementation("grouped_mm")
        self.config = self.model.config
        self.door = DOORS[self.config.model_type]
        self.parts = self.door.parts(self.config)
        self.labels = ClassLabels(self.config)
        self.rest_weights()
        text = self.config.get_text_config()
        windowed = "reference_sliding_attention" in (getattr(text, "layer_types", None) or ())
        self.window = text.sliding_window if windowed else 0  # outputs, the newest, that decode keeps beside the prompt; 0 for all
        self._paths = [""]
        self._features: dict[str, Any] = {}
        self._counts: dict[str, int] = {}
        token = getattr(self.config, "image_token_id", None)
        self._image_token = self.config.image_token_index if token is None else token

    def rest_weights(self) -> None:
        """Takes the model's tensors as they are now for its weights."""
        self._weights = [*self.model.parameters(), *self.model.buffers()]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Within it stages may be traced."""
        with torch.no_grad(), meta_shims("meta"), follow_modules(self.model, self._paths), MixedDevices(self.door.keeps_masks):
            yield

    def trace(self, stage: str, batch: int, sizes: Sizes, tokens: int = 0) -> Trace:
        """A stage at a point.

        Args:
            stage: "vision", "prefill", "call" or "decode".
            batch: pages, all alike.
            sizes: of a page; in decode with a window the "outputs" written, the new one included.
            tokens: of text beside the image's features in prefill; in decode those attended to, the new one included, or with a window
                those of the prompt.
        """
        if stage == "decode":
            return self._trace_decode(batch, tokens, sizes.get("outputs", 1))
        point = with_parts({"batch": batch, **sizes}, self.parts)
        if stage == "vision":
            inputs = self.door.inputs(self.model, batch, sizes)
            return self._traced(point, leaves(inputs), lambda: self.model.model.get_image_features(**inputs, return_dict=True))
        cache, count = self.new_cache(), self.count_features(batch, sizes)
        point[FEATURES_SIZE] = count
        ids = self._text(batch, count + tokens)
        ids[:, 1 : 1 + count] = self._image_token
        point = with_parts(point | {"tokens": count + tokens}, self.parts)
        if stage == "prefill":
            features = self._vision_features(batch, sizes)
            given = type(features)(**{name: features[name] for name in FEATURES if features.get(name) is not None})
            return self._traced(point, [*leaves(given), ids], lambda: self._run(ids, cache, mm_encoder_outputs={"image": given}), cache)
        inputs = self.door.inputs(self.model, batch, sizes)
        if "image_grid_thw" in inputs:  # whose positions `generate` computes beforehand: it runs vision, then the language model

            def run() -> None:
                found = self.model.model.get_image_features(**inputs, return_dict=True)
                self._run(ids, cache, mm_encoder_outputs={"image": found})
        else:

            def run() -> None:
                self._run(ids, cache, **inputs)

        return self._traced(point, [ids, *leaves(inputs)], run, cache)

    def decode_point(self, batch: int, tokens: int, outputs: int) -> Sizes:
        """The sizes of a decode step; arguments as of `trace`."""
        context = {"context": tokens + min(outputs, self.window), "tokens": tokens} if self.window else {"context": tokens}
        return with_parts({"batch": batch, **context}, self.parts)

    def _trace_decode(self, batch: int, tokens: int, outputs: int) -> Trace:
        cache, ids = self.new_cache(), self._text(batch, 1)
        self._fill(cache, batch, tokens if self.window else tokens - 1, *[1] * (outputs - 1))
        return self._traced(self.decode_point(batch, tokens, outputs), [ids], lambda: self._run(ids, cache), cache)

    def _run(self, ids: torch.Tensor, cache: Any, **arguments: Any) -> None:
        """One pass of the language model, of whose output nothing lives on."""
        self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1, **arguments)

    def _text(self, batch: int, tokens: int) -> torch.Tensor:
        """Ids that are no image token, on the CPU, where code reads them back."""
        return torch.full((batch, tokens), 1 if self._image_token != 1 else 2, dtype=torch.long)

    def _vision_features(self, batch: int, sizes: Sizes) -> Any:
        """What vision returns for pages of a size."""
        key = f"{batch} {sizes}"
        if key not in self._features:
            self._features[key] = self.model.model.get_image_features(**self.door.inputs(self.model, batch, sizes), return_dict=True)
        return self._features[key]

    def count_features(self, batch: int, sizes: Sizes) -> int:
        """Image features of a page."""
        if (key := str(sizes)) not in self._counts:
            found = leaves(self._vision_features(batch, sizes)["pooler_output"])
            self._counts[key] = sum(leaf.shape[:-1].numel() for leaf in found) // batch
        return self._counts[key]

    def new_cache(self) -> Any:
        """An empty cache."""
        return transformers.DynamicCache(config=self.config.get_text_config())

    @cached_property
    def _states(self) -> list[torch.Tensor]:
        """Keys and values of one token in every layer."""
        self._run(self._text(1, 1), cache := self.new_cache())
        return [tensor for tensor in cached(cache) if tensor.ndim == 4]

    def _fill(self, cache: Any, batch: int, *lengths: int) -> None:
        """Keys and values of so many tokens in a cache, as passes of the language model one after the other leave them."""
        for tokens in filter(None, lengths):
            states = [one.new_empty(batch, one.shape[1], tokens, one.shape[3]) for one in self._states]
            for layer, both in enumerate(zip(states[::2], states[1::2], strict=True)):
                cache.update(*both, layer)

    def cached_bytes(self, batch: int, tokens: int) -> int:
        """Bytes of the cache after so many tokens."""
        cache = self.new_cache()
        self._fill(cache, batch, tokens)
        return sum(tensor.nbytes for tensor in cached(cache))

    def _traced(self, point: Sizes, held: Iterable[torch.Tensor], run: Callable[[], Any], cache: Any = None) -> Trace:
        """What runs, as a trace.

        Raises:
            Unlearnable: it cannot run without data; the message names the module and what stopped it.
        """
        tracer = ClassTracer(self._weights, self.labels.place, lambda: cached(cache), self._paths)
        gc.disable()  # nothing dies by chance
        try:
            with trace_pass(tracer, held, cache):
                run()
        except NotImplementedError as problem:
            where, self._paths[1:] = self._paths[-1], []
            last = tracer.events[-1].name if tracer.events else "the first operator"
            text = str(problem).partition("\n")[0].partition(". ")[0]
            raise Unlearnable(f"{where or 'the model'}: after {last}: its code needs data that `meta` does not hold ({text})") from None
        finally:
            gc.enable()
        launches = [
            Launch(event.path, event.name, event.place, event.itemsize, tuple(getattr(event, column) for column in COLUMNS))
            for event in tracer.events
        ]
        return Trace(point, launches, *(self.door.turns(point) if "context" not in point else ()))


def cached(cache: Any) -> Iterator[torch.Tensor]:
    """Keys and values of each layer of a cache."""
    for layer in cache.layers if cache is not None else ():
        if layer.is_initialized:
            kept = (getattr(layer, name, None) for name in ("keys", "values", "prefill_keys", "prefill_values"))
            yield from (tensor for tensor in kept if tensor is not None)


def leaves(value: Any) -> list[torch.Tensor]:
    """The tensors in arguments."""
    return [leaf for leaf in tree_leaves(dict(value) if isinstance(value, dict) else value) if isinstance(leaf, torch.Tensor)]
