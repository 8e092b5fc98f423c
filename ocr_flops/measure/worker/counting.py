"""What torch's FLOP counter and the tracer see of the stages of the real model: alone, or both in one pass."""

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, bmm_flop

from ocr_flops.measure.worker.cuda_attention import CudaAttention
from ocr_flops.measure.worker.session import Observer, Session, Tensors
from ocr_flops.measure.worker.tracer import Tracer, follow_modules, sum_events

Rows = dict[str, dict[str, int]]
SEEN = {"vision": ("sam.attention_global", "clip.attention")}  # modules whose FLOPs the counter would miss in silence
SEEN |= dict.fromkeys(("prefill", "decode"), ("decoder.attention", "decoder.routed_experts"))
SEEN["call"] = SEEN["vision"] + SEEN["prefill"]
_EXPERT = re.compile(r"experts\.\d+\.")


@dataclass
class Work:
    """What the passes of a stage did, as a result says it: work and traffic add up, peaks do not; cache and weights are the last pass's."""

    flops: int = 0
    steps: int = 0
    modules: Counter = field(default_factory=Counter)
    layers: Counter = field(default_factory=Counter)
    operators: Counter = field(default_factory=Counter)
    kv_cache_bytes: list[int] | None = None
    trace: Rows | None = None
    layer_trace: Rows | None = None
    weight_bytes: int | None = None
    peak: dict[str, Any] | None = None
    experts: Counter | None = None

    def count(self, flops: int, layers: Counter, operators: dict[str, int]) -> None:
        """Adds what the counter saw in a pass."""
        self.flops += flops
        self.steps += 1
        self.layers += layers
        self.operators += operators
        for place, found in layers.items():
            self.modules[place.partition("/")[0]] += found

    def count_experts(self, **counts: int) -> None:
        """Adds what became of experts in a pass."""
        self.experts = self.experts or Counter()
        self.experts.update(counts)

    def add_trace(self, tracer: Tracer, weight_bytes: int, assumed: int) -> None:
        """Adds what the tracer saw in a pass."""
        self.trace, self.layer_trace = self.trace or {}, self.layer_trace or {}
        sum_events(tracer.events, "module", self.trace)
        sum_events(tracer.events, "place", self.layer_trace)
        self.weight_bytes = weight_bytes
        worst = max(tracer.events, key=lambda event: event.live_bytes)
        if self.peak is None or worst.live_bytes > self.peak["bytes"]:
            self.peak = {"bytes": worst.live_bytes, "module": worst.module, "operator": worst.name, "path": worst.path}
        self.count_experts(handed_bytes=sum(event.expert_bytes for event in tracer.events), hit=0, assumed=assumed)

    def as_stage(self) -> dict[str, Any]:
        """The stage of a result; what was not observed is left out."""
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items() if value is not None}


class Counting(Observer):
    """Observes stages by torch's FLOP counter; FLOPs are credited to the module that ran when the counter moved. RuntimeError where torch
    counted no FLOPs in attention or experts, which means that it could not see them."""

    formulas: dict[Any, Callable[..., int]] = {}  # noqa: RUF012  beside the counter's own

    def __init__(self, session: Session):
        self._session = session
        self.work = {stage: Work() for stage in session.stages}

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        """The stages of a result."""
        return {stage: work.as_stage() for stage, work in self.work.items()}

    @contextlib.contextmanager
    def watch(self, stage: str, held: Tensors, cache: Any) -> Iterator[None]:
        """Counts a pass of a stage."""
        engine, work, paths, layers, credited = self._session.engine, self.work[stage], [""], Counter(), 0
        counter = FlopCounterMode(display=False, custom_mapping=self.formulas)

        def credit() -> None:
            nonlocal credited
            if (now := counter.get_total_flops()) != credited:
                layers[engine.labels.place(paths[-1])] += now - credited
                credited = now

        hits, beside = Counter(), self._beside(work, paths, held, cache)
        with follow_modules(engine.model, paths, credit), counter, beside, _expert_hits(self._session, hits):
            yield
        credit()
        if hits:
            work.count_experts(hit=hits.total())
        operators = {str(operator).removeprefix("aten."): int(flops) for operator, flops in counter.get_flop_counts()["Global"].items()}
        work.count(int(counter.get_total_flops()), layers, operators)
        if cache is not None:
            work.kv_cache_bytes = self._session.cached_bytes(cache)
        check_seen(stage, work.modules)

    def _beside(self, work: Work, paths: list[str], held: Tensors, cache: Any) -> contextlib.AbstractContextManager[Any]:
        """What else is active within a pass: on the CPU, attention's plain kernel, because the counter sees none of the fused one."""
        return sdpa_kernel(SDPBackend.MATH) if self._session.device == "cpu" else contextlib.nullcontext()


def check_seen(stage: str, modules: Counter) -> None:
    """Raises RuntimeError where attention or experts have no FLOPs: torch's counter reports 0 for kernels that it does not know."""
    for module in SEEN[stage]:
        if not modules[module]:
            raise RuntimeError(f"torch counted no FLOPs in {module}: its counter does not see the kernel that ran")


def _grouped_flops(x_shape: Any, weight_shape: Any, *rest: Any, **options: Any) -> int:
    """A grouped product by the counter's own formula for bmm: each row meets the matrix of its expert, as in `batched_mm`."""
    rows, width, inner = x_shape[0], *weight_shape[-2:]
    return bmm_flop((rows, 1, width), (rows, width, inner))


class Tracing(Counting):
    """Observes stages by the counter and by a trace of every operator in the same pass.

    Traffic is that of grouped experts, for whose products the counter has no formula: it is given its own for the batched ones.
    """

    wants_fresh_features = True  # no leftovers of vision beside them

    def __init__(self, session: Session):
        super().__init__(session)
        products = (torch.ops.aten, "_grouped_mm"), (torch.ops.transformers, "grouped_mm_fallback")  # torch 2.6 has neither
        self.formulas = {getattr(library, name): _grouped_flops for library, name in products if hasattr(library, name)}

    @contextlib.contextmanager
    def _beside(self, work: Work, paths: list[str], held: Tensors, cache: Any) -> Iterator[None]:
        engine, model = self._session.engine, self._session.model

        def cached() -> Iterator[torch.Tensor]:
            for both in engine.cached(cache) if cache is not None else ():
                yield from both

        tracer = Tracer([*model.parameters(), *model.buffers()], engine.labels.place, cached, paths)
        assumed = engine.assumed_experts
        with trace_pass(tracer, held, cache):
            yield
        work.add_trace(tracer, _read_bytes(model, tracer), engine.assumed_experts - assumed)


def _read_bytes(model: torch.nn.Module, tracer: Tracer) -> int:
    """Bytes of the parameters that were read; of a layer's experts all, where they are modules of their own and any was hit."""
    sizes, read = Counter(), set()
    for name, parameter in model.named_parameters():
        group = _EXPERT.sub("experts.", name)
        sizes[group] += parameter.nbytes
        if tracer.was_read(parameter):
            read.add(group)
    return sum(sizes[group] for group in read)


@contextlib.contextmanager
def trace_pass(tracer: Tracer, held: Iterable[torch.Tensor], cache: Any) -> Iterator[None]:
    """Within it a tracer sees a pass; `held` are its inputs, `cache` is None for vision."""
    tracer.hold(held)
    tracer.hold_cache(tracer.cached())
    with contextlib.nullcontext() if cache is None else watch_cache_updates(cache, tracer), CudaAttention(), tracer:
        yield  # the tracer is innermost: it sees what runs, whatever a counter does with it


def watch_cache_updates(cache: Any, tracer: Tracer) -> contextlib.AbstractContextManager[Any]:
    """Tells the tracer while the cache is being updated: what is written then is KV traffic, and what it hands out is cache."""
    update = cache.update

    def watched(*args: Any, **rest: Any) -> Any:
        with patch.object(tracer, "in_cache_update", True):
            held = update(*args, **rest)
        tracer.hold_cache(held)
        return held

    return patch.object(cache, "update", watched)


@contextlib.contextmanager
def _expert_hits(session: Session, hits: Counter) -> Iterator[None]:
    """Counts the different experts that each layer's router picks, where there is data to route by."""
    with contextlib.ExitStack() as stack:
        for name, module in session.model.named_modules():
            if name.endswith("mlp.gate") and session.device != "meta":

                def picked(module: Any, args: Any, output: Any, name: str = name) -> None:
                    hits[name] += len(set(session.engine.picked(output).reshape(-1).tolist()))

                stack.callback(module.register_forward_hook(picked).remove)
        yield
