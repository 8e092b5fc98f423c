"""Names -> specs, once, at the edge, read as plain YAML.

Hydra is imported only where a name comes with overrides, or where a config file leans on others (`defaults:`, `${...}`). What is unknown
or wrong raises a SpecError of one line, naming the key, its value and what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ocr_flops.errors import SpecError
from ocr_flops.spec import reading
from ocr_flops.spec.reading import config_dir, config_dirs, config_file, names, shipped_dir
from ocr_flops.spec.specs import OTHERS, AttentionSpec, EngineSpec, HardwareSpec, Mode, ModelSpec, mark_changes

if TYPE_CHECKING:
    from ocr_flops.spec.host import EfficiencySpec, HostSpec

READERS = {"model": reading.read_model, "hardware": reading.read_hardware}
DRIVER_PREFIX = "NVIDIA "  # which drivers before 470 left out of a device's name


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # the former is ten times faster; some builds of PyYAML lack it
    """YAML with the numbers of OmegaConf: 3e12 and 1.5e9 are some, which YAML 1.1 takes for text."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))


def notebook_dir() -> Path:
    """The folder of notebooks."""
    return shipped_dir("notebooks")


def kernels() -> tuple[str, ...]:
    """The attention kernels there are: those that a config of the group `attention` is named for, and gives to all towers."""
    return _kernels(config_dirs())


@cache
def _kernels(folders: tuple[Path, ...]) -> tuple[str, ...]:
    """`kernels` in some folders of configs."""
    return tuple(name for name in names("attention") if group_config("attention", name).get(OTHERS) == name)


def group_config(group: str, name: str, overrides: Sequence[str] = ()) -> Any:
    """A config of a group as plain mappings and lists: what config.yaml says of the group, then its own file, then overrides."""
    path = config_file(group, name)
    text = path.read_text(encoding="utf-8")
    if overrides or any(mark in text for mark in ("defaults:", "${", "@package")):
        from ocr_flops.spec.overrides import compose

        return compose([f"{group}={name}", *overrides])[group]
    shared, own = _shared_config(config_dir()).get(group), _parse(text, f"{group}/{name}.yaml")
    return {**shared, **own} if shared and isinstance(own, dict) else own


@cache
def _shared_config(folder: Path) -> dict[str, Any]:
    """What config.yaml says for all configs of some groups."""
    return _parse((folder / "config.yaml").read_text(encoding="utf-8"), "config.yaml")


def _parse(text: str, file: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise SpecError(f"configs: {file}: {' '.join(str(error).split())}") from None


def load_model(name: str = "deepseek_ocr", overrides: Iterable[str] = ()) -> ModelSpec:
    """The dimensions of a model of the group `model`; overrides are of its keys, as in "model.towers.sam.width=96"."""
    return _load("model", name, tuple(overrides), config_dirs())


def load_hardware(name: str, overrides: Iterable[str] = ()) -> HardwareSpec:
    """A device's peak rates and memory, of the group `hardware`; overrides are of its keys, as in "hardware.memory_bytes=80e9"."""
    return _load("hardware", name, tuple(overrides), config_dirs())


@cache
def _load(group: str, name: str, overrides: tuple[str, ...], folders: tuple[Path, ...]) -> Any:
    read, example = READERS[group], {"model": "towers.sam.width=768", "hardware": "memory_bytes=80e9"}[group]
    for override in overrides:
        if not override.startswith(f"{group}."):
            raise SpecError(f"{override!r}: not an override of the {group}, as in {group}.{example}")
    spec = read(group_config(group, name, overrides))
    return name_changes(group, spec) if overrides or name.endswith(".yaml") else spec


def name_changes(group: str, spec: Any) -> Any:
    """A model or a device, its label saying in what it differs from the config of its name, where there is one."""
    return mark_changes(spec, _load(group, spec.name, (), config_dirs())) if spec.name in names(group) else spec


def hardware_of_device(device_name: str | None) -> HardwareSpec | None:
    """The figures of a device by the name that its driver gives it, as `torch.cuda.get_device_name` has it; None where no config has it."""
    bare = (device_name or "").removeprefix(DRIVER_PREFIX)
    known = map(load_hardware, reversed(names("hardware")))
    return next((one for one in known if bare in (name.removeprefix(DRIVER_PREFIX) for name in one.device_names)), None)


@cache
def load_engine(name: str = "transformers") -> EngineSpec:
    """How an engine ("transformers", "remote_code", "vllm" or "sglang") runs the model."""
    return reading.read_engine(group_config("engine", name), kernels())


def serving_engines() -> tuple[str, ...]:
    """Names of the engines that batch continuously."""
    return tuple(name for name in names("engine") if load_engine(name).block_tokens is not None)


@cache
def load_attention(name: str = "vendor") -> AttentionSpec:
    """The attention mode of each tower under "vendor", "eager", "sdpa" or "flash"."""
    return reading.read_attention(group_config("attention", name), kernels())


@cache
def load_host(name: str = "eager") -> HostSpec:
    """What the host takes to issue operators under "none", "eager" or "graphs"; of "measured" see `measured_host`."""
    return reading.read_host(group_config("host", name))


@cache
def load_efficiency(name: str = "published") -> EfficiencySpec:
    """What kernels reach of a device's peaks, "published", or the "peak" itself."""
    return reading.read_efficiency(group_config("efficiency", name))


@cache
def load_mode(name: str) -> Mode:
    """A resolution mode ("tiny", "small", "base", "large", "gundam", "gundam_m")."""
    config = group_config("workload", name)
    return reading.read_spec(Mode, "workload", {key: value for key, value in config.items() if key in Mode._fields})


@cache
def modes() -> tuple[Mode, ...]:
    """All resolution modes by size: those of a single view, then those with tiles."""
    return tuple(sorted(map(load_mode, names("workload")), key=lambda mode: (mode.tile_px, mode.global_px)))
