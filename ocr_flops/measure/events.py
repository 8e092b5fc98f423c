"""What the worker says, one event a line (see `protocol.py`). Standard library only; both sides import it."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from ocr_flops.measure.failures import OTHER_VERSION, Failure
from ocr_flops.measure.protocol import Point


@dataclass(frozen=True)
class Progress:
    """A step begins; `done` steps of `total` lie behind it."""

    done: int
    total: int
    text: str
    stage: str = ""
    point: int | None = None


@dataclass(frozen=True)
class Waiting:
    """The worker waits for a GPU that another timed run holds."""

    text: str


@dataclass(frozen=True)
class Ran:
    """What runs, or would run, where."""

    ran: dict[str, Any]


@dataclass(frozen=True)
class Result:
    """What a point did: what ran, and figures by stage."""

    point: int
    workload: Point
    ran: dict[str, Any]
    stages: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class PointFailed:
    """Why a point has no result; `ran` says what ran, None where the worker did not get so far."""

    point: int
    workload: Point
    ran: dict[str, Any] | None
    message: str
    advice: str
    detail: str = ""

    @property
    def failure(self) -> Failure:
        """Message, advice and the end of the log."""
        return Failure(self.message, self.advice, self.detail)


@dataclass(frozen=True)
class Audit:
    """What the counter sees of single operators."""

    ran: dict[str, Any]
    cases: list[dict[str, Any]]


@dataclass(frozen=True)
class Learned:
    """A program that was learned, as the text of its file."""

    program: str


@dataclass(frozen=True)
class Traced:
    """What a class does at a point: {module: {column: integer}}, with its weights and its cache under None's name "model"."""

    point: dict[str, Any]
    modules: dict[str, dict[str, int]]


@dataclass(frozen=True)
class Done:
    """All was run."""


Event = Progress | Waiting | Ran | Result | PointFailed | Audit | Learned | Traced | Failure | Done
EVENTS: dict[str, type] = {kind.__name__.lower(): kind for kind in (Progress, Waiting, Ran, Result, Audit, Learned, Traced, Done)}
EVENTS |= {"failed": PointFailed, "error": Failure}
_NAMES = {kind: name for name, kind in EVENTS.items()}


def write_event(event: Event) -> str:
    """An event as one line of JSON."""
    return json.dumps({"event": _NAMES[type(event)]} | asdict(event))


def read_event(line: str) -> Event | None:
    """The event of a line; None where it is none, or one that this version does not know.

    An event without a field that it must have comes as a `Failure`: the worker's package is of another version.
    """
    try:
        message = json.loads(line)
    except json.JSONDecodeError:
        return None  # a library printed something
    kind = EVENTS.get(str(message.get("event"))) if isinstance(message, dict) else None
    if kind is None:
        return None
    try:
        values = {one.name: message[one.name] for one in fields(kind) if one.name in message}
        if "workload" in values:
            values["workload"] = Point(**values["workload"])
        return kind(**values)
    except TypeError as problem:
        return Failure(f"the worker's event {message['event']!r} cannot be read ({problem})", OTHER_VERSION)
