"""Which records speak of what: those that a calibration may learn from, and those that are laid over a setting's charts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from ocr_flops.evidence.records.frame import attention_words
from ocr_flops.spec.catalog import load_model, names
from ocr_flops.spec.specs import OTHERS, AttentionSpec, EngineSpec, ModelSpec
from ocr_flops.spec.workload import Workload

if TYPE_CHECKING:
    pass

POINT = ("global_px", "tile_px", "columns", "rows", "prompt_tokens", "output_tokens", "batch_size")  # what a cost depends on
class Usable(NamedTuple):
    """Rows that a calibration may learn from, and the others.

    Args:
        rows: a row per record and stage.
        left_out: why records were left out, and how many of them.
    """

    rows: pl.DataFrame
    left_out: dict[str, int]


def usable(frame: pl.DataFrame, model: ModelSpec, *, hardware: str | None, device: str | None, dtype: str, engine: EngineSpec) -> Usable:
    """The rows measured on one device, with one engine and precision, of a model that the estimate describes.

    Records of other devices, engines, precisions and models, those whose experts run otherwise than estimated, and failed ones are left
    out and counted. Attention modes, hosts and versions of torch are pooled: their costs, where they differ, are in the estimate.

    Args:
        frame: of `records.frame`.
        model: whose records.
        hardware: a config of the group `hardware`, or None.
        device: a device's name as in the frame; None: of those that are `hardware`, the one with most records.
        dtype, engine: what ran.
    """
    rows, left_out = frame, {}
    for reason, column, keep in _rules(frame, model, hardware, device, dtype, engine):
        kept = pl.lit(False) if keep is None else keep
        others = rows.filter(~kept.fill_null(False))
        if count := others["record_id"].n_unique():
            found = ", ".join(sorted({str(value) for value in others[column]} - {"None"})) if column else ""
            key = f"{reason} ({found})" if found else reason
            left_out[key] = left_out.get(key, 0) + count
        rows = rows.filter(kept.fill_null(False))
    return Usable(rows, left_out)


def _rules(
    frame: pl.DataFrame, model: ModelSpec, hardware: str | None, device: str | None, dtype: str, engine: EngineSpec
) -> Iterator[tuple[str, str | None, pl.Expr | None]]:
    """What a row must be: why it is left out otherwise, the column that tells, and the condition (None: never)."""
    experts = experts_of(engine)
    yield "failed", None, pl.col("state") == "done"
    yield "of another model", "model", pl.col("model") == model.name if is_named(model) else None
    if hardware is not None:
        yield "of another device", "device", pl.col("hardware") == hardware
    name = device or most(frame.filter(pl.col("state") == "done", pl.lit(True) if hardware is None else pl.col("hardware") == hardware))
    yield "of another device", "device", pl.col("device") == name if name else None
    yield "of another engine", "engine", pl.col("engine") == engine.name
    yield "of another precision", "dtype", pl.col("dtype") == dtype
    yield f"with experts other than the estimate's {experts}", "experts", pl.col("experts") == experts
    yield "without a time", None, pl.col("median_seconds") > 0


def experts_of(engine: EngineSpec) -> str:
    """The experts implementation that an engine's estimate is about, as records name it."""
    return "grouped_mm" if engine.grouped_experts else "loop"


def most(frame: pl.DataFrame) -> str | None:
    """The device with most records; None where there is none."""
    counts = (
        frame.group_by("device").agg(pl.col("record_id").n_unique().alias("records")).sort("records", "device", descending=[True, False])
    )
    return counts["device"][0] if counts.height else None


def is_named(model: ModelSpec) -> bool:
    """Whether a model is that of its config: records of an edited one do not hold its dimensions in the frame."""
    return model.name in names("model") and load_model(model.name) == model


def workload_of(rows: pl.DataFrame) -> Workload:
    """The workloads of rows, as columns."""
    numeric = [field.name for field in fields(Workload)[:-1]]
    return Workload(**{name: rows[name].cast(pl.Int64).to_numpy() for name in numeric})


def attention_of(words: str) -> AttentionSpec:
    """The attention of a record by its name there: "sdpa", or the kernels of sam/clip/decoder."""
    kernels = words.split("/")
    towers = ("sam", "clip", "decoder")
    return AttentionSpec(words, {OTHERS: words}) if len(kernels) == 1 else AttentionSpec("mixed", zip(towers, kernels, strict=True))


def words_of(attention: AttentionSpec) -> str:
    """Attention modes as records name them."""
    return attention_words({tower: attention.kernel(tower) for tower in ("sam", "clip", "decoder")})
