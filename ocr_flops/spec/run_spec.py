"""Everything that a command line chooses, as specs. What is wrong raises a SpecError of one line, naming the key and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ocr_flops.errors import SpecError, one_of
from ocr_flops.spec import reading
from ocr_flops.spec.catalog import kernels, load_attention, name_changes
from ocr_flops.spec.host import EfficiencySpec, HostSpec
from ocr_flops.spec.overrides import compose
from ocr_flops.spec.reading import names
from ocr_flops.spec.specs import (
    CACHES,
    DTYPE_BYTES,
    PAGED,
    PREFILL_LOGITS,
    STAGES,
    AttentionSpec,
    EngineSpec,
    HardwareSpec,
    Mode,
    ModelSpec,
)
from ocr_flops.spec.workload import REST, Workload

DEFAULT_MODE = "gundam"  # of configs/config.yaml
MODE_KEYS = ("workload", *(f"workload.{key}" for key in ("global_px", "tile_px", "untiled_up_to_px")))  # of a resolution mode
IMAGE, GRID = ("image_width_px", "image_height_px"), ("columns", "rows")  # keys of the workload that say what a page is


@dataclass(frozen=True)
class RunSpec:
    """Everything a command line chose."""

    model: ModelSpec
    engine: EngineSpec
    attention: AttentionSpec  # called "mixed" where towers were set one by one
    workload: Workload
    dtype: str  # "bf16", "fp16" or "fp32"
    cache: str  # "dynamic" or "static"; "paged" for engines that serve
    prefill_logits: str  # "all" or "last"; the engine's where none was chosen
    stages: tuple[str, ...]  # in the order they run
    hardware: HardwareSpec | None  # None where none was chosen
    host: HostSpec | None = None  # None where none was chosen: the engine's
    efficiency: EfficiencySpec | None = None  # None where none was chosen: published figures

    def of_whole_pages(self) -> RunSpec:
        """The same run; a SpecError where it leaves out a stage, for what counts whole pages."""
        if self.stages != STAGES:
            raise SpecError(f"stages: {', '.join(self.stages)} alone read no page; leave it out, or ask estimate or sweep")
        return self


class WorkloadKeys(NamedTuple):
    """The keys of the group `workload`: those of a resolution mode, then those of the page and its text."""

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
    pages: int

    def workload(self) -> Workload:
        """The workload: of the grid where one is given, else of the image.

        Any of the numbers after the mode's may be an int64 column instead.
        """
        mode, rest = Mode(*self[:5]), {name: getattr(self, name) for name in REST}
        try:
            if self.columns is None and self.rows is None:
                return Workload.from_image(self.image_width_px, self.image_height_px, mode, **rest)
            columns, rows = (1 if side is None else side for side in (self.columns, self.rows))
            return Workload.from_grid(columns, rows, mode, **rest)
        except SpecError as error:  # from_image's own names of the image's sides are shorter than the keys
            image = "image_" if str(error).startswith(("width_px", "height_px")) else ""
            raise SpecError(f"workload.{image}{error}") from None


def load_run(overrides: Sequence[str] = ()) -> RunSpec:
    """Everything that a command line of overrides chooses, the rest as in `configs/config.yaml`.

    Args:
        overrides: such as ["workload=gundam", "workload.columns=2", "workload.rows=1", "attention.sam=eager", "stages=[vision]"]. A grid
            takes the place of the image size; one of `columns` and `rows` alone leaves the other at 1.
    """
    check_page_keys(overrides)
    run = read_run(compose(overrides))
    check_mode_keys(run.model, overrides)
    return run


def check_mode_keys(model: ModelSpec, overrides: Iterable[str]) -> None:
    """Raises SpecError for the first override ("key=value") of a resolution mode, where a model takes pages by a rule of its own; the mode
    that is the default changes nothing."""
    keys = [text.partition("=")[0] for text in overrides if text != f"workload={DEFAULT_MODE}"]
    if model.learned and (found := next((key for key in keys if key in MODE_KEYS), None)):
        rule = f"{model.label} takes pages by a rule of its own: {model.page_rule.limits}"
        raise SpecError(f"{found}: is of DeepSeek-OCR's resolution modes; {rule}; leave it out")


def check_page_keys(overrides: Iterable[str]) -> None:
    """Checks that overrides give a page one way: an image's size, both sides of it, or a grid.

    Raises:
        SpecError: one side of the image alone, or a size beside a grid.
    """
    given = dict(text.partition("=")[::2] for text in overrides)
    image, grid = ([f"workload.{name}" for name in names if given.get(f"workload.{name}", "null") != "null"] for names in (IMAGE, GRID))
    if image and grid:
        raise SpecError(f"{image[0]}: has no effect beside {grid[0]}; give either the image's size or the grid")
    if len(image) == 1:
        raise SpecError(f"{image[0]}: is half a size; give also workload.{next(name for name in IMAGE if image[0][9:] != name)}")


def read_run(config: dict[str, Any]) -> RunSpec:
    """A composed config as specs."""
    engine, attention = reading.read_engine(config["engine"], kernels()), reading.read_attention(config["attention"], kernels())
    if attention.name not in names("attention") or attention != load_attention(attention.name):
        attention = replace(attention, name="mixed")
    logits, model = config["prefill_logits"], name_changes("model", reading.read_model(config["model"]))
    return RunSpec(
        model=model,
        engine=engine,
        attention=attention,
        workload=read_workload(config["workload"]).workload().for_page_rule(model.page_rule),
        dtype=one_of("dtype", config["dtype"], tuple(DTYPE_BYTES)),
        cache=_read_cache(config["cache"], engine),
        prefill_logits=engine.prefill_logits if logits is None else one_of("prefill_logits", logits, PREFILL_LOGITS),
        stages=_read_stages(config["stages"]),
        hardware=None if config["hardware"] is None else name_changes("hardware", reading.read_hardware(config["hardware"])),
        host=None if config["host"] is None else reading.read_host(config["host"]),
        efficiency=None if config["efficiency"] is None else reading.read_efficiency(config["efficiency"]),
    )


def read_workload(config: Any) -> WorkloadKeys:
    """The group `workload`, each key of its type."""
    return reading.read_spec(WorkloadKeys, "workload", config)


def _read_cache(config: Any, engine: EngineSpec) -> str:
    cache = one_of("cache", config, CACHES)
    if engine.block_tokens is None:
        return cache
    if cache != CACHES[0]:  # which is what is written where nothing was chosen
        raise SpecError(f"cache: {cache!r} is none of {engine.name}, whose cache is in blocks; leave it out")
    return PAGED


def _read_stages(config: Any) -> tuple[str, ...]:
    allowed = f"a list of one or more of {', '.join(STAGES)}"
    if not isinstance(config, list) or not config:
        raise SpecError(f"stages: {config!r} is not {allowed}")
    for stage in config:
        one_of("stages", stage, STAGES)
        if config.count(stage) > 1:
            raise SpecError(f"stages: {stage!r} is named twice; allowed is {allowed}")
    return tuple(stage for stage in STAGES if stage in config)
