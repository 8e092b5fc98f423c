"""All records as one frame, beside which charts and calibration lay the estimate."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from ocr_flops.errors import one_of
from ocr_flops.evidence.records.schema import POINT_NUMBERS, VERSIONS, Figures, Record
from ocr_flops.evidence.records.store import USER, Problem, Stored, read_records

LEVELS = ("stage", "module")
IDENTITY = ("record_id", "measured_at", "state", "source", "path", "engine", "attention", "experts", "dtype", "device", "hardware", "host")
FIGURES = Figures.__struct_fields__
_FLOATS = ("median_seconds", "spread_seconds", "min_seconds", "mfu", "bandwidth_use")
_TEXTS = ("io_bytes_source", "peak_source")
COLUMNS = {  # `module` follows `stage` at that level
    **dict.fromkeys((*IDENTITY, *VERSIONS), pl.String),
    **dict.fromkeys(POINT_NUMBERS, pl.Int64),
    **dict.fromkeys(("mode", "prefill_logits", "cache", "stage"), pl.String),
    **{name: pl.Float64 if name in _FLOATS else pl.String if name in _TEXTS else pl.Int64 for name in FIGURES},
    **dict.fromkeys(("model", "weights", "failure"), pl.String),
}


def records_frame(where: Path | None = None, *, level: str = "stage", shipped: Path | None = None) -> tuple[pl.DataFrame, list[Problem]]:
    """Read every record as rows, a row for each stage, or for each of its modules.

    A record that failed has a row for each stage that was to run, without figures, and none at level "module".

    Args:
        where: the user's folder; `records.records_folder()` where None.
        level: "stage" or "module".
        shipped: the package's folder; `records.shipped_folder()` where None.

    Returns:
        a frame, and the files that could not be read. Columns: record_id, measured_at (ISO 8601, UTC), state ("done" or "failed"),
        source ("user" or "shipped"), path, engine, attention (one mode, or sam/clip/decoder), experts, dtype, device (its name), hardware
        (the config of its figures, or null), host; versions; the workload's; mode (null: a grid of no mode's), prefill_logits, cache,
        stage, module; runs, median_seconds, spread_seconds (interquartile range), min_seconds, torch_flops_counted,
        peak_allocated_bytes and peak_reserved_bytes (weights and cache included), mfu, bandwidth_use, io_bytes, io_bytes_source ("traced"
        or "analytic"), analytic_torch_flops, peak_source ("allocator" or "traced"), experts_hit (of a stage with experts whose FLOPs were
        counted, over all layers and passes); model (a config's name), weights ("random", or a
        checkpoint's), failure (why, and what to do).

    Raises:
        SpecError: an unknown level.
    """
    found, problems = read_records(where, shipped)
    return build_frame(found, level), problems


def record_frame(document: Mapping[str, Any], path: Path, level: str = "stage") -> pl.DataFrame:
    """Return the rows of one record of the user's, as in `records_frame`."""
    return build_frame([Stored(USER, path, msgspec.convert(document, Record))], level)


def build_frame(found: Iterable[Stored], level: str) -> pl.DataFrame:
    """Build the frame of `records_frame` from records that were read."""
    one_of("level", level, LEVELS)
    columns = {}
    for name, kind in COLUMNS.items():
        columns |= {name: kind, "module": pl.String} if (name, level) == ("stage", "module") else {name: kind}
    return pl.DataFrame([row for stored in found for row in _rows(stored, level)], columns, orient="row")


def _rows(stored: Stored, level: str) -> Iterator[dict[str, Any]]:
    """The rows of a record."""
    record = stored.record
    ran, settings, failure = msgspec.structs.asdict(record.ran) if record.ran else {}, record.settings, record.failure
    shared = {
        "record_id": record.record_id,
        "measured_at": record.finished,
        "state": record.state,
        "source": stored.source,
        "path": str(stored.path),
        "attention": name_kernels(settings.attention),
        "experts": ran.get("experts") or settings.experts,
        "device": ran.get("device_name") or settings.device,
        "hardware": record.hardware and record.hardware.name,
        "host": record.host,
        **{name: getattr(settings, name) for name in ("engine", "dtype", "prefill_logits", "cache")},
        **{name: ran.get(name) for name in (*VERSIONS, "weights")},
        **msgspec.structs.asdict(record.workload),
        "model": record.model.name,
        "failure": f"{failure.message} ({failure.advice})" if failure else None,
    }
    for stage in settings.stages if failure and level == "stage" else ():
        yield dict.fromkeys(COLUMNS) | shared | {"stage": stage}
    for stage, figures in record.derived.items():
        for module, one in {None: figures}.items() if level == "stage" else figures.modules.items():
            place = {"stage": stage} if level == "stage" else {"stage": stage, "module": module}
            yield shared | place | {name: getattr(one, name) for name in FIGURES}


def name_kernels(attention: Mapping[str, str]) -> str:
    """Return the name of an attention in records: one mode where all towers share it, else those of sam/clip/decoder."""
    return next(iter(attention.values())) if len(set(attention.values())) == 1 else "/".join(attention.values())
