"""Overrides with several values: "workload.columns=1:30", "attention=[eager,sdpa]", "workload.batch_size=[1,4,16:64:16]"."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ocr_flops.errors import SpecError

SEVERAL = ("model", "engine", "attention", "hardware", "workload", "dtype", "cache", "prefill_logits")  # keys that may have several values
LISTS = ("engine.runnable_attention",)  # values that are lists by themselves
RANGE = re.compile(r"(-?\d+):(-?\d+)(?::(-?\d+))?")
MAX_VALUES = 10_000_000
WORDS = {"null": None, "none": None, "true": True, "false": False}
Value = int | float | str | bool | None
Axes = dict[str, tuple[Value, ...] | range]


def split(overrides: Iterable[str]) -> tuple[list[str], Axes]:
    """The overrides of one value, as they are, and those of several. The later of two with the same key counts.

    Args:
        overrides: "key=value", "key=[value,value]", "key=first:last" or "key=first:last:step" (both ends included).

    Raises:
        SpecError: an empty list or range, a value named twice, a step of 0.
    """
    plain: dict[str, str] = {}
    axes: Axes = {}
    for text in overrides:
        key, _, value = text.partition("=")
        several = (key in SEVERAL or key.startswith(tuple(f"{name}." for name in SEVERAL if name != "model"))) and key not in LISTS
        plain.pop(key, None)
        axes.pop(key, None)
        if several and (value.startswith("[") or RANGE.fullmatch(value)):
            axes[key] = values(key, value)
        else:
            plain[key] = text
    return list(plain.values()), axes


def values(key: str, given: Any) -> tuple[Value, ...] | range:
    """The values of an axis, each once, in the order given.

    Args:
        key: named in errors.
        given: text of a range or of a list of values and ranges, or a list of them.

    Raises:
        SpecError: as `split`.
    """
    if isinstance(given, str) and (one := _range(key, given)) is not None:
        return one
    if isinstance(given, str):
        if not (given.startswith("[") and given.endswith("]")):
            raise SpecError(f"{key}: {given!r} is neither a list as in [1,4,16] nor a range as in 1:30 or 0:1000:50")
        given = [part.strip() for part in given[1:-1].split(",")] if given[1:-1].strip() else []
    if not isinstance(given, list) or not given:
        raise SpecError(f"{key}: {given!r} is empty; give a list of values, or a range as in 1:30")
    found: list[Value] = []
    for item in given:
        several = _range(key, item) if isinstance(item, str) else None
        found += [_value(item)] if several is None else several
    seen = set()
    for value in found:
        if value in seen:
            raise SpecError(f"{key}: {value} is named twice")
        seen.add(value)
    return tuple(found)


def _range(key: str, text: str) -> range | None:
    """first:last:step with both ends; None for other text."""
    match = RANGE.fullmatch(text)
    if match is None:
        return None
    first, last, step = int(match[1]), int(match[2]), int(match[3] or 1)
    if step == 0 or (last - first) * step < 0:
        raise SpecError(f"{key}: {text} has no values; a range is first:last or first:last:step, as in 0:1000:50")
    whole = range(first, last + (1 if step > 0 else -1), step)
    if (last - first) // step >= MAX_VALUES:
        raise SpecError(f"{key}: {text} has more than {MAX_VALUES:,} values")
    return whole


def _value(item: Any) -> Value:
    """A value as written on a command line."""
    if not isinstance(item, str):
        return item
    text = item.strip().strip("'\"")
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return WORDS.get(text.lower(), text)
