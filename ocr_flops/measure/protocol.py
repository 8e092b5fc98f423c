"""The worker's protocol: one JSON request on stdin, JSON lines on stdout. Standard library only; both sides import it.

Request: the fields of `Request` as one JSON object. Messages, one a line, told apart by "event":
- progress: {"event", "done", "total", "text"}
- result: {"event", "point", "workload", "ran", "stages"}; `ran` says what ran (see `Ran`); `stages` maps a stage to
  {"flops", "modules": {module: flops}, "operators": {aten operator: flops}, "missed": [what torch's counter cannot see]} and, for a
  trace, "trace": {module: {column: integer}} and "experts": {...}
- error: {"event", "message", "advice"}
- done: {"event"}
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

SCHEMA = 1
DEVICES = ("auto", "meta", "cpu", "cuda")
KINDS = ("count", "trace")


@dataclass(frozen=True)
class Request:
    """What to run.

    Args:
        towers: dimensions of each tower, {"sam": {"width": 768, ...}, ...}.
        workloads: points, each {"global_px", "tile_px", "columns", "rows", "prompt_tokens", "output_tokens", "batch_size"};
            output_tokens is the number of decode steps that are run.
        engine: "transformers".
        attention: mode per tower, {"sam": "eager", "clip": "eager", "decoder": "eager"}.
        dtype: "bf16", "fp16" or "fp32".
        device: "auto" (cuda if present, else meta), "meta", "cpu" or "cuda".
        prefill_logits: "all" or "last".
        stages: those to run.
        kind: "count" (torch's FLOP counter) or "trace" (every operator's FLOPs, bytes and live memory).
        image: path of an image to cut into views, on cpu and cuda; random pixels otherwise.
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
    schema: int = SCHEMA

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Request:
        """Reads a request.

        Raises:
            ValueError: not JSON, an unknown or missing field, another schema, an unknown device or kind.
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
        request = cls(**{**data, "stages": tuple(data.get("stages", cls.stages))})
        for name, value, allowed in (("device", request.device, DEVICES), ("kind", request.kind, KINDS)):
            if value not in allowed:
                raise ValueError(f"request.{name}: {value!r} is not one of {', '.join(allowed)}")
        return request
