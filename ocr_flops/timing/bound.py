"""`bound_seconds`: what no implementation of a model on a device undercuts, one number a stage or module for all settings.

It depends on workload, model, device and precision (also of weights and cache, where an engine has them in fp8), not on engine, attention
mode, cache, logits kept or experts hit. It is the largest of three times: the least matrix FLOPs and the least vector FLOPs at their peaks,
and the elements that must be moved at the memory bandwidth.
Where sources of a figure disagree, it takes the higher one, the roofline the lower.
"""

import functools
from collections.abc import Sequence

import numpy as np

from ocr_flops.cost.models.base import LeastWork
from ocr_flops.cost.polynomial import evaluate
from ocr_flops.cost.run_config import PIPELINES, RunConfig
from ocr_flops.cost.stage_groups import StageGroup
from ocr_flops.spec.specs import FP8, HardwareSpec, ModelSpec

ROUNDING = 1e-14  # taken off, so that no sum in floats that equals a bound is a hair below it


@functools.cache
def _least_work(model: ModelSpec, stage: str, sizes: tuple[int, ...]) -> tuple[dict[str | None, LeastWork], LeastWork]:
    """The least work of a stage's modules, and of the whole stage with its input and output."""
    work = PIPELINES.find(model.pipeline).least_work(model, stage, sizes)
    whole = LeastWork(*map(sum, zip(*work.values(), strict=True)))
    return work, whole


def bound_seconds(group: StageGroup, config: RunConfig, hardware: HardwareSpec, modules: Sequence[str | None] = (None,)) -> np.ndarray:
    """The bounds of a stage's modules (None: of the whole stage): [module, point].

    Raises:
        SpecError: the device has no matrix peak for the precision.
    """
    device = hardware.at_higher_figures
    work, whole = _least_work(config.model, group.stage, group.sizes)
    rates = (
        device.greatest_matrix_peak(config.dtype, *([FP8] if config.engine.weights else [])),
        device.vector_fp32_flops_per_second or np.inf,
        device.memory_bandwidth_bytes_per_second / config.least_itemsize,
    )
    bounds = np.zeros((len(modules), group.workload.points))
    for bound, module in zip(bounds, modules, strict=True):
        for least, rate in zip(whole if module is None else work.get(module, ()), rates, strict=False):
            np.maximum(bound, evaluate(least, group.summed) / rate, out=bound)
    return bounds * (1 - ROUNDING)
