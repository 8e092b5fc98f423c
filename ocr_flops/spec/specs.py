"""What the cost of a run depends on besides the workload: frozen, hashable specs, validated when they are made.

The dimensions of the towers are in `towers.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any, Literal, NamedTuple, get_args

from ocr_flops.errors import SpecError, one_of
from ocr_flops.spec.towers import TOWERS

Logits = Literal["all", "last"]

STAGES = ("vision", "prefill", "decode")
DTYPE_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
MATRIX_DTYPES = (*DTYPE_BYTES, "tf32")
CACHES = ("dynamic", "static")
PREFILL_LOGITS = get_args(Logits)
OTHERS = "others"  # in a choice of attention: all towers that it does not name
Kernels = tuple[tuple[str, str | None], ...]  # pairs of a tower and its attention kernel


@dataclass(frozen=True)
class ModelSpec:
    """A vision-language model as the towers it runs, in order.

    Args:
        name: the config's name, "deepseek_ocr".
        label: the name shown to people.
        towers: the `Spec` of each tower, in the order they run; the last one is the language model.
        pipeline: the class that runs them, by its name in `cost.models`.
    """

    name: str
    label: str
    towers: tuple[Any, ...]
    pipeline: str

    def __post_init__(self) -> None:
        if not self.towers:
            raise SpecError("model.towers: empty; a model needs at least a language model")

    def tower(self, name: str) -> Any:
        """The `Spec` of the tower called name.

        Raises:
            SpecError: listing the towers there are.
        """
        for spec in self.towers:
            if spec.tower == name:
                return spec
        raise SpecError(f"model.towers: no tower {name!r}, only {', '.join(spec.tower for spec in self.towers)}")

    @property
    def language_model(self) -> Any:
        """The `Spec` of the last tower."""
        return self.towers[-1]

    @property
    def attention_towers(self) -> tuple[Any, ...]:
        """The `Spec` of each tower that has attention heads, in the order they run."""
        return tuple(spec for spec in self.towers if hasattr(spec, "heads"))


@dataclass(frozen=True)
class EngineSpec:
    """How a piece of software runs the model: what it executes besides the mathematics.

    Args:
        name: "transformers" or "remote_code".
        label: the name shown to people.
        prefill_logits: positions for which `generate` computes logits in prefill, "all" or "last".
        chooses_logits: also computes, when asked, logits for other positions than those.
        kernels: the attention kernel each tower uses by itself (the mode "vendor"), as in `AttentionSpec`.
        runnable_attention: attention kernels that every tower has in this engine besides its own, so that they can be counted and traced.
    """

    name: str
    label: str
    prefill_logits: Logits
    chooses_logits: bool
    kernels: Kernels
    runnable_attention: tuple[str, ...]

    def __post_init__(self) -> None:
        one_of("engine.prefill_logits", self.prefill_logits, PREFILL_LOGITS)
        object.__setattr__(self, "kernels", _sorted_kernels("engine", self.kernels))

    def kernel(self, tower: str) -> str | None:
        """The attention kernel that a tower uses by itself."""
        return _kernel(self.kernels, tower)

    def runnable_kernels(self, tower: str) -> tuple[str, ...]:
        """Attention kernels with which the real engine runs a tower: those chosen by name, and its own."""
        return tuple(dict.fromkeys((*self.runnable_attention, self.kernel(tower))))


@dataclass(frozen=True)
class AttentionSpec:
    """The attention kernel of every tower.

    Args:
        name: what the choice is called in frames: a config of the group `attention`, or "mixed" where towers were set one by one.
        kernels: the kernel of each tower, as a mapping or as pairs; None where the engine decides. The key "others" stands for all towers
            that are not named.

    Raises:
        SpecError: a tower that no model has.
    """

    name: str
    kernels: Kernels = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "kernels", _sorted_kernels("attention", self.kernels))

    def kernel(self, tower: str) -> str | None:
        """The kernel of a tower; None where the engine decides."""
        return _kernel(self.kernels, tower)

    def resolved(self, model: ModelSpec, engine: EngineSpec) -> AttentionSpec:
        """The kernel of each of the model's towers, the engine's own wherever this choice leaves it open."""
        towers = [spec.tower for spec in model.attention_towers]
        return AttentionSpec(self.name, {tower: self.kernel(tower) or engine.kernel(tower) for tower in towers})


def _sorted_kernels(key: str, kernels: Kernels | Mapping[str, str | None]) -> Kernels:
    pairs = tuple(sorted(dict(kernels).items()))
    for tower, _ in pairs:
        one_of(key, tower, (*TOWERS, OTHERS))
    return pairs


def _kernel(kernels: Kernels, tower: str) -> str | None:
    named = dict(kernels)
    return named[tower] if tower in named else named.get(OTHERS)


@dataclass(frozen=True)
class Source:
    """Where figures of a device were read.

    Args:
        figures: the figures' keys, as "memory_bytes" or "matrix_flops_per_second.bf16".
        document, locator, link: the document, the place in it (table, column, row), and its address.
        marking: what is printed there, how it is marked (dense, or with sparsity), and what was done with it (halved; the lower taken).
        kind: "manufacturer" for its own document, "secondary" for a third party's.
    """

    figures: tuple[str, ...]
    document: str
    link: str
    locator: str
    marking: str
    kind: str

    def __post_init__(self) -> None:
        one_of("sources.kind", self.kind, ("manufacturer", "secondary"))


@dataclass(frozen=True)
class HardwareSpec:
    """A device's peak rates as its maker publishes them, dense (without sparsity), and its memory.

    Args:
        name: the config's name, "h200".
        label: the name shown to people.
        manufacturer: who makes it, as its label begins.
        segment: "data-centre", "workstation" or "desktop".
        matrix_flops_per_second: pairs of a dtype ("bf16", "fp16", "tf32", "fp32") and the matrix units' peak, accumulating in fp32.
        vector_fp32_flops_per_second: peak of the vector units in fp32; None where no source gives it: there is then no vector ceiling.
        memory_bandwidth_bytes_per_second: peak rate of the device's memory.
        memory_bytes: its size, decimal as printed: 80 GB is 80e9.
        sources: where each figure was read. They speak of the config's figures, also where an override has changed one, and take no part
            in comparisons.
        device_names: what `torch.cuda.get_device_name` calls it, by which records are recognised as its own; "NVIDIA " in front may be
            left out. They take no part in comparisons either.
    """

    name: str
    label: str
    manufacturer: str
    segment: str
    matrix_flops_per_second: tuple[tuple[str, float], ...]
    vector_fp32_flops_per_second: float | None
    memory_bandwidth_bytes_per_second: float
    memory_bytes: float
    sources: tuple[Source, ...] = field(default=(), compare=False, repr=False)
    device_names: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        figures = {f"matrix_flops_per_second.{dtype}": peak for dtype, peak in self.matrix_flops_per_second}
        for dtype, _ in self.matrix_flops_per_second:
            one_of("hardware.matrix_flops_per_second", dtype, MATRIX_DTYPES)
        if not figures and self.vector_fp32_flops_per_second is None:
            raise SpecError("hardware.matrix_flops_per_second: empty; a device needs at least one peak rate")
        figures |= {name: getattr(self, name) for name in ("memory_bandwidth_bytes_per_second", "memory_bytes")}
        if self.vector_fp32_flops_per_second is not None:
            figures["vector_fp32_flops_per_second"] = self.vector_fp32_flops_per_second
        for name, value in figures.items():
            if not (isfinite(value) and value > 0):
                raise SpecError(f"hardware.{name}: {value!r} is not a number above 0")

    def edited(self, dtype: str, **figures: float) -> HardwareSpec:
        """The same device with some figures replaced.

        Args:
            dtype: the precision whose matrix peak `matrix_flops_per_second` sets.
            **figures: matrix_flops_per_second, vector_fp32_flops_per_second, memory_bandwidth_bytes_per_second, memory_bytes.

        Raises:
            SpecError: a figure that is not a number above 0.
        """
        if (peak := figures.pop("matrix_flops_per_second", None)) is not None:
            figures["matrix_flops_per_second"] = tuple({**dict(self.matrix_flops_per_second), dtype: peak}.items())
        return replace(self, **figures)

    def matrix_peak(self, dtype: str) -> float:
        """Peak FLOPs a second of matrix products in a dtype.

        Args:
            dtype: "bf16", "fp16", "tf32" or "fp32". Products in fp32 run on the matrix units where these take fp32, else on the vector
                units: PyTorch uses TF32 for them only when asked to.

        Raises:
            SpecError: the device has no such figure (T4 and V100 multiply no bf16); the message lists those it has.
        """
        peaks = dict(self.matrix_flops_per_second)
        if self.vector_fp32_flops_per_second is not None:
            peaks.setdefault("fp32", self.vector_fp32_flops_per_second)
        if dtype not in peaks:
            has = ", ".join(known for known in DTYPE_BYTES if known in peaks)
            raise SpecError(f"hardware.{self.name}.matrix_flops_per_second.{dtype}: {self.label} has no such figure; choose dtype={has}")
        return peaks[dtype]


class Mode(NamedTuple):
    """A resolution mode: the side of the global view and of the tiles in pixels (tile_px 0: a single view, no tiles)."""

    name: str
    label: str
    global_px: int
    tile_px: int
    untiled_up_to_px: int = 640
