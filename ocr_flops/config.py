"""Hydra composition -> frozen specs: each `load_*` composes `configs/config.yaml` with overrides and checks every key and type.

Nothing of Hydra or OmegaConf leaves this module, and it imports them only when a config is composed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, NamedTuple

from ocr_flops import towers
from ocr_flops.checks import read_spec, read_value, same_keys, unknown
from ocr_flops.specs import (
    CACHES,
    DTYPE_BYTES,
    PREFILL_LOGITS,
    STAGES,
    AttentionSpec,
    EngineSpec,
    HardwareSpec,
    ModelSpec,
    Source,
    SpecError,
    one_of,
)
from ocr_flops.workload import Mode, Workload

if TYPE_CHECKING:
    from ocr_flops.estimates import Estimate

GROUPS = ("model", "engine", "workload", "attention", "hardware")
KEYS = (*GROUPS, "dtype", "cache", "prefill_logits", "stages")
STANDING_ALONE = ("hardware", "engine", "attention")  # groups whose files lean on no other
NO_HARDWARE = ("hardware", None)
JOINTS = {  # dimension of one tower: what it must be the sum of
    "clip.width": ("sam.output_width",),  # SAM's map serves as CLIP's patch embeddings
    "projector.input_width": ("clip.width", "sam.output_width"),
    "projector.output_width": ("decoder.width",),
}
_HYDRA = threading.Lock()  # Hydra keeps one global state, and the app's sessions are threads


@dataclass(frozen=True)
class Run:
    """Everything a command line chose.

    Args:
        model, engine, attention, workload: resolved specs.
        dtype: "bf16", "fp16" or "fp32".
        cache: "dynamic" or "static".
        prefill_logits: "all" or "last"; the engine's where none was chosen.
        stages: in the order they run.
        hardware: the device; None where none was chosen.
    """

    model: ModelSpec
    engine: EngineSpec
    attention: AttentionSpec
    workload: Workload
    dtype: str
    cache: str
    prefill_logits: str
    stages: tuple[str, ...]
    hardware: HardwareSpec | None

    def estimate(self, workload: Workload | None = None) -> Estimate:
        """The cost of the workload chosen, or of another one, with everything else as chosen."""
        from ocr_flops.estimates import estimate

        return estimate(
            self.model,
            self.workload if workload is None else workload,
            self.attention,
            engine=self.engine,
            dtype=self.dtype,
            cache=self.cache,
            prefill_logits=self.prefill_logits,
            stages=self.stages,
        )


class _Root(NamedTuple):
    """A config at the top of `configs/`: its file, its groups and all its keys."""

    name: str
    groups: tuple[str, ...]
    keys: tuple[str, ...]


RUN = _Root("config", GROUPS, KEYS)
SWEEP = _Root("sweep", (*GROUPS, "sweep"), (*KEYS, "sweep", "measure", "measured_steps"))


class WorkloadKeys(NamedTuple):
    """The keys of the group `workload`: a mode's, and those of the page and its text."""

    name: str
    label: str
    global_px: int
    tile_px: int
    untiled_up_to_px: int
    image_width_px: int
    image_height_px: int
    columns: int | None
    rows: int | None
    prompt_tokens: int
    output_tokens: int
    batch_size: int

    def mode(self) -> Mode:
        return Mode(*self[: len(Mode._fields)])

    def workload(self) -> Workload:
        """The workload: of the grid where one is given, else of the image.

        Any of the numbers after the mode's may be an int64 column instead.
        """
        rest = {name: getattr(self, name) for name in ("prompt_tokens", "output_tokens", "batch_size")}
        try:
            if self.columns is None and self.rows is None:
                return Workload.from_image(self.image_width_px, self.image_height_px, self.mode(), **rest)
            columns, rows = (1 if side is None else side for side in (self.columns, self.rows))
            return Workload.from_grid(columns, rows, self.mode(), **rest)
        except SpecError as error:  # from_image's own names of the image's sides are shorter than the keys
            image = "image_" if str(error).startswith(("width_px", "height_px")) else ""
            raise SpecError(f"workload.{image}{error}") from None


def config_dir() -> Path:
    """The folder of Hydra groups: inside the installed package, or at the top of a checkout."""
    return _beside_or_above("configs")


def notebook_dir() -> Path:
    """The folder of notebooks: inside the installed package, or at the top of a checkout."""
    return _beside_or_above("notebooks")


def names(group: str) -> tuple[str, ...]:
    """The configs that a group ("model", "engine", "workload", "attention", "hardware") offers."""
    return tuple(sorted(path.stem for path in (config_dir() / group).glob("*.yaml")))


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
    return read_spec(EngineSpec, "engine", _group("engine", name))


@cache
def load_attention(name: str = "vendor") -> AttentionSpec:
    """The attention mode of each tower under "vendor", "eager", "sdpa" or "flash".

    Raises:
        SpecError: an unknown name.
    """
    return read_spec(AttentionSpec, "attention", _group("attention", name))


@cache
def load_mode(name: str) -> Mode:
    """A resolution mode ("tiny", "small", "base", "large", "gundam", "gundam_m").

    Raises:
        SpecError: an unknown name.
    """
    return read_spec(WorkloadKeys, "workload", _group("workload", name)).mode()


@cache
def modes() -> tuple[Mode, ...]:
    """All resolution modes by size: those of a single view, then those with tiles."""
    return tuple(sorted(map(load_mode, names("workload")), key=lambda mode: (mode.tile_px, mode.global_px)))


def load_run(overrides: Sequence[str] = ()) -> Run:
    """Everything that a command line of overrides chooses, the rest as in `configs/config.yaml`.

    Args:
        overrides: such as ["workload=gundam", "workload.columns=2", "workload.rows=1", "attention.sam=eager", "stages=[vision]"]. A grid
            takes the place of the image size; one of `columns` and `rows` alone leaves the other at 1.

    Raises:
        SpecError: one line naming the key, its value and what is allowed.
    """
    return read_run(_compose(overrides))


def compose_sweep(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """What a command line of `sweep` chooses, as plain dicts and lists, the rest as in `configs/sweep.yaml`.

    Args:
        overrides: those of `load_run`, and such as "sweep=vendor", "sweep.max_tiles=6", "measure=meta"; one value a key.

    Raises:
        SpecError: one line naming the key, its value and what is allowed.
    """
    return _compose(overrides, SWEEP)


def choice(group: str, name: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A config of a group as plain dicts and lists, with overrides of its keys.

    Raises:
        SpecError: an unknown name or key.
    """
    return _group(group, name, overrides)


def read_run(config: dict[str, Any]) -> Run:
    """A composed config as specs.

    Raises:
        SpecError: one line naming the key, its value and what is allowed.
    """
    engine = read_spec(EngineSpec, "engine", config["engine"])
    logits = config["prefill_logits"]
    return Run(
        model=_model(config["model"]),
        engine=engine,
        attention=_attention(config["attention"]),
        workload=read_workload(config["workload"]).workload(),
        dtype=one_of("dtype", config["dtype"], tuple(DTYPE_BYTES)),
        cache=one_of("cache", config["cache"], CACHES),
        prefill_logits=engine.prefill_logits if logits is None else one_of("prefill_logits", logits, PREFILL_LOGITS),
        stages=_stages(config["stages"]),
        hardware=None if config["hardware"] is None else _hardware(config["hardware"]),
    )


@cache
def _load(group: str, name: str, overrides: tuple[str, ...]) -> Any:
    read, example = {"model": (_model, "towers.sam.width=768"), "hardware": (_hardware, "memory_bytes=80e9")}[group]
    for override in overrides:
        if not override.startswith(f"{group}."):
            raise SpecError(f"{override!r}: not an override of the {group}, as in {group}.{example}")
    return read(_group(group, name, overrides))


def _group(group: str, name: str, overrides: Sequence[str] = ()) -> Any:
    one_of(group, name, names(group))
    alone = _alone(config_dir() / group / f"{name}.yaml") if group in STANDING_ALONE and not overrides else None
    return _compose([f"{group}={name}", *overrides])[group] if alone is None else alone


def _alone(path: Path) -> Any:
    """A config file that leans on no other, as plain dicts and lists, ten times faster than Hydra does it; None if it leans."""
    from omegaconf import OmegaConf
    from yaml import YAMLError

    text = path.read_text()
    if any(mark in text for mark in ("${", "defaults:", "@package")):
        return None
    try:
        return OmegaConf.to_container(OmegaConf.create(text))
    except YAMLError:
        return None  # Hydra's own words for it


def _model(config: Any) -> ModelSpec:
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
    known = [module.name for module in iter_modules(towers.__path__)]
    if not isinstance(config, dict):
        raise SpecError(f"{key}: {config!r} is not a mapping of towers ({', '.join(known)}) to dimensions")
    for name in config:
        one_of(key, name, known)
    return tuple(read_spec(import_module(f"ocr_flops.towers.{name}").Spec, f"{key}.{name}", fields) for name, fields in config.items())


def _hardware(config: Any) -> HardwareSpec:
    return read_spec(HardwareSpec, "hardware", config, matrix_flops_per_second=_peaks, sources=_sources)


def _peaks(key: str, config: Any) -> tuple[tuple[str, float], ...]:
    if not isinstance(config, dict):
        raise SpecError(f"{key}: {config!r} is not a mapping of dtypes to FLOPs a second")
    return tuple((dtype, read_value(f"{key}.{dtype}", peak, float)) for dtype, peak in config.items())


def _sources(key: str, config: Any) -> tuple[Source, ...]:
    if not isinstance(config, list):
        raise SpecError(f"{key}: {config!r} is not a list of sources")
    return tuple(read_spec(Source, f"{key}[{index}]", fields) for index, fields in enumerate(config))


def _attention(config: Any) -> AttentionSpec:
    attention = read_spec(AttentionSpec, "attention", config)
    as_named = attention.name in names("attention") and attention == load_attention(attention.name)
    return attention if as_named else replace(attention, name="mixed")


def read_workload(config: Any) -> WorkloadKeys:
    """The group `workload`, each key of its type."""
    return read_spec(WorkloadKeys, "workload", config)


def _stages(config: Any) -> tuple[str, ...]:
    allowed = f"a list of one or more of {', '.join(STAGES)}"
    if not isinstance(config, list) or not config:
        raise SpecError(f"stages: {config!r} is not {allowed}")
    for stage in config:
        one_of("stages", stage, STAGES)
        if config.count(stage) > 1:
            raise SpecError(f"stages: {stage!r} is named twice; allowed is {allowed}")
    return tuple(stage for stage in STAGES if stage in config)


def _compose(overrides: Sequence[str], root: _Root = RUN) -> dict[str, Any]:
    """The composed config as plain dicts and lists.

    Raises:
        SpecError: an override or a config file with an unknown key, an unknown choice, or bad syntax.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    errors = (HydraException, OmegaConfBaseException, YAMLError)
    parsed = _parse(overrides, root)
    none = max((index for index, (_, key, value) in enumerate(parsed) if (key, value) == NO_HARDWARE), default=-1)
    parsed = [part for index, part in enumerate(parsed) if part[1] != "hardware" or index > none]  # Hydra has no word for "none" of a group
    overrides = [text for text, _, _ in parsed]
    try:
        config = _hydra(overrides, root)
    except errors as error:
        reason = " ".join(str(error).split())
    else:
        same_keys("", config, root.keys)
        return config
    try:
        plain = _hydra([text for text, key, _ in parsed if key in root.groups], root)
    except errors:
        raise SpecError(f"configs: {reason}") from None
    for _, key, _ in parsed:
        _reachable(plain, key)
    raise SpecError(f"{' '.join(overrides)}: {reason}")


def _hydra(overrides: Sequence[str], root: _Root) -> dict[str, Any]:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    with _HYDRA:
        outer, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None  # a caller may use Hydra itself
        try:
            with initialize_config_dir(str(config_dir()), version_base="1.3"):
                config = OmegaConf.to_container(compose(root.name, list(overrides)), resolve=True)
        finally:
            GlobalHydra.instance().hydra = outer
    return {"hardware": None, **config}  # Hydra leaves out a group that was not chosen


def _parse(overrides: Sequence[str], root: _Root) -> list[tuple[str, str, Any]]:
    """Each override as it was written, its key and its value.

    Raises:
        SpecError: one that is not key=value, of an unknown top-level key, or with an unknown choice of a group.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import OverrideType
    from hydra.errors import HydraException

    parser, parsed = OverridesParser.create(), []
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException:
            raise SpecError(f"{text!r}: not of the form key=value") from None
        key = override.key_or_group
        if not key or override.type != OverrideType.CHANGE or override.package or override.is_sweep_override():
            raise SpecError(f"{text!r}: not of the form key=value, with one value")
        if key.partition(".")[0] not in root.keys:
            raise unknown(key, "", root.keys)
        if key in root.groups and (key, override.value()) != NO_HARDWARE:
            one_of(key, override.value(), names(key))
        parsed.append((text, key, override.value()))
    return parsed


def _reachable(config: Any, key: str) -> None:
    above = ""
    for part in key.split("."):
        if not isinstance(config, dict) or part not in config:
            raise unknown(key, above, config)
        config, above = config[part], f"{above}.{part}".lstrip(".")


def _beside_or_above(folder: str) -> Path:
    package = Path(__file__).resolve().parent
    return package / folder if (package / folder).is_dir() else package.parent / folder
