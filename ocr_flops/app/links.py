"""Links: a setting, the load of the tab Serving, the open tab and pinned settings as query parameters of the app's address, and back.

A link may be old, edited by hand or hostile: what is not allowed is named in a notice and replaced by the default.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl, urlencode

import msgspec

from ocr_flops.app.comparison import NOW
from ocr_flops.app.served import BUDGETS, FLYING, MOST_REPLICAS, MOST_SECONDS, MOST_WORKERS, OWN, RATE, Load
from ocr_flops.app.setting import FIGURES, HOST_US, OWN_DTYPE, OWN_HOST, PLAN_BATCHES, REACHED, SIDE_BY_SIDE, SOURCES, Setting
from ocr_flops.spec.catalog import modes, names, serving_engines
from ocr_flops.spec.specs import CACHES, DTYPE_BYTES, FP8
from ocr_flops.spec.workload import LIMITS, MAX_TILES
from ocr_flops.studies.models import compared_models

TAB, PINS, NONE, CORPUS_ENGINE = "tab", "pins", "none", "corpus_engine"
SERVING = "serving_"  # begins the names of a load
BETWEEN = "|"  # pins; marimo keeps only the last of a parameter given several times
FOREIGN = frozenset(  # marimo's own parameters
    ("access_token", "file", "include-code", "kiosk", "refresh_token", "session_id", "show-chrome", "show-code", "view-as")
)
MAX_PINS, MAX_NAME, MAX_TEXT, MAX_LISTED, MAX_NOTICES = 8, 40, 60, 10, 12
Pins = tuple[tuple[str, Setting], ...]  # by name, oldest first
Query = Mapping[str, str | Sequence[str]]
T = TypeVar("T", Setting, Load, "Link")


@dataclass(frozen=True)
class Link:
    """What a link carries.

    Args:
        setting: of the controls.
        tab: the open tab; None leaves the first.
        pins: pinned settings by name, oldest first.
        load: of the tab Serving.
        corpus_engine: of the tab Corpus; read, it is the setting's where the link names only that one, None where it names neither.
        notices: what was not allowed, each a sentence (plain text, to be escaped where it is shown).
    """

    setting: Setting = field(default_factory=Setting)
    tab: str | None = None
    pins: Pins = ()
    notices: tuple[str, ...] = ()
    load: Load = field(default_factory=Load)
    corpus_engine: str | None = field(default=None, compare=False)


def write(link: Link) -> dict[str, str]:
    """The query parameters of a link: every field that has a value, so that it means the same when a default changes; a load where it is
    not the default."""
    query = _texts(link.setting)
    if link.load != Load():
        query |= {f"{SERVING}{name}": text for name, text in _texts(link.load).items()}
    if link.corpus_engine not in (None, link.setting.engine):
        query[CORPUS_ENGINE] = link.corpus_engine
    if link.tab:
        query[TAB] = link.tab
    if link.pins:
        query[PINS] = BETWEEN.join(urlencode({"name": name, **_texts(setting)}) for name, setting in link.pins)
    return query


def _texts(setting: Setting | Load) -> dict[str, str]:
    said = (one for one in fields(setting) if one.default not in (None, "") or getattr(setting, one.name) != one.default)
    values = {one.name: getattr(setting, one.name) for one in said}
    return {name: NONE if value is None else f"{value:.15g}" if isinstance(value, float) else str(value) for name, value in values.items()}


def read(query: Query, tabs: Iterable[str] = ()) -> Link:
    """What query parameters say, checked: a value that is not allowed gives a notice and the default.

    Args:
        query: text, or a list of texts of which the last counts, by key.
        tabs: the tabs there are.
    """
    given = {key: [value] if isinstance(value, str) else [*value] or [""] for key, value in query.items()}
    notices = [f"{key}: given {len(values)} times; the last is used." for key, values in given.items() if len(values) > 1]
    texts = {key: values[-1] for key, values in given.items()}
    loads = {key: text for key, text in texts.items() if key.removeprefix(SERVING) in _load_kinds() and key.startswith(SERVING)}
    setting = _setting(texts, notices, known={TAB, PINS, CORPUS_ENGINE, *loads} | FOREIGN)
    load = _fields(Load(), _load_kinds(), loads, notices, SERVING)
    begun = Link(corpus_engine=setting.engine if "engine" in texts else None)
    own = {CORPUS_ENGINE: texts[CORPUS_ENGINE]} if CORPUS_ENGINE in texts else {}
    corpus_engine = _fields(begun, {CORPUS_ENGINE: _kinds()["engine"]}, own, notices).corpus_engine
    tab = texts.get(TAB)
    if tab is not None and tab not in tabs:
        notices.append(f"{TAB}: {_quoted(tab)} is not one of {', '.join(tabs)}; the first is open.")
        tab = None
    pins: dict[str, Setting] = {}
    for text in texts[PINS].split(BETWEEN) if PINS in texts else ():
        name, pinned = _pin(text, notices, taken=(NOW, *pins))
        if name and len(pins) < MAX_PINS:
            pins[name] = pinned
        elif name:
            notices.append(f"{PINS}: at most {MAX_PINS} settings are pinned; {_quoted(name)} was left out.")
    if len(notices) > MAX_NOTICES:
        notices[MAX_NOTICES:] = [f"And {len(notices) - MAX_NOTICES} more."]
    return Link(setting, tab, tuple(pins.items()), tuple(notices), load, corpus_engine)


def _pin(text: str, notices: list[str], taken: Iterable[str]) -> tuple[str | None, Setting]:
    try:
        query = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=len(fields(Setting)) + 8))
    except ValueError:
        notices.append(f"{PINS}: {_quoted(text)} has too many fields; it was left out.")
        return None, Setting()
    if "name" not in query:
        notices.append(f"{PINS}: {_quoted(text)} has no name; it was left out.")
        return None, Setting()
    return pin_name(query["name"], taken), _setting(query, notices, known={"name"})


def _setting(texts: Mapping[str, str], notices: list[str], known: Iterable[str]) -> Setting:
    kinds, known = _kinds(), set(known)
    foreign = [f"{_quoted(key)} is no setting of this app; it was left out." for key in texts if key not in kinds and key not in known]
    found = _fields(Setting(), kinds, {key: text for key, text in texts.items() if key in kinds}, notices)
    notices += foreign
    priced = "" if found.price is None else f"{found.gpu}={found.price:.15g} {found.prices}".strip()  # as one control has all prices
    return replace(found, price=None, prices=priced) if priced else found


def _fields(default: T, kinds: Mapping[str, Any], texts: Mapping[str, str], notices: list[str], prefix: str = "") -> T:
    """The default with the fields that texts give, whose names begin with a prefix."""
    found = {}
    for key, text in texts.items():
        name = key.removeprefix(prefix)
        try:
            found[name] = _read(text, kinds[name])
        except ValueError as allowed:
            own = getattr(default, name)
            notices.append(f"{key}: {_quoted(text)} is not {allowed}; {'the default' if own is None else own} is used.")
    return replace(default, **found)


def _read(text: str, kind: Any) -> Any:
    """A field's value.

    Args:
        text: in the link.
        kind: of `_kinds`.

    Raises:
        ValueError: saying what is allowed.
    """
    if isinstance(kind, tuple):
        if text not in kind:
            raise ValueError(f"one of {', '.join(kind)}" if len(kind) <= MAX_LISTED else f"one of the {len(kind)} names in its list")
        return text
    if text == NONE and kind in OPTIONAL:
        return None
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as problem:
        allowed = str(problem).partition(", got")[0].removeprefix("Expected ")  # as in "Expected `int` >= 1"
        raise ValueError(f"{allowed}{' or none' if kind in OPTIONAL else ''}") from None


POSITIVE = Annotated[float, msgspec.Meta(gt=0, le=sys.float_info.max)]
MICROSECONDS = Annotated[float, msgspec.Meta(ge=0, le=sys.float_info.max)]
PART = Annotated[float, msgspec.Meta(ge=0.001, le=1)]
PRICES = Annotated[str, msgspec.Meta(max_length=600)]
AMOUNT = Annotated[float, msgspec.Meta(ge=1, le=1e15)]
OPTIONAL = (POSITIVE, MICROSECONDS, PART)  # or none


@cache
def _kinds() -> dict[str, Any]:
    """What each field of a setting may be in a link: one of some names, or what msgspec reads from text."""
    side, tiles = (1, LIMITS["image_width_px"][1]), (1, MAX_TILES)
    whole = {"width_px": side, "height_px": side, "columns": tiles, "rows": tiles}
    whole |= {name: LIMITS[name] for name in ("prompt_tokens", "output_tokens", "batch_size")}
    return {
        **dict.fromkeys((*FIGURES, "ttft_ms", "tpot_ms", "price"), POSITIVE),
        "pages": AMOUNT,
        "gpus": Annotated[int, msgspec.Meta(ge=1, le=1_000_000)],
        "plan_batch": PLAN_BATCHES,
        "prices": PRICES,
        **dict.fromkeys(HOST_US, MICROSECONDS),
        **dict.fromkeys(REACHED, PART),
        **{name: Annotated[int, msgspec.Meta(ge=least, le=most)] for name, (least, most) in whole.items()},
        "model": compared_models(),
        "mode": tuple(mode.name for mode in modes()),
        "source": SOURCES,
        "attention": (*names("attention"), SIDE_BY_SIDE),
        "engine": tuple(names("engine")),
        "dtype": tuple(DTYPE_BYTES),
        "cache": CACHES,
        **dict.fromkeys(("engine_weights", "engine_cache"), (OWN_DTYPE, FP8)),
        "gpu": tuple(names("hardware")),
        "host": (OWN_HOST, *names("host")),
    }


@cache
def _load_kinds() -> dict[str, Any]:
    """The same of each field of a load."""
    return {
        "engine": serving_engines(),
        "load": (FLYING, RATE),
        "concurrency": Annotated[int, msgspec.Meta(ge=1, le=1_000_000)],
        "rate": POSITIVE,
        "replicas": Annotated[int, msgspec.Meta(ge=1, le=MOST_REPLICAS)],
        "others": Annotated[str, msgspec.Meta(max_length=600)],
        "max_num_batched_tokens": (OWN, *BUDGETS),
        "preprocess_workers": Annotated[int, msgspec.Meta(ge=1, le=MOST_WORKERS)],
        "ngram_ban": bool,
        "first_token_seconds": Annotated[float, msgspec.Meta(ge=0.05, le=MOST_SECONDS)],
    }


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


def _quoted(text: str) -> str:
    """Text of unknown origin in quotes, cut to a readable length."""
    return repr(text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…")
