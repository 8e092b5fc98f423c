"""The real model beside a sweep: every point that it can run is counted and traced, and compared with the analytic value of what ran.

A sweep's decode may be longer than the steps that are run; then the steps are compared, and stand beside no row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocr_flops.cost.program import COSTS, SUMS
from ocr_flops.errors import SpecError
from ocr_flops.evidence import verify
from ocr_flops.files import write_whole
from ocr_flops.measure.client import Worker
from ocr_flops.measure.plan import build_request
from ocr_flops.measure.protocol import Request
from ocr_flops.studies.sweeps.plan import Case, Sweep
from ocr_flops.studies.sweeps.results import STAGES, Table

if TYPE_CHECKING:
    import polars as pl

MOST_POINTS = 10_000  # about a second each
LEVELS = ("stage", "module")
COUNTED = ("flops",)  # what is taken from a count; all else from a trace
MEASURED = (*COSTS, "weight_bytes", "kv_cache_bytes", "peak_activation_bytes")
Message = dict[str, Any]


def runnable(case: Case) -> bool:
    """Whether the real model runs here as the case says: transformers' class, attention kernels that it has, a growing cache."""
    config = case.estimate(case.keys.workload()).config
    return config.engine.name == "transformers" and all(config.evidence(stage) == "runnable" for stage in case.run.stages)


def table(sweep: Sweep, folder: Path, progress: bool = False) -> Table:
    """Runs what has not been run and compares all of it.

    Args:
        sweep: with `measure` set.
        folder: where every result is kept as soon as it is there.
        progress: whether to draw a bar on stderr.

    Returns:
        table "measured": point, stage, module ("total": the whole stage), column, measured, analytic, difference (integers), steps (passes
        that ran), ran (in words).

    Raises:
        SpecError: nothing that can run, too many points, or the worker failed.
    """
    import polars as pl

    runs = list(_runs(sweep))
    if not runs:
        raise SpecError(
            "measure: nothing of this sweep runs here; the real model runs engine=transformers with eager or sdpa, cache=dynamic"
        )
    _complete(sweep, runs, folder, progress)
    frames = []
    for case, point, request in runs:
        message = json.loads(_path(folder, request).read_text(encoding="utf-8"))
        steps = {stage: seen["steps"] for stage, seen in message["stages"].items()}
        what = COUNTED if message["ran"]["kind"] == "count" else tuple(verify.WHAT)
        compared = verify.differences(case.run.model, message, LEVELS, what).filter(pl.col("stage").is_in(list(steps)))
        frames.append(
            compared.select(
                pl.lit(point).cast(pl.Int64).alias("point"),
                "stage",
                "module",
                "column",
                "measured",
                "analytic",
                "difference",
                pl.col("stage").replace_strict(steps, return_dtype=pl.Int64).alias("steps"),
                pl.lit(message["ran"]["label"]).alias("ran"),
            )
        )
    whole = pl.concat(frames).sort("point", maintain_order=True)
    return Table("measured", ("point", "stage", "module", "column"), whole, (("difference",),), STAGES, ("point", "stage"))


def joined(frame: pl.DataFrame, seen: pl.DataFrame) -> pl.DataFrame:
    """Rows of a sweep with what was measured.

    Columns added: measured_steps (passes that ran; null where the real model did not), difference (the largest of any module and column
    from the analytic value of what ran; 0: all equal), and measured_torch_flops, measured_io_bytes and so on for every cost column of the
    rows; null for a decode of more tokens than steps ran. weight_bytes are those of the parameters that some operator read.
    """
    import polars as pl

    whole = pl.col("module") == verify.ALL
    value = {name: pl.col("measured").filter(whole & (pl.col("column") == name)).first() for name in MEASURED if name not in SUMS}
    stages = seen.group_by("point", "stage").agg(
        pl.col("steps").first().alias("measured_steps"),
        pl.col("difference").abs().max(),
        *(found.alias(name) for name, found in value.items()),
    )
    stages = stages.with_columns(pl.sum_horizontal(addends).alias(name) for name, addends in SUMS.items())
    stages = stages.select("point", pl.col("stage").cast(frame.schema["stage"]), "measured_steps", "difference", *MEASURED)
    same = (pl.col("stage") != "decode") | (pl.col("measured_steps") == pl.col("output_tokens"))
    renamed = stages.rename({name: f"measured_{name}" for name in MEASURED})
    return frame.join(renamed, ("point", "stage"), "left", maintain_order="left").with_columns(
        pl.when(same).then(pl.col(f"measured_{name}")).alias(f"measured_{name}") for name in MEASURED
    )


def _runs(sweep: Sweep) -> Iterator[tuple[Case, int, Request]]:
    """Every point that can run, with the requests of one point for it."""
    if sweep.points > MOST_POINTS:
        raise SpecError(f"measure: {sweep.points:,} points; the real model takes about a second for each, choose at most {MOST_POINTS:,}")
    for case, first, indices in sweep.stretches(0, sweep.points):
        if not runnable(case):
            continue
        config, workload = case.estimate(case.keys.workload()).config, sweep.workload(case, indices)
        for number in range(len(indices)):
            for kind in verify.MEASURES:
                request = build_request(
                    case.run.model,
                    [workload.point(number)],
                    device=sweep.measure,
                    attention=config.attention,
                    dtype=case.run.dtype,
                    prefill_logits=case.run.prefill_logits,
                    decode_steps=sweep.measured_steps,
                    stages=case.run.stages,
                    kind=kind,
                )
                yield case, first + number, request


def _path(folder: Path, request: Request) -> Path:
    """The file of a result: requests that ask the same (on several devices, say) share it."""
    return folder / f"{hashlib.sha256(request.to_json().encode()).hexdigest()[:32]}.json"


def _complete(sweep: Sweep, runs: list[tuple[Case, int, Request]], folder: Path, progress: bool) -> None:
    """Runs the requests that have no result: those that differ only in their points by one worker."""
    from tqdm import tqdm

    folder.mkdir(exist_ok=True)
    wanted = {_path(folder, request): request for _, _, request in runs}
    missing = {path: request for path, request in wanted.items() if not path.exists()}
    alike: dict[str, list[tuple[Path, Request]]] = {}
    for path, request in missing.items():
        alike.setdefault(replace(request, workloads=[]).to_json(), []).append((path, request))
    bar = tqdm(total=len(wanted), initial=len(wanted) - len(missing), unit=" runs", delay=1, disable=not progress, desc="real model")
    with bar:
        for group in alike.values():
            whole = replace(group[0][1], workloads=[request.workloads[0] for _, request in group])
            with Worker(whole) as worker:
                for message in worker:
                    if message["event"] == "error":
                        raise SpecError(f"measure={sweep.measure}: {message['message']} ({message['advice']})")
                    if message["event"] == "result":
                        write_whole(group[message["point"]][0], json.dumps(message))
                        bar.update()
