"""What the cost of a run depends on besides the workload, as frozen, hashable specs; `towers.py` has the dimensions of the towers."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, get_args

from ocr_flops.errors import SpecError, one_of
from ocr_flops.spec.ranged import Ranged
from ocr_flops.spec.towers import TOWER_NAMES

if TYPE_CHECKING:
    from ocr_flops.spec.page_rules import PageRule

Logits = Literal["all", "last"]

STAGES = ("vision", "prefill", "decode")
CALL = "call"  # vision and prefill in one call of the model, as `generate` makes it: what must fit in memory together
DTYPE_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
FP8 = "fp8"  # of weights and cache, where an engine has it
MATRIX_DTYPES = (*DTYPE_BYTES, "tf32", FP8)
CACHES = ("dynamic", "static")
PAGED = "paged"  # the cache of engines that serve, which no choice of `CACHES` changes
PREFILL_LOGITS = get_args(Logits)
LEARNED = "learned"  # the pipeline of models whose programs were learned from traces
LEAST_FIGURE, MOST_FIGURE = 1.0, 1e24  # of a device, in bytes, bytes a second or FLOP/s: seconds stay finite
OTHERS = "others"  # in a choice of attention: all towers that it does not name
PRODUCTS = {4: "fp32", 1: FP8}  # precision of matrix products by bytes per element of their inputs, where it is not the run's
ONE = Ranged(1, 1, 1)
Kernels = tuple[tuple[str, str | None], ...]  # pairs of a tower and its attention kernel


@dataclass(frozen=True)
class LearnedSpec:
    """Which class of transformers a model's program is learned from, at which dimensions, and what its processor makes of a page."""

    architecture: str  # the class, "GlmOcrForConditionalGeneration"
    page_rule: PageRule
    config: str  # of the class, as JSON: what differs from its defaults
    source: str  # where these dimensions were read


@dataclass(frozen=True)
class ModelSpec:
    """A vision-language model as the towers it runs, in order."""

    name: str  # the config's, "deepseek_ocr"
    label: str  # for people
    towers: tuple[Any, ...]  # the `Spec` of each tower, in the order they run; the last one is the language model
    pipeline: str  # the class that runs them, by its name in `cost.models`
    learned: LearnedSpec | None = None  # of a model whose program was learned from traces
    characters_per_token: float | None = field(default=None, compare=False)  # of English prose by its tokenizer; None where unknown
    changed: tuple[str, ...] = field(default=(), compare=False)  # what differs from the config of that name

    @property
    def title(self) -> str:
        """The name for tables, which says what was changed."""
        return describe_changes(self.name, self.changed)

    def under(self, engine: EngineSpec) -> str:
        """What runs it, for people: the engine and the class."""
        return f"{engine.name}, {self.learned.architecture} class" if self.learned else engine.described

    @property
    def page_rule(self) -> PageRule | None:
        """What its processor makes of a page; None for DeepSeek-OCR's views and tiles."""
        return self.learned.page_rule if self.learned else None

    def __post_init__(self) -> None:
        if not self.towers:
            raise SpecError("model.towers: empty; a model needs at least a language model")

    def tower(self, name: str) -> Any:
        """The `Spec` of the tower called name; a SpecError lists the towers there are where none is."""
        towers = {spec.tower: spec for spec in self.towers}
        if name not in towers:
            raise SpecError(f"model.towers: no tower {name!r}, only {', '.join(towers)}")
        return towers[name]

    @property
    def language_model(self) -> Any:
        """The `Spec` of the last tower."""
        return self.towers[-1]

    @property
    def attention_towers(self) -> tuple[Any, ...]:
        """The `Spec` of each tower that has attention heads, in the order they run."""
        return tuple(spec for spec in self.towers if hasattr(spec, "heads"))


class KernelChoice:
    """A spec with the attention kernel of each tower in its field `kernels`: a mapping or pairs, kept as sorted pairs."""

    group: ClassVar[str]  # of configs, for messages
    kernels: Kernels

    def __post_init__(self) -> None:
        object.__setattr__(self, "kernels", tuple(sorted(dict(self.kernels).items())))
        for tower, _ in self.kernels:
            one_of(self.group, tower, (*TOWER_NAMES, OTHERS))

    def kernel(self, tower: str) -> str | None:
        """The attention kernel of a tower; None where an `AttentionSpec` leaves it to the engine."""
        named = dict(self.kernels)
        return named.get(tower, named.get(OTHERS))


@dataclass(frozen=True)
class EngineSpec(KernelChoice):
    """How a piece of software runs the model: what it executes besides the mathematics."""

    name: str  # of its config and its class: "transformers"
    label: str  # for people
    prefill_logits: Logits  # positions for which `generate` computes logits in prefill
    chooses_logits: bool  # also computes, when asked, logits for other positions than those
    kernels: Kernels  # the attention kernel each tower uses by itself (the mode "vendor")
    runnable_attention: tuple[str, ...]  # kernels that every tower has besides its own, so that they can be counted and traced
    host: str = "eager"  # how its operators are issued, by a config of the group `host`
    modelled: bool = False  # whether it is read in its sources only: nothing here runs, counts or times it
    operators_a_kernel: Ranged = ONE  # counted operators for which one kernel of a graph stands
    host_operators: Ranged = ONE  # of the host's work for a plain operator, what one of the language model takes
    block_tokens: int | None = None  # tokens in a block of a paged cache; None where the cache is `dynamic` or `static`
    packs_images: bool = False  # whether an engine that serves encodes the images of a batch together, replayed as graphs
    weights: Literal["fp8"] | None = None  # precision of the linear layers' weights and inputs; None for the run's dtype
    cache: Literal["fp8"] | None = None  # precision of keys and values in the cache; None for the run's dtype

    group = "engine"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("engine.prefill_logits", self.prefill_logits, PREFILL_LOGITS)
        for name in ("operators_a_kernel", "host_operators"):
            getattr(self, name).check(f"engine.{name}", 1e-3, inf)
        if self.block_tokens is not None and self.block_tokens < 1:
            raise SpecError(f"engine.block_tokens: {self.block_tokens!r} is not a whole number from 1 up, or null")
        for name in ("weights", "cache"):
            one_of(f"engine.{name}", getattr(self, name), (None, FP8))
            if getattr(self, name) is not None and self.block_tokens is None:
                raise SpecError(f"engine.{name}: fp8 is an option of engines with a paged cache, not of {self.name}; leave it null")
        if self.packs_images and not self.modelled:
            raise SpecError(f"engine.packs_images: {self.name} has no such option; leave it false")

    @property
    def title(self) -> str:
        """The name, with the options that are not those of its config's own choice of precision: "vllm weights=fp8"."""
        chosen = (f"{name}={value}" for name in ("weights", "cache") if (value := getattr(self, name)))
        return " ".join([self.name, *chosen, *(["packed"] if self.packs_images else [])])

    @property
    def described(self) -> str:
        """The label with these options, for people."""
        narrow = (f"fp8 {name}" for name in ("weights", "cache") if getattr(self, name))
        return ", ".join([self.label, *narrow, *(["images packed"] if self.packs_images else [])])

    def check_runs(self) -> None:
        """Raises SpecError where nothing here runs the engine."""
        if self.modelled:
            raise SpecError(
                f"engine: {self.name} is modelled, as read in its sources: nothing here runs, counts or times it; choose transformers or "
                "remote_code"
            )

    def runnable_kernels(self, tower: str) -> tuple[str, ...]:
        """Attention kernels with which the real engine runs a tower: those chosen by name, and its own."""
        return tuple(dict.fromkeys((*self.runnable_attention, self.kernel(tower))))


@dataclass(frozen=True)
class AttentionSpec(KernelChoice):
    """The attention kernel of every tower; None where the engine decides."""

    name: str  # what the choice is called in frames: a config's name, or "mixed" where towers were set one by one
    kernels: Kernels = ()

    group = "attention"

    def resolved(self, model: ModelSpec, engine: EngineSpec) -> AttentionSpec:
        """The kernel of each of the model's towers, the engine's own wherever this choice leaves it open."""
        towers = [spec.tower for spec in model.attention_towers]
        return AttentionSpec(self.name, {tower: self.kernel(tower) or engine.kernel(tower) for tower in towers})


@dataclass(frozen=True)
class Source:
    """Where figures of a device were read."""

    figures: tuple[str, ...]  # their keys, as "memory_bytes" or "matrix_flops_per_second.bf16"
    document: str
    link: str
    locator: str  # the place in the document: table, column, row
    marking: str  # what is printed there, how it is marked (dense, or with sparsity), what was done with it (halved; the lower taken)
    kind: str  # "manufacturer" for its own document, "secondary" for a third party's

    def __post_init__(self) -> None:
        one_of("sources.kind", self.kind, ("manufacturer", "secondary"))


@dataclass(frozen=True)
class HardwareSpec:
    """A device's peak rates as its maker publishes them, dense (without sparsity), and its memory.

    Its sources and device names take no part in comparisons.
    """

    name: str  # the config's, "h200"
    label: str  # for people
    manufacturer: str  # as its label begins
    segment: Literal["data-centre", "workstation", "desktop"]
    matrix_flops_per_second: tuple[tuple[str, float], ...]  # pairs of `MATRIX_DTYPES` and the matrix units' peak, accumulating in fp32
    vector_fp32_flops_per_second: float | None  # None where no source gives it: there is then no vector ceiling
    memory_bandwidth_bytes_per_second: float
    memory_bytes: float  # decimal: what is sold as 80 GB is 80e9, also where a table prints it in MB of which 1024 are a GB
    disputed: tuple[tuple[str, tuple[float, ...]], ...] = ()  # figures by key, each with its lowest and highest value in print
    board_watts: float | None = None  # what the board may draw; None where no source gives it
    flash_attention: bool = True  # whether flash-attn, or a fused kernel of its maker, runs on it with heads of 64 and 128
    sources: tuple[Source, ...] = field(default=(), compare=False, repr=False)  # of the config's figures, also where one was overridden
    device_names: tuple[str, ...] = field(default=(), compare=False, repr=False)  # of `torch.cuda.get_device_name`; "NVIDIA " may lack
    changed: tuple[str, ...] = field(default=(), compare=False)  # figures that differ from the config of that name

    @property
    def title(self) -> str:
        """The name for tables, which says what was changed."""
        return describe_changes(self.name, self.changed)

    def __post_init__(self) -> None:
        for dtype, _ in self.matrix_flops_per_second:
            one_of("hardware.matrix_flops_per_second", dtype, MATRIX_DTYPES)
        if not self.matrix_flops_per_second and self.vector_fp32_flops_per_second is None:
            raise SpecError("hardware.matrix_flops_per_second: empty; a device needs at least one peak rate")
        figures = {f"matrix_flops_per_second.{dtype}": peak for dtype, peak in self.matrix_flops_per_second}
        for name in ("memory_bandwidth_bytes_per_second", "memory_bytes", "vector_fp32_flops_per_second", "board_watts"):
            figures[name] = getattr(self, name)
        for name, values in self.disputed:
            one_of("hardware.disputed", name, figures)
            if len(values) != 2 or not 0 < values[0] < values[1] < inf:
                raise SpecError(f"hardware.disputed.{name}: {values!r} is not a number above 0 and a higher one")
        for name, value in figures.items():
            if value is not None and not LEAST_FIGURE <= value <= MOST_FIGURE:
                raise SpecError(f"hardware.{name}: {value!r} is not a number from {LEAST_FIGURE:g} to {MOST_FIGURE:g}")

    def edited(self, dtype: str, **figures: float) -> HardwareSpec:
        """The same device with some figures (fields by name) replaced; `matrix_flops_per_second` is the matrix peak of the dtype."""
        if (peak := figures.pop("matrix_flops_per_second", None)) is not None:
            figures["matrix_flops_per_second"] = tuple({**dict(self.matrix_flops_per_second), dtype: peak}.items())
        return mark_changes(replace(self, **figures), self)

    @cached_property
    def at_higher_figures(self) -> HardwareSpec:
        """The device with the highest value in print of every disputed figure, unless the figure is one of the user's own; for bounds."""
        higher = {(name, low): high for name, (low, high) in self.disputed}
        single = ("memory_bandwidth_bytes_per_second", "vector_fp32_flops_per_second")
        matrix = ((dtype, higher.get((f"matrix_flops_per_second.{dtype}", peak), peak)) for dtype, peak in self.matrix_flops_per_second)
        changed = {name: higher.get((name, getattr(self, name)), getattr(self, name)) for name in single}
        return replace(self, **changed, matrix_flops_per_second=tuple(matrix), disputed=())

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The precisions of `DTYPE_BYTES` in which it multiplies matrices."""
        peaks = dict(self.matrix_flops_per_second)
        return tuple(dtype for dtype in DTYPE_BYTES if dtype in peaks or (dtype == "fp32" and self.vector_fp32_flops_per_second))

    def greatest_matrix_peak(self, *dtypes: str) -> float:
        """The peak of matrix products in some dtypes, or in fp32 where that is higher (as it may be for figures of one's own)."""
        vector = self.vector_fp32_flops_per_second or 0
        return max(*map(self.matrix_peak, dtypes), dict(self.matrix_flops_per_second).get("fp32", vector))

    def matrix_peak(self, dtype: str) -> float:
        """Peak FLOPs a second of matrix products in a dtype of `MATRIX_DTYPES`.

        Products in fp32 run on the matrix units where these take fp32, else on the vector units: PyTorch uses TF32 only when asked to.

        Raises:
            SpecError: the device has no such figure (T4 and V100 multiply no bf16); the message lists those it has.
        """
        peaks = dict(self.matrix_flops_per_second)
        if self.vector_fp32_flops_per_second is not None:
            peaks.setdefault("fp32", self.vector_fp32_flops_per_second)
        if dtype not in peaks:
            has = ", ".join(self.dtypes)
            raise SpecError(f"hardware.{self.name}.matrix_flops_per_second.{dtype}: {self.label} has no such figure, only of {has}")
        return peaks[dtype]


def describe_changes(name: str, changed: tuple[str, ...]) -> str:
    """A name with what was changed: "l4 (changed: memory_bytes)"."""
    return f"{name} (changed: {', '.join(changed)})" if changed else name


def mark_changes(spec: Any, own: Any) -> Any:
    """A model or a device, its label and title saying in what it differs from the config that it is named for."""
    old, new = _list_figures(own), _list_figures(spec)
    changed = tuple(key for key in {**old, **new} if old.get(key) != new.get(key))
    return replace(spec, label=describe_changes(spec.label, changed), changed=changed) if changed else spec


def _list_figures(spec: Any) -> dict[str, Any]:
    """The fields that take part in comparisons, those of towers, of page rules and of pairs by keys as overrides have them."""
    found = {}
    for key in (one.name for one in fields(spec) if one.compare):
        value = getattr(spec, key)
        if key == "towers":
            found |= {f"{tower.tower}.{name}": figure for tower in value for name, figure in vars(tower).items()}
        elif key == "learned" and value:
            found |= vars(replace(value, page_rule=type(value.page_rule)))
            found |= {f"page_rule.{name}": figure for name, figure in vars(value.page_rule).items()}
        else:
            found |= {f"{key}.{name}": figure for name, figure in value} if isinstance(value, tuple) else {key: value}
    return found


class Mode(NamedTuple):
    """A resolution mode: the side of the global view and of the tiles in pixels (tile_px 0: a single view, no tiles)."""

    name: str
    label: str
    global_px: int
    tile_px: int
    untiled_up_to_px: int = 640
