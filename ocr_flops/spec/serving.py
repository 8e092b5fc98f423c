"""How an engine that batches continuously is set up: its scheduler's limits, its share of memory, and what runs on the CPU beside it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ocr_flops.errors import SpecError, one_of
from ocr_flops.spec.host import Ranged
from ocr_flops.spec.specs import HardwareSpec

GIB = 2**30
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
    "decoding, resizing, cutting and normalising an A4 page of 200 dpi with PIL and NumPy takes 133 to 161 ms of one CPU thread (AMD EPYC) "
    "here; 7 to 150 ms in published reports",
)


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
        preprocess_ms: what one of them takes for a page.
        ban_us: what the loop takes for a sequence and step.
    """

    max_num_batched_tokens: int
    max_num_seqs: int
    gpu_memory_utilization: float
    block_size: int = 16
    chunked_prefill: bool = True
    ngram_ban: bool = True
    preprocess_workers: int = 1
    preprocess_ms: Ranged = PREPROCESS_MS
    ban_us: Ranged = BAN_US

    def __post_init__(self) -> None:
        for name in ("max_num_batched_tokens", "max_num_seqs", "block_size", "preprocess_workers"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1_048_576:
                raise SpecError(f"{name}: {value!r} is not a whole number from 1 to 1048576")
        if not 0 < self.gpu_memory_utilization <= 1:
            raise SpecError(f"gpu_memory_utilization: {self.gpu_memory_utilization!r} is not a number above 0 and at most 1")
        self.preprocess_ms.check("preprocess_ms", 0.0, float("inf"))
        self.ban_us.check("ban_us", 0.0, float("inf"))


OPTIONS = tuple(field.name for field in fields(ServingSpec))


def serving_defaults(engine: str, hardware: HardwareSpec, **options: Any) -> ServingSpec:
    """The options that a server of an engine chooses for itself on a device, with some of them given.

    vLLM: 8192 tokens and 1024 sequences from 70 GiB on, except on A100, else 2048 and 256 (`EngineArgs.get_batch_defaults` of
    vllm/engine/arg_utils.py, OPENAI_API_SERVER); 0.92 of the memory and blocks of 16 (`CacheConfig` of vllm/config/cache.py); one thread
    that cuts pages (`renderer_num_workers` of vllm/config/model.py). SGLang: prefills of 2048 tokens below 35 GiB, 4096 below 60, 8192
    below 160 and 16384 from there on; of the memory what is left after 512 MiB, 1.5 MiB for each of these tokens and 2 MiB for each
    sequence of its graphs, at least 10 GiB above 60 GiB, times 0.95 for a vision tower (`_handle_gpu_memory_settings` and
    `adjust_mem_fraction_for_vlm` of sglang/srt/server_args.py); pages of 1 token; n-grams are banned where a request asks for it only.

    Args:
        engine: its name; any but "sglang" is set up as vLLM.
        hardware: the device.
        **options: of `ServingSpec`; None for the engine's own. Numbers for `preprocess_ms` and `ban_us` have no range.

    Raises:
        SpecError: an unknown option, or a value that it cannot have.
    """
    memory = hardware.memory_bytes / GIB
    if engine == "sglang":
        tokens = next((size for limit, size in ((35, 2048), (60, 4096), (160, 8192)) if memory < limit), 16384)
        graphs = next((size for limit, size in ((20, 8), (35, 24), (60, 32), (160, 256)) if memory < limit), 512)
        reserved = (512 + 1.5 * tokens + 2 * graphs + 128) / 1024
        share = 0.95 * (1 - (max(reserved, 10) if memory > 60 else reserved) / memory)
        chosen = {"max_num_batched_tokens": tokens, "max_num_seqs": 2048, "gpu_memory_utilization": round(share, 3)}
        chosen |= {"block_size": 1, "ngram_ban": False}
    else:
        large = memory >= 70 and not hardware.name.startswith("a100")
        tokens, sequences = (8192, 1024) if large else (2048, 256)
        chosen = {"max_num_batched_tokens": tokens, "max_num_seqs": sequences, "gpu_memory_utilization": 0.92}
    for name, value in options.items():
        one_of("options", name, OPTIONS)
        if value is not None:
            exact = name in ("preprocess_ms", "ban_us") and not isinstance(value, Ranged)
            chosen[name] = Ranged.exact(float(value)) if exact else value
    return ServingSpec(**chosen)
