"""Analytic numbers against the real model's: FLOPs as torch counts them, and every operator's FLOPs, bytes and live memory as traced.

A measured point is compared with the analytic value of the engine, attention, precision and logits that ran, never with anything else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from ocr_flops.estimates import Estimate, estimate
from ocr_flops.measure.client import Worker
from ocr_flops.measure.protocol import Request
from ocr_flops.specs import STAGES, AttentionSpec, ModelSpec, SpecError
from ocr_flops.tiling import vendor_grids
from ocr_flops.workload import Workload

if TYPE_CHECKING:
    import polars as pl

POINT_FIELDS = ("global_px", "tile_px", "columns", "rows", "prompt_tokens", "output_tokens", "batch_size")
TRACED = ("tensor_flops", "vector_flops", "weight_io_bytes", "activation_io_bytes", "kv_io_bytes", "operators", "peak_activation_bytes")
EXPERTS = "decoder.routed_experts"
ALL = "total"
Message = dict[str, Any]


def request(
    model: ModelSpec,
    workloads: Iterable[Workload],
    *,
    device: str = "auto",
    attention: str = "eager",
    dtype: str = "bf16",
    prefill_logits: str = "last",
    decode_steps: int = 3,
    stages: Sequence[str] = STAGES,
    kind: str = "count",
    image: str | None = None,
) -> Request:
    """A request for the worker to run the real model.

    Args:
        model: dimensions.
        workloads: single points.
        device: "auto", "meta", "cpu" or "cuda".
        attention: "eager" or "sdpa", for all towers.
        dtype, prefill_logits: as in `estimate`.
        decode_steps: steps run at most; a point with fewer output tokens runs those.
        stages: those to run.
        kind: "count" or "trace".
        image: path of a page to cut into views on cpu and cuda.
    """
    points = []
    for workload in workloads:
        point = {name: getattr(workload, name) for name in POINT_FIELDS}
        points.append({**point, "output_tokens": min(workload.output_tokens, decode_steps)})
    towers = {spec.tower: asdict(spec) for spec in model.towers}
    return Request(
        towers,
        points,
        attention=dict.fromkeys(("sam", "clip", "decoder"), attention),
        dtype=dtype,
        device=device,
        prefill_logits=prefill_logits,
        stages=tuple(stages),
        kind=kind,
        image=image,
    )


def analytic(model: ModelSpec, message: Message) -> Estimate:
    """The estimate of exactly what ran.

    Args:
        model: the dimensions that were sent.
        message: a "result" message of the worker.
    """
    ran, stages = message["ran"], tuple(stage for stage in STAGES if stage in message["stages"])
    modes = ran["attention"]
    name = modes["sam"] if len(set(modes.values())) == 1 else "mixed"
    hits = {stage: message["stages"][stage].get("experts", {}).get("hit", 0) for stage in stages}
    return estimate(
        model,
        Workload(**message["workload"]),
        AttentionSpec(name, **modes),
        engine=ran["engine"],
        dtype=ran["dtype"],
        prefill_logits=ran["prefill_logits"],
        stages=stages,
        experts_hit={stage: hit for stage, hit in hits.items() if hit},
    )


def compare(model: ModelSpec, message: Message) -> pl.DataFrame:
    """Counted against analytic FLOPs of one result, per stage and module, with a row "total" per stage.

    Columns: stage, module, counted_flops, analytic_flops, difference (integers), note. For a trace the counted FLOPs are the tracer's.
    """
    import polars as pl

    numbers = analytic(model, message)
    rows = []
    for stage, seen in message["stages"].items():
        missed = ", ".join(seen["missed"])
        expected = {module: row["torch_flops"] for (of, module), row in numbers.module_numbers.items() if of == stage}
        for module in [*dict.fromkeys([*expected, *seen["modules"]]), ALL]:
            counted = seen["flops"] if module == ALL else seen["modules"].get(module, 0)
            wanted = sum(expected.values()) if module == ALL else expected.get(module, 0)
            rows.append((stage, module, counted, wanted, counted - wanted, f"torch cannot see: {missed}" if missed else ""))
    schema = {
        "stage": pl.String,
        "module": pl.String,
        "counted_flops": pl.Int64,
        "analytic_flops": pl.Int64,
        "difference": pl.Int64,
        "note": pl.String,
    }
    return pl.DataFrame(rows, schema, orient="row")


def compare_trace(model: ModelSpec, message: Message) -> pl.DataFrame:
    """Traced against analytic numbers of one result of kind "trace", per stage, module and column.

    The experts of a grouped matrix product are charged as hit on both sides: the trace hands the kernel all of them, so what it was
    handed is replaced by the experts hit (those the router picked, or the expected number where there is no data to route by).

    Columns: stage, module, column, traced, analytic, difference (integers).
    """
    import polars as pl

    numbers = analytic(model, message)
    rows = []
    for stage, seen in message["stages"].items():
        of_stage = {module: row for (of, module), row in numbers.module_numbers.items() if of == stage}
        charged = of_stage.get(EXPERTS, {}).get("weight_io_bytes", 0)
        for module in dict.fromkeys([*of_stage, *seen["trace"]]):
            traced = dict(seen["trace"].get(module, dict.fromkeys(TRACED, 0)))
            if module == EXPERTS:
                traced["weight_io_bytes"] += charged - seen["experts"]["handed_bytes"]
            for column in TRACED:
                wanted = of_stage.get(module, {}).get(column, 0)
                rows.append((stage, module, column, traced[column], wanted, traced[column] - wanted))
    schema = {
        "stage": pl.String,
        "module": pl.String,
        "column": pl.String,
        "traced": pl.Int64,
        "analytic": pl.Int64,
        "difference": pl.Int64,
    }
    return pl.DataFrame(rows, schema, orient="row")


def differences(model: ModelSpec, message: Message) -> pl.DataFrame:
    """Everything one result can be held against, in one shape.

    Columns: stage, module, column (what is compared), measured, analytic, difference (integers).
    """
    import polars as pl

    if message["ran"]["kind"] == "trace":
        return compare_trace(model, message).rename({"traced": "measured"})
    counted = compare(model, message).filter(pl.col("module") != ALL)
    parameters = sum(analytic(model, message).setup.parameters.values())
    schema = ["stage", "module", "column", "measured", "analytic", "difference"]
    whole = pl.DataFrame(
        [("", ALL, "parameters", message["ran"]["parameters"], parameters, message["ran"]["parameters"] - parameters)], schema, orient="row"
    )
    return pl.concat(
        [
            whole,
            counted.select(
                "stage",
                "module",
                pl.lit("torch_flops").alias("column"),
                pl.col("counted_flops").alias("measured"),
                pl.col("analytic_flops").alias("analytic"),
                "difference",
            ),
        ]
    )


class Case(NamedTuple):
    """Points that one worker runs under one setting."""

    kind: str
    attention: str
    prefill_logits: str
    workloads: tuple[Workload, ...]
    dtype: str = "bf16"
    decode_steps: int = 3


def suite(quick: bool = False) -> list[Case]:
    """What `verify` runs by default: counted, the six modes, all 22 vendor grids, two beyond (4 x 5, 10 x 10), batch 1 and 2, eager and
    sdpa, all and the last logits, three decode steps; and a selection of them traced. `quick` keeps a handful of each.
    """
    from ocr_flops.config import modes

    def points(batch_size: int, prompt_tokens: int) -> list[Workload]:
        rest = {"batch_size": batch_size, "prompt_tokens": prompt_tokens, "output_tokens": 3}
        single = [Workload.from_grid(1, 1, mode, **rest) for mode in modes()]
        grids = [Workload.from_grid(columns, rows, "gundam", **rest) for columns, rows in (*vendor_grids(), (4, 5), (10, 10))]
        return [*single, *grids, Workload.from_grid(2, 3, "gundam_m", **rest)]

    few = slice(None, None, 9) if quick else slice(None)
    some = slice(None, None, 15) if quick else slice(None, None, 4)
    return [
        *(
            Case("count", attention, logits, tuple(points(batch, prompt)[few]))
            for attention, logits, batch, prompt in (
                ("eager", "last", 1, 10),
                ("eager", "all", 2, 37),
                ("sdpa", "all", 1, 10),
                ("sdpa", "last", 2, 64),
            )
        ),
        *(
            Case("trace", attention, logits, tuple(points(batch, prompt)[some]), dtype, 2)
            for attention, logits, batch, prompt, dtype in (
                ("eager", "last", 1, 10, "bf16"),
                ("eager", "all", 4, 100, "bf16"),
                ("sdpa", "all", 1, 2000, "bf16"),
                ("sdpa", "last", 3, 10, "fp32"),
            )
        ),
    ]


def run(
    model: ModelSpec,
    cases: Iterable[Case],
    *,
    device: str = "meta",
    stages: Sequence[str] = STAGES,
    python: str = sys.executable,
    progress: Callable[[str], None] = lambda text: None,
) -> Iterator[tuple[Case, Message]]:
    """Runs cases on the real model and yields every result.

    Args:
        model: dimensions.
        cases: from `suite`, or others.
        device, stages: as in `request`.
        python: the interpreter that has torch and transformers.
        progress: called with a line of text before each stage.

    Raises:
        SpecError: the worker failed; the message says why and what to do.
    """
    for case in cases:
        wanted = request(
            model,
            case.workloads,
            device=device,
            attention=case.attention,
            dtype=case.dtype,
            prefill_logits=case.prefill_logits,
            decode_steps=case.decode_steps,
            stages=stages,
            kind=case.kind,
        )
        with Worker(wanted, python) as worker:
            for message in worker:
                if message["event"] == "progress":
                    setting = f"{case.kind} {case.attention} {case.prefill_logits} logits, batch {case.workloads[0].batch_size}"
                    progress(f"{setting}: {message['text']}")
                elif message["event"] == "error":
                    raise SpecError(f"{message['message']} ({message['advice']})")
                elif message["event"] == "result":
                    yield case, message
