"""What is served and on what: an engine's configuration, a device, and the kinds of request that come."""

from dataclasses import dataclass
from typing import NamedTuple

from ocr_flops.cost.run_config import RunConfig
from ocr_flops.spec.host import EfficiencySpec, HostSpec
from ocr_flops.spec.serving import ServingSpec
from ocr_flops.spec.specs import HardwareSpec
from ocr_flops.spec.workload import Workload


class Page(NamedTuple):
    """A kind of request: its workload, and what share of all requests it is."""

    workload: Workload
    weight: float = 1.0


@dataclass(frozen=True)
class Deployment:
    """An engine on a device with the kinds of request that it gets.

    Args:
        config: what runs.
        hardware, host, efficiency: as of `Timing`.
        options: of the engine.
        pages: kinds of request.
        basis: what times rest on.
    """

    config: RunConfig
    hardware: HardwareSpec
    host: HostSpec
    efficiency: EfficiencySpec
    options: ServingSpec
    pages: tuple[Page, ...]
    basis: str
