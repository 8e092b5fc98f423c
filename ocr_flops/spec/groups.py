"""The configs of single groups as specs, each composed once."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from ocr_flops.errors import SpecError
from ocr_flops.spec.catalog import names
from ocr_flops.spec.checks import read_spec
from ocr_flops.spec.overrides import group_of
from ocr_flops.spec.reading import read_attention, read_engine, read_hardware, read_model
from ocr_flops.spec.run_spec import WorkloadKeys
from ocr_flops.spec.specs import AttentionSpec, EngineSpec, HardwareSpec, Mode, ModelSpec


def load_model(name: str = "deepseek_ocr", overrides: Iterable[str] = ()) -> ModelSpec:
    """The model's dimensions.

    Args:
        name: a config of the group `model`.
        overrides: Hydra overrides of its keys, as in "model.towers.sam.width=96".

    Raises:
        SpecError: naming the key, its value and what is allowed.
    """
    return _load("model", name, tuple(overrides))


def load_hardware(name: str, overrides: Iterable[str] = ()) -> HardwareSpec:
    """A device's peak rates and memory, with the document each figure was read in.

    Args:
        name: a config of the group `hardware`; `names("hardware")` lists them.
        overrides: Hydra overrides of its keys, as in "hardware.memory_bandwidth_bytes_per_second=3e12".

    Raises:
        SpecError: naming the key, its value and what is allowed.
    """
    return _load("hardware", name, tuple(overrides))


@cache
def load_engine(name: str = "transformers") -> EngineSpec:
    """How an engine ("transformers", "remote_code") runs the model.

    Raises:
        SpecError: an unknown name.
    """
    return read_engine(group_of("engine", name))


@cache
def load_attention(name: str = "vendor") -> AttentionSpec:
    """The attention mode of each tower under "vendor", "eager", "sdpa" or "flash".

    Raises:
        SpecError: an unknown name.
    """
    return read_attention(group_of("attention", name))


@cache
def load_mode(name: str) -> Mode:
    """A resolution mode ("tiny", "small", "base", "large", "gundam", "gundam_m").

    Raises:
        SpecError: an unknown name.
    """
    return read_spec(WorkloadKeys, "workload", group_of("workload", name)).mode()


@cache
def modes() -> tuple[Mode, ...]:
    """All resolution modes by size: those of a single view, then those with tiles."""
    return tuple(sorted(map(load_mode, names("workload")), key=lambda mode: (mode.tile_px, mode.global_px)))


@cache
def _load(group: str, name: str, overrides: tuple[str, ...]) -> Any:
    read, example = {"model": (read_model, "towers.sam.width=768"), "hardware": (read_hardware, "memory_bytes=80e9")}[group]
    for override in overrides:
        if not override.startswith(f"{group}."):
            raise SpecError(f"{override!r}: not an override of the {group}, as in {group}.{example}")
    return read(group_of(group, name, overrides))
