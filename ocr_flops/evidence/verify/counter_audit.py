"""Which operators torch's FLOP counter sees here, and the share of the model's FLOPs in those that it does not see.

The worker runs small operators under the counter (`measure/worker/counter_audit.py`); the shares are those of the analytic model at a
workload, every operator in one family by what it is (`op_kinds.py`).
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from ocr_flops import __version__
from ocr_flops.errors import SpecError
from ocr_flops.evidence.verify.op_kinds import TENSOR, VECTOR, WHOLE, family_flops, stage_flops
from ocr_flops.evidence.verify.summary import write_evidence
from ocr_flops.measure.client import ask
from ocr_flops.measure.events import Audit
from ocr_flops.measure.job_queue import Job
from ocr_flops.measure.protocol import Request
from ocr_flops.spec.specs import STAGES, ModelSpec
from ocr_flops.spec.workload import Workload
from ocr_flops.timing.estimate import Estimate, estimate

SHIPPED = Path(__file__).parent / "data" / "counter_audit.json"
AuditMessage = dict[str, Any]
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
HIDDEN = {"attention": GROUPS[1], "attention with a bias": GROUPS[1], "routed experts": GROUPS[2]}  # by family; others GROUPS[3]


def audit_counter(python: str | None = None) -> AuditMessage:
    """Run the demonstrations in the worker: a second or two.

    Args:
        python: the interpreter that has torch; None for the one of `client.interpreter`.

    Returns:
        {"ran": versions, "cases": [...], "date"}, the cases as in `measure/worker/counter_audit.py`.

    Raises:
        SpecError: the worker failed; the message says why and what to do.
    """
    (audit,) = ask(Request({}, [], kind="audit"), python)
    return _add_date(audit)


def latest_audit(job: Job | None) -> AuditMessage | None:
    """Return the audit that a job of the queue brought, as `audit_counter` does; None where it brought none."""
    audits = [event for event in job.results if isinstance(event, Audit)] if job else []
    return _add_date(audits[-1]) if audits else None


def _add_date(audit: Audit) -> AuditMessage:
    return asdict(audit) | {"date": date.today().isoformat()}


def estimate_audited(model: ModelSpec, workload: Workload, stages: Iterable[str] = STAGES, **options: str) -> Estimate:
    """Estimate the model whose operators an audit weighs: transformers with fused attention.

    Args:
        model, workload, stages: as in `estimate`; one point.
        **options: dtype and prefill_logits, as in `estimate`.
    """
    return estimate(model, workload, "sdpa", engine="transformers", stages=stages, **options)


def audit_frame(message: AuditMessage, estimated: Estimate) -> pl.DataFrame:
    """Return a row per demonstration, with the model's FLOPs that are like it.

    Args:
        message: of `audit_counter` or `read_audit`.
        estimated: of `estimate_audited`.

    Returns:
        case, call, device, tensor_flops, vector_flops (what it computes), counted_flops (null where it did not run), verdict, why,
        remedy, then of the model's FLOPs in such operators: `<stage>_share` of each stage's FLOPs, `share` of all stages', and
        `hidden_share`, the part of `share` that the counter would not report (null where it did not run).
    """
    weighed = family_flops(estimated).with_columns(pl.col(TENSOR, VECTOR) / stage_flops()).iter_rows(named=True)
    shares = {(row["stage"], row["family"], column): row[column] for row in weighed for column in (TENSOR, VECTOR)}
    rows = []
    for case in message["cases"]:
        covered = COVERS[case["name"]]
        like = {stage: sum(shares[stage, *one] for one in covered) for stage in (*estimated.chosen_stages, WHOLE)}
        unseen = {TENSOR: 1 - _counted_part(case), VECTOR: 1}
        hidden = None if case["counted_flops"] is None else sum(shares[WHOLE, *one] * unseen[one[1]] for one in covered)
        rows.append(
            {"case": case["name"]}
            | {name: case[name] for name in ("call", "device", TENSOR, VECTOR, "counted_flops", "verdict", "why", "remedy")}
            | {f"{stage}_share": like[stage] for stage in estimated.chosen_stages}
            | {"share": like[WHOLE], "hidden_share": hidden}
        )
    texts = ("case", "call", "device", "verdict", "why", "remedy")
    schema = {name: pl.String if name in texts else pl.Int64 if name.endswith("_flops") else pl.Float64 for name in rows[0]}
    return pl.DataFrame(rows, schema)


def _counted_part(case: dict[str, Any]) -> float:
    """The part of a demonstration's matrix work that the counter reported; 0 where it did not run."""
    return min(case["counted_flops"] or 0, case[TENSOR]) / case[TENSOR] if case[TENSOR] else 0.0


def hidden_frame(message: AuditMessage, estimated: Estimate) -> pl.DataFrame:
    """Return how much of the model the counter would report under each of `SETTINGS`, those whose demonstrations all ran.

    Args:
        message, estimated: as in `audit_frame`.

    Returns:
        setting, stage ("all stages" last), group (of `GROUPS`), flops, share (of the stage's FLOPs).
    """
    cases = {case["name"]: case for case in message["cases"] if case["counted_flops"] is not None}
    rows = []
    for setting, names in SETTINGS.items():
        if not set(names) <= set(cases):
            continue
        counted_parts = {family: _counted_part(cases[name]) for name in names for family, column in COVERS[name] if column == TENSOR}
        for (stage,), families in family_flops(estimated).group_by("stage", maintain_order=True):
            groups = dict.fromkeys(GROUPS, 0)
            for row in families.iter_rows(named=True):
                counted = round(row[TENSOR] * counted_parts.get(row["family"], 0.0))
                groups[GROUPS[0]] += counted
                groups[HIDDEN.get(row["family"], GROUPS[3])] += row[TENSOR] - counted
                groups[GROUPS[-1]] += row[VECTOR]
            rows += [(setting, stage, group, flops) for group, flops in groups.items()]
    frame = pl.DataFrame(rows, {"setting": pl.String, "stage": pl.String, "group": pl.String, "flops": pl.Int64}, orient="row")
    return frame.with_columns(share=pl.col("flops") / pl.col("flops").sum().over("setting", "stage").clip(1))


def list_failures(message: AuditMessage) -> list[str]:
    """Return a line for each demonstration that could not run, or where the counter reports more than there is."""
    bad = [case for case in message["cases"] if case["verdict"] == "differs" or case["verdict"].startswith("could not run")]
    return [f"{case['name']}: {case['verdict']}" + (f", {case['why']}" if case["why"] else "") for case in bad]


def describe_audit(message: AuditMessage, estimated: Estimate) -> str:
    """Return the finding, and what ran, in sentences."""
    hidden = hidden_frame(message, estimated)
    counted = hidden.filter(stage=WHOLE, group=GROUPS[0]).iter_rows(named=True)
    parts = "; ".join(f"{row['setting']}: {100 * row['share']:.1f} %" for row in counted)
    ran, bad = message["ran"], list_failures(message)
    package = f"flash-attn {ran['flash_attn']}" if ran["flash_attn"] else "without flash-attn"
    count = Counter(case["verdict"] for case in message["cases"])
    numbers = ", ".join(f"{count[verdict]} {verdict}" for verdict in VERDICTS if count[verdict])
    where = ran["cuda"] or "no CUDA device"
    what = f"{len(message['cases'])} demonstrations on {message['date']}, torch {ran['torch']}, {package}, {where}"
    failed = f", {len(bad)} failed" if bad else ""
    finding = f"Of this model's FLOPs torch's counter reports, by how it is run: {parts}."
    return "\n".join([finding, f"{what}: {numbers}{failed}.", *bad])


def write_audit(message: AuditMessage, path: Path = SHIPPED) -> None:
    """Keep an audit as the one that the package ships.

    Raises:
        SpecError: the file cannot be written, or a demonstration failed.
    """
    if bad := list_failures(message):
        raise SpecError(f"--record: {bad[0]}; an audit with failures is not kept")
    head = {"ocr_flops": __version__, "date": message["date"], "ran": message["ran"]}
    write_evidence(path, head, "cases", message["cases"])


def read_audit(path: Path = SHIPPED) -> AuditMessage:
    """Return the audit that this version was released with, as `audit_counter` does."""
    return json.loads(path.read_text(encoding="utf-8"))
