"""Requests for the worker built from specs: where code and weights come from, and how points are timed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ocr_flops.errors import SpecError, one_of
from ocr_flops.measure.protocol import TIMED_DEVICES, Point, Request
from ocr_flops.spec.specs import STAGES, AttentionSpec, ModelSpec

if TYPE_CHECKING:
    from ocr_flops.spec.run_spec import RunSpec
    from ocr_flops.spec.workload import Workload

POINT_FIELDS = tuple(field.name for field in fields(Point))
TOWERS = ("sam", "clip", "decoder")  # those with attention
DECODE_STEPS = 3  # that are run, unless a request says otherwise


class ModelSource(NamedTuple):
    """The code and weights that run (fields as in `Request`)."""

    engine: str = "transformers"
    snapshot: str | None = None
    trust_remote_code: bool = False
    checkpoint: str | None = None

    def of_engine(self, engine: str) -> ModelSource:
        """The same for an engine, of which remote_code alone has a snapshot."""
        return self._replace(engine=engine, **({} if engine == "remote_code" else {"snapshot": None, "trust_remote_code": False}))


TRANSFORMERS = ModelSource()


def split_source(overrides: Iterable[str]) -> tuple[list[str], dict[str, Any]]:
    """Separates the overrides of a command line from those that say which code and weights run: the latter as fields of `ModelSource`.

    Raises:
        SpecError: a folder that is not named, or a trust that is neither true nor false.
    """
    rest, source = [], {}
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals or name not in ModelSource._fields[1:]:
            rest.append(text)
        elif name == "trust_remote_code":
            source[name] = one_of(name, value.lower(), ("true", "false")) == "true"
        elif value:
            source[name] = str(Path(value).expanduser().resolve())
        else:
            raise SpecError(f"{name}: empty; name a folder")
    return rest, source


def build_request(
    model: ModelSpec,
    workloads: Iterable[Workload],
    *,
    attention: str | AttentionSpec = "eager",
    decode_steps: int = DECODE_STEPS,
    stages: Sequence[str] = STAGES,
    **settings: Any,
) -> Request:
    """Builds a request for the worker to run the real model.

    Args:
        model: dimensions.
        workloads: single points.
        attention: "eager" or "sdpa" for all towers, or a kernel for each.
        decode_steps: steps run at most; a point with fewer output tokens runs those.
        stages: those to run.
        **settings: other fields of `Request`.

    Raises:
        SpecError: the engine cannot run this.
    """
    points = [Point(**{name: getattr(workload, name) for name in POINT_FIELDS}) for workload in workloads]
    request = Request(
        tower_dimensions(model),
        [replace(point, output_tokens=min(point.output_tokens, decode_steps)) for point in points],
        attention={tower: attention if isinstance(attention, str) else attention.kernel(tower) for tower in TOWERS},
        stages=tuple(stages),
        **settings,
    )
    if problem := request.problem():
        raise SpecError(problem)
    return request


def tower_dimensions(model: ModelSpec) -> dict[str, dict[str, Any]]:
    """The dimensions of every tower as a request carries them."""
    return {spec.tower: asdict(spec) for spec in model.towers}


@dataclass(frozen=True)
class Plan:
    """How points are timed.

    Args:
        run: model, engine, attention, precision, logits and stages, from `spec.load_run`.
        source: the code and weights that run.
        device: "auto" (cuda where there is one, else cpu), "cpu" or "cuda".
        runs, warmup, experts, probes: as in `Request`.

    Raises:
        SpecError: something that cannot be timed.
    """

    run: RunSpec
    source: ModelSource = TRANSFORMERS
    device: str = "auto"
    runs: int = Request.runs
    warmup: int = Request.warmup
    experts: str | None = None
    probes: tuple[str, ...] = Request.probes

    def __post_init__(self) -> None:
        one_of("device", self.device, TIMED_DEVICES)
        if self.run.cache != "dynamic":
            raise SpecError(f"cache: {self.run.cache!r} cannot be measured; choose dynamic, which the engines run")
        if self.run.hardware is not None:
            raise SpecError(f"hardware: {self.run.hardware.name!r} has no part in a measurement, which finds its device; leave it out")
        self.request([])

    def request(self, workloads: Iterable[Workload]) -> Request:
        """Builds the request that times points.

        Raises:
            SpecError: the engine cannot run this.
        """
        points = list(workloads)
        return build_request(
            self.run.model,
            points,
            attention=self.run.attention.resolved(self.run.model, self.run.engine),
            decode_steps=max((point.output_tokens for point in points), default=0),
            stages=self.run.stages,
            device=self.device,
            dtype=self.run.dtype,
            prefill_logits=self.run.prefill_logits,
            kind="time",
            runs=self.runs,
            warmup=self.warmup,
            experts=self.experts,
            probes=tuple(self.probes),
            **self.source._asdict() | {"engine": self.run.engine.name},
        )
