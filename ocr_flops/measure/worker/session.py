"""Runs vision, prefill and decode steps of the real model and reports each stage as torch's counter, or the tracer, sees it."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ocr_flops.measure.protocol import Point
from ocr_flops.measure.worker import inputs
from ocr_flops.measure.worker.cuda_attention import CudaAttention
from ocr_flops.measure.worker.device import DTYPES
from ocr_flops.measure.worker.device import bytes_of_all as _bytes
from ocr_flops.measure.worker.tracer import Tracer, module_paths

Stage = dict[str, Any]
Progress = Callable[[str], None]
_EXPERT = re.compile(r"experts\.\d+\.")


class Session:
    """A built model and how to run it.

    Args:
        model: from `model.build`, or from `snapshot.build` for engine remote_code.
        towers: its dimensions.
        dtype, device, prefill_logits: as in the request.
        image: path of a page to cut into views, or None.
        stages: those to run.
        kind: "count" or "trace".
        engine: "transformers" or "remote_code".
    """

    def __init__(
        self,
        model: torch.nn.Module,
        towers: dict[str, dict[str, Any]],
        *,
        dtype: str,
        device: str,
        prefill_logits: str,
        image: str | None = None,
        stages: tuple[str, ...] = ("vision", "prefill", "decode"),
        kind: str = "count",
        engine: str = "transformers",
    ):
        self.model, self.towers, self.device, self.image, self.stages = model, towers, device, image, stages
        self.dtype, self.keep = DTYPES[dtype], 1 if prefill_logits == "last" else 0
        self.observe = _counted if kind == "count" else _traced
        if engine == "remote_code":  # either engine's module may not be importable where the other one runs
            from ocr_flops.measure.worker.remote_engine import Remote as Engine
        else:
            from ocr_flops.measure.worker.transformers_engine import Transformers as Engine
        self.engine = Engine(model, towers, device)

    def run(self, point: Point, progress: Progress = lambda text: None) -> dict[str, Stage]:
        """Runs the stages of a point; `progress` is called before each.

        Raises:
            RuntimeError: torch counted no FLOPs in a stage, which means that it could not see them.
        """
        found: dict[str, Stage] = {}
        with torch.no_grad(), self.engine.running():
            features: list[list[torch.Tensor]] = []  # at most one, taken out by whom it is for: nobody else keeps it alive
            if "vision" in self.stages:
                progress("vision")
                held, encode = self.engine.vision(point, self.dtype, self.image)
                with self._watched(found, "vision", held):
                    features.append(encode())
                del held, encode
            if "prefill" in self.stages or "decode" in self.stages:
                self._language(point, features, found, progress)
        return found

    @contextlib.contextmanager
    def _watched(self, found: dict[str, Stage], stage: str, held: list[torch.Tensor], cache: Any = None) -> Iterator[None]:
        """Observes a stage; on CUDA also records what the allocator peaked at, weights and cache included."""
        on_cuda = self.device == "cuda"
        if on_cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        with self.observe(self, found, stage, held, cache):
            yield
        if stage in found and cache is not None:
            found[stage]["kv_cache_bytes"] = [_bytes(keys) + _bytes(values) for keys, values in self.engine.cached(cache)]
        if on_cuda and stage in found:
            torch.cuda.synchronize()
            found[stage]["max_memory_allocated"] = torch.cuda.max_memory_allocated()

    def _language(self, point: Point, encoded: list[list[torch.Tensor]], found: dict[str, Stage], progress: Progress) -> None:
        width = self.towers["projector"]["output_width"]
        features = encoded.pop() if encoded else None
        if features is None or self.observe is _traced:  # a trace wants no leftovers of vision beside the features
            features = inputs.features(point, width, self.dtype, self.device)
        cache = self.engine.new_cache()
        progress("prefill")
        wanted = found if "prefill" in self.stages else {}
        held, fill = self.engine.prefill(point, features, cache, self.keep)
        with self._watched(wanted, "prefill", held, cache):
            fill()
        del features, held, fill
        steps: list[Stage] = []
        for step in range(point.output_tokens if "decode" in self.stages else 0):
            progress(f"decode step {step + 1}")
            held, decode = self.engine.step(point, step, cache)
            once: dict[str, Stage] = {}
            with self._watched(once, "decode", held, cache):
                decode()
            steps.append(once["decode"])
        if "decode" in self.stages:
            found["decode"] = _summed(steps)


def _summed(steps: list[Stage]) -> Stage:
    """Several steps as one stage: work and traffic add up, peaks do not, the cache is the last step's."""
    total: Stage = {
        "flops": sum(step["flops"] for step in steps),
        "steps": len(steps),
        "missed": sorted({name for step in steps for name in step["missed"]}),
    }
    for name in ("modules", "layers", "operators"):
        total[name] = dict(sum((Counter(step[name]) for step in steps), Counter()))
    for name in ("kv_cache_bytes", "weight_bytes"):
        if steps and name in steps[-1]:
            total[name] = steps[-1][name]
    if steps and "max_memory_allocated" in steps[0]:
        total["max_memory_allocated"] = max(step["max_memory_allocated"] for step in steps)
    if steps and "trace" in steps[0]:
        for name in ("trace", "layer_trace"):
            table: dict[str, dict[str, int]] = {}
            for step in steps:
                for place, row in step[name].items():
                    merged = table.setdefault(place, dict.fromkeys(row, 0))
                    for column, value in row.items():
                        merged[column] = max(merged[column], value) if column.startswith("peak") else merged[column] + value
            total[name] = table
        total["peak"] = max((step["peak"] for step in steps), key=lambda peak: peak["bytes"])
        total["experts"] = {key: sum(step["experts"][key] for step in steps) for key in steps[0]["experts"]}
    return total


@contextlib.contextmanager
def _counted(session: Session, found: dict[str, Stage], stage: str, held: list[torch.Tensor], cache: Any = None) -> Iterator[None]:
    """Counts a stage with FlopCounterMode; FLOPs are credited to the module that ran when the counter moved."""
    labels, counter, layers = session.engine.labels, FlopCounterMode(display=False), Counter()
    paths, credited = [""], [0]
    names = {module: name for name, module in session.model.named_modules()}

    def credit() -> None:
        now = counter.get_total_flops()
        if now != credited[0]:
            layers[labels.place(paths[-1])] += now - credited[0]
            credited[0] = now

    def enter(module, args):
        credit()
        paths.append(names[module])

    def leave(module, args, output):
        credit()
        paths.pop()

    handles = [handle for module in names for handle in (module.register_forward_pre_hook(enter), module.register_forward_hook(leave))]
    with contextlib.ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        if session.device == "cpu":  # FlopCounterMode sees none of CPU's fused attention
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(counter)
        yield
    credit()
    modules: Counter = Counter()
    for place, flops in layers.items():
        modules[place.partition("/")[0]] += flops
    operators = {str(operator).removeprefix("aten."): int(flops) for operator, flops in counter.get_flop_counts()["Global"].items()}
    found[stage] = {
        "flops": int(counter.get_total_flops()),
        "modules": dict(modules),
        "layers": dict(layers),
        "operators": operators,
        "missed": [],
        "steps": 1,
    }
    _check(stage, modules)


def _check(stage: str, modules: Counter) -> None:
    """Attention and experts must have been seen: torch's counter reports 0 for kernels it does not know."""
    expected = ("sam.attention_global", "clip.attention") if stage == "vision" else ("decoder.attention", "decoder.routed_experts")
    for module in expected:
        if not modules[module]:
            raise RuntimeError(f"torch counted no FLOPs in {module}: its counter does not see the kernel that ran")


@contextlib.contextmanager
def _traced(session: Session, found: dict[str, Stage], stage: str, held: list[torch.Tensor], cache: Any = None) -> Iterator[None]:
    """Traces a stage: every operator's FLOPs and bytes, and what is alive."""

    def cached() -> Iterator[torch.Tensor]:
        for both in engine.cached(cache) if cache is not None else ():
            yield from both

    model, engine = session.model, session.engine
    tracer = Tracer([*model.parameters(), *model.buffers()], engine.labels.place, cached)
    tracer.hold(held)
    tracer.hold_cache(cached())
    hits, assumed = _ExpertHits(session), engine.assumed_experts
    with contextlib.ExitStack() as stack:
        if cache is not None:
            stack.enter_context(_cache_updates(cache, tracer))
        stack.enter_context(hits)
        stack.enter_context(module_paths(model, tracer))
        stack.enter_context(CudaAttention())
        stack.enter_context(tracer)
        yield
    events = tracer.trace.events
    modules: Counter = Counter()
    layers: Counter = Counter()
    operators: Counter = Counter()
    for event in events:
        modules[event.module] += event.tensor_flops
        layers[event.place] += event.tensor_flops
        operators[event.name] += event.tensor_flops
    worst = max(events, key=lambda event: event.live_bytes)
    found[stage] = {
        "flops": sum(modules.values()),
        "modules": dict(modules),
        "layers": dict(layers),
        "operators": {name: flops for name, flops in operators.items() if flops},
        "missed": [],
        "steps": 1,
        "trace": tracer.trace.by_module(),
        "layer_trace": tracer.trace.by_place(),
        "weight_bytes": _read_bytes(model, tracer),
        "peak": {"bytes": worst.live_bytes, "module": worst.module, "operator": worst.name, "path": worst.path},
        "experts": {
            "handed_bytes": sum(event.expert_bytes for event in events),
            "hit": hits.total,
            "assumed": engine.assumed_experts - assumed,
        },
    }


def _read_bytes(model: torch.nn.Module, tracer: Tracer) -> int:
    """Bytes of the parameters that were read; of a layer's experts all, where they are modules of their own and any was hit."""
    sizes, read = Counter(), set()
    for name, parameter in model.named_parameters():
        group = _EXPERT.sub("experts.", name)
        sizes[group] += _bytes(parameter)
        if tracer.was_read(parameter):
            read.add(group)
    return sum(sizes[group] for group in read)


@contextlib.contextmanager
def _cache_updates(cache: Any, tracer: Tracer) -> Iterator[None]:
    """Tells the tracer while the cache is being updated: what is written then is KV traffic, and what it hands out is cache."""
    update = cache.update

    def watched(*args, **kwargs):
        tracer.in_cache_update = True
        try:
            held = update(*args, **kwargs)
        finally:
            tracer.in_cache_update = False
        tracer.hold_cache(held)
        return held

    cache.update = watched
    try:
        yield
    finally:
        cache.update = update


class _ExpertHits(contextlib.AbstractContextManager):
    """Counts the experts each layer's router picks, where there is data to route by (not on meta)."""

    def __init__(self, session: Session):
        self.total, self._picked = 0, session.engine.picked
        modules = {} if session.device == "meta" else dict(session.model.named_modules())
        self._gates = [module for name, module in modules.items() if name.endswith("mlp.gate")]

    def __enter__(self) -> _ExpertHits:
        def seen(module, args, output):
            self.total += len(set(self._picked(output).reshape(-1).tolist()))

        self._handles = [gate.register_forward_hook(seen) for gate in self._gates]
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()
