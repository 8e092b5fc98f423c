"""Command lines of overrides -> plain mappings and lists: only here are Hydra and OmegaConf known, imported when something is composed."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ocr_flops.errors import SpecError
from ocr_flops.spec.own_models import is_own_model
from ocr_flops.spec.reading import check_keys, config_dirs, config_file, names, unknown_key

GROUPS = ("model", "engine", "workload", "attention", "hardware", "host", "efficiency")
OPTIONAL = ("hardware", "host", "efficiency")  # groups that may be null
WORDS = ("dtype", "cache", "prefill_logits")  # keys whose values are words
KEYS = (*GROUPS, *WORDS, "stages")
OWN_FILE = "_own"  # what a file of one's own is called for Hydra
MOST_BRACKETS = 50  # beyond which parsers recurse too deep
_HYDRA = threading.Lock()  # Hydra keeps one global state, and the app's sessions are threads


class Root(NamedTuple):
    """A config at the top of `configs/`: its file, its groups and all its keys."""

    name: str
    groups: tuple[str, ...]
    keys: tuple[str, ...]


RUN = Root("config", GROUPS, KEYS)
SWEEP = Root("sweep", (*GROUPS, "sweep"), (*KEYS, "sweep", "measure", "measured_steps"))


def compose(overrides: Sequence[str], root: Root = RUN) -> dict[str, Any]:
    """What overrides, such as "workload.columns=2", choose, as plain mappings and lists with every key of the root, composed by Hydra.

    Raises:
        SpecError: an override or a config file with an unknown key, an unknown choice, or bad syntax.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    errors = (HydraException, OmegaConfBaseException, YAMLError)
    parsed = [_parse(text, root) for text in overrides]
    for group in OPTIONAL:  # Hydra has no word for "none" of a group: `hardware=null` is left out, with what it undoes
        last = max((index for index, one in enumerate(parsed) if _is_null(one, group)), default=-1)
        parsed = [one for index, one in enumerate(parsed) if one.key_or_group != group or index > last]
    lines = [one.input_line for one in parsed]
    try:
        if any(line.startswith("host.") for line in lines) and not any(line.startswith("host=") for line in lines):
            engine = _composed([line for line in lines if line.startswith("engine")], root)["engine"]
            lines.append(f"host={engine['host']}")
        if any(line.startswith("efficiency.") for line in lines) and not any(line.startswith("efficiency=") for line in lines):
            lines.append("efficiency=published")
        config = _composed(lines, root)
    except errors as error:
        reason = " ".join(str(error).split())
    else:
        check_keys("", config, root.keys)
        return config
    try:  # which of the two is wrong: a config file, or an override of a key?
        plain = _composed([line for line in lines if line.partition("=")[0] in root.groups], root)
    except errors:
        raise SpecError(f"configs: {reason}") from None
    for one in parsed:
        _check_reachable(plain, one.key_or_group)
    raise SpecError(f"{' '.join(one.input_line for one in parsed)}: {reason}")


def _composed(overrides: list[str], root: Root) -> dict[str, Any]:
    import json
    from contextlib import nullcontext
    from tempfile import TemporaryDirectory

    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    has_own = any(map(_find_own, overrides))
    with _HYDRA, TemporaryDirectory() if has_own else nullcontext(config_dirs()[0]) as files:
        overrides = [_place_file(line, Path(files)) for line in overrides]
        outer, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None  # a caller may use Hydra itself
        try:
            shipped, *own = dict.fromkeys((*config_dirs(), Path(files)))
            with hydra.initialize_config_dir(str(shipped), version_base="1.3"):
                found = f"hydra.searchpath=[{','.join(json.dumps(folder.as_uri()) for folder in own)}]"
                config = OmegaConf.to_container(hydra.compose(root.name, [*overrides, found]), resolve=True)
        finally:
            GlobalHydra.instance().hydra = outer
    return {**dict.fromkeys(OPTIONAL), **config}  # Hydra leaves out a group that was not chosen


def _find_own(line: str) -> tuple[str, str] | None:
    """The group and the path of an override that chooses a file of one's own; None of others."""
    group, _, name = line.partition("=")
    name = name.strip("'\"")
    return (group, name) if group in GROUPS and _is_path(name) else None


def _place_file(line: str, folder: Path) -> str:
    """An override that chooses a file of one's own, as the choice of a name that Hydra finds in this folder."""
    if (own := _find_own(line)) is None:
        return line
    group, name = own
    (folder / group).mkdir(exist_ok=True)
    (folder / group / f"{OWN_FILE}.yaml").write_bytes(config_file(group, name).read_bytes())
    return f"{group}={OWN_FILE}"


def _parse(text: str, root: Root) -> Any:
    """Hydra's override, checked as far as it can be alone: of the form key=value, its top-level key, its choice of a group."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import OverrideType
    from hydra.errors import HydraException

    try:
        if text.count("[") + text.count("{") > MOST_BRACKETS:
            raise SpecError(f"{text[:40]}...: more than {MOST_BRACKETS} brackets")
        override = OverridesParser.create().parse_override(text)
    except HydraException:
        raise SpecError(f"{text!r}: not of the form key=value") from None
    key = override.key_or_group
    if not key or override.type != OverrideType.CHANGE or override.package or override.is_sweep_override():
        raise SpecError(f"{text!r}: not of the form key=value, with one value")
    if key.partition(".")[0] not in root.keys:
        raise SpecError(f"{unknown_key(key, '', root.keys)}{_meant(key, override.value())}")
    if "${" in text:
        raise SpecError(f"{text!r}: an override has no interpolation; write the value itself")
    group, _, field = key.partition(".")
    if group in GROUPS and field == "name":
        raise SpecError(f"{key}: is the name of the config itself; choose another as in {group}={names(group)[0]}")
    if key in (*root.groups, *WORDS) and isinstance(override.value(), str) and not _is_path(override.value()):
        override = replace(override, _value=override.value().lower(), input_line=text.lower())  # names are known in any case
    if key in root.groups and not any(_is_null(override, group) for group in OPTIONAL):
        config_file(key, override.value())
    return override


def _meant(key: str, value: Any) -> str:
    """What an override of an unknown key may have been meant as: the choice of a group, or a device's price; "" of others."""
    if key in names("hardware"):
        return f"; prices of several devices are one value, without blanks: --price {key}={value},{'h200' if key == 'l4' else 'l4'}=0.8"
    return "".join(f"; {value} is chosen as {group}={value}" for group in GROUPS if value in names(group))


def _is_path(value: str) -> bool:
    """Whether a choice is a file or a folder of one's own, and no name."""
    return value.endswith(".yaml") or is_own_model(value)


def _is_null(override: Any, group: str) -> bool:
    return override.key_or_group == group and override.value() is None


def _check_reachable(config: Any, key: str) -> None:
    above = ""
    for part in key.split("."):
        if not isinstance(config, dict) or part not in config:
            raise unknown_key(key, above, config)
        config, above = config[part], f"{above}.{part}".lstrip(".")
