"""The one error that users see for a wrong value, and the checks that raise it."""

from __future__ import annotations

from typing import Any


class SpecError(ValueError):
    """A value that no spec or workload can have; the message names the field, the value and what is allowed."""


def one_of(field: str, value: Any, allowed: Any) -> Any:
    """Returns value if it is one of the allowed ones; else raises a SpecError that names the field, the value and the allowed values."""
    if value not in allowed:
        raise SpecError(f"{field}: {value!r} is not one of {', '.join(map(str, allowed))}")
    return value
