"""Where configs and notebooks lie, and which configs there are."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def config_dir() -> Path:
    """The folder of Hydra groups: inside the installed package, or at the top of a checkout."""
    return _beside_or_above("configs")


def notebook_dir() -> Path:
    """The folder of notebooks: inside the installed package, or at the top of a checkout."""
    return _beside_or_above("notebooks")


def names(group: str) -> tuple[str, ...]:
    """The configs that a group ("model", "engine", "workload", "attention", "hardware") offers."""
    return tuple(sorted(path.stem for path in (config_dir() / group).glob("*.yaml")))


def kernels() -> tuple[str, ...]:
    """The attention kernels there are: every config of the group `attention` is named for one, but "vendor", the engine's own choice."""
    return tuple(name for name in names("attention") if name != "vendor")


def _beside_or_above(folder: str) -> Path:
    return PACKAGE / folder if (PACKAGE / folder).is_dir() else PACKAGE.parent / folder
