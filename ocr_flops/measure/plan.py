"""Requests for the worker built from specs: where code and weights come from, and how points are timed."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from ocr_flops.errors import SpecError, one_of
from ocr_flops.measure.protocol import TIMED_DEVICES, Point, Request
from ocr_flops.spec.run_spec import RunSpec
from ocr_flops.spec.specs import STAGES, AttentionSpec, ModelSpec
from ocr_flops.spec.workload import Workload

POINT_FIELDS = tuple(field.name for field in fields(Point))
TOWERS = ("sam", "clip", "decoder")  # those with attention
DECODE_STEPS = 3  # that are run, unless a request says otherwise
HOST_RUNS = 60  # timed runs of the host's lane, each some 50 ms
HOST_WORKLOAD = Workload(64, prompt_tokens=13, output_tokens=8)


class ModelSource(NamedTuple):
    """The code and weights that run (fields as in `Request`)."""

    engine: str = "transformers"
    snapshot: str | None = None
    trust_remote_code: bool = False
    checkpoint: str | None = None

    def of_engine(self, engine: str) -> Self:
        """The same for an engine, of which remote_code alone has a snapshot."""
        return self._replace(engine=engine, **({} if engine == "remote_code" else {"snapshot": None, "trust_remote_code": False}))


TRANSFORMERS = ModelSource()


def split_source(overrides: Iterable[str]) -> tuple[list[str], dict[str, Any]]:
    """Separates the overrides of a command line from those that say which code and weights run: the latter as fields of `ModelSource`,
    whose folders are named, and whose trust is true or false."""
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
        workloads: single points.
        attention: "eager" or "sdpa" for all towers, or a kernel for each.
        decode_steps: steps run at most; a point with fewer output tokens runs those.
        stages: those to run.
        **settings: other fields of `Request`.

    Raises:
        SpecError: the engine cannot run this.
    """
    check_measurable(model)
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


def run_request(run: RunSpec, workloads: Iterable[Workload], source: ModelSource = TRANSFORMERS, **settings: Any) -> Request:
    """Builds a request to run points as a run has them: its model, engine, attention, precision, logits and stages.

    Args:
        run: from `spec.load_run`.
        workloads: single points.
        source: the code and weights that run.
        **settings: of `build_request`, in place of the run's own too.

    Raises:
        SpecError: the engine cannot run this.
    """
    own = {"model": run.model, "attention": run.attention.resolved(run.model, run.engine)} | source._asdict()
    own |= {"engine": run.engine.name, "dtype": run.dtype, "prefill_logits": run.prefill_logits, "stages": run.stages}
    return build_request(workloads=workloads, **own | settings)


def check_measurable(model: ModelSpec) -> None:
    """Raises SpecError for a model that only `ocr-flops verify` runs here, on meta."""
    if model.learned:
        raise SpecError(
            f"model.{model.name}: only DeepSeek-OCR is run and timed here; `ocr-flops verify model={model.name}` holds fresh traces of "
            f"{model.learned.architecture} against its program"
        )


def host_request(run: RunSpec, source: ModelSource = TRANSFORMERS, *, runs: int = HOST_RUNS, **settings: Any) -> Request:
    """Builds the request that measures the host's lane: the class of a run at tiny widths, one view, a short text, some decode steps.

    It runs in fp32, whose kernels cost a CPU least. What is written into the published code cannot be tiny, so its vision is left out.

    Args:
        run: model, engine, attention, logits and stages.
        source: the code that runs.
        runs: timed runs.
        **settings: other fields of `Request`.

    Raises:
        SpecError: the engine cannot run this.
    """
    run.engine.check_runs()
    stages = [stage for stage in run.stages if stage != "vision" or run.engine.name != "remote_code"]
    if not stages:
        raise SpecError("stages: vision cannot be measured here, since its widths stand in the published code; add prefill or decode")
    tiny = {"model": shrink_model(run.model), "decode_steps": HOST_WORKLOAD.output_tokens, "stages": stages, "dtype": "fp32"}
    tiny |= {"kind": "host", "runs": runs, "probes": ("modules", "flops"), "device": "cpu"}
    return run_request(run, [HOST_WORKLOAD], source, **tiny | settings)


def shrink_model(model: ModelSpec) -> ModelSpec:
    """The model with the same layers, experts and operators at widths of 16 with two heads, for views of 64 px.

    SAM's windows of 3 x 3 patches need padding in such a view, and their bias needs it on CUDA, as those of 14 x 14 do in views of 1024 px.
    """
    sizes = dict.fromkeys(("width", "mlp_width", "neck_width", "output_width", "dense_width", "expert_width"), 16)
    sizes |= {"heads": 2, "patch_px": 16, "window": 3, "downsample_widths": (16, 16), "input_width": 32, "vocabulary": 128}
    views = {"sam": 64, "clip": 16}  # each tower's position table fits the view, so it is not resized

    def shrink(spec: Any) -> Any:
        tiny = sizes | {"image_px": views.get(spec.tower)}
        return replace(spec, **{field.name: tiny[field.name] for field in fields(spec) if field.name in tiny})

    return replace(model, towers=tuple(map(shrink, model.towers)))


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
        self.run.engine.check_runs()
        if self.run.cache != "dynamic":
            raise SpecError(f"cache: {self.run.cache!r} cannot be measured; choose dynamic, which the engines run")
        if self.run.hardware is not None:
            raise SpecError(f"hardware: {self.run.hardware.name!r} has no part in a measurement, which finds its device; leave it out")
        self.request([])

    def request(self, workloads: Iterable[Workload]) -> Request:
        """Builds the request that times points; errors as of `build_request`."""
        points = list(workloads)
        steps = max((point.output_tokens for point in points), default=0)
        how = {"device": self.device, "runs": self.runs, "warmup": self.warmup, "experts": self.experts, "probes": tuple(self.probes)}
        return run_request(self.run, points, self.source, kind="time", decode_steps=steps, **how)
