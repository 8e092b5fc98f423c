"""The worker's protocol: one JSON request on stdin, JSON lines on stdout. Standard library only; both sides import it.

Request: the fields of `Request` as one JSON object (`probes` under their older name "passes"). Events, one a line, told apart by "event";
each is a class of `events.py`:
- progress: {"event", "done", "total", "text", "stage", "point"}: a step of `progress_steps(request)` begins; `done` steps lie behind it, of
  `total`; `stage` and `point` are the step's
- result: {"event", "point", "workload", "ran", "stages"}; `ran` says what ran where and when: settings of the request, "device" and
  "device_name", "label" (in words), versions ("torch", "transformers", "ocr_flops", "python", "platform"), "parameters", "started" and
  "finished" (of the point, ISO 8601 in UTC), "seconds" ({stage: seconds that observing it took}); `stages` maps a stage to
  {"flops", "modules": {module: flops}, "layers": {place: flops}, "operators": {aten operator: flops}}
  as torch's counter has them, after prefill and decode "kv_cache_bytes": [bytes of each layer], and, for a trace, of the same
  pass, "trace": {module: {column: integer}}, "layer_trace": {place: {column: integer}}, "weight_bytes" (of the parameters read), "peak"
  (the largest live sum, and where) and "experts": {...}. A place is "module/layer", outside layers the module alone
  For kind "time" a stage is as `worker/timing.py` says; there, before the first result, {"event": "ran", "ran"} tells what is about to
  run, and a point that cannot be run ends in {"event": "failed", "point", "workload", "ran", "message", "advice"} instead of a result; the
  points after it are still run
- waiting: {"event", "text"}: kind "time" waits, for as long as it takes, until no other timed run holds the GPU; sent once a second
- ran: {"event", "ran"} is also the only result of a request of kind "device": {"device", "device_name", "torch", "transformers",
  "ocr_flops"} (transformers is not imported: null where it is not installed)
  Kind "host" says what `worker/host_lane.py` does, in results as of "count"
- learned: {"event", "program"}, the text of a program file, and traced: {"event", "point", "modules"}, what ran at a point, by module, are
  the results of kind "learn"
- audit: {"event", "ran", "cases"} (see `worker/counter_audit.py`), the only result of a request of that kind
- error: {"event", "message", "advice"} and, where the worker left a log, "detail" (its end, several lines); nothing follows
- done: {"event"}; nothing follows
Events and fields that a reader does not know are to be skipped. A worker that nobody listens to any more (stdout is a pipe without a
reader) ends itself.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

SCHEMA = 1
ENGINES = ("transformers", "remote_code")
REMOTE_ATTENTION = {"sam": "sdpa", "clip": "sdpa", "decoder": "eager"}  # of the published code; its decoder also has flash-attn's
DEVICES = ("auto", "meta", "cpu", "cuda")
TIMED_DEVICES = ("auto", "cpu", "cuda")  # meta holds nothing to compute with
KINDS = ("count", "trace", "audit", "time", "device", "host", "learn")
EXPERTS = ("eager", "batched_mm", "grouped_mm")
PROBES = ("modules", "memory", "flops", "traffic")
SETUP = ("torch", "transformers", "model")
WIRE_NAMES = {"probes": "passes"}  # where a field is called otherwise in JSON


@dataclass(frozen=True)
class Point:
    """A workload as a request gives it: sides of the views in pixels, grid, tokens (output tokens are decode steps) and batch size."""

    global_px: int
    tile_px: int
    columns: int
    rows: int
    prompt_tokens: int
    output_tokens: int
    batch_size: int

    @property
    def tiles(self) -> int:
        """Tiles of a page; 0 for a grid of 1 x 1."""
        return self.columns * self.rows if self.columns * self.rows > 1 else 0

    @property
    def image_tokens(self) -> int:
        """Tokens of a page's views, as the published code lays them out: a newline after each row of queries, one separator."""
        side, tile_side = -(-self.global_px // 64), -(-self.tile_px // 64)
        return side * (side + 1) + 1 + (tile_side * self.rows * (tile_side * self.columns + 1) if self.tiles else 0)


@dataclass(frozen=True)
class Request:
    """What to run.

    Args:
        towers: dimensions of each tower, {"sam": {"width": 768, ...}, ...}.
        workloads: points to run.
        engine: "transformers", or "remote_code": the published code, from `snapshot`.
        attention: mode per tower, {"sam": "eager", "clip": "eager", "decoder": "eager"}.
        dtype: "bf16", "fp16" or "fp32".
        device: "auto" (cuda if present, else meta), "meta", "cpu" or "cuda".
        prefill_logits: "all" or "last".
        stages: those to run; beside "vision", "prefill" and "decode" also "call", which is vision and prefill in one call of the model.
        kind: "count" (torch's FLOP counter), "trace" (also every operator's FLOPs, bytes and live memory), "time" (seconds, on cpu and
            cuda), "host" (what the host takes to issue the operators, on cpu), "audit" (what the counter sees of single operators) or
            "device" (what it would run on); the last two read neither towers nor workloads.
        image: path of an image to cut into views, on cpu and cuda; random pixels otherwise.
        snapshot: folder of the published model, for remote_code: its config.json and the code beside it.
        trust_remote_code: whether that code may run here. It must be true for remote_code.
        checkpoint: folder of safetensors with the weights, on cpu and cuda; random ones where it is None.
        experts: transformers' experts implementation, one of `EXPERTS`, for kinds "time" and "host"; None: grouped_mm, its default.
        runs, warmup: of every point, for kinds "time" and "host": those timed, and those before them.
        probes: for kind "time", what is observed in runs of their own, of `PROBES`: modules (their time, by hooks, in as many runs),
            memory (the allocator's peaks, on cuda), flops (counted), traffic (traced: bytes and live memory).
        lesson: for kind "learn", which reads neither towers nor workloads: "architecture" and "config" of a class of transformers, with
            "kernels" to learn, or "points" to trace.
    """

    towers: dict[str, dict[str, Any]]
    workloads: list[Point]
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
    probes: tuple[str, ...] = ("modules", "memory", "flops")
    lesson: dict[str, Any] | None = None
    schema: int = SCHEMA

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps({WIRE_NAMES.get(name, name): value for name, value in asdict(self).items()})

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
        known = {WIRE_NAMES.get(one.name, one.name): one.name for one in fields(cls)}
        if unknown := set(data) - set(known):
            raise ValueError(f"request: unknown field {min(unknown)!r}")
        for name in ("towers", "workloads"):
            if name not in data:
                raise ValueError(f"request: missing field {name!r}")
        values = {known[name]: value for name, value in data.items()}
        values |= {name: tuple(values[name]) for name in ("stages", "probes") if name in values}
        try:
            values["workloads"] = [Point(**point) for point in values["workloads"]]
        except TypeError as problem:
            raise ValueError(f"request.workloads: {str(problem).partition('() ')[2]}") from None
        request = cls(**values)
        for name, allowed in (("engine", ENGINES), ("device", DEVICES), ("kind", KINDS)):
            if getattr(request, name) not in allowed:
                raise ValueError(f"request.{name}: {getattr(request, name)!r} is not one of {', '.join(allowed)}")
        if problem := request.problem():
            raise ValueError(problem)
        return request

    def problem(self) -> str | None:
        """What keeps the engine from running with the other fields; None where nothing does. Both sides ask, before anything is loaded."""
        if self.checkpoint is not None and self.device == "meta":
            return "checkpoint: the meta device holds no weights; choose device cpu or cuda, or leave out the checkpoint"
        if self.kind == "host" and self.device != "cpu":
            return f"device: {self.device!r} has no part in the host's lane, which is measured without one; leave it out"
        if self.kind in ("time", "host") and (problem := self._problem_of_timing()):
            return problem
        if self.engine != "remote_code":
            return "snapshot: only engine remote_code runs one; leave it out, or choose that engine" if self.snapshot is not None else None
        if self.snapshot is None:
            return "snapshot: engine remote_code runs the published code from a local folder; name the one the published model is in"
        if self.trust_remote_code is not True:
            return (
                f"trust_remote_code: it is not true, so nothing was run. Engine remote_code runs the Python code in {self.snapshot!r} with "
                "your rights; read it, and set trust_remote_code=true if you trust it"
            )
        for tower, mode in REMOTE_ATTENTION.items():
            has_flash = tower == "decoder" and self.kind == "time"  # which no counter and no tracer sees
            if self.attention[tower] not in ((mode, "flash") if has_flash else (mode,)):
                choice = f"{mode} or flash" if has_flash else mode
                return f"attention.{tower}: {self.attention[tower]!r} cannot be run by the published code; choose {choice}"
        if self.prefill_logits != "all":
            return f"prefill_logits: {self.prefill_logits!r} cannot be run by the published code; choose all"
        return None

    def _problem_of_timing(self) -> str | None:
        """What kinds "time" and "host" cannot do."""
        if self.device == "meta":
            return "device: 'meta' holds no data, so nothing can be timed; choose cpu or cuda"
        for name, least in (("runs", 1), ("warmup", 0)):
            if type(value := getattr(self, name)) is not int or value < least:
                return f"{name}: {value!r} is not a whole number of at least {least}"
        for name in self.probes:
            if name not in PROBES:
                return f"passes: {name!r} is not one of {', '.join(PROBES)}"
        if self.experts is not None and self.engine == "remote_code":
            return "experts: the published code has one implementation, a loop; leave this out"
        if self.experts not in (None, *EXPERTS):
            return f"experts: {self.experts!r} is not one of {', '.join(EXPERTS)}"
        return None


class ProgressStep(NamedTuple):
    """What one progress event announces.

    Args:
        stage: one of `SETUP` (imports, then building the model), or "vision", "prefill" or "decode" (one decode step); for kinds "time"
            and "host" "warm-up" or "timed" (one run), or one of `PROBES`.
        point: number of the workload; None during set-up.
    """

    stage: str
    point: int | None = None


def progress_steps(request: Request) -> list[ProgressStep]:
    """The steps of a request in the order they run. Decode alone runs prefill too, to fill its cache."""
    found = [ProgressStep(stage) for stage in SETUP]
    for number, point in enumerate(request.workloads):
        if request.kind in ("time", "host"):
            stages = ["warm-up"] * request.warmup + ["timed"] * request.runs + [name for name in PROBES if name in request.probes]
        else:
            decode_steps = point.output_tokens if "decode" in request.stages else 0
            runs_language = "prefill" in request.stages or "decode" in request.stages
            stages = ["vision"] * ("vision" in request.stages) + ["prefill"] * runs_language + ["decode"] * decode_steps
            stages += ["call"] * ("call" in request.stages)
        found += [ProgressStep(stage, number) for stage in stages]
    return found
