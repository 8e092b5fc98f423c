"""How an engine that batches continuously is set up: its scheduler's limits, its share of memory, and what runs on the CPU beside it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ocr_flops.errors import SpecError, one_of, whole_number
from ocr_flops.spec.host import Ranged
from ocr_flops.spec.workload import Workload

BAN_US = Ranged(
    30,
    15,
    60,
    "a Python loop over n-grams of 20 to 40 in windows of 50 to 100 tokens takes 14 to 41 us on one CPU thread; high: a slow one",
)
PREPROCESS_MS = Ranged(
    140,
    7,
    220,
    "decoding, resizing, cutting and normalising an A4 page of 200 dpi in Gundam with PIL and NumPy takes 133 to 181 ms of one CPU thread "
    "(AMD EPYC) here; 7 to 150 ms in published reports",
)
A4_PIXELS, GUNDAM_PIXELS = 1654 * 2339, 1024**2 + 6 * 640**2  # of that page, and of its views
READING = 0.28  # of that time, which grows with the page's pixels; the rest with those of its views


@dataclass(frozen=True)
class ServingSpec:
    """Options of a serving engine, by the names that vLLM gives them.

    Args:
        max_num_batched_tokens: tokens of one step at most, of running sequences and of prefill together.
        max_num_seqs: sequences that run at once at most.
        gpu_memory_utilization: part of the device's memory that weights, activations and cache may take together.
        block_size: tokens of one block of the paged cache.
        chunked_prefill: whether a prompt may be prefilled in several steps, beside running sequences.
        ngram_ban: whether n-grams that repeat are forbidden by a Python loop over every sequence in every step.
        preprocess_workers: threads that cut pages into views.
        preprocess_ms: what one of them takes for an A4 page of 200 dpi in Gundam (see `cutting_part`).
        ban_us: what the loop takes for a sequence and step.
    """

    max_num_batched_tokens: int
    max_num_seqs: int
    gpu_memory_utilization: float
    block_size: int
    chunked_prefill: bool = True
    ngram_ban: bool = True
    preprocess_workers: int = 1
    preprocess_ms: Ranged = PREPROCESS_MS
    ban_us: Ranged = BAN_US

    def __post_init__(self) -> None:
        for name in ("max_num_batched_tokens", "max_num_seqs", "block_size", "preprocess_workers"):
            whole_number(name, getattr(self, name), 1, 1_048_576)
        if not 0 < self.gpu_memory_utilization <= 1:
            raise SpecError(f"gpu_memory_utilization: {self.gpu_memory_utilization!r} is not a number above 0 and at most 1")
        self.preprocess_ms.check("preprocess_ms", 0.0, float("inf"))
        self.ban_us.check("ban_us", 0.0, float("inf"))


def cutting_part(page: Workload) -> float:
    """What cutting a page into its views takes, beside an A4 page of 200 dpi in Gundam: by its pixels and those of its views.

    Measured with PIL, of a JPEG and a PNG, are 0.29 and 0.42 in Tiny, 0.38 and 0.50 in Base, 0.58 and 0.62 in Large, where this says 0.33,
    0.50 and 0.62. A page whose size is not known is as large as that one.
    """
    own = page.image_width_px * page.image_height_px or A4_PIXELS
    views = page.global_px**2 + page.tiles * page.tile_px**2
    return READING * own / A4_PIXELS + (1 - READING) * views / GUNDAM_PIXELS


OPTIONS = tuple(field.name for field in fields(ServingSpec))


def choose_options(own: Mapping[str, Any], given: Mapping[str, Any]) -> ServingSpec:
    """The options of an engine with some of them given.

    Args:
        own: what the engine chooses, as of `Vllm.serving_options`.
        given: of `ServingSpec`; None for the engine's own. Numbers for `preprocess_ms` and `ban_us` have no range.

    Raises:
        SpecError: an unknown option, or a value that it cannot have.
    """
    chosen = dict(own)
    for name, value in given.items():
        one_of("options", name, OPTIONS)
        if value is not None:
            exact = name in ("preprocess_ms", "ban_us") and not isinstance(value, Ranged)
            chosen[name] = Ranged.exact(float(value)) if exact else value
    return ServingSpec(**chosen)
