"""Everything that the app's controls say: a scenario on a device, and the targets of its plan."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ocr_flops.app.scenario import Scenario
from ocr_flops.errors import SpecError
from ocr_flops.spec import load_hardware
from ocr_flops.spec.specs import DTYPE_BYTES, HardwareSpec

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
    def hardware(self) -> HardwareSpec:
        """The device with the figures given for it, whether or not they give times: its memory needs no matrix peak.

        Raises:
            SpecError: an unknown device, or a figure that is not a number above 0.
        """
        given = {name: value for name in FIGURES if (value := getattr(self, name)) is not None}
        return load_hardware(self.gpu).edited(self.dtype, **given)

    @cached_property
    def device(self) -> HardwareSpec:
        """`hardware`, which gives times.

        Raises:
            SpecError: as `hardware`, or no matrix peak for the precision.
        """
        if not _multiplies(self.hardware, self.dtype):
            others = " or ".join(dtype for dtype in DTYPE_BYTES if _multiplies(self.hardware, dtype))
            raise SpecError(f"{self.hardware.label} has no {self.dtype} figure: choose {others}, or enter one under 'edit its figures'")
        return self.hardware


def _multiplies(device: HardwareSpec, dtype: str) -> bool:
    try:
        device.matrix_peak(dtype)
    except SpecError:
        return False
    return True
