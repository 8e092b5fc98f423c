"""Sweeps: lists of pages times lists and ranges of any setting, computed in parts, into one folder per sweep."""

from importlib import import_module as _import_module

_HOMES = {"Sweep": "plan", "load_sweep": "plan", "read_manifest": "folder", "read_table": "results", "run_sweep": "runner"}
__all__ = list(_HOMES)


def __getattr__(name: str):
    """Imports a public name when it is first used, so that the package stays thin."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ocr_flops.studies.sweeps' has no attribute {name!r}")
    return getattr(_import_module(f"ocr_flops.studies.sweeps.{_HOMES[name]}"), name)
