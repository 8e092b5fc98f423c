"""Hydra composition to plain dicts and lists: the one place that knows Hydra and OmegaConf, which it imports when a config is composed."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ocr_flops.errors import SpecError, one_of
from ocr_flops.spec import catalog
from ocr_flops.spec.catalog import names
from ocr_flops.spec.checks import same_keys, unknown

GROUPS = ("model", "engine", "workload", "attention", "hardware")
KEYS = (*GROUPS, "dtype", "cache", "prefill_logits", "stages")
STANDING_ALONE = ("hardware", "engine", "attention")  # groups whose files lean on no other
NO_HARDWARE = ("hardware", None)
_HYDRA = threading.Lock()  # Hydra keeps one global state, and the app's sessions are threads


class Root(NamedTuple):
    """A config at the top of `configs/`: its file, its groups and all its keys."""

    name: str
    groups: tuple[str, ...]
    keys: tuple[str, ...]


RUN = Root("config", GROUPS, KEYS)
SWEEP = Root("sweep", (*GROUPS, "sweep"), (*KEYS, "sweep", "measure", "measured_steps"))


def group_of(group: str, name: str, overrides: Sequence[str] = ()) -> Any:
    """A config of a group as plain dicts and lists, with overrides of its keys.

    Raises:
        SpecError: an unknown name or key.
    """
    one_of(group, name, names(group))
    alone = _alone(catalog.config_dir() / group / f"{name}.yaml") if group in STANDING_ALONE and not overrides else None
    return compose([f"{group}={name}", *overrides])[group] if alone is None else alone


def _alone(path: Path) -> Any:
    """A config file that leans on no other, as plain dicts and lists, ten times faster than Hydra does it; None if it leans."""
    from omegaconf import OmegaConf
    from yaml import YAMLError

    text = path.read_text()
    if any(mark in text for mark in ("${", "defaults:", "@package")):
        return None
    try:
        return OmegaConf.to_container(OmegaConf.create(text))
    except YAMLError:
        return None  # Hydra's own words for it


def compose(overrides: Sequence[str], root: Root = RUN) -> dict[str, Any]:
    """The composed config as plain dicts and lists.

    Raises:
        SpecError: an override or a config file with an unknown key, an unknown choice, or bad syntax.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    errors = (HydraException, OmegaConfBaseException, YAMLError)
    parsed = _parse(overrides, root)
    none = max((index for index, (_, key, value) in enumerate(parsed) if (key, value) == NO_HARDWARE), default=-1)
    parsed = [part for index, part in enumerate(parsed) if part[1] != "hardware" or index > none]  # Hydra has no word for "none" of a group
    overrides = [text for text, _, _ in parsed]
    try:
        config = _hydra(overrides, root)
    except errors as error:
        reason = " ".join(str(error).split())
    else:
        same_keys("", config, root.keys)
        return config
    try:
        plain = _hydra([text for text, key, _ in parsed if key in root.groups], root)
    except errors:
        raise SpecError(f"configs: {reason}") from None
    for _, key, _ in parsed:
        _reachable(plain, key)
    raise SpecError(f"{' '.join(overrides)}: {reason}")


def _hydra(overrides: Sequence[str], root: Root) -> dict[str, Any]:
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    with _HYDRA:
        outer, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None  # a caller may use Hydra itself
        try:
            with hydra.initialize_config_dir(str(catalog.config_dir()), version_base="1.3"):
                config = OmegaConf.to_container(hydra.compose(root.name, list(overrides)), resolve=True)
        finally:
            GlobalHydra.instance().hydra = outer
    return {"hardware": None, **config}  # Hydra leaves out a group that was not chosen


def _parse(overrides: Sequence[str], root: Root) -> list[tuple[str, str, Any]]:
    """Each override as it was written, its key and its value.

    Raises:
        SpecError: one that is not key=value, of an unknown top-level key, or with an unknown choice of a group.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import OverrideType
    from hydra.errors import HydraException

    parser, parsed = OverridesParser.create(), []
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException:
            raise SpecError(f"{text!r}: not of the form key=value") from None
        key = override.key_or_group
        if not key or override.type != OverrideType.CHANGE or override.package or override.is_sweep_override():
            raise SpecError(f"{text!r}: not of the form key=value, with one value")
        if key.partition(".")[0] not in root.keys:
            raise unknown(key, "", root.keys)
        if key in root.groups and (key, override.value()) != NO_HARDWARE:
            one_of(key, override.value(), names(key))
        parsed.append((text, key, override.value()))
    return parsed


def _reachable(config: Any, key: str) -> None:
    above = ""
    for part in key.split("."):
        if not isinstance(config, dict) or part not in config:
            raise unknown(key, above, config)
        config, above = config[part], f"{above}.{part}".lstrip(".")
