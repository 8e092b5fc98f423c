"""Runs of the real model that a page may ask for: as its setting has it, with code that whoever started this process offers."""

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ocr_flops.app.spot_checks import select_points
from ocr_flops.app.views import Results
from ocr_flops.errors import SpecError
from ocr_flops.evidence import verify
from ocr_flops.measure.plan import ModelSource, Plan
from ocr_flops.measure.protocol import Request
from ocr_flops.spec.catalog import load_engine
from ocr_flops.spec.run_spec import RunSpec
from ocr_flops.spec.specs import STAGES
from ocr_flops.spec.workload import Workload
from ocr_flops.units import si

SNAPSHOT, TRUST, NO_RUNS = "OCR_FLOPS_SNAPSHOT", "OCR_FLOPS_TRUST_REMOTE_CODE", "OCR_FLOPS_NO_RUNS"  # environment variables


CUDA = Path("/dev/nvidiactl")  # there where a driver is, which says it without torch
CGROUP = Path("/sys/fs/cgroup/memory.max")  # what a container may take, "max" for all there is


def refuse() -> None:
    """Lets pages of this process run nothing; for whoever starts it. The same as its environment variable."""
    os.environ[NO_RUNS] = "true"


def check_allowed() -> None:
    """Whether pages of this process may run anything.

    Raises:
        SpecError: they may not.
    """
    if os.environ.get(NO_RUNS, "").lower() == "true":
        raise SpecError("this server runs no model (--no-runs)")


def offer_snapshot(folder: Path, trusted: bool) -> None:
    """Lets pages of this process run the published code; for whoever starts it. The same as its two environment variables.

    Args:
        folder: of the published model.
        trusted: whether its code may run with the rights of this process.

    Raises:
        SpecError: it holds no published model, or is not trusted.
    """
    if not (folder / "config.json").is_file():
        raise SpecError(f"--snapshot: {str(folder)!r} holds no config.json; name the folder that the published model was downloaded into")
    if not trusted:
        code = f"the Python code in {str(folder)!r}"
        raise SpecError(f"--snapshot: pages could run {code} with your rights; read it, and add --trust-remote-code if you trust it")
    os.environ.update({SNAPSHOT: str(folder.resolve()), TRUST: "true"})


def find_source(engine: str) -> ModelSource:
    """The code that runs for an engine: of remote_code the snapshot that this process was started with.

    Raises:
        SpecError: nothing here runs the engine, there is no snapshot, or nobody said that it is trusted.
    """
    check_allowed()
    load_engine(engine).check_runs()
    if engine != "remote_code":
        return ModelSource(engine)
    if not (folder := os.environ.get(SNAPSHOT)):
        raise SpecError("engine: no snapshot of the published code is known here; start the app with --snapshot DIR --trust-remote-code")
    if os.environ.get(TRUST, "").lower() != "true":
        raise SpecError(f"engine: the published code is not trusted here; start the app with {TRUST}=true where it is")
    return ModelSource(engine, folder, True)


def find_run(results: Results) -> tuple[RunSpec, ModelSource]:
    """What runs for a setting, in the attention mode that its single figures are of, and its code.

    Args:
        results: of the setting.

    Raises:
        SpecError: as `find_source`.
    """
    config = results.main.config
    chosen = config.model, config.engine, config.attention, results.setting.workload, config.dtype, config.cache, config.prefill_logits
    return RunSpec(*chosen, STAGES, None), find_source(config.engine.name)


def check_memory(results: Results, device: str, points: Iterable[Workload]) -> None:
    """Whether a run leaves this machine, or its container, half of its memory: where it runs on the processor, everything is there.

    Args:
        results: of the setting.
        device: "cpu", or any other, of which nothing is asked.
        points: those that run, one after the other.

    Raises:
        SpecError: it does not.
    """
    if device != "cpu":
        return
    needed = max(replace(results.main, workload=one).footprint.total_bytes for one in points)
    there, limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), CGROUP.read_text().strip() if CGROUP.is_file() else ""
    there = min(there, int(limit)) if limit.isdecimal() else there
    if needed > there / 2:
        raise SpecError(f"a run on cpu would need {si(needed, 'B')} and may take {si(there / 2, 'B')} here: fewer pages, or meta or cuda")


def request_check(results: Results, scope: str, device: str) -> Request:
    """The request that counts and traces the real model as a setting has it.

    Args:
        results: of the setting.
        scope: one of `SCOPES`.
        device: "auto", "meta", "cpu" or "cuda".

    Raises:
        SpecError: this setting cannot be run; the error says what is missing.
    """
    points = tuple(select_points(results.setting, scope))
    check_memory(results, device, points)
    run, source = find_run(results)
    case = verify.point_case(run)._replace(workloads=points)
    return case.request(run.model, device, source=source)


def plan_timing(results: Results, device: str) -> Plan:
    """How a setting's point is timed on a device, "auto", "cuda" or "cpu".

    Raises:
        SpecError: it cannot be; the error says what is missing.
    """
    check_memory(results, "cpu" if device == "auto" and not CUDA.exists() else device, [results.setting.workload])
    return Plan(*find_run(results), device=device)


def missing(plan: Callable[..., object], *arguments: Any) -> str | None:
    """Why `request_check` or `plan_timing` cannot make a run; None where they can."""
    try:
        plan(*arguments)
    except SpecError as problem:
        return str(problem)
    return None
