"""The cost of a corpus of pages: groups of pages alike, from a folder or from a table that stays where it is."""

from importlib import import_module as _import_module

_HOMES = {
    "plan": "planner",
    "Plan": "plans",
    "group_pages": "groups",
    "Groups": "groups",
    "lognormal": "lengths",
    "quantiles": "lengths",
    "mix_table": "sources",
    "open_pages": "sources",
    "with_costs": "costs",
    "write_pages": "costs",
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    """Imports a public name when it is first used, so that the package stays thin."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ocr_flops.corpus' has no attribute {name!r}")
    return getattr(_import_module(f"ocr_flops.studies.corpus.{_HOMES[name]}"), name)
