"""What expected times rest on where there are records: the host and the efficiencies that a device's calibration found."""

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from ocr_flops.errors import SpecError
from ocr_flops.evidence.calibration.calibrate import calibrate
from ocr_flops.evidence.calibration.host_lane import measured_host
from ocr_flops.evidence.calibration.result import Calibration, Uncalibrated
from ocr_flops.evidence.records.cache import RECORDS, Snapshot
from ocr_flops.spec.catalog import load_efficiency, load_host
from ocr_flops.spec.host import EFFICIENCIES, HOST_FIGURES, LEAST_EFFICIENCY, Ranged
from ocr_flops.spec.run_spec import RunSpec
from ocr_flops.spec.specs import EngineSpec, HardwareSpec, ModelSpec


def fitted_conditions(found: Calibration | Uncalibrated) -> dict[str, Any]:
    """What a calibration found, as keywords of `Estimate.on`: "efficiency" and "host", each where records identify it.

    A ceiling that they do not identify keeps its published efficiency, and the label says why. The host's microseconds an operator, launch
    included, are those of decode where they show there, else of prefill or vision; the range spans the 90 % intervals of all stages. Where
    launches add to the time of operators, the host waits for every kernel. A step's other work is in no timed run and stays as published.
    """
    if isinstance(found, Uncalibrated) or found.hardware is None:
        return {}
    source = f"{found.records} timed runs on {found.device}, {found.engine.name} in {found.dtype}"
    efficiencies = {one.ceiling: one.efficiency for one in found.efficiencies if one.efficiency}
    figures = {name: Ranged(*(max(LEAST_EFFICIENCY, part) for part in one), source) for name, one in efficiencies.items()}
    kept = "; ".join(f"{one.ceiling} as published, as it {one.reason}" for one in found.efficiencies if one.reason)
    label = f"{source} ({kept})" if kept else source
    conditions: dict[str, Any] = {"efficiency": replace(load_efficiency(), name="records", label=label, **figures)} if figures else {}
    launches = [one for stage in reversed(found.stages) if (one := found.launch_seconds[stage])]
    own = load_host(found.engine.host)
    if launches and not own.graphs:
        ends = launches[0].value, min(one.low for one in launches), max(one.high for one in launches)
        contained = dict.fromkeys(("module_us", "launch_us", "kernel_floor_us"), Ranged.exact(0.0, "contained in operator_us"))
        operator, waits = Ranged(*(1e6 * end for end in ends), source), found.fitted.launches == "added"
        conditions["host"] = replace(own, name="records", label=f"host of {source}", operator_us=operator, waits=waits, **contained)
    return conditions


@lru_cache(maxsize=256)  # a plan asks for every device, at every step of a slider
def recorded_conditions(records: Snapshot, model: ModelSpec, hardware: HardwareSpec, dtype: str, engine: EngineSpec) -> dict[str, Any]:
    """`fitted_conditions` of a device's records, empty where there are none; arguments as of `calibrate`."""
    if hardware.name not in records.stages["hardware"]:
        return {}
    return fitted_conditions(calibrate(records.stages, model, hardware=hardware, dtype=dtype, engine=engine))


def with_records(run: RunSpec) -> RunSpec:
    """The same run with the figures of records, unless it gives them itself.

    Those of the host's lane under host=measured; those of the device's timed runs under efficiency=records and, where there are any, in
    place of a host and efficiencies that were not chosen.

    Raises:
        SpecError: there is no such record.
    """
    if run.host is not None and run.host.name == "measured":
        run = replace(run, host=_filled(measured_host(run.engine.name), run.host, load_host("measured"), HOST_FIGURES))
    if run.hardware is None or (run.host and run.efficiency and run.efficiency.name != "records"):
        return run
    records, what = RECORDS.snapshot(), (run.model, run.hardware, run.dtype, run.engine)
    host, efficiency = (recorded_conditions(records, *what).get(name) for name in ("host", "efficiency"))
    if run.efficiency and run.efficiency.name == "records":
        if efficiency is None:
            found = calibrate(records.stages, run.model, hardware=run.hardware, dtype=run.dtype, engine=run.engine)
            reason = found.reason if isinstance(found, Uncalibrated) else f"records of {found.device} identify no efficiency"
            raise SpecError(f"efficiency=records: {reason}; or choose efficiency=published or peak")
        run = replace(run, efficiency=_filled(efficiency, run.efficiency, load_efficiency("records"), EFFICIENCIES))
    return replace(run, host=run.host or host, efficiency=run.efficiency or efficiency) if host or efficiency else run


def _filled(found: Any, chosen: Any, placeholder: Any, names: Iterable[str]) -> Any:
    """What was found, with the figures that were chosen in place of the placeholder's."""
    return replace(found, **{name: given for name in names if (given := getattr(chosen, name)) != getattr(placeholder, name)})
