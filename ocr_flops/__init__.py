"""Exact compute cost of the DeepSeek-OCR vision-language model: FLOPs, stage by stage and module by module."""

from functools import cache as _cache
from functools import wraps as _wraps
from importlib import import_module as _import_module

_HOMES = {
    "load_model": "spec.catalog",
    "load_hardware": "spec.catalog",
    "load_engine": "spec.catalog",
    "load_host": "spec.catalog",
    "load_mode": "spec.catalog",
    "Workload": "spec.workload",
    "Mode": "spec.specs",
    "ModelSpec": "spec.specs",
    "EngineSpec": "spec.specs",
    "AttentionSpec": "spec.specs",
    "HardwareSpec": "spec.specs",
    "SpecError": "errors",
    "estimate": "timing.estimate",
    "sweep": "timing.estimate",
    "serving": "timing.serving.steady",
    "plan": "timing.planning:compare_devices",
    "hardware": "spec.listing:hardware_frame",
    "grids": "spec.listing:grids_frame",
    "measured_host": "evidence.calibration.host_lane",
    "Estimate": "timing.estimate",
}
_DOORS = {"corpus": "studies.corpus", "records": "evidence.records"}  # rooms of their own, as in of.corpus.plan
__all__ = [*_HOMES, *_DOORS]
__version__ = "0.1.0"


def __getattr__(name: str):
    """Imports a public name when it is first used, so that `import ocr_flops` stays fast."""
    if name in _DOORS:
        return _import_module(f"ocr_flops.{_DOORS[name]}")
    if name not in _HOMES:
        raise AttributeError(f"module 'ocr_flops' has no attribute {name!r}")
    home, _, its_name = _HOMES[name].partition(":")
    if not home.startswith(("spec", "errors")):  # what computes may meet a model that is to be learned first
        _import_module("ocr_flops.measure.lessons")
    found = getattr(_import_module(f"ocr_flops.{home}"), its_name or name)
    return _named(name, found) if its_name else found


@_cache
def _named(name: str, function):
    """A function under its public name, by which it refuses arguments that it does not take."""
    from inspect import signature

    @_wraps(function)
    def call(*arguments, **named):
        takes = signature(function)
        try:
            takes.bind(*arguments, **named)
        except TypeError as problem:
            allowed = ", ".join(takes.parameters) or "no arguments"
            raise TypeError(f"ocr_flops.{name}(): {problem}; it takes {allowed}") from None
        return function(*arguments, **named)

    call.__name__ = call.__qualname__ = name
    return call


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
