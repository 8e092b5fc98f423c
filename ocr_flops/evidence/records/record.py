"""A record from what was asked and what the worker said: everything needed to read it alone, years later.

A record is a JSON object:
- "schema", "record_id", "state" ("done" or "failed"), "failure" ({"message", "advice", "detail"}; null when done), "key" (see `point_key`)
- "started", "finished" (ISO 8601, UTC), "host"
- "asked": engine, attention {tower: mode}, experts, dtype, device, prefill_logits, cache, stages, runs, warmup, passes, snapshot and
  checkpoint (names of the folders), image (whether one was given)
- "model": {"name", "towers": {tower: dimensions}}; "workload": mode and `WORKLOAD_COLUMNS`
- "ran": what the worker said of itself (see `protocol.py`), with device_name, versions, driver and clocks; null where it did not get so far
- "hardware": the dense peaks it is held against, with the config's name; null where none is known
- "stages": the worker's stages as they came: raw seconds of every run, FLOPs, memory (see `timing.py`)
- "derived": {stage: figures}, with "modules": {module: figures}; see `derived`
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocr_flops import __version__
from ocr_flops.cost.frames import WORKLOAD_COLUMNS
from ocr_flops.evidence.records.figures import derived
from ocr_flops.measure.events import PointFailed, Result
from ocr_flops.measure.protocol import WIRE_NAMES
from ocr_flops.spec.catalog import hardware_of_device
from ocr_flops.spec.specs import HardwareSpec

if TYPE_CHECKING:
    from ocr_flops.measure.plan import Plan
    from ocr_flops.spec.workload import Workload

SCHEMA = 1
DONE, FAILED = "done", "failed"
VERSIONS = ("torch", "transformers", "ocr_flops")
Record = dict[str, Any]


def make(plan: Plan, workload: Workload, event: Result | PointFailed) -> Record:
    """The record of a point.

    Args:
        plan: how it was run.
        workload: the point.
        event: how it ended.
    """
    now, failed, ran = datetime.now(UTC), isinstance(event, PointFailed), dict(event.ran or {})
    stages = {} if failed else event.stages
    device = hardware_of_device(ran.get("device_name"))
    return {
        "schema": SCHEMA,
        "record_id": new_id(now),
        "state": FAILED if failed else DONE,
        "failure": asdict(event.failure) if failed else None,
        "key": point_key(plan, workload, ran) if ran else None,
        "started": ran.get("started"),
        "finished": ran.get("finished") or now.isoformat(timespec="milliseconds"),
        "host": _host(),
        "asked": asked(plan),
        "model": {"name": _model_name(plan), "towers": plan.request([]).towers},
        "workload": _workload(workload),
        "ran": {name: value for name, value in ran.items() if name != "layer_parameters"} or None,
        "hardware": None if device is None else _figures_of(device),
        "stages": {stage: {name: value for name, value in seen.items() if name != "traced"} for stage, seen in stages.items()},
        "derived": {} if failed else derived(plan, workload, event, device),
    }


def asked(plan: Plan) -> dict[str, Any]:
    """What a plan asks for, but for its model and its points."""
    request = plan.request([])
    names = ("engine", "attention", "experts", "dtype", "device", "prefill_logits", "stages", "runs", "warmup", "probes")
    folders = {name: getattr(request, name) and Path(getattr(request, name)).name for name in ("snapshot", "checkpoint")}
    found = {WIRE_NAMES.get(name, name): getattr(request, name) for name in names} | folders | {"cache": plan.run.cache}
    return json.loads(json.dumps(found))


def point_key(plan: Plan, workload: Workload, ran: Mapping[str, Any]) -> str:
    """What makes two records measurements of the same: model, point, everything asked, the device and the versions that ran.

    Args:
        plan: how it is run.
        workload: the point.
        ran: with "device_name" and `VERSIONS`, from a worker.
    """
    request = plan.request([workload])
    settings = {name: value for name, value in asked(plan).items() if name != "device"}
    where = {name: ran.get(name) for name in ("device_name", *VERSIONS)} | {"recorded_by": __version__}
    whole = {"towers": request.towers, "point": asdict(request.workloads[0]), "asked": settings, "where": where}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def new_id(now: datetime) -> str:
    """An id that no other record has, on any machine: time, host, process and 64 random bits."""
    return f"{now:%Y%m%dT%H%M%S.%fZ}-{_host()}-{os.getpid()}-{secrets.token_hex(8)}"


def _host() -> str:
    """This machine's name, fit for a file's."""
    return (
        "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in socket.gethostname().partition(".")[0])[:40] or "host"
    )


def _model_name(plan: Plan) -> str:
    """The config's name; marked where an override has changed a dimension, so that nobody takes it for that model."""
    from ocr_flops.spec.catalog import load_model, names

    model = plan.run.model
    return model.name if model.name in names("model") and load_model(model.name) == model else f"{model.name} (edited)"


def _workload(workload: Workload) -> dict[str, Any]:
    return {"mode": workload.mode or None, **{name: int(getattr(workload, name)) for name in WORKLOAD_COLUMNS}}


def _figures_of(device: HardwareSpec) -> dict[str, Any]:
    figures = {name: value for name, value in asdict(device).items() if name != "sources"}
    return figures | {"matrix_flops_per_second": dict(device.matrix_flops_per_second)}
