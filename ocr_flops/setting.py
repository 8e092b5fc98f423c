"""Everything that the app's controls say: a scenario on a device, and the targets of its plan."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ocr_flops.config import load_hardware
from ocr_flops.scenario import Scenario
from ocr_flops.specs import HardwareSpec

FIGURES = ("matrix_flops_per_second", "vector_fp32_flops_per_second", "memory_bandwidth_bytes_per_second", "memory_bytes")


@dataclass(frozen=True)
class Setting(Scenario):
    """A scenario on a device; fields beyond `Scenario`'s:

    Args:
        gpu: a config of the group `hardware`.
        matrix_flops_per_second, vector_fp32_flops_per_second, memory_bandwidth_bytes_per_second, memory_bytes: figures that take the
            place of the device's own (the matrix peak is that of `dtype`); None leaves the device's.
        ttft_ms, tpot_ms: targets of the plan in milliseconds; None for none.
        price: of a device hour, in any currency; None for none.
    """

    gpu: str = "l4"
    matrix_flops_per_second: float | None = None
    vector_fp32_flops_per_second: float | None = None
    memory_bandwidth_bytes_per_second: float | None = None
    memory_bytes: float | None = None
    ttft_ms: float | None = 500.0
    tpot_ms: float | None = 20.0
    price: float | None = None

    @cached_property
    def device(self) -> HardwareSpec:
        """The device with the figures given for it.

        Raises:
            SpecError: an unknown device, a figure that is not a number above 0, or no matrix peak for the precision.
        """
        given = {name: value for name in FIGURES if (value := getattr(self, name)) is not None}
        device = load_hardware(self.gpu).edited(self.dtype, **given)
        device.matrix_peak(self.dtype)
        return device
