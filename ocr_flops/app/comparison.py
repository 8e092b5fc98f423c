"""Settings side by side: their figures, and the differences from the first as numbers."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import polars as pl

from ocr_flops.app.records_overlay import conditions
from ocr_flops.app.setting import SIDE_BY_SIDE, Setting
from ocr_flops.errors import SpecError
from ocr_flops.reports.images import provenance
from ocr_flops.spec.host import Ranged
from ocr_flops.spec.specs import ModelSpec
from ocr_flops.timing.estimate import Estimate
from ocr_flops.timing.timing import Timing
from ocr_flops.units import change, name_attention, per_day, seconds, si

Words = Callable[[Any], str]
NOW, BASELINE = "now", "baseline"
OBVIOUS = ("mode", "attention", "engine", "dtype", "gpu", "model")  # whose values say what they are of
IGNORED = ("ttft_ms", "tpot_ms", "price", "prices", "pages", "gpus", "plan_batch")  # targets of a plan are no property of what is compared


def _bytes(value: float) -> str:
    return si(value, "B")


def _count(value: int) -> str:
    return f"{value:,}"


TIMES: dict[str, tuple[str, Words]] = {  # of a `Timing`: what the table calls them, and how it writes them
    "expected_ttft_seconds": ("first token (TTFT), expected", seconds),
    "expected_tpot_seconds": ("per token (TPOT), expected", seconds),
    "expected_pages_per_second": ("pages a day, expected", per_day),
    "ttft_seconds": ("first token, device at its peaks", seconds),
    "tpot_seconds": ("per token, device at its peaks", seconds),
    "pages_per_second": ("pages a day, device at its peaks", per_day),
}
SUMS: dict[str, tuple[str, Words]] = {  # over the stages
    "total_flops": ("FLOPs", si),
    "tensor_flops": ("tensor FLOPs", si),
    "vector_flops": ("vector FLOPs", si),
    "io_bytes": ("bytes moved", _bytes),
}
MEMORY: dict[str, tuple[str, Words]] = {  # of the footprint
    "total_bytes": ("memory needed", _bytes),
    "weight_bytes": ("weights", _bytes),
    "kv_cache_bytes": ("KV cache", _bytes),
    "peak_activation_bytes": ("live activations, at most", _bytes),
}
TOKENS: dict[str, tuple[str, Words]] = {"image_tokens": ("image tokens", _count), "context_tokens": ("context tokens", _count)}
FIGURES = TIMES | SUMS | MEMORY | TOKENS


@dataclass(frozen=True, eq=False)
class ComparedSetting:
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
            **{name: _time(self.timing, name) if self.timing else None for name in TIMES},
            **{name: sum(row[name] for row in stages) for name in SUMS},
            **{name: getattr(footprint, name) for name in MEMORY},
            **{name: getattr(workload, name) for name in TOKENS},
        }


def _time(timing: Timing, name: str) -> float | None:
    if "pages" in name and not timing.fits:
        return None
    figure = getattr(timing, name.removesuffix("_seconds") if name.startswith("expected") else name)
    return figure.value if isinstance(figure, Ranged) else figure


def compare_settings(model: ModelSpec, settings: Mapping[str, Setting]) -> tuple[list[ComparedSetting], list[str]]:
    """Evaluates settings; also returns why some could not be.

    Args:
        model: of those settings that name it.
        settings: by name, the one to compare with first, each taken as `known`. One that shows all attention modes becomes one a mode.
    """
    found, problems = [], []
    for name, chosen in settings.items():
        setting = chosen.known
        problems += [f"{name}: {chosen.instead}"] if chosen.instead else []
        spec = model if setting.model == model.name else setting.model_spec
        try:
            estimates = setting.estimates(spec)
        except SpecError as problem:
            problems.append(f"{name} has no result: {problem}.")
            continue
        try:
            found_under = conditions(spec, setting)
        except SpecError as problem:
            problems.append(f"{name} has no times: {problem}.")
            found_under = None
        for mode, one in zip(setting.attention_modes, estimates, strict=True):
            label = name if setting.attention != SIDE_BY_SIDE else f"{name}, {mode}"
            found.append(ComparedSetting(label, replace(setting, attention=mode), one, one.on(**found_under) if found_under else None))
    return found, problems


def compare_pins(model: ModelSpec, setting: Setting, pins: Iterable[tuple[str, Setting]]) -> tuple[list[ComparedSetting], list[str]]:
    """`compare_settings` of a setting and pins by name, all compared with `find_base`."""
    pins = dict(pins)
    return compare_settings(model, dict([find_base(setting, pins.items())]) | {NOW: setting} | pins)


def find_base(setting: Setting, pins: Iterable[tuple[str, Setting]]) -> tuple[str, Setting]:
    """What all others are compared with: a pin called baseline, else the first, else the setting itself; with its name."""
    found = [*pins, (NOW, setting)]
    return next((pin for pin in found if pin[0].casefold() == BASELINE), found[0])


def provenance_of(found: list[ComparedSetting]) -> str:
    """What a chart of settings says of itself where it is taken away: the first in full, and what the others change."""
    if not found:
        return ""
    first, *others = found
    whole = f"{first.label}: {first.setting.describe(first.estimate.config.model, first.timing and first.timing.hardware)}"
    return provenance("; ".join([whole, *(f"{one.label}: {change_words(one.setting, first.setting)}" for one in others)]))


def comparison_frame(found: list[ComparedSetting]) -> pl.DataFrame:
    """A row a setting: `setting`, `changes` (in words), every figure, and its distance from the first setting as `<figure>_difference`."""
    rows, first = [], found[0].figures if found else {}
    for one in found:
        figures = one.figures
        differences = {
            f"{name}_difference": None if value is None or first[name] is None else value - first[name] for name, value in figures.items()
        }
        rows.append({"setting": one.label, "changes": change_words(one.setting, found[0].setting), **figures, **differences})
    kinds = {name: pl.Float64 if name in TIMES else pl.Int64 for name in FIGURES}
    schema = {"setting": pl.String, "changes": pl.String, **kinds, **{f"{name}_difference": kind for name, kind in kinds.items()}}
    return pl.DataFrame(rows, schema=schema)


def comparison_table(found: list[ComparedSetting]) -> pl.DataFrame:
    """Settings side by side for people: a row a figure, a column a setting; in brackets ranges and differences from the first."""
    first = found[0].figures
    columns: dict[str, list[str]] = {"": [label for label, _ in FIGURES.values()]}
    for one in found:
        columns[one.label] = [
            _cell(value, None if one is found[0] else first[name], _range(one.timing, name), FIGURES[name][1])
            for name, value in one.figures.items()
        ]
    return pl.DataFrame(columns)


def _range(timing: Timing | None, name: str) -> tuple[float, ...]:
    """The low and the high end of an expected time; nothing of what has none."""
    figure = getattr(timing, name.removesuffix("_seconds"), None) if name.startswith("expected") else None
    return figure[1:3] if figure else ()


def _cell(value: float | None, base: float | None, ends: tuple[float, ...], words: Words) -> str:
    if value is None:
        return "–"
    notes = [" to ".join(map(words, ends))] if ends else []
    if base:
        notes += [f"{'−' if value < base else '+'}{words(abs(value - base))}"] if value != base and not ends else []
        notes.append(change(value, base).replace(" ", "\u00a0"))
    return f"{words(value)} ({', '.join(notes)})" if notes else words(value)


def short_name(setting: Setting, base: Setting | None = None) -> str:
    """What a setting is called until somebody names it: what it changes against another, where there is one and it changes anything."""
    changes = _changes(setting, base) if base else {}
    if changes:
        values = ((name.removesuffix("_size").replace("_", " "), _value(value)) for name, (_, value) in changes.items())
        return ", ".join(text if name in OBVIOUS else f"{name} {text}" for name, text in values)
    workload = setting.workload
    grid = f" {workload.columns}×{workload.rows}" if workload.tiles else ""
    what = setting.model if setting.model_spec.learned else f"{setting.mode}{grid}"
    more = [setting.attention] if setting.attention != Setting.attention else []
    more += [f"batch {setting.batch_size}"] if setting.batch_size > 1 else []
    return ", ".join([setting.gpu, what, *more])


def change_words(setting: Setting, base: Setting) -> str:
    """What a setting changes in effect against another, in a line."""
    words = ((name.replace("_", " "), before, after) for name, (before, after) in _changes(setting, base).items())
    return ", ".join(f"{name} {_value(before)} → {_value(after)}" for name, before, after in words) or "the same"


def _changes(setting: Setting, base: Setting) -> dict[str, tuple[Any, Any]]:
    """The fields in which settings differ in effect, each with its value in `base` and in `setting`."""
    setting, base, ignored = setting.known, base.known, {*IGNORED}
    ignored |= {"columns", "rows"} if setting.source == base.source == "page" else set()
    ignored |= {"width_px", "height_px"} if setting.source == "grid" else {"mode"} if setting.model_spec.learned else set()
    pairs = {one.name: (getattr(base, one.name), getattr(setting, one.name)) for one in fields(Setting) if one.name not in ignored}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _value(value: object) -> str:
    if value is None:
        return "as published"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else name_attention(str(value))
