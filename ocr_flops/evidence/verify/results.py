"""What is asked of the worker, and its results beside the estimate of exactly what ran."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ocr_flops.errors import SpecError
from ocr_flops.measure.protocol import Request
from ocr_flops.spec.specs import STAGES, AttentionSpec, ModelSpec
from ocr_flops.spec.workload import Workload
from ocr_flops.timing.estimate import Estimate, estimate

if TYPE_CHECKING:
    import polars as pl

POINT_FIELDS = ("global_px", "tile_px", "columns", "rows", "prompt_tokens", "output_tokens", "batch_size")
TOWERS = ("sam", "clip", "decoder")
ALL = "total"
DECODE_STEPS = 3  # that are run, unless more are asked for
Message = dict[str, Any]


def request(
    model: ModelSpec,
    workloads: Iterable[Workload],
    *,
    device: str = "auto",
    attention: str | AttentionSpec = "eager",
    dtype: str = "bf16",
    prefill_logits: str = "last",
    decode_steps: int = DECODE_STEPS,
    stages: Sequence[str] = STAGES,
    kind: str = "count",
    image: str | None = None,
    engine: str = "transformers",
    snapshot: str | None = None,
    trust_remote_code: bool = False,
    checkpoint: str | None = None,
) -> Request:
    """A request for the worker to run the real model.

    Args:
        model: dimensions.
        workloads: single points.
        device: "auto", "meta", "cpu" or "cuda".
        attention: "eager" or "sdpa" for all towers, or a mode for each.
        dtype, prefill_logits: as in `estimate`.
        decode_steps: steps run at most; a point with fewer output tokens runs those.
        stages: those to run.
        kind: "count" or "trace".
        image: path of a page to cut into views on cpu and cuda.
        engine, snapshot, trust_remote_code, checkpoint: as in `Request`.

    Raises:
        SpecError: the engine cannot run this.
    """
    points = []
    for workload in workloads:
        point = {name: getattr(workload, name) for name in POINT_FIELDS}
        points.append({**point, "output_tokens": min(workload.output_tokens, decode_steps)})
    modes = dict.fromkeys(TOWERS, attention) if isinstance(attention, str) else {tower: getattr(attention, tower) for tower in TOWERS}
    asked = Request(
        dimensions(model),
        points,
        attention=modes,
        dtype=dtype,
        device=device,
        prefill_logits=prefill_logits,
        stages=tuple(stages),
        kind=kind,
        image=image,
        engine=engine,
        snapshot=snapshot,
        trust_remote_code=trust_remote_code,
        checkpoint=checkpoint,
    )
    if problem := asked.problem():
        raise SpecError(problem)
    return asked


def dimensions(model: ModelSpec) -> dict[str, dict[str, Any]]:
    """The dimensions of every tower as a request carries them."""
    return {spec.tower: asdict(spec) for spec in model.towers}


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
