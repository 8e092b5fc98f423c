"""Campaigns: `python -m ocr_flops.evidence.records.campaign --multirun` measures all that is not recorded yet, as a Hydra app.

A job's points are measured by one worker, each is recorded as soon as it is there, and not run again once it is recorded.
"""

import json
import logging
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from ocr_flops.errors import SpecError
from ocr_flops.evidence import records
from ocr_flops.evidence.records.recorder import device_facts, measure_points
from ocr_flops.measure.client import interpreter
from ocr_flops.measure.plan import ModelSource, Plan
from ocr_flops.spec.catalog import config_dir
from ocr_flops.spec.overrides import KEYS, OPTIONAL
from ocr_flops.spec.reading import read_value
from ocr_flops.spec.run_spec import read_run, read_workload
from ocr_flops.spec.workload import Workload

LOG = logging.getLogger(__name__)
SET_BY_CAMPAIGN = ("columns", "rows", "image_width_px", "image_height_px", "prompt_tokens", "output_tokens", "batch_size")


class Outcome(NamedTuple):
    """How many points a job measured, left out because they are recorded, and recorded as failed."""

    measured: int
    skipped: int
    failed: int


def run_job(config: dict[str, Any], overrides: Iterable[str] = ()) -> Outcome:
    """Measure the points of a job that have no record of the same model, settings, versions and device.

    Points recorded as failed are measured again if `retry_failed` says so.

    Args:
        config: `configs/campaign.yaml`, composed, as plain dicts and lists.
        overrides: those it was composed with.

    Raises:
        SpecError: a value that cannot be, or records that cannot be written; the message says what to do.
    """
    for text in overrides:
        name = text.lstrip("+~").partition("=")[0]
        if name.startswith("workload.") and name.removeprefix("workload.") in SET_BY_CAMPAIGN:
            raise SpecError(
                f"{text}: has no effect, since a campaign sets it; choose campaign.grids, campaign.batch_sizes or campaign.lengths"
            )
    plan, where, python = read_plan(config), records.records_folder(config["records"]), interpreter(config["python"])
    retries = read_value("retry_failed", config["retry_failed"], bool)
    records.check_folder(where)
    wanted = campaign_points(config)
    ran = device_facts(plan, python, config["timeout_seconds"])
    found, problems = records.read_records(where)
    for problem in problems:
        LOG.warning("%s: %s", problem.path, problem.reason)
    settled = (records.DONE,) if retries else (records.DONE, records.FAILED)
    measured = {one.record.key for one in found if one.record.state in settled and one.source == records.USER}
    left = [point for point in wanted if records.point_key(plan, point, ran) not in measured]
    name, skipped = config["campaign"]["name"], len(wanted) - len(left)
    LOG.info("%s: %d points on %s, %d of them recorded before", name, len(wanted), ran["device_name"], skipped)
    recorded = measure_points(plan, left, python=python, timeout_seconds=config["timeout_seconds"]) if left else ()
    failed = sum(_keep(record, where) for record in recorded)
    return Outcome(len(left) - failed, skipped, failed)


def _keep(record: dict[str, Any], where: Path) -> bool:
    """Write a record and say what it is; returns whether it is of a failure."""
    try:
        path = records.write_record(record, where)
    except records.Unwritten as problem:
        if problem.rescued is None:
            LOG.error("%s", json.dumps(record))  # its only copy
        raise
    workload, failure = record["workload"], record["failure"]
    point = "{mode} {columns} x {rows}, {prompt_tokens} + {output_tokens} tokens, batch {batch_size}".format(**workload)
    if failure:
        LOG.warning("%s: failed: %s (%s)", point, failure["message"], failure["advice"])
    else:
        for name, why in record["ran"].get("not_observed", {}).items():
            LOG.warning("%s: %s could not be observed: %s", point, name, why)
        seconds = ", ".join(f"{stage} {figures['median_seconds']:.4g} s" for stage, figures in record["derived"].items())
        LOG.info("%s: %s", point, seconds)
    LOG.debug("%s", path)
    return bool(failure)


def read_plan(config: dict[str, Any]) -> Plan:
    """Read how the points of a campaign are run; a SpecError names the key, its value and what is allowed."""
    run = read_run({**dict.fromkeys(OPTIONAL), **{name: config[name] for name in KEYS if name in config}})
    kinds = {"device": str, "runs": int, "warmup": int, "experts": str | None, "passes": tuple[str, ...]}
    values = {name: read_value(name, config[name], kind) for name, kind in kinds.items()}
    source = {name: read_value(name, config[name], str | None) for name in ("snapshot", "checkpoint")}
    folders = {name: str(Path(path).expanduser().absolute()) if path else None for name, path in source.items()}
    trusted = read_value("trust_remote_code", config["trust_remote_code"], bool)
    timeout = read_value("timeout_seconds", config["timeout_seconds"], float | None)
    if timeout is not None and not timeout > 0:
        raise SpecError(f"timeout_seconds: {timeout!r} is not a number of seconds above 0, or null")
    return Plan(run, ModelSource(run.engine.name, trust_remote_code=trusted, **folders), probes=values.pop("passes"), **values)


def campaign_points(config: dict[str, Any]) -> list[Workload]:
    """Return the points of a job: grids (where the mode has tiles) x batch sizes x lengths; errors as of `read_plan`."""
    keys, campaign = read_workload(config["workload"]), config["campaign"]
    grids = _pairs("campaign.grids", campaign["grids"], "[columns, rows]") if keys.tile_px else [(1, 1)]
    lengths = _pairs("campaign.lengths", campaign["lengths"], "[prompt tokens, output tokens]")
    batches = read_value("campaign.batch_sizes", campaign["batch_sizes"], tuple[int, ...])
    return [
        keys._replace(columns=columns, rows=rows, prompt_tokens=prompt, output_tokens=output, batch_size=batch).workload()
        for columns, rows in grids
        for batch in batches
        for prompt, output in lengths
    ]


def _pairs(key: str, value: Any, what: str) -> list[tuple[int, int]]:
    if not isinstance(value, list) or not value:
        raise SpecError(f"{key}: {value!r} is not a list of {what}")
    for number, pair in enumerate(value):
        if not isinstance(pair, list) or len(pair) != 2 or any(type(side) is not int for side in pair):
            raise SpecError(f"{key}[{number}]: {pair!r} is not {what}")
    return [tuple(pair) for pair in value]


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="campaign")
def main(config: DictConfig) -> dict[str, int]:
    """Run one job; returns how many points it measured, skipped and recorded as failed."""
    from ocr_flops.evidence.records import campaign  # by its name, which a launcher's process can import: this one may be __main__

    try:
        outcome = campaign.run_job(OmegaConf.to_container(config, resolve=True), HydraConfig.get().overrides.task)
    except SpecError as problem:
        raise SpecError(str(problem)) from None  # without where it was raised, and fit to be sent from a launcher's process to another
    campaign.LOG.info("measured %d, recorded before %d, failed %d", *outcome)
    return outcome._asdict()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once: every record is written whole
    main()
