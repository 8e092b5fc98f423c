"""The record of a point, from what was to run and what the worker said; `schema.py` says what is in it."""

import hashlib
import json
import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ocr_flops import __version__
from ocr_flops.evidence.records.figures import derive_figures
from ocr_flops.evidence.records.schema import DONE, FAILED, POINT_NUMBERS, SCHEMA, VERSIONS
from ocr_flops.measure.events import PointFailed, Result
from ocr_flops.measure.plan import Plan
from ocr_flops.measure.protocol import WIRE_NAMES
from ocr_flops.spec.catalog import hardware_of_device, load_model, names
from ocr_flops.spec.specs import HardwareSpec, ModelSpec
from ocr_flops.spec.workload import Workload


def make_record(plan: Plan, workload: Workload, event: Result | PointFailed) -> dict[str, Any]:
    """Make the record of a point, as it is written."""
    now, failed, ran = datetime.now(UTC), isinstance(event, PointFailed), dict(event.ran or {})
    model, stages = plan.run.model, {} if failed else event.stages
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
        "asked": _settings(plan),
        "model": {"name": model.name if is_unedited(model) else f"{model.name} (edited)", "towers": plan.request([]).towers},
        "workload": {"mode": workload.mode or None, **{name: int(getattr(workload, name)) for name in POINT_NUMBERS}},
        "ran": {name: value for name, value in ran.items() if name != "layer_parameters"} or None,
        "hardware": None if device is None else _figures_of(device),
        "stages": {stage: {name: value for name, value in seen.items() if name != "traced"} for stage, seen in stages.items()},
        "derived": {} if failed else derive_figures(plan, workload, event, device),
    }


def point_key(plan: Plan, workload: Workload, ran: Mapping[str, Any]) -> str:
    """Return what two records of the same measurement have in common: model, point, settings, and the device and versions of `ran`."""
    request = plan.request([workload])
    settings = {name: value for name, value in _settings(plan).items() if name != "device"}
    where = {name: ran.get(name) for name in ("device_name", *VERSIONS)} | {"recorded_by": __version__}
    whole = {"towers": request.towers, "point": asdict(request.workloads[0]), "asked": settings, "where": where}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def new_id(now: datetime) -> str:
    """Return an id that no other record has, on any machine: time, host, process and 64 random bits."""
    return f"{now:%Y%m%dT%H%M%S.%fZ}-{_host()}-{os.getpid()}-{secrets.token_hex(8)}"


def _host() -> str:
    """This machine's name, fit for a file's."""
    name = socket.gethostname().partition(".")[0]
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)[:40] or "host"


def is_unedited(model: ModelSpec) -> bool:
    """Whether a model is that of its config: records name an edited one so that nobody takes it for that model."""
    return model.name in names("model") and load_model(model.name) == model


def _settings(plan: Plan) -> dict[str, Any]:
    """Everything that a plan asks for besides its model and its points."""
    request = plan.request([])
    names = ("engine", "attention", "experts", "dtype", "device", "prefill_logits", "stages", "runs", "warmup", "probes")
    folders = {name: getattr(request, name) and Path(getattr(request, name)).name for name in ("snapshot", "checkpoint")}
    found = {WIRE_NAMES.get(name, name): getattr(request, name) for name in names} | folders | {"cache": plan.run.cache}
    return json.loads(json.dumps(found))


def _figures_of(device: HardwareSpec) -> dict[str, Any]:
    figures = {name: value for name, value in asdict(device).items() if name != "sources"}
    return figures | {"matrix_flops_per_second": dict(device.matrix_flops_per_second)}
