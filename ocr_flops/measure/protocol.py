"""The worker's protocol: one JSON request on stdin, JSON lines on stdout. Standard library only; both sides import it.

Request: the fields of `Request` as one JSON object. Messages, one a line, told apart by "event":
- progress: {"event", "done", "total", "text", "stage", "point"}: a step of `steps(request)` begins; `done` steps lie behind it, of `total`;
  `stage` and `point` are the step's
- result: {"event", "point", "workload", "ran", "stages"}; `ran` says what ran where and when: settings of the request, "device" and
  "device_name", "label" (in words), versions ("torch", "transformers", "ocr_flops", "python", "platform"), "parameters", "started" and
  "finished" (of the point, ISO 8601 in UTC), "seconds" ({stage: seconds that observing it took}); `stages` maps a stage to
  {"flops", "modules": {module: flops}, "layers": {place: flops}, "operators": {aten operator: flops}, "missed": [what torch's counter
  cannot see]}, after prefill and decode "kv_cache_bytes": [bytes of each layer], and, for a trace, "trace": {module: {column: integer}},
  "layer_trace": {place: {column: integer}}, "weight_bytes" (of the parameters read) and "experts": {...}. A place is "module/layer",
  outside layers the module alone
  For kind "time" a stage is as `measure/timing.py` says; there, before the first result, {"event": "ran", "ran"} tells what is about to
  run, and a point that cannot be run ends in {"event": "failed", "point", "workload", "ran", "message", "advice"} instead of a result; the
  points after it are still run
- waiting: {"event", "text"}: kind "time" waits, for as long as it takes, until no other timed run holds the GPU; sent once a second
- ran: {"event", "ran"} is also the only result of a request of kind "device": {"device", "device_name", "torch", "transformers",
  "ocr_flops"} (transformers is not imported: null where it is not installed)
- audit: {"event", "ran", "cases"} (see `measure/audit.py`), the only result of a request of that kind
- error: {"event", "message", "advice"} and, where the worker left a log, "detail" (its end, several lines); nothing follows
- done: {"event"}; nothing follows
Messages and fields that a reader does not know are to be skipped. A worker that nobody listens to any more (stdout is a pipe without a
reader) ends itself.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

SCHEMA = 1
ENGINES = ("transformers", "remote_code")
REMOTE_ATTENTION = {"sam": "sdpa", "clip": "sdpa", "decoder": "eager"}  # written into the vendor's code
DEVICES = ("auto", "meta", "cpu", "cuda")
TIMED_DEVICES = ("auto", "cpu", "cuda")  # meta holds nothing to compute with
KINDS = ("count", "trace", "audit", "time", "device")
EXPERTS = ("eager", "batched_mm", "grouped_mm")
PASSES = ("modules", "memory", "flops", "traffic")
SETUP = ("torch", "transformers", "model")


@dataclass(frozen=True)
class Request:
    """What to run.

    Args:
        towers: dimensions of each tower, {"sam": {"width": 768, ...}, ...}.
        workloads: points, each {"global_px", "tile_px", "columns", "rows", "prompt_tokens", "output_tokens", "batch_size"};
            output_tokens is the number of decode steps that are run.
        engine: "transformers", or "remote_code": the vendor's own code, from `snapshot`.
        attention: mode per tower, {"sam": "eager", "clip": "eager", "decoder": "eager"}.
        dtype: "bf16", "fp16" or "fp32".
        device: "auto" (cuda if present, else meta), "meta", "cpu" or "cuda".
        prefill_logits: "all" or "last".
        stages: those to run.
        kind: "count" (torch's FLOP counter), "trace" (every operator's FLOPs, bytes and live memory), "time" (seconds, on cpu and cuda),
            "audit" (what the counter sees of single operators) or "device" (what it would run on); the last two read neither towers nor
            workloads.
        image: path of an image to cut into views, on cpu and cuda; random pixels otherwise.
        snapshot: folder of the published model, for remote_code: its config.json and the code beside it.
        trust_remote_code: whether that code may run here. It must be true for remote_code.
        checkpoint: folder of safetensors with the weights, on cpu and cuda; random ones where it is None.
        experts: transformers' experts implementation, one of `EXPERTS`, for kind "time"; None: grouped_mm, its default.
        runs, warmup: of every point, for kind "time": those timed, and those before them.
        passes: for kind "time", what is observed apart from the timed runs, of `PASSES`: modules (their time, by hooks, in as many runs),
            memory (the allocator's peaks, on cuda), flops (counted), traffic (traced: bytes and live memory).
    """

    towers: dict[str, dict[str, Any]]
    workloads: list[dict[str, int]]
    engine: str = "transformers"
    attention: dict[str, str] = field(default_factory=lambda: {"sam": "eager", "clip": "eager", "decoder": "eager"})
    dtype: str = "bf16"
    device: str = "auto"
    prefill_logits: str = "last"
    stages: tuple[str, ...] = ("vision", "prefill", "decode")
    kind: str = "count"
    image: str | None = None
    snapshot: str | None = None
    trust_remote_code: bool = False
    checkpoint: str | None = None
    experts: str | None = None
    runs: int = 5
    warmup: int = 2
    passes: tuple[str, ...] = ("modules", "memory", "flops")
    schema: int = SCHEMA

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Request:
        """Reads a request.

        Raises:
            ValueError: not JSON, an unknown or missing field, another schema, an unknown engine, device or kind, or what `problem` says.
        """
        try:
            data = json.loads(text)
        except json.JSONDecodeError as problem:
            raise ValueError(f"request: not JSON ({problem})") from None
        if not isinstance(data, dict):
            raise ValueError("request: not a JSON object")
        if data.get("schema") != SCHEMA:
            raise ValueError(f"request.schema: {data.get('schema')!r} is not {SCHEMA}")
        unknown = set(data) - set(cls.__dataclass_fields__)
        if unknown:
            raise ValueError(f"request: unknown field {sorted(unknown)[0]!r}")
        for name in ("towers", "workloads"):
            if name not in data:
                raise ValueError(f"request: missing field {name!r}")
        request = cls(**{**data, **{name: tuple(data.get(name, getattr(cls, name))) for name in ("stages", "passes")}})
        for name, value, allowed in (
            ("engine", request.engine, ENGINES),
            ("device", request.device, DEVICES),
            ("kind", request.kind, KINDS),
        ):
            if value not in allowed:
                raise ValueError(f"request.{name}: {value!r} is not one of {', '.join(allowed)}")
        if problem := request.problem():
            raise ValueError(problem)
        return request

    def problem(self) -> str | None:
        """What keeps the engine from running with the other fields; None where nothing does. Both sides ask, before anything is loaded."""
        if self.checkpoint is not None and self.device == "meta":
            return "checkpoint: the meta device holds no weights; choose device cpu or cuda, or leave out the checkpoint"
        if self.kind == "time" and (problem := self._problem_of_timing()):
            return problem
        if self.engine != "remote_code":
            return "snapshot: only engine remote_code runs one; leave it out, or choose that engine" if self.snapshot is not None else None
        if self.snapshot is None:
            return "snapshot: engine remote_code runs the vendor's code from a local folder; name the one the published model is in"
        if self.trust_remote_code is not True:
            return (
                f"trust_remote_code: it is not true, so nothing was run. Engine remote_code runs the Python code in {self.snapshot!r} with "
                "your rights; read it, and set trust_remote_code=true if you trust it"
            )
        for tower, mode in REMOTE_ATTENTION.items():
            if self.attention[tower] != mode:
                return f"attention.{tower}: {self.attention[tower]!r} cannot be run by the vendor's code; choose {mode}"
        if self.prefill_logits != "all":
            return f"prefill_logits: {self.prefill_logits!r} cannot be run by the vendor's code; choose all"
        return None

    def _problem_of_timing(self) -> str | None:
        """What kind "time" cannot do."""
        if self.device == "meta":
            return "device: 'meta' holds no data, so nothing can be timed; choose cpu or cuda"
        for name, least in (("runs", 1), ("warmup", 0)):
            if type(value := getattr(self, name)) is not int or value < least:
                return f"{name}: {value!r} is not a whole number of at least {least}"
        for name in self.passes:
            if name not in PASSES:
                return f"passes: {name!r} is not one of {', '.join(PASSES)}"
        if self.experts is not None and self.engine == "remote_code":
            return "experts: the vendor's code has one implementation, a loop; leave this out"
        if self.experts not in (None, *EXPERTS):
            return f"experts: {self.experts!r} is not one of {', '.join(EXPERTS)}"
        return None


class Step(NamedTuple):
    """What one progress message announces.

    Args:
        stage: one of `SETUP` (imports, then building the model), or "vision", "prefill" or "decode" (one decode step); for kind "time"
            "warm-up" or "timed" (one run), or one of `PASSES`.
        point: number of the workload; None during set-up.
    """

    stage: str
    point: int | None = None


def steps(request: Request) -> list[Step]:
    """The steps of a request in the order they run. Decode alone runs prefill too, to fill its cache."""
    found = [Step(stage) for stage in SETUP]
    for point, workload in enumerate(request.workloads):
        if request.kind == "time":
            found += [Step("warm-up", point)] * request.warmup + [Step("timed", point)] * request.runs
            found += [Step(name, point) for name in PASSES if name in request.passes]
            continue
        tokens = workload["output_tokens"] if "decode" in request.stages else 0
        language = "prefill" in request.stages or "decode" in request.stages
        found += [Step("vision", point)] * ("vision" in request.stages) + [Step("prefill", point)] * language
        found += [Step("decode", point)] * tokens
    return found
