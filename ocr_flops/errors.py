"""The one error that users see for a wrong value, and the checks that raise it."""

from collections.abc import Iterable
from math import inf
from typing import Any

FEW = 9  # names that an error lists in any case


class SpecError(ValueError):
    """A value that no spec or workload can have; the message names the field, the value and what is allowed."""


def one_of(field: str, value: Any, allowed: Any) -> Any:
    """Returns value if it is one of the allowed ones; else raises a SpecError that names the field, the value and the allowed values."""
    if value not in allowed:
        raise SpecError(f"{field}: {value!r} is not one of {list_allowed(value, allowed)}")
    return value


def whole_number(field: str, value: Any, least: int, most: float = inf) -> int:
    """Returns value if it is a whole number from least to most; else raises a SpecError that names the field, the value and both."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise SpecError(f"{field}: {value!r} is not a whole number from {least} {'up' if most == inf else f'to {most}'}")
    return value


def list_allowed(value: Any, allowed: Iterable[Any]) -> str:
    """Allowed values as an error lists them: all of them; of many those that a text is near to, where there are any."""
    from difflib import get_close_matches

    names, given = list(map(str, allowed)), str(value).lower()
    near = [name for name in names if len(given) > 1 and name.startswith(given)] or get_close_matches(given, names)
    return f"{len(names)} names; nearest: {', '.join(near)}" if near and len(names) > FEW else ", ".join(names)
