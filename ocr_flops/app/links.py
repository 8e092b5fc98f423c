"""Links: a setting, the open tab and pinned settings as query parameters of the app's address, and back.

A link may be old, edited by hand or hostile: whatever is not allowed is told in a notice and replaced by the default.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import parse_qsl, urlencode

from ocr_flops.app.setting import SIDE_BY_SIDE, SOURCES, Setting
from ocr_flops.spec.catalog import modes, names
from ocr_flops.spec.specs import CACHES, DTYPE_BYTES
from ocr_flops.spec.workload import LIMITS, MAX_TILES

TAB, PINS, NONE = "tab", "pins", "none"
BETWEEN = "|"  # pins; marimo keeps only the last of a parameter given several times
FOREIGN = frozenset(  # marimo's own parameters
    ("access_token", "file", "include-code", "kiosk", "refresh_token", "session_id", "show-chrome", "show-code", "view-as")
)
MAX_PINS, MAX_NAME, MAX_TEXT = 8, 40, 60
MAX_NOTICES = 12
Pins = tuple[tuple[str, Setting], ...]  # by name, oldest first
Query = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True)
class Link:
    """What a link carries.

    Args:
        setting: of the controls.
        tab: the open tab; None leaves the first.
        pins: pinned settings by name, oldest first.
        notices: what was not allowed, each a sentence (plain text, to be escaped where it is shown).
    """

    setting: Setting = field(default_factory=Setting)
    tab: str | None = None
    pins: Pins = ()
    notices: tuple[str, ...] = ()


def write(link: Link) -> dict[str, str]:
    """The query parameters of a link: every field that has a value, so that it means the same when a default changes."""
    query = _texts(link.setting)
    if link.tab:
        query[TAB] = link.tab
    if link.pins:
        query[PINS] = BETWEEN.join(urlencode({"name": name, **_texts(setting)}) for name, setting in link.pins)
    return query


def read(query: Query, tabs: Iterable[str] = ()) -> Link:
    """What query parameters say, checked: a value that is not allowed gives a notice and the default.

    Args:
        query: text, or a list of texts, by key.
        tabs: the tabs there are.
    """
    notices: list[str] = []
    setting = _setting(query, notices, known={TAB, PINS} | FOREIGN)
    tab = _one(TAB, query[TAB], notices) if TAB in query else None
    if tab is not None and tab not in tabs:
        notices.append(f"{TAB}: {shown(tab)} is not one of {', '.join(tabs)}; the first is open.")
        tab = None
    pins: dict[str, Setting] = {}
    for text in _one(PINS, query[PINS], notices).split(BETWEEN) if PINS in query else ():
        name, pinned = _pin(text, notices)
        if name and len(pins) < MAX_PINS:
            pins[name] = pinned
        elif name:
            notices.append(f"{PINS}: at most {MAX_PINS} settings are pinned; {shown(name)} was left out.")
    if len(notices) > MAX_NOTICES:
        notices[MAX_NOTICES:] = [f"And {len(notices) - MAX_NOTICES} more."]
    return Link(setting, tab, tuple(pins.items()), tuple(notices))


def pin_name(text: str, taken: Iterable[str], instead_of: str | None = None) -> str:
    """A name for a pin: one line of printable text, unlike the others'.

    Args:
        text: as typed.
        taken: the names there are.
        instead_of: the name that it replaces.
    """
    clean = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:MAX_NAME] or "pin"
    others = set(taken) - {instead_of}
    found, number = clean, 2
    while found in others:
        found = f"{clean[: MAX_NAME - 4]} {number}"
        number += 1
    return found


def shown(text: str) -> str:
    """Text of unknown origin in quotes, cut to a readable length."""
    return repr(text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…")


def _texts(setting: Setting) -> dict[str, str]:
    values = {one.name: getattr(setting, one.name) for one in fields(Setting) if (getattr(setting, one.name), one.default) != (None, None)}
    return {name: NONE if value is None else f"{value:.15g}" if isinstance(value, float) else str(value) for name, value in values.items()}


def _pin(text: str, notices: list[str]) -> tuple[str | None, Setting]:
    try:
        query = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=len(fields(Setting)) + 8))
    except ValueError:
        notices.append(f"{PINS}: {shown(text)} has too many fields; it was left out.")
        return None, Setting()
    if "name" not in query:
        notices.append(f"{PINS}: {shown(text)} has no name; it was left out.")
        return None, Setting()
    return pin_name(query["name"], ()), _setting(query, notices, known={"name"})


def _setting(query: Query, notices: list[str], known: Iterable[str]) -> Setting:
    found, reads = {}, _readers()
    for key, value in query.items():
        if key in reads:
            text = _one(key, value, notices)
            try:
                found[key] = reads[key](text)
            except ValueError as allowed:
                default = getattr(Setting(), key)
                notices.append(f"{key}: {shown(text)} is not {allowed}; {'none' if default is None else default} is used.")
        elif key not in known:
            notices.append(f"{shown(key)} is no setting of this app; it was left out.")
    return Setting(**found)


def _readers() -> dict[str, Callable[[str], Any]]:
    """How each field is read from text; a ValueError says what is allowed."""
    choices = {
        "mode": [mode.name for mode in modes()],
        "source": SOURCES,
        "attention": [*names("attention"), SIDE_BY_SIDE],
        "engine": names("engine"),
        "dtype": tuple(DTYPE_BYTES),
        "cache": CACHES,
        "gpu": names("hardware"),
    }
    side = LIMITS["image_width_px"][1]
    whole = {
        "width_px": (1, side),
        "height_px": (1, side),
        "columns": (1, MAX_TILES),
        "rows": (1, MAX_TILES),
        **{name: LIMITS[name] for name in ("prompt_tokens", "output_tokens", "batch_size")},
    }
    readers: dict[str, Callable[[str], Any]] = {one.name: _number for one in fields(Setting)}
    readers |= {name: _choice(allowed) for name, allowed in choices.items()}
    return readers | {name: _whole(*limits) for name, limits in whole.items()}


def _choice(allowed: Sequence[str]) -> Callable[[str], str]:
    def read_choice(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}" if len(allowed) <= 10 else f"one of the {len(allowed)} names in its list")
        return text

    return read_choice


def _whole(least: int, greatest: int) -> Callable[[str], int]:
    def read_whole(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= greatest:
            raise ValueError(f"a whole number from {least} to {greatest}")
        return int(text)

    return read_whole


def _number(text: str) -> float | None:
    """A number above 0, or "none"."""
    if text == NONE:
        return None
    try:
        value = float(text) if len(text) <= 24 else math.nan
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ValueError("a number above 0, or none")
    return value


def _all(value: str | Sequence[str]) -> Sequence[str]:
    return [value] if isinstance(value, str) else value


def _one(key: str, value: str | Sequence[str], notices: list[str]) -> str:
    values = _all(value)
    if len(values) > 1:
        notices.append(f"{key}: given {len(values)} times; the last is used.")
    return values[-1] if values else ""
