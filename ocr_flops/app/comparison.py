"""Settings side by side: their figures, and the differences from the first as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import polars as pl

from ocr_flops.app.setting import SIDE_BY_SIDE, Setting
from ocr_flops.charts.savings import saved
from ocr_flops.errors import SpecError
from ocr_flops.spec.specs import ModelSpec
from ocr_flops.timing.estimate import Estimate
from ocr_flops.timing.timing import Timing
from ocr_flops.units import seconds, si

TIMES = ("ttft_seconds", "tpot_seconds", "pages_per_second")
SUMMED = ("total_flops", "tensor_flops", "vector_flops", "io_bytes")
HELD = ("total_bytes", "weight_bytes", "kv_cache_bytes", "peak_activation_bytes")
TOKENS = ("image_tokens", "context_tokens")
FIGURES = (*TIMES, *SUMMED, *HELD, *TOKENS)
IGNORED = ("ttft_ms", "tpot_ms", "price")  # targets of a plan are no property of what is compared


@dataclass(frozen=True, eq=False)
class Compared:
    """One setting of a comparison.

    Args:
        label: its name.
        setting: what was set.
        estimate: its cost.
        timing: on its device; None where the device has no figure for its precision.
    """

    label: str
    setting: Setting
    estimate: Estimate
    timing: Timing | None

    @property
    def figures(self) -> dict[str, float | int | None]:
        """Every figure of `FIGURES`; None where there is none."""
        stages, footprint, workload = self.estimate.stage_numbers.values(), self.estimate.footprint, self.estimate.workload
        return {
            **{name: getattr(self.timing, name) if self.timing else None for name in TIMES},
            **{name: sum(row[name] for row in stages) for name in SUMMED},
            **{name: getattr(footprint, name) for name in HELD},
            **{name: getattr(workload, name) for name in TOKENS},
        }


def compared(model: ModelSpec, settings: Mapping[str, Setting]) -> tuple[list[Compared], list[str]]:
    """Settings evaluated, and why some could not be.

    Args:
        settings: by name, the one to compare with first. One that shows all attention modes becomes one a mode.
    """
    found, problems = [], []
    for name, setting in settings.items():
        try:
            estimates = setting.estimates(model)
        except SpecError as problem:
            problems.append(f"{name} has no result: {problem}.")
            continue
        try:
            device = setting.device
        except SpecError as problem:
            problems.append(f"{name} has no times: {problem}.")
            device = None
        for mode, one in zip(setting.attention_modes, estimates, strict=True):
            label = name if setting.attention != SIDE_BY_SIDE else f"{name}, {mode}"
            found.append(Compared(label, replace(setting, attention=mode), one, one.on(device) if device else None))
    return found, problems


def frame(found: list[Compared]) -> pl.DataFrame:
    """A row a setting: `setting`, `changes` (in words), every figure, and its distance from the first setting as `<figure>_difference`."""
    rows, first = [], found[0].figures if found else {}
    for one in found:
        figures = one.figures
        differences = {
            f"{name}_difference": None if value is None or first[name] is None else value - first[name] for name, value in figures.items()
        }
        rows.append({"setting": one.label, "changes": in_words(one.setting, found[0].setting), **figures, **differences})
    kinds = {name: pl.Float64 if name in TIMES else pl.Int64 for name in FIGURES}
    schema = {"setting": pl.String, "changes": pl.String, **kinds, **{f"{name}_difference": kind for name, kind in kinds.items()}}
    return pl.DataFrame(rows, schema=schema)


def changes(setting: Setting, base: Setting) -> dict[str, tuple[object, object]]:
    """The fields in which two settings differ in effect, each as (base's, setting's)."""
    names = [one.name for one in fields(Setting) if one.name not in IGNORED]
    found = {name: (getattr(base, name), getattr(setting, name)) for name in names}
    grid = ("columns", "rows") if setting.source == base.source == "page" else ("width_px", "height_px") if setting.source == "grid" else ()
    return {name: both for name, both in found.items() if both[0] != both[1] and name not in grid}


def short_name(setting: Setting) -> str:
    """What a setting is called until somebody names it."""
    workload = setting.workload
    grid = f" {workload.columns}×{workload.rows}" if workload.tiles else ""
    return f"{setting.mode}{grid}, {setting.attention}, batch {setting.batch_size}, {setting.gpu}"


def in_words(setting: Setting, base: Setting) -> str:
    """What a setting changes against another, in a line."""
    said = [f"{name.replace('_', ' ')} {_value(before)} → {_value(after)}" for name, (before, after) in changes(setting, base).items()]
    return ", ".join(said) or "the same"


def _value(value: object) -> str:
    return (
        "as published"
        if value is None
        else f"{value:,}"
        if isinstance(value, int)
        else f"{value:.4g}"
        if isinstance(value, float)
        else str(value)
    )


COMPARED = {
    "ttft_seconds": "first token (TTFT)",
    "tpot_seconds": "per token (TPOT)",
    "pages_per_second": "pages",
    "total_flops": "FLOPs",
    "tensor_flops": "tensor FLOPs",
    "vector_flops": "vector FLOPs",
    "io_bytes": "bytes moved",
    "total_bytes": "memory needed",
    "weight_bytes": "weights",
    "kv_cache_bytes": "KV cache",
    "peak_activation_bytes": "live activations, at most",
    "image_tokens": "image tokens",
    "context_tokens": "context tokens",
}


def comparison_table(found: list[Compared]) -> pl.DataFrame:
    """Settings side by side: a row a figure, a column a setting; differences from the first in brackets."""
    words = {
        **dict.fromkeys(TIMES[:2], seconds),
        "pages_per_second": lambda value: f"{value:.3g}/s",
        **dict.fromkeys(SUMMED[:3], si),
        **dict.fromkeys((SUMMED[3], *HELD), lambda value: si(value, "B")),
        **dict.fromkeys(TOKENS, lambda value: f"{value:,}"),
    }
    first = found[0].figures
    columns: dict[str, list[str]] = {"": [COMPARED[name] for name in first]}
    for one in found:
        cells = []
        for name, value in one.figures.items():
            said = "" if one is found[0] or value is None or not first[name] else saved(value, first[name], words[name])
            cells.append("–" if value is None else f"{words[name](value)} ({said})" if said else words[name](value))
        columns[one.label] = cells
    return pl.DataFrame(columns)
