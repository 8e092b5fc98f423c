"""Sweeps: lists of pages times lists and ranges of any setting, computed in parts, into one folder per run."""

from importlib import import_module as _import_module

_HOMES = {"load_sweep": "plan", "Sweep": "plan", "run": "runner", "WRITERS": "results", "read": "results", "read_manifest": "manifest"}
__all__ = list(_HOMES)


def __getattr__(name: str):
    """Imports a public name when it is first used, so that the package stays thin."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ocr_flops.studies.sweeps' has no attribute {name!r}")
    return getattr(_import_module(f"ocr_flops.studies.sweeps.{_HOMES[name]}"), name)
