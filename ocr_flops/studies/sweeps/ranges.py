"""Overrides with several values: "workload.columns=1:30", "attention=[eager,sdpa]", "workload.batch_size=[1,4,16:64:16]"."""

import re
from collections.abc import Iterable
from typing import Any

from ocr_flops.errors import SpecError
from ocr_flops.spec.overrides import GROUPS

SEVERAL = (*GROUPS, "dtype", "cache", "prefill_logits")  # keys that may have several values
FIELDS = (*(f"{group}." for group in SEVERAL if group != "model"), "model.towers.")  # and so may their fields
LISTS = ("runnable_attention", "graphs", "global_layers", "downsample_widths")  # but those whose one value is a list
RANGE = re.compile(r"(-?\d+):(-?\d+)(?::(-?\d+))?")
MAX_VALUES = 10_000_000
WORDS = {"null": None, "none": None, "true": True, "false": False}
Value = int | float | str | bool | None
Axes = dict[str, tuple[Value, ...] | range]


def split_overrides(overrides: Iterable[str]) -> tuple[list[str], Axes]:
    """Separates overrides of one value, kept as they are, from those of several. The later of two with the same key counts.

    Args:
        overrides: "key=value", "key=[value,value]", "key=first:last" or "key=first:last:step" (both ends included).

    Raises:
        SpecError: an empty list or range, a value named twice, a step of 0.
    """
    plain: dict[str, str] = {}
    axes: Axes = {}
    for text in overrides:
        key, _, value = text.partition("=")
        plain.pop(key, None)
        axes.pop(key, None)
        may_vary = (key in SEVERAL or key.startswith(FIELDS)) and key.rpartition(".")[2] not in LISTS
        if may_vary and (value.startswith("[") or RANGE.fullmatch(value)):
            axes[key] = read_values(key, value)
        else:
            plain[key] = text
    return list(plain.values()), axes


def read_values(key: str, given: Any) -> tuple[Value, ...] | range:
    """The values of an axis, each once, in the order given.

    Args:
        key: named in errors.
        given: text of a range or of a list of values and ranges, or a list of them.

    Raises:
        SpecError: as `split_overrides`.
    """
    if isinstance(given, str) and RANGE.fullmatch(given):
        return _read_range(key, given)
    if isinstance(given, str):
        if not (given.startswith("[") and given.endswith("]")):
            raise SpecError(f"{key}: {given!r} is neither a list as in [1,4,16] nor a range as in 1:30 or 0:1000:50")
        given = [part.strip() for part in given[1:-1].split(",")] if given[1:-1].strip() else []
    if not isinstance(given, list) or not given:
        raise SpecError(f"{key}: {given!r} is empty; give a list of values, or a range as in 1:30")
    found: dict[Value, None] = {}
    for item in given:
        for value in _read_range(key, item) if isinstance(item, str) and RANGE.fullmatch(item) else (_read_value(item),):
            value = "none" if (key, value) == ("host", None) else value  # a host's name, and the word for null
            if value in found:
                raise SpecError(f"{key}: {value} is named twice")
            found[value] = None
    return tuple(found)


def _read_range(key: str, text: str) -> range:
    """The whole numbers of first:last:step, both ends included."""
    first, last, step = (int(number or 1) for number in RANGE.fullmatch(text).groups())
    if step == 0 or (last - first) * step < 0:
        raise SpecError(f"{key}: {text} has no values; a range is first:last or first:last:step, as in 0:1000:50")
    if (last - first) // step >= MAX_VALUES:
        raise SpecError(f"{key}: {text} has more than {MAX_VALUES:,} values")
    return range(first, last + (1 if step > 0 else -1), step)


def _read_value(item: Any) -> Value:
    """A value as it is written on a command line."""
    if not isinstance(item, str):
        return item
    text = item.strip().strip("'\"")
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return WORDS.get(text.lower(), text)
