"""The real model beside a sweep: it counts and traces every point that it can run, to compare with the analytic value of what ran.

A sweep's decode may be longer than the steps that are run. Then those steps are compared, and no row of the sweep shows them.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl

from ocr_flops.cost.stage_groups import COLUMNS
from ocr_flops.cost.tape import SUMS
from ocr_flops.errors import SpecError
from ocr_flops.evidence import verify
from ocr_flops.files import no_progress, write_whole
from ocr_flops.measure.client import ask
from ocr_flops.measure.events import read_event, write_event
from ocr_flops.measure.plan import run_request
from ocr_flops.measure.protocol import Request
from ocr_flops.studies.sweeps.plan import Case, Sweep
from ocr_flops.studies.sweeps.results import Progress

MAX_POINTS = 10_000  # about a second each
LEVELS = ("stage", "module")


def compare_points(sweep: Sweep, folder: Path, progress: Progress = no_progress) -> pl.DataFrame:
    """Runs every point that can run and compares what was counted and traced with the analytic values.

    Args:
        sweep: with `measure` set.
        folder: keeps every result as soon as it is there; results in it are not run again.
        progress: called after every run.

    Returns:
        a row per number. Columns: point, stage, module ("total": the whole stage), column, measured, analytic, difference (integers), steps
        (decode steps that ran), ran (in words).

    Raises:
        SpecError: nothing of the sweep can run, it has too many points, or the worker failed.
    """
    runs = list(_list_runs(sweep))
    if not runs:
        raise SpecError(
            "measure: nothing of this sweep runs here; the real model runs engine=transformers with eager or sdpa, or engine=remote_code "
            "snapshot=DIR trust_remote_code=true with vendor; cache=dynamic"
        )
    _run_missing(sweep, [request for _, _, request in runs], folder, progress)
    frames = []
    for case, point, request in runs:
        result = read_event(_result_path(folder, request).read_text(encoding="utf-8"))
        steps = {stage: seen["steps"] for stage, seen in result.stages.items()}
        compared = verify.compare_numbers(case.run.model, result, LEVELS).filter(pl.col("stage").is_in(list(steps)))
        frames.append(
            compared.select(
                pl.lit(point).cast(pl.Int64).alias("point"),
                *("stage", "module", "column", "measured", "analytic", "difference"),
                pl.col("stage").replace_strict(steps, return_dtype=pl.Int64).alias("steps"),
                pl.lit(result.ran["label"]).alias("ran"),
            )
        )
    return pl.concat(frames).sort("point", maintain_order=True)


def join_measured(rows: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
    """Rows of a sweep with what the real model says.

    Columns added: measured_steps (decode steps that ran; null where the real model did not), difference (the largest of any module and
    column from the analytic value of what ran; 0: all equal), and measured_torch_flops, measured_io_bytes and so on for every cost column;
    null for a decode of more tokens than steps ran. weight_bytes are those of the parameters that some operator read.

    Args:
        rows: of a sweep, one per point and stage.
        measured: of `compare_points`.
    """
    whole_stage = pl.col("module") == verify.ALL
    numbers = {name: pl.col("measured").filter(whole_stage & (pl.col("column") == name)).first() for name in COLUMNS if name not in SUMS}
    numbers |= {name: pl.sum_horizontal(numbers[addend] for addend in addends) for name, addends in SUMS.items()}
    stages = measured.group_by("point", pl.col("stage").cast(rows.schema["stage"])).agg(
        pl.col("steps").first().alias("measured_steps"),
        pl.col("difference").abs().max(),
        *(numbers[name].alias(f"measured_{name}") for name in COLUMNS),
    )
    all_steps_ran = (pl.col("stage") != "decode") | (pl.col("measured_steps") == pl.col("output_tokens"))
    return rows.join(stages, ("point", "stage"), "left", maintain_order="left").with_columns(
        pl.when(all_steps_ran).then(pl.col(f"measured_{name}")).alias(f"measured_{name}") for name in COLUMNS
    )


def _list_runs(sweep: Sweep) -> Iterator[tuple[Case, int, Request]]:
    """Every point that can run (transformers' class or a snapshot, attention kernels that it has, a growing cache), its case and number,
    with a request that counts and traces it."""
    if sweep.points > MAX_POINTS:
        raise SpecError(f"measure: {sweep.points:,} points; the real model takes about a second for each, choose at most {MAX_POINTS:,}")
    for case, first, indices in sweep.slices(0, sweep.points):
        config, workload = case.estimate(case.keys.workload()).config, sweep.workload(case, indices)
        has_code = config.engine.name == "transformers" or sweep.source.snapshot is not None
        if not has_code or any(config.evidence(stage) != "runnable" for stage in case.run.stages):
            continue
        for number in range(len(indices)):
            source = sweep.source.of_engine(case.run.engine.name)
            how = {"device": sweep.measure, "decode_steps": sweep.measured_steps, "kind": "trace"}
            yield case, first + number, run_request(case.run, [workload.point(number)], source, **how)


def _result_path(folder: Path, request: Request) -> Path:
    """The file of a result. Requests that are the same, as those of a point on several devices, share it."""
    return folder / f"{hashlib.sha256(request.to_json().encode()).hexdigest()[:32]}.json"


def _run_missing(sweep: Sweep, requests: list[Request], folder: Path, progress: Progress) -> None:
    """Runs the requests that have no result, those that differ only in their points in one worker."""
    wanted = {_result_path(folder, request): request for request in requests}
    missing = {path: request for path, request in wanted.items() if not path.exists()}
    batches: dict[str, list[tuple[Path, Request]]] = {}
    for path, request in missing.items():
        batches.setdefault(replace(request, workloads=[]).to_json(), []).append((path, request))
    done = len(wanted) - len(missing)
    for batch in batches.values():
        together = replace(batch[0][1], workloads=[request.workloads[0] for _, request in batch])
        try:
            for result in ask(together):
                write_whole(batch[result.point][0], write_event(result))
                done += 1
                progress("real model", done, len(wanted))
        except SpecError as problem:
            raise SpecError(f"measure={sweep.measure}: {problem}") from None
