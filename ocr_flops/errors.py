"""The one error that users see for a wrong value, and the checks that raise it."""

from __future__ import annotations

from typing import Any


class SpecError(ValueError):
    """A value that no spec or workload can have; the message names the field, the value and what is allowed."""


def one_of(field: str, value: Any, allowed: Any) -> Any:
    """Returns value if it is one of the allowed ones.

    Raises:
        SpecError: naming the field, the value and the allowed values.
    """
    if value not in allowed:
        raise SpecError(f"{field}: {value!r} is not one of {', '.join(map(str, allowed))}")
    return value


def positive(spec: Any, prefix: str, *names: str) -> None:
    """Checks that the named fields of a spec are whole numbers of at least 1.

    Raises:
        SpecError: naming the first field that is not.
    """
    for name in names:
        value = getattr(spec, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SpecError(f"{prefix}.{name}: {value!r} is not a whole number of at least 1")


def divisible(prefix: str, name: str, value: int, by_name: str, by: int) -> None:
    """Checks that one dimension is a multiple of another, as a width of its heads.

    Raises:
        SpecError: naming both fields and values.
    """
    if value % by:
        raise SpecError(f"{prefix}.{name}: {value} is not divisible by {prefix}.{by_name} = {by}")
