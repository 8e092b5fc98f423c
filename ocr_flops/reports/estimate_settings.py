"""The settings of an estimate: the figures of its device and their sources, and the overrides that repeat it."""

from __future__ import annotations

import shlex

from ocr_flops.reports.estimate_subject import Subject
from ocr_flops.spec.catalog import load_attention, load_hardware, load_mode, load_model, names
from ocr_flops.spec.specs import STAGES, HardwareSpec
from ocr_flops.units import si

LOGITS = {"all": "all positions", "last": "the last position"}
FIGURES = ("vector_fp32_flops_per_second", "memory_bandwidth_bytes_per_second", "memory_bytes")


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
    if not _is_known(hardware):
        return f"Figures of {hardware.label}: as given for this report, not those of its manufacturer."
    documents = dict.fromkeys(f"{source.document}, {source.locator}" for source in hardware.sources)
    return f"Dense peaks of {hardware.label}, as read in: {'; '.join(documents)}."


def find_command(subject: Subject) -> str | None:
    """The command that writes this report again; None where there is none (see `find_overrides`)."""
    found = find_overrides(subject)
    return found and shlex.join(["ocr-flops", "report", *found])


def find_overrides(subject: Subject) -> list[str] | None:
    """The command-line overrides that give this estimate; None where it was made of what no config has."""
    config, workload, hardware = subject.estimate.config, subject.estimate.workload, subject.hardware
    if config.model.name not in names("model") or config.model != load_model(config.model.name) or workload.mode not in names("workload"):
        return None
    device = _find_device_overrides(hardware) if hardware else []
    if device is None:
        return None
    mode = load_mode(workload.mode)
    fields = [side for side in ("global_px", "tile_px") if getattr(workload, side) != getattr(mode, side)]
    fields += ["image_width_px", "image_height_px"] if workload.image_width_px else ["columns", "rows"]
    fields += ["prompt_tokens", "output_tokens", "batch_size"]
    stages = subject.estimate.chosen_stages
    return [
        f"workload={workload.mode}",
        *(f"workload.{name}={getattr(workload, name)}" for name in fields),
        f"model={config.model.name}",
        f"engine={config.engine.name}",
        *_attention_overrides(subject),
        f"dtype={config.dtype}",
        f"cache={config.cache}",
        f"prefill_logits={config.prefill_logits}",
        *([] if stages == STAGES else [f"stages=[{','.join(stages)}]"]),
        *device,
    ]


def _attention_overrides(subject: Subject) -> list[str]:
    config = subject.estimate.config
    attention = config.attention
    if attention.name in names("attention") and load_attention(attention.name).resolved(config.model, config.engine) == attention:
        return [f"attention={attention.name}"]
    return [f"attention.{spec.tower}={attention.kernel(spec.tower)}" for spec in config.model.attention_towers]


def _is_known(hardware: HardwareSpec) -> bool:
    return hardware.name in names("hardware") and hardware == load_hardware(hardware.name)


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
