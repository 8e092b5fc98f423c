"""Everything that a command line chooses, as specs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ocr_flops.errors import SpecError, one_of
from ocr_flops.spec.catalog import compose, kernels, load_attention, names
from ocr_flops.spec.reading import read_attention, read_engine, read_hardware, read_model, read_spec
from ocr_flops.spec.specs import CACHES, DTYPE_BYTES, PREFILL_LOGITS, STAGES, AttentionSpec, EngineSpec, HardwareSpec, Mode, ModelSpec
from ocr_flops.spec.workload import Workload


@dataclass(frozen=True)
class RunSpec:
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

    def workload(self) -> Workload:
        """The workload: of the grid where one is given, else of the image.

        Any of the numbers after the mode's may be an int64 column instead.
        """
        mode, rest = Mode(*self[:5]), {name: getattr(self, name) for name in ("prompt_tokens", "output_tokens", "batch_size")}
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

    Raises:
        SpecError: one line naming the key, its value and what is allowed.
    """
    return read_run(compose(overrides))


def read_run(config: dict[str, Any]) -> RunSpec:
    """A composed config as specs.

    Raises:
        SpecError: one line naming the key, its value and what is allowed.
    """
    engine = read_engine(config["engine"], kernels())
    logits = config["prefill_logits"]
    return RunSpec(
        model=read_model(config["model"]),
        engine=engine,
        attention=_read_attention(config["attention"]),
        workload=read_workload(config["workload"]).workload(),
        dtype=one_of("dtype", config["dtype"], tuple(DTYPE_BYTES)),
        cache=one_of("cache", config["cache"], CACHES),
        prefill_logits=engine.prefill_logits if logits is None else one_of("prefill_logits", logits, PREFILL_LOGITS),
        stages=_read_stages(config["stages"]),
        hardware=None if config["hardware"] is None else read_hardware(config["hardware"]),
    )


def read_workload(config: Any) -> WorkloadKeys:
    """The group `workload`, each key of its type.

    Raises:
        SpecError: one line naming the key, its value and what is allowed.
    """
    return read_spec(WorkloadKeys, "workload", config)


def _read_attention(config: Any) -> AttentionSpec:
    """The group `attention`, called "mixed" where towers were set one by one."""
    attention = read_attention(config, kernels())
    named = attention.name in names("attention") and attention == load_attention(attention.name)
    return attention if named else replace(attention, name="mixed")


def _read_stages(config: Any) -> tuple[str, ...]:
    """The stages chosen, in the order they run."""
    allowed = f"a list of one or more of {', '.join(STAGES)}"
    if not isinstance(config, list) or not config:
        raise SpecError(f"stages: {config!r} is not {allowed}")
    for stage in config:
        one_of("stages", stage, STAGES)
        if config.count(stage) > 1:
            raise SpecError(f"stages: {stage!r} is named twice; allowed is {allowed}")
    return tuple(stage for stage in STAGES if stage in config)
