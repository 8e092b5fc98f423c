"""Configs: where they lie, which there are, and how their plain mappings become frozen specs.

Every key and type is checked here. What is wrong raises a SpecError of one line, naming the key, its value and what is allowed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from functools import cache
from inspect import Parameter, signature
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import yaml

from ocr_flops.errors import SpecError, list_allowed, one_of
from ocr_flops.spec.ranged import Ranged
from ocr_flops.spec.specs import LEARNED, OTHERS, AttentionSpec, EngineSpec, HardwareSpec, LearnedSpec, ModelSpec, Source
from ocr_flops.spec.towers import LEARNED_TOWERS, TOWERS

if TYPE_CHECKING:
    from ocr_flops.spec.host import EfficiencySpec, HostSpec

PACKAGE = Path(__file__).resolve().parent.parent
OWN_CONFIGS = "OCR_FLOPS_CONFIGS"
TEST_MODEL = "model", "tiny_test"  # taken, but not offered
KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", NoneType: "null"}
PLURALS = {int: "whole numbers", float: "numbers", str: "texts"}
JOINTS = {  # dimension of one tower: what it must be the sum of
    "clip.width": ("sam.output_width",),  # SAM's map serves as CLIP's patch embeddings
    "projector.input_width": ("clip.width", "sam.output_width"),
    "projector.output_width": ("decoder.width",),
}


@cache
def shipped_dir(folder: str) -> Path:
    """The folder of "configs" or "notebooks": inside the installed package, or at the top of a checkout."""
    return PACKAGE / folder if (PACKAGE / folder).is_dir() else PACKAGE.parent / folder


def config_dir() -> Path:
    """The package's folder of configs."""
    return shipped_dir("configs")


def config_dirs() -> tuple[Path, ...]:
    """The package's folder of configs, then those that the environment variable OCR_FLOPS_CONFIGS names, separated as in PATH, with
    further configs in the same groups: a device, an engine, an attention mode or a model of one's own."""
    return config_dir(), *(Path(folder).resolve() for folder in os.environ.get(OWN_CONFIGS, "").split(os.pathsep) if folder)


def names(group: str) -> tuple[str, ...]:
    """The configs that a group ("model", "engine", "workload", "attention", "hardware") offers."""
    return tuple(sorted({path.stem for folder in config_dirs() for path in (folder / group).glob("*.yaml")}))


def offered(group: str) -> tuple[str, ...]:
    """Those of them that people choose from: all but what tests use."""
    return tuple(name for name in names(group) if (group, name) != TEST_MODEL)


def config_file(group: str, name: Any) -> Path:
    """The file of a config: of one that a group offers by its name, in any case, or a file of one's own by its path ("./my.yaml").

    Raises:
        SpecError: there is neither.
    """
    if group == "model" and ("/" in str(name) or str(name).startswith(".")):
        from ocr_flops.spec.own_models import is_own_model, own_model_file  # which names that are offered do not need

        if is_own_model(name):
            return own_model_file(Path(name), _learned_configs(config_dirs()))
    if isinstance(name, str) and name.endswith(".yaml"):
        if not Path(name).is_file():
            raise SpecError(f"{group}: there is no file {name}")
        return Path(name).resolve()
    name = name.lower() if isinstance(name, str) else name
    if (group, name) != TEST_MODEL:
        one_of(group, name, offered(group))
    return next(path for folder in config_dirs() if (path := folder / group / f"{name}.yaml").is_file())


@cache
def _learned_configs(folders: tuple[Path, ...]) -> dict[str, dict[str, Any]]:
    """The configs of learned models, by name."""
    files = {
        path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for folder in folders for path in (folder / "model").glob("*.yaml")
    }
    return {name: config for name, config in sorted(files.items()) if config.get("pipeline") == LEARNED}


def read_value(key: str, value: Any, kind: Any) -> Any:
    """A value of the type that its key has, as msgspec converts it: no text is a number, true is no number, a whole number may be a float.

    The kind is int, float, str, bool, a `Literal`, a tuple of one of these, or one of these `| None`.
    """
    if type(value) is kind or (isinstance(kind, UnionType) and type(value) in get_args(kind)):
        return value
    if get_origin(kind) is tuple and isinstance(value, list) and {*map(type, value)} <= {*get_args(kind)}:
        return tuple(value)

    import msgspec  # a third of the time that a first `load_model` would take

    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        raise SpecError(f"{key}: {value!r} is not {_described(kind)}") from None


def _described(kind: Any) -> str:
    """A type in words: "a whole number or null"."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is tuple:
        return f"a list of {PLURALS[inner[0]]}"
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    return " or ".join(map(_described, inner)) if inner else KINDS[kind]


def check_keys(key: str, config: Any, known: Iterable[str], needed: Iterable[str] | None = None) -> None:
    """Checks that a config, at a key ("" for a whole one), is a mapping with known keys only, and has those needed (all, where None)."""
    if not isinstance(config, dict):
        raise SpecError(f"{key}: {config!r} is not a mapping with the keys {', '.join(known)}")
    prefix = f"{key}." if key else ""
    for name in config:
        if name not in known:
            raise unknown_key(f"{prefix}{name}", key, known)
    if missing := [f"{prefix}{name}" for name in (known if needed is None else needed) if name not in config]:
        raise SpecError(f"{', '.join(missing)}: missing")


def unknown_key(key: str, above: str, config: Any) -> SpecError:
    """The error for a key that does not exist; config is what has keys in its place, or a value that has none."""
    none = "no keys; choose one by name too" if config is None else "no keys"
    has = list_allowed(key.rpartition(".")[2], config) if isinstance(config, Iterable) and not isinstance(config, str) else none
    return SpecError(f"{key}: unknown key; {above or 'the config'} has {has}")


def read_spec(cls: Any, key: str, config: Any, **parsers: Callable[[str, Any], Any]) -> Any:
    """A frozen spec, a dataclass or a NamedTuple, from a mapping of its fields at a key; those with a default may be left out.

    Parsers say how fields that are mappings or lists of mappings themselves are read, from their key and value.
    """
    hints, needed = _fields_of(cls)
    check_keys(key, config, hints, needed)
    values = {
        name: parsers[name](f"{key}.{name}", value) if name in parsers else read_value(f"{key}.{name}", value, hints[name])
        for name, value in config.items()
    }
    try:
        return cls(**values)
    except SpecError as error:  # a spec names its fields from its own name on: "sam.width"
        raise SpecError(f"{key.rpartition('.')[0]}.{error}".lstrip(".")) from None


@cache
def _fields_of(cls: Any) -> tuple[dict[str, Any], list[str]]:
    """The type of each field of a spec that a config may have, and those without a default."""
    hints, parameters = get_type_hints(cls), {name: one for name, one in signature(cls).parameters.items() if name != "changed"}
    needed = [name for name, parameter in parameters.items() if parameter.default is Parameter.empty]
    return {name: hints[name] for name in parameters}, needed


def read_model(config: Any) -> ModelSpec:
    """A model from the group `model`, its towers fitting each other; a learned one has keys of its own (see `_read_learned`)."""
    if isinstance(config, dict) and config.get("pipeline") == LEARNED:
        return _read_learned(config)
    model = read_spec(ModelSpec, "model", config, towers=_read_towers)
    specs = {spec.tower: spec for spec in model.towers}
    for name, parts in JOINTS.items():
        paths = [path.split(".") for path in (name, *parts)]
        if all(tower in specs for tower, _ in paths):
            have, *needed = (getattr(specs[tower], dimension) for tower, dimension in paths)
            if have != sum(needed):
                raise SpecError(f"model.towers.{name}: {have} is not {' + '.join(parts)} = {sum(needed)}")
    return model


def _read_learned(config: dict[str, Any]) -> ModelSpec:
    """A model whose program was learned: a class of transformers, its config where that differs from the class's defaults, the source of
    that, and the page rule by its name with its settings."""
    import json

    from ocr_flops.spec.page_rules import PAGE_RULES  # NumPy, which other names need not

    needed = ("name", "label", "pipeline", "architecture", "page_rule", "config", "source")
    check_keys("model", config, (*needed, "characters_per_token"), needed)
    page = config["page_rule"]
    check_keys("model.page_rule", page, page if isinstance(page, dict) else ("name",), ["name"])
    rule = PAGE_RULES[one_of("model.page_rule.name", page["name"], PAGE_RULES)]
    settings = {key: value for key, value in page.items() if key != "name"}
    learned = LearnedSpec(
        read_value("model.architecture", config["architecture"], str),
        read_spec(rule, "model.page_rule", settings),
        json.dumps(config["config"], sort_keys=True),
        read_value("model.source", config["source"], str),
    )
    name, label = (read_value(f"model.{key}", config[key], str) for key in ("name", "label"))
    characters = read_value("model.characters_per_token", config.get("characters_per_token"), float | None)
    return ModelSpec(name, label, LEARNED_TOWERS, LEARNED, learned, characters)


def _read_towers(key: str, config: Any) -> tuple[Any, ...]:
    if not isinstance(config, dict):
        raise SpecError(f"{key}: {config!r} is not a mapping of towers ({', '.join(TOWERS)}) to dimensions")
    return tuple(read_spec(TOWERS[one_of(key, name, tuple(TOWERS))], f"{key}.{name}", fields) for name, fields in config.items())


def read_engine(config: Any, kernels: Sequence[str]) -> EngineSpec:
    """An engine from the group `engine`: its keys, and the attention kernel of each tower, one of those there are."""
    engine = _read_kernel_choice(EngineSpec, config, kernels)
    for kernel in engine.runnable_attention:
        one_of("engine.runnable_attention", kernel, kernels)
    return engine


def read_attention(config: Any, kernels: Sequence[str]) -> AttentionSpec:
    """An attention mode from the group `attention`: its name, and the attention kernel of each tower, one of those there are."""
    return _read_kernel_choice(AttentionSpec, config, kernels)


def _read_kernel_choice(cls: Any, config: Any, kernels: Sequence[str]) -> Any:
    """A spec whose config holds, beside its own keys, towers and the attention kernel of each."""
    own = [field.name for field in fields(cls) if field.name != "kernels"]
    check_keys(cls.group, config, (*own, *TOWERS, OTHERS), [name for name in own if name in _fields_of(cls)[1]])
    chosen = {name: value for name, value in config.items() if name not in own}
    for tower, kernel in chosen.items():
        if kernel is not None and kernel not in kernels:
            raise SpecError(f"{cls.group}.{tower}: {kernel!r} is not one of {', '.join(kernels)} or null")
    given = {name: config[name] for name in own if name in config}
    ranged = dict.fromkeys((name for name, kind in _fields_of(cls)[0].items() if kind is Ranged), _read_ranged)
    return read_spec(cls, cls.group, given | {"kernels": chosen}, kernels=lambda _, towers: towers, **ranged)


def read_hardware(config: Any) -> HardwareSpec:
    """A device from the group `hardware`."""
    parsers = {"matrix_flops_per_second": _read_figures, "disputed": _read_disputed, "sources": _read_sources}
    return read_spec(HardwareSpec, "hardware", config, **parsers)


def _read_disputed(key: str, config: Any) -> tuple[tuple[str, tuple[float, ...]], ...]:
    return _read_figures(key, config, tuple[float, ...])


def _read_figures(key: str, config: Any, kind: Any = float) -> tuple[tuple[str, Any], ...]:
    if not isinstance(config, dict):
        raise SpecError(f"{key}: {config!r} is not a mapping of figures to numbers")
    return tuple((name, read_value(f"{key}.{name}", value, kind)) for name, value in config.items())


def _read_sources(key: str, config: Any) -> tuple[Source, ...]:
    if not isinstance(config, list):
        raise SpecError(f"{key}: {config!r} is not a list of sources")
    return tuple(read_spec(Source, f"{key}[{index}]", fields) for index, fields in enumerate(config))


def read_host(config: Any) -> HostSpec:
    """What the host takes, from the group `host`."""
    from ocr_flops.spec.host import HOST_FIGURES, HostSpec

    return read_spec(HostSpec, "host", config, **dict.fromkeys(HOST_FIGURES, _read_ranged))


def read_efficiency(config: Any) -> EfficiencySpec:
    """What kernels reach of the peaks, from the group `efficiency`."""
    from ocr_flops.spec.host import EFFICIENCIES, EfficiencySpec

    return read_spec(EfficiencySpec, "efficiency", config, **dict.fromkeys(EFFICIENCIES, _read_ranged))


def _read_ranged(key: str, config: Any) -> Ranged:
    """A number, or a mapping of its value, its range and its source."""
    return read_spec(Ranged, key, config) if isinstance(config, dict) else Ranged.exact(read_value(key, config, float))
