"""Which records a calibration may learn from, and what their columns say as specs."""

from collections.abc import Iterator
from typing import NamedTuple

import polars as pl

from ocr_flops.cost.engines.base import ENGINES
from ocr_flops.evidence.records.frame import name_kernels
from ocr_flops.evidence.records.record import is_unedited
from ocr_flops.evidence.records.schema import POINT_NUMBERS
from ocr_flops.measure.plan import TOWERS
from ocr_flops.spec.specs import OTHERS, AttentionSpec, EngineSpec, ModelSpec
from ocr_flops.spec.workload import LIMITS, Workload

SETTINGS = ("attention", "cache", "prefill_logits")  # what rows pooled in a calibration may differ in, besides the workload


class Selection(NamedTuple):
    """The rows (one per record and stage) that a calibration may learn from; why the other records were left out, and how many."""

    rows: pl.DataFrame
    left_out: dict[str, int]


def select_rows(
    frame: pl.DataFrame, model: ModelSpec, *, hardware: str | None, device: str | None, dtype: str, engine: EngineSpec
) -> Selection:
    """Select the rows measured on one device, with one engine and precision, of a model that the estimate describes.

    Records of other devices, engines, precisions and models, those whose experts run otherwise than estimated, and failed ones are left
    out and counted. Attention modes, hosts and versions of torch are pooled: their costs, where they differ, are in the estimate.

    Args:
        frame: of `records.records_frame`.
        model: whose records.
        hardware: a config of the group `hardware`, or None.
        device: a device's name as in the frame; None: of those that are `hardware`, the one with most records.
    """
    rows, left_out = frame, {}
    for reason, column, condition in _conditions(frame, model, hardware, device, dtype, engine):
        is_kept = condition.fill_null(False)
        others = rows.filter(~is_kept)
        if count := others["record_id"].n_unique():
            found = ", ".join(others[column].drop_nulls().unique().sort()) if column else ""
            key = f"{reason} ({found})" if found else reason
            left_out[key] = left_out.get(key, 0) + count
        rows = rows.filter(is_kept)
    return Selection(rows, left_out)


def _conditions(
    frame: pl.DataFrame, model: ModelSpec, hardware: str | None, device: str | None, dtype: str, engine: EngineSpec
) -> Iterator[tuple[str, str | None, pl.Expr]]:
    """What a row must be: why it is left out otherwise, the column that shows it, and the condition."""
    is_done, experts = pl.col("state") == "done", experts_name(engine)
    yield "failed", None, is_done
    yield "of another model", "model", (pl.col("model") == model.name) & pl.lit(is_unedited(model))
    is_hardware = pl.lit(True) if hardware is None else pl.col("hardware") == hardware
    yield "of another device", "device", is_hardware
    device = device or most_recorded_device(frame.filter(is_done, is_hardware))
    yield "of another device", "device", pl.lit(False) if device is None else pl.col("device") == device
    yield "of another engine", "engine", pl.col("engine") == engine.name
    yield "of another precision", "dtype", pl.col("dtype") == dtype
    yield f"with experts other than the estimate's {experts}", "experts", pl.col("experts") == experts
    yield "without a time", None, pl.col("median_seconds") > 0


def most_recorded_device(frame: pl.DataFrame) -> str | None:
    """Return the device with most records; None where there is none."""
    counts = frame.group_by("device").agg(pl.col("record_id").n_unique()).sort("record_id", "device", descending=[True, False])
    return counts["device"][0] if counts.height else None


def experts_name(engine: EngineSpec) -> str:
    """Return the experts implementation that an engine's estimate is about, as records name it."""
    return ENGINES.find(engine.name).experts


def attention_name(attention: AttentionSpec) -> str:
    """Return the name of an attention as records have it: one kernel, or those of sam/clip/decoder."""
    return name_kernels({tower: attention.kernel(tower) for tower in TOWERS})


def parse_attention(name: str) -> AttentionSpec:
    """Return the attention that has a name in records."""
    kernels = name.split("/")
    return AttentionSpec(name, {OTHERS: name}) if len(kernels) == 1 else AttentionSpec("mixed", zip(TOWERS, kernels, strict=True))


def parse_workloads(rows: pl.DataFrame) -> Workload:
    """Return the workloads of rows, as columns."""
    return Workload(**{name: rows[name].cast(pl.Int64).to_numpy() for name in LIMITS if name in POINT_NUMBERS})
