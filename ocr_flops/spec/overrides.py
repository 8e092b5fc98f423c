"""Command lines of overrides -> plain mappings and lists: only here are Hydra and OmegaConf known, imported when something is composed."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ocr_flops.errors import SpecError, one_of
from ocr_flops.spec.reading import check_keys, unknown_key

GROUPS = ("model", "engine", "workload", "attention", "hardware")
KEYS = (*GROUPS, "dtype", "cache", "prefill_logits", "stages")
NO_HARDWARE = ("hardware", None)
_HYDRA = threading.Lock()  # Hydra keeps one global state, and the app's sessions are threads


class Root(NamedTuple):
    """A config at the top of `configs/`: its file, its groups and all its keys."""

    name: str
    groups: tuple[str, ...]
    keys: tuple[str, ...]


RUN = Root("config", GROUPS, KEYS)
SWEEP = Root("sweep", (*GROUPS, "sweep"), (*KEYS, "sweep", "measure", "measured_steps"))


class Override(NamedTuple):
    """One override: as it was written, its key and its value."""

    text: str
    key: str
    value: Any


def names_in(folders: Sequence[Path], group: str) -> tuple[str, ...]:
    """The configs that a group has in folders of configs."""
    return tuple(sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")}))


def compose_folders(folders: Sequence[Path], overrides: Sequence[str], root: Root = RUN) -> dict[str, Any]:
    """The config that Hydra composes from folders of configs, with every key of its root, which is in the first of them.

    Raises:
        SpecError: an override or a config file with an unknown key, an unknown choice, or bad syntax.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    errors = (HydraException, OmegaConfBaseException, YAMLError)
    parsed = _without_unchosen_hardware([_parse(text, folders, root) for text in overrides])
    try:
        config = _composed(folders, [one.text for one in parsed], root)
    except errors as error:
        reason = " ".join(str(error).split())
    else:
        check_keys("", config, root.keys)
        return config
    try:  # which of the two is wrong: a config file, or an override of a key?
        plain = _composed(folders, [one.text for one in parsed if one.key in root.groups], root)
    except errors:
        raise SpecError(f"configs: {reason}") from None
    for one in parsed:
        _check_reachable(plain, one.key)
    raise SpecError(f"{' '.join(one.text for one in parsed)}: {reason}")


def _composed(folders: Sequence[Path], overrides: list[str], root: Root) -> dict[str, Any]:
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    with _HYDRA:
        outer, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None  # a caller may use Hydra itself
        try:
            with hydra.initialize_config_dir(str(folders[0]), version_base="1.3"):
                found = f"hydra.searchpath=[{','.join(json.dumps(folder.as_uri()) for folder in folders[1:])}]"
                config = OmegaConf.to_container(hydra.compose(root.name, [*overrides, found]), resolve=True)
        finally:
            GlobalHydra.instance().hydra = outer
    return {"hardware": None, **config}  # Hydra leaves out a group that was not chosen


def _parse(text: str, folders: Sequence[Path], root: Root) -> Override:
    """An override, checked as far as it can be alone.

    Raises:
        SpecError: it is not key=value, of an unknown top-level key, or an unknown choice of a group.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import OverrideType
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException:
        raise SpecError(f"{text!r}: not of the form key=value") from None
    key = override.key_or_group
    if not key or override.type != OverrideType.CHANGE or override.package or override.is_sweep_override():
        raise SpecError(f"{text!r}: not of the form key=value, with one value")
    if key.partition(".")[0] not in root.keys:
        raise unknown_key(key, "", root.keys)
    if key in root.groups and (key, override.value()) != NO_HARDWARE:
        one_of(key, override.value(), names_in(folders, key))
    return Override(text, key, override.value())


def _without_unchosen_hardware(overrides: list[Override]) -> list[Override]:
    """The overrides without `hardware=null` and what it undoes, for Hydra has no word for "none" of a group."""
    last = max((index for index, one in enumerate(overrides) if one[1:] == NO_HARDWARE), default=-1)
    return [one for index, one in enumerate(overrides) if one.key != "hardware" or index > last]


def _check_reachable(config: Any, key: str) -> None:
    above = ""
    for part in key.split("."):
        if not isinstance(config, dict) or part not in config:
            raise unknown_key(key, above, config)
        config, above = config[part], f"{above}.{part}".lstrip(".")
