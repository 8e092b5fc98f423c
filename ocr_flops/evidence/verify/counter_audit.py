"""Which operators torch's FLOP counter sees here, and the share of the model's FLOPs in those that it does not see.

The worker runs small operators under the counter (`measure/worker/counter_audit.py`); the shares are those of the analytic model at a
workload, every operator in one family by what it is (`op_kinds.py`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocr_flops import __version__
from ocr_flops.errors import SpecError
from ocr_flops.evidence.verify.op_kinds import TENSOR, VECTOR, WHOLE, shares
from ocr_flops.measure.client import ask
from ocr_flops.measure.events import Audit
from ocr_flops.measure.protocol import Request
from ocr_flops.spec.specs import STAGES, ModelSpec
from ocr_flops.spec.workload import Workload
from ocr_flops.timing.estimate import Estimate, estimate

if TYPE_CHECKING:
    import polars as pl

    from ocr_flops.measure.job_queue import Job

RECORD = Path(__file__).parent / "data" / "counter_audit.json"
Message = dict[str, Any]
_ATTENTION = (("attention", TENSOR), ("attention", VECTOR))
_BIASED = (("attention with a bias", TENSOR), ("attention with a bias", VECTOR))
_EXPERTS = (("routed experts", TENSOR),)
COVERS = {  # demonstration: the model's FLOPs that are like it
    "linear": (("linear layers", TENSOR),),
    "matmul": (("relative positions", TENSOR),),
    "conv2d": (("convolutions", TENSOR),),
    **dict.fromkeys(("sdpa_cpu", "sdpa_meta", "sdpa_cuda", "sdpa_math_cpu", "flash_operator", "flash_attn"), _ATTENTION),
    **dict.fromkeys(("sdpa_bias_cpu", "sdpa_bias_meta", "sdpa_bias_cuda", "efficient_operator"), _BIASED),
    **dict.fromkeys(("grouped_mm_cpu", "grouped_mm_meta", "grouped_mm_cuda", "batched_mm"), _EXPERTS),
    "softmax": (("softmax", VECTOR), ("attention", VECTOR), ("attention with a bias", VECTOR)),
    "layer_norm": (("LayerNorm", VECTOR),),
    "rms_norm": (("RMSNorm", VECTOR),),
    "gelu": (("GELU", VECTOR),),
    "silu": (("SiLU", VECTOR),),
    "rope": (("rotary positions", VECTOR),),
    "residual": (("other elementwise work", VECTOR),),
    "embedding": (),
}
SETTINGS = {  # how the model can be run under the counter: the demonstrations that stand for its matrix work
    "CPU, as it comes": ("linear", "matmul", "conv2d", "sdpa_cpu", "sdpa_bias_cpu", "grouped_mm_cpu"),
    "CUDA's fused kernels, grouped experts": ("linear", "matmul", "conv2d", "flash_operator", "efficient_operator", "grouped_mm_meta"),
    "meta, batched experts (verify)": ("linear", "matmul", "conv2d", "sdpa_meta", "sdpa_bias_meta", "batched_mm"),
}
VERDICTS = ("counted", "partly", "missed", "nothing to count", "not here")  # of demonstrations that ran as they should, or could not here
GROUPS = ("counted", "hidden: attention", "hidden: routed experts", "hidden: other matrix work", "hidden: softmax, norms, elementwise")


def run(python: str | None = None) -> Message:
    """Runs the demonstrations in the worker: a second or two.

    Args:
        python: the interpreter that has torch; None for the one of `client.interpreter`.

    Returns:
        {"ran": versions, "cases": [...], "date"}, the cases as in `measure/worker/counter_audit.py`.

    Raises:
        SpecError: the worker failed; the message says why and what to do.
    """
    (audit,) = ask(Request({}, [], kind="audit"), python)
    return _dated(audit)


def latest(job: Job | None) -> Message | None:
    """The audit that a job of the queue brought, as `run` returns it; None where it brought none."""
    audits = [event for event in job.results if isinstance(event, Audit)] if job else []
    return _dated(audits[-1]) if audits else None


def _dated(audit: Audit) -> Message:
    return asdict(audit) | {"date": date.today().isoformat()}


def modelled(model: ModelSpec, workload: Workload, stages: Iterable[str] = STAGES, **options: str) -> Estimate:
    """The estimate whose operators an audit weighs: transformers with fused attention.

    Args:
        model, workload, stages: as in `estimate`; one point.
        **options: dtype and prefill_logits, as in `estimate`.
    """
    return estimate(model, workload, "sdpa", engine="transformers", stages=stages, **options)


def frame(message: Message, estimated: Estimate) -> pl.DataFrame:
    """One row per demonstration, with the model's FLOPs that are like it.

    Args:
        message: from `run` or `recorded`.
        estimated: from `modelled`.

    Returns:
        case, call, device, tensor_flops, vector_flops (what it computes), counted_flops (null where it did not run), verdict, why,
        remedy, then of the model's FLOPs in such operators: `<stage>_share` of each stage's FLOPs, `share` of all stages', and
        `hidden_share`, the part of `share` that the counter would not report (null where it did not run).
    """
    import polars as pl

    flops = {(row["stage"], row["family"]): row for row in shares(estimated).iter_rows(named=True)}
    stages = (*estimated.chosen_stages, WHOLE)
    totals = {stage: sum(row[TENSOR] + row[VECTOR] for (of, _), row in flops.items() if of == stage) for stage in stages}
    rows = []
    for case in message["cases"]:
        covered = COVERS[case["name"]]

        def share(stage: str, weights: Mapping[str, float], covered=covered) -> float:
            whole = totals[stage]
            return sum(flops[stage, family][column] * weights[column] for family, column in covered) / whole if whole else 0.0

        like = {f"{stage}_share": share(stage, {TENSOR: 1, VECTOR: 1}) for stage in estimated.chosen_stages}
        hidden = None if case["counted_flops"] is None else share(WHOLE, {TENSOR: 1 - _seen(case), VECTOR: 1})
        told = {name: case[name] for name in ("call", "device", TENSOR, VECTOR, "counted_flops", "verdict", "why", "remedy")}
        rows.append({"case": case["name"], **told, **like, "share": share(WHOLE, {TENSOR: 1, VECTOR: 1}), "hidden_share": hidden})
    texts = ("case", "call", "device", "verdict", "why", "remedy")
    schema = {name: pl.String if name in texts else pl.Int64 if name.endswith("_flops") else pl.Float64 for name in rows[0]}
    return pl.DataFrame(rows, schema)


def _seen(case: Mapping[str, Any]) -> float:
    """The part of a demonstration's matrix work that the counter reported."""
    return min(case["counted_flops"], case[TENSOR]) / case[TENSOR] if case[TENSOR] else 0.0


def hidden(message: Message, estimated: Estimate) -> pl.DataFrame:
    """How much of the model the counter would report under each of `SETTINGS`, those whose demonstrations all ran.

    Args:
        message, estimated: as in `frame`.

    Returns:
        setting, stage ("all stages" last), group (of `GROUPS`), flops, share (of the stage's FLOPs).
    """
    import polars as pl

    cases = {case["name"]: case for case in message["cases"]}
    rows = []
    for setting, names in SETTINGS.items():
        if any(name not in cases or cases[name]["counted_flops"] is None for name in names):
            continue
        seen = {family: _seen(cases[name]) for name in names for family, column in COVERS[name] if column == TENSOR}
        for (stage,), families in shares(estimated).group_by("stage", maintain_order=True):
            groups = dict.fromkeys(GROUPS, 0)
            for row in families.iter_rows(named=True):
                counted = round(row[TENSOR] * seen.get(row["family"], 0.0))
                groups[GROUPS[0]] += counted
                groups[_group(row["family"])] += row[TENSOR] - counted
                groups[GROUPS[-1]] += row[VECTOR]
            whole = sum(groups.values())
            rows += [(setting, stage, group, flops, flops / whole if whole else 0.0) for group, flops in groups.items()]
    schema = {"setting": pl.String, "stage": pl.String, "group": pl.String, "flops": pl.Int64, "share": pl.Float64}
    return pl.DataFrame(rows, schema, orient="row")


def _group(family: str) -> str:
    if family.startswith("attention"):
        return GROUPS[1]
    return GROUPS[2] if family == "routed experts" else GROUPS[3]


def failures(message: Message) -> list[str]:
    """One line for each demonstration that could not run, or where the counter reports more than there is."""
    bad = [case for case in message["cases"] if case["verdict"] == "differs" or case["verdict"].startswith("could not run")]
    return [f"{case['name']}: {case['verdict']}" + (f", {case['why']}" if case["why"] else "") for case in bad]


def words(message: Message, estimated: Estimate) -> str:
    """The finding, and what ran, in sentences."""
    by_setting = {
        (row["setting"], row["stage"]): row["share"]
        for row in hidden(message, estimated).iter_rows(named=True)
        if row["group"] == GROUPS[0]
    }
    told = [f"{setting}: {100 * by_setting[setting, WHOLE]:.1f} %" for setting in SETTINGS if (setting, WHOLE) in by_setting]
    ran = message["ran"]
    package = f"flash-attn {ran['flash_attn']}" if ran["flash_attn"] else "without flash-attn"
    where = ran["cuda"] or "no CUDA device"
    bad = failures(message)
    count = Counter(case["verdict"] for case in message["cases"])
    numbers = ", ".join(f"{count[verdict]} {verdict}" for verdict in VERDICTS if count[verdict])
    return "\n".join(
        [
            f"Of this model's FLOPs torch's counter reports, by how it is run: {'; '.join(told)}.",
            f"{len(message['cases'])} demonstrations on {message['date']}, torch {ran['torch']}, {package}, {where}: {numbers}"
            + (f", {len(bad)} failed." if bad else "."),
            *bad,
        ]
    )


def record(message: Message, path: Path = RECORD) -> None:
    """Keeps an audit as the one that the package ships.

    Raises:
        SpecError: the file cannot be written, or a demonstration failed.
    """
    from ocr_flops.evidence.verify.summary import write_record

    if bad := failures(message):
        raise SpecError(f"--record: {bad[0]}; an audit with failures is not kept")
    head = {"ocr_flops": __version__, "date": message["date"], "ran": message["ran"]}
    write_record(path, head, message["cases"], "cases")


def recorded(path: Path = RECORD) -> Message:
    """The audit this version was released with, as `run` returns it."""
    return json.loads(path.read_text(encoding="utf-8"))
