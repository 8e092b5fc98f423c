"""The pool of cache that an engine is left with: its share of the device less weights and what is alive while it profiles itself."""

import functools
from typing import NamedTuple

from ocr_flops.cost.run_config import RunConfig
from ocr_flops.cost.served_passes import profiling_peak_bytes
from ocr_flops.errors import SpecError
from ocr_flops.spec.serving import ServingSpec
from ocr_flops.spec.specs import HardwareSpec
from ocr_flops.spec.workload import Workload
from ocr_flops.units import si

GRID = 2, 2  # of the image of 1280 x 1280 px that vLLM profiles itself with (`get_image_size_with_most_features` of deepseek_ocr.py)


class Pool(NamedTuple):
    """The memory of a device as an engine parts it, in bytes.

    Args:
        memory: what the engine may take.
        weights: of the model.
        peak: of activations, while the engine runs the largest step it may.
        token: what one token takes of the cache.
        blocks: of the cache, of `block_size` tokens each.
        block_size: tokens of a block.
    """

    memory: int
    weights: int
    peak: int
    token: int
    blocks: int
    block_size: int

    @property
    def tokens(self) -> int:
        """Tokens that the cache holds."""
        return self.blocks * self.block_size


@functools.lru_cache(maxsize=256)
def _peak(config: RunConfig, tokens: int, sequences: int, view: tuple[int, int]) -> int:
    """The most activations alive while an engine profiles itself with as many images as a step has tokens for."""
    page = Workload(*view, *(GRID if view[1] else (1, 1)))
    return profiling_peak_bytes(config, page, tokens, sequences, max(1, tokens // page.image_tokens))


def find_pool(config: RunConfig, hardware: HardwareSpec, options: ServingSpec, page: Workload) -> Pool:
    """The cache that is left on a device.

    Args:
        hardware, options: the device and the engine's options.
        page: of the resolution that is served.

    Raises:
        SpecError: less than one page is left; it says how much memory is missing.
    """
    weights = config.model_bytes
    token, size = config.kv_bytes_per_token, options.block_size
    peak = _peak(config, options.max_num_batched_tokens, options.max_num_seqs, (page.global_px, page.tile_px))
    memory = int(options.gpu_memory_utilization * hardware.memory_bytes)
    blocks = (memory - weights - peak) // (token * size)
    needed = weights + peak + -(-(page.context_tokens + page.output_tokens) // size) * size * token
    if memory < needed:
        raise SpecError(
            f"hardware.{hardware.name}: serving needs {si(needed, 'B')} (weights {si(weights, 'B')}, activations {si(peak, 'B')}, "
            f"the cache of one page) and has {si(memory, 'B')}, {options.gpu_memory_utilization:g} of {si(hardware.memory_bytes, 'B')}: "
            f"{si(needed - memory, 'B')} are missing"
        )
    return Pool(memory, weights, peak, token, int(blocks), size)
