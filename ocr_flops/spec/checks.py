"""Plain mappings, as configs hold them -> frozen specs: every key and type checked, every error one line that names the key."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, get_args, get_origin, get_type_hints

from ocr_flops.errors import SpecError
from ocr_flops.spec.specs import PREFILL_LOGITS

_KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_WORDS = {"prefill_logits": f"one of {', '.join(PREFILL_LOGITS)}"}


def read_spec(cls: Any, key: str, config: Any, **parse: Callable[[str, Any], Any]) -> Any:
    """A frozen spec from a composed mapping that has exactly its fields; `parse` reads those that are mappings themselves.

    Raises:
        SpecError: an unknown or missing key, a wrong type, or what the spec itself refuses.
    """
    hints = get_type_hints(cls)
    if not isinstance(config, dict):
        raise SpecError(f"{key}: {config!r} is not a mapping with the keys {', '.join(hints)}")
    same_keys(key, config, hints)
    values = {
        name: parse[name](f"{key}.{name}", config[name]) if name in parse else read_value(f"{key}.{name}", config[name], hint)
        for name, hint in hints.items()
    }
    try:
        return cls(**values)
    except SpecError as error:  # a spec names its fields from its own name on: "sam.width"
        raise SpecError(f"{key.rpartition('.')[0]}.{error}".lstrip(".")) from None


def read_value(key: str, value: Any, hint: Any) -> Any:
    """The value of a key, checked against a type hint: int, float, str or bool, each also `| None`, or a tuple of one of them."""
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise SpecError(f"{key}: {value!r} is not a list, as in [1, 2]")
        return tuple(read_value(f"{key}[{index}]", item, get_args(hint)[0]) for index, item in enumerate(value))
    kinds = get_args(hint) or (hint,)
    if type(value) is int and float in kinds:
        return float(value)
    if type(value) not in kinds:  # not isinstance: true is no whole number
        allowed = _WORDS.get(key.rpartition(".")[2], _KINDS[kinds[0]])
        raise SpecError(f"{key}: {value!r} is not {allowed}{' or null' if len(kinds) > 1 else ''}")
    return value


def same_keys(key: str, config: dict[str, Any], needed: Iterable[str], optional: Iterable[str] = ()) -> None:
    prefix, known = f"{key}." if key else "", (*needed, *optional)
    for name in config:
        if name not in known:
            raise unknown(f"{prefix}{name}", key, known)
    for name in needed:
        if name not in config:
            raise SpecError(f"{prefix}{name}: missing")


def unknown(key: str, above: str, known: Any) -> SpecError:
    has = ", ".join(map(str, known)) if isinstance(known, Iterable) and not isinstance(known, str) else "no keys"
    return SpecError(f"{key}: unknown key; {above or 'the config'} has {has}")
