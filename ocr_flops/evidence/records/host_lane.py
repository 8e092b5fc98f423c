"""Records of the host's lane: one JSON file a measurement, in a folder of their own beside those of timed points.

A record names no machine: what tells hosts apart is their processor and versions.
"""

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from ocr_flops.errors import SpecError
from ocr_flops.evidence.records.schema import Quantity
from ocr_flops.evidence.records.store import read_json, records_folder, shipped_folder
from ocr_flops.measure.client import ask
from ocr_flops.measure.events import Result
from ocr_flops.measure.protocol import Request

FOLDER = "host_lane"  # within the folders of records


class Issued(msgspec.Struct):
    """What the host issues in one pass, and the processor's seconds that it takes (see `measure/worker/host_lane.py`)."""

    seconds: Quantity
    operators: Quantity
    module_calls: Quantity


class HostStage(Issued, kw_only=True):
    """A stage, and each of its modules."""

    passes: int
    median_seconds: Quantity
    spread_seconds: Quantity
    wall_seconds: Quantity
    modules: dict[str, Issued]


class HostLane(msgspec.Struct):
    """A record of the host's lane, in a file of its id's name.

    Args:
        model: the model whose layers ran, at tiny widths.
        device_name, threads: the processor, and the threads of its operators.
        load: of the system, before and after; null where it does not say.
        stages: figures of one pass of "vision" (of a view), "prefill" and "decode" (one step).
    """

    record_id: str
    kind: Literal["host_lane"]
    finished: str
    model: str
    engine: str
    attention: dict[str, str]
    experts: str
    dtype: str
    prefill_logits: str
    device_name: str
    torch: str
    transformers: str
    ocr_flops: str
    python: str
    threads: int
    load: list[float | None]
    runs: int
    warmup: int
    stages: dict[str, HostStage]


_DECODER = msgspec.json.Decoder(HostLane)


RAN = HostLane.__struct_fields__[4:-1]  # fields that the worker says of itself


def measure_host(
    request: Request,
    model: str,
    *,
    python: str | None = None,
    timeout_seconds: float | None = None,
    progress: Callable[[Any], None] = lambda event: None,
) -> dict[str, Any]:
    """Measure the host's lane and return its record, which `write_record` keeps.

    Args:
        request: of `plan.host_request`.
        model: the name of the model whose layers run.
        python, timeout_seconds, progress: as for `client.ask`.

    Raises:
        SpecError: the worker failed; the message says why and what to do.
    """
    (result,) = (event for event in ask(request, python, timeout_seconds=timeout_seconds, progress=progress) if isinstance(event, Result))
    found = {"schema": 1, "record_id": f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}", "kind": FOLDER, "model": model}
    return found | {"finished": result.ran["finished"]} | {name: result.ran[name] for name in RAN} | {"stages": result.stages}


def read_host_lanes(where: Path | None = None, shipped: Path | None = None) -> list[HostLane]:
    """Read the records of the host's lane: those of the user before those of the package, each folder's newest first.

    Args:
        where, shipped: folders of records, as for `store.read_records`.

    Raises:
        SpecError: a file is damaged; the message says what to do.
    """
    found = []
    for path in list_host_lanes(where, shipped):
        try:
            found.append(read_json(path, _DECODER))
        except SpecError as problem:
            raise SpecError(f"{path}: {problem}") from None
    return found


def list_host_lanes(where: Path | None = None, shipped: Path | None = None) -> list[Path]:
    """The files of `read_host_lanes`, in its order."""
    places = (where or records_folder(), shipped or shipped_folder())
    return [path for place in places for path in sorted((place / FOLDER).glob("*.json"), reverse=True)]
