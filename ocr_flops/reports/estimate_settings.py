"""The settings of an estimate: its attention kernels, the figures of its device and their sources, and the overrides that repeat it."""

import json
from collections.abc import Iterable

from ocr_flops.evidence.calibration.conditions import recorded_conditions
from ocr_flops.evidence.calibration.host_lane import measured_host
from ocr_flops.evidence.records.cache import RECORDS
from ocr_flops.reports.estimate_subject import Subject
from ocr_flops.spec.catalog import load_attention, load_efficiency, load_engine, load_hardware, load_host, load_mode, load_model, names
from ocr_flops.spec.host import EFFICIENCIES, HOST_FIGURES
from ocr_flops.spec.specs import STAGES, AttentionSpec, EngineSpec, HardwareSpec, ModelSpec
from ocr_flops.spec.workload import REST
from ocr_flops.timing.timing import Timing
from ocr_flops.units import si

LOGITS = {"all": "all positions", "last": "the last position"}
FIGURES = ("vector_fp32_flops_per_second", "memory_bandwidth_bytes_per_second", "memory_bytes")


def name_kernels(model: ModelSpec, attention: AttentionSpec) -> str:
    """The kernel of all towers, or of each where they differ: "sdpa in SAM, eager in the decoder"."""
    kernels = {spec.label: attention.kernel(spec.tower) for spec in model.attention_towers}
    if len(set(kernels.values())) == 1:
        return kernels.popitem()[1]
    return ", ".join(f"{kernel} in {tower}" for tower, kernel in kernels.items())


def list_figures(hardware: HardwareSpec) -> dict[str, str]:
    """A device's label, peaks, bandwidth and memory."""
    vector = hardware.vector_fp32_flops_per_second
    return {
        "device": hardware.label,
        **{f"matrix peak, {dtype}": si(peak, "FLOP/s") for dtype, peak in hardware.matrix_flops_per_second},
        "vector peak, fp32": si(vector, "FLOP/s") if vector else "not published",
        "memory bandwidth": si(hardware.memory_bandwidth_bytes_per_second, "B/s"),
        "memory": si(hardware.memory_bytes, "B"),
    }


def name_sources(hardware: HardwareSpec) -> str:
    """Where a device's figures come from, in a sentence."""
    if hardware.name not in names("hardware") or hardware != load_hardware(hardware.name):
        return f"Figures of {hardware.label}: as given for this report, not those of its manufacturer."
    documents = dict.fromkeys(f"{source.document}, {source.locator}" for source in hardware.sources)
    return f"Dense peaks of {hardware.label}, as read in: {'; '.join(documents)}."


def find_overrides(subject: Subject) -> list[str] | None:
    """The command-line overrides that give this estimate; None where it was made of what no config has."""
    config, workload, stages = subject.estimate.config, subject.estimate.workload, subject.estimate.chosen_stages
    has_mode = workload.page_rule or workload.mode in names("workload")
    if not has_mode or config.model.name not in names("model") or config.model != load_model(config.model.name):
        return None
    device = _find_device_overrides(subject.hardware) if subject.hardware else []
    times = _find_time_overrides(subject.timing) if subject.timing else []
    if device is None or times is None:
        return None
    mode = workload if workload.page_rule else load_mode(workload.mode)
    fields = [side for side in ("global_px", "tile_px") if getattr(workload, side) != getattr(mode, side)]
    fields += ["image_width_px", "image_height_px"] if workload.image_width_px else ["columns", "rows"]
    fields += [*REST[:3], *(["pages"] if workload.pages > 1 else [])]
    attention = [f"attention.{spec.tower}={config.attention.kernel(spec.tower)}" for spec in config.model.attention_towers]
    name = config.attention.name
    if name in names("attention") and load_attention(name).resolved(config.model, config.engine) == config.attention:
        attention = [f"attention={name}"]
    return [
        *([] if workload.page_rule else [f"workload={workload.mode}"]),
        *(f"workload.{field}={getattr(workload, field)}" for field in fields),
        f"model={config.model.name}",
        f"engine={config.engine.name}",
        *_engine_overrides(config.engine),
        *attention,
        f"dtype={config.dtype}",
        *([] if config.engine.block_tokens else [f"cache={config.cache}"]),
        f"prefill_logits={config.prefill_logits}",
        *([] if stages == STAGES else [f"stages=[{','.join(stages)}]"]),
        *device,
        *times,
    ]


def _engine_overrides(engine: EngineSpec) -> list[str]:
    """The overrides of an engine's options, where they are not those of its config."""
    own = load_engine(engine.name)
    options = (name for name in ("packs_images", "block_tokens", "weights", "cache") if getattr(engine, name) != getattr(own, name))
    return [f"engine.{name}={json.dumps(getattr(engine, name)).strip(chr(34))}" for name in options]


def _find_device_overrides(hardware: HardwareSpec) -> list[str] | None:
    """A device and its changed figures; None where no config has the device or a key for one of its figures."""
    if hardware.name not in names("hardware"):
        return None
    known, peaks = load_hardware(hardware.name), dict(hardware.matrix_flops_per_second)
    published = dict(known.matrix_flops_per_second)
    if set(peaks) != set(published):
        return None
    changed = {name: getattr(hardware, name) for name in FIGURES if getattr(hardware, name) != getattr(known, name)}
    changed |= {f"matrix_flops_per_second.{dtype}": peak for dtype, peak in peaks.items() if peak != published[dtype]}
    return [f"hardware={hardware.name}", *(f"hardware.{name}={value!r}" for name, value in changed.items())]


def _find_time_overrides(timing: Timing) -> list[str] | None:
    """The host and the efficiencies, with their changed figures, where they are not the defaults; None where nothing gives them."""
    host, efficiency, config = timing.host, timing.efficiency, timing.estimate.config
    recorded = recorded_conditions(RECORDS.snapshot(), config.model, timing.hardware, config.dtype, config.engine)
    defaults = {"host": load_host(config.engine.host), "efficiency": load_efficiency()} | recorded
    own, reached = defaults["host"], defaults["efficiency"]
    if host.name not in (own.name, *names("host")) or efficiency.name not in (reached.name, "published", "peak"):
        return None
    known_host = own if host.name == own.name else measured_host(config.engine.name) if host.name == "measured" else load_host(host.name)
    if host.graphs != known_host.graphs or host.waits != known_host.waits or (host.name == "records" and host != own):
        return None
    known = reached if efficiency.name == reached.name else load_efficiency(efficiency.name)
    figures = _find_ranged_overrides("efficiency", efficiency, known, EFFICIENCIES)
    is_chosen = efficiency.name != reached.name or (figures and efficiency.name == "records")
    return [
        *([f"host={host.name}"] if host.name != own.name else []),
        *_find_ranged_overrides("host", host, known_host, HOST_FIGURES),
        *([f"efficiency={efficiency.name}"] if is_chosen else []),
        *figures,
    ]


def _find_ranged_overrides(group: str, chosen: object, known: object, figures: Iterable[str]) -> list[str]:
    """The figures of a group that are not those of its config."""
    found = []
    for name in figures:
        value, low, high = figure = getattr(chosen, name)[:3]
        if figure != getattr(known, name)[:3]:
            text = repr(value) if low == high else f"{{value: {value!r}, low: {low!r}, high: {high!r}}}"
            found.append(f"{group}.{name}={text}")
    return found
