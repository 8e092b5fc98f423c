"""Composed configs to frozen specs: every key and type is checked here, where it enters."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from ocr_flops.errors import SpecError, one_of
from ocr_flops.spec.catalog import kernels, names
from ocr_flops.spec.checks import read_spec, read_value, same_keys
from ocr_flops.spec.overrides import group_of
from ocr_flops.spec.specs import OTHERS, STAGES, AttentionSpec, EngineSpec, HardwareSpec, ModelSpec, Source
from ocr_flops.spec.towers import TOWERS

JOINTS = {  # dimension of one tower: what it must be the sum of
    "clip.width": ("sam.output_width",),  # SAM's map serves as CLIP's patch embeddings
    "projector.input_width": ("clip.width", "sam.output_width"),
    "projector.output_width": ("decoder.width",),
}


def read_model(config: Any) -> ModelSpec:
    model = read_spec(ModelSpec, "model", config, towers=_towers)
    specs = {spec.tower: spec for spec in model.towers}
    for name, parts in JOINTS.items():
        paths = [path.split(".") for path in (name, *parts)]
        if all(tower in specs for tower, _ in paths):
            have, *needed = (getattr(specs[tower], dimension) for tower, dimension in paths)
            if have != sum(needed):
                raise SpecError(f"model.towers.{name}: {have} is not {' + '.join(parts)} = {sum(needed)}")
    return model


def _towers(key: str, config: Any) -> tuple[Any, ...]:
    known = tuple(TOWERS)
    if not isinstance(config, dict):
        raise SpecError(f"{key}: {config!r} is not a mapping of towers ({', '.join(known)}) to dimensions")
    for name in config:
        one_of(key, name, known)
    return tuple(read_spec(TOWERS[name], f"{key}.{name}", fields) for name, fields in config.items())


def read_hardware(config: Any) -> HardwareSpec:
    return read_spec(HardwareSpec, "hardware", config, matrix_flops_per_second=_peaks, sources=_sources)


def _peaks(key: str, config: Any) -> tuple[tuple[str, float], ...]:
    if not isinstance(config, dict):
        raise SpecError(f"{key}: {config!r} is not a mapping of dtypes to FLOPs a second")
    return tuple((dtype, read_value(f"{key}.{dtype}", peak, float)) for dtype, peak in config.items())


def _sources(key: str, config: Any) -> tuple[Source, ...]:
    if not isinstance(config, list):
        raise SpecError(f"{key}: {config!r} is not a list of sources")
    return tuple(read_spec(Source, f"{key}[{index}]", fields) for index, fields in enumerate(config))


def read_engine(config: Any) -> EngineSpec:
    engine = _read_with_kernels(EngineSpec, "engine", config)
    for kernel in engine.runnable_attention:
        one_of("engine.runnable_attention", kernel, kernels())
    return engine


def read_attention(config: Any) -> AttentionSpec:
    """An attention mode; called "mixed" where towers differ from the config of its name."""
    attention = _read_with_kernels(AttentionSpec, "attention", config)
    if attention.name in names("attention"):
        named = _read_with_kernels(AttentionSpec, "attention", group_of("attention", attention.name))
        if attention == named:
            return named
    return replace(attention, name="mixed")


def _read_with_kernels(cls: Any, group: str, config: Any) -> Any:
    """A spec whose config holds, beside its own keys, towers and the attention kernel of each."""

    def read_kernels(key: str, towers: dict[str, Any]) -> dict[str, str | None]:
        for tower, kernel in towers.items():
            if kernel is not None and kernel not in kernels():
                raise SpecError(f"{group}.{tower}: {kernel!r} is not one of {', '.join(kernels())} or null")
        return towers

    if isinstance(config, dict):
        own = [field.name for field in fields(cls) if field.name != "kernels"]
        same_keys(group, config, own, (*TOWERS, OTHERS))
        towers = {name: value for name, value in config.items() if name not in own}
        config = {name: config[name] for name in own} | {"kernels": towers}
    return read_spec(cls, group, config, kernels=read_kernels)


def read_stages(config: Any) -> tuple[str, ...]:
    allowed = f"a list of one or more of {', '.join(STAGES)}"
    if not isinstance(config, list) or not config:
        raise SpecError(f"stages: {config!r} is not {allowed}")
    for stage in config:
        one_of("stages", stage, STAGES)
        if config.count(stage) > 1:
            raise SpecError(f"stages: {stage!r} is named twice; allowed is {allowed}")
    return tuple(stage for stage in STAGES if stage in config)
