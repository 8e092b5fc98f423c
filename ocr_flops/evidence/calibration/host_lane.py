"""The host fitted to records of its lane: microseconds an operator and a module call, by non-negative least squares.

The seconds of a module in a stage are modelled as operator_us x operators + module_us x calls of modules with weights; each square is
divided by the seconds measured. The range is what the worst stages ask for: low is the fit times the least ratio of measured to fitted
seconds of a stage; high the fit times the greatest, with the measured median in place of the lowest tenth.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ocr_flops.errors import SpecError
from ocr_flops.evidence.records.host_lane import HostLane, HostStage, read_host_lanes
from ocr_flops.spec.catalog import load_host
from ocr_flops.spec.host import HostSpec, Ranged


class HostFit(NamedTuple):
    """Microseconds an operator and a module call, each with its range and source."""

    operator_us: Ranged
    module_us: Ranged

    def seconds(self, stage: HostStage) -> float:
        """The seconds that the fit gives a stage."""
        return 1e-6 * (self.operator_us.value * stage.operators + self.module_us.value * stage.module_calls)


def fit_host(record: HostLane) -> HostFit:
    """Fit the host to a record."""
    from scipy.optimize import nnls

    rows = [
        one for stage in record.stages.values() for one in stage.modules.values() if one.seconds and (one.operators or one.module_calls)
    ]
    counts = np.array([(one.operators, one.module_calls) for one in rows], dtype=float)
    taken = np.array([one.seconds * 1e6 for one in rows])
    operator, module = nnls(counts / np.sqrt(taken)[:, None], np.sqrt(taken))[0].tolist()
    fitted = {name: 1e-6 * (operator * stage.operators + module * stage.module_calls) for name, stage in record.stages.items()}
    low = min(1.0, *(stage.seconds / fitted[name] for name, stage in record.stages.items()))
    high = max(1.0, *(stage.median_seconds / fitted[name] for name, stage in record.stages.items()))
    load = "" if record.load[0] is None else f", load {record.load[0]:.1f}"
    source = (
        f"measured with tiny widths on one thread of {record.device_name}, {record.engine} under torch {record.torch} and transformers "
        f"{record.transformers}, {record.finished[:10]}{load}"
    )
    return HostFit(*(Ranged(value, low * value, high * value, source) for value in (operator, module)))


def measured_host(engine: str = "transformers", records: Sequence[HostLane] | None = None) -> HostSpec:
    """The host as it was measured: of the first record of an engine, else of another engine's, which the source names.

    Launch, step and kernel floor, which cannot be measured without a device, are those of configs/host/measured.yaml.

    Args:
        engine: "transformers", "remote_code", ...
        records: of `read_host_lanes`, in their order; None reads them.

    Raises:
        SpecError: there is no record.
    """
    records = read_host_lanes() if records is None else records
    chosen = next((record for record in records if record.engine == engine), next(iter(records), None))
    if chosen is None:
        raise SpecError("host=measured: the host was not measured here; run ocr-flops measure --lane host, or choose eager, graphs or none")
    return replace(load_host("measured"), label=f"host measured with {chosen.engine} on {chosen.device_name}", **fit_host(chosen)._asdict())
