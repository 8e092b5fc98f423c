"""What was asked, resolved: as names and values for people, and as the overrides that repeat it."""

from __future__ import annotations

import shlex

from ocr_flops.reports.estimate_subject import Subject
from ocr_flops.spec.catalog import load_attention, load_engine, load_hardware, load_mode, load_model, names
from ocr_flops.spec.specs import STAGES, HardwareSpec
from ocr_flops.units import si

LOGITS = {"all": "all positions", "last": "the last position"}
FIGURES = ("vector_fp32_flops_per_second", "memory_bandwidth_bytes_per_second", "memory_bytes")


def resolved(subject: Subject) -> dict[str, dict[str, str]]:
    """Every choice behind the numbers, in groups."""
    config, workload, hardware = subject.estimate.config, subject.estimate.workload, subject.hardware
    attention = config.attention
    tiled = workload.tiles > 0
    page = {
        "resolution mode": workload.mode or "none",
        "page": f"{workload.image_width_px:,} × {workload.image_height_px:,} px" if workload.image_width_px else "size not given",
        "grid": f"{workload.columns} × {workload.rows} (columns × rows)" if tiled else "no tiles",
        "global view": f"{workload.global_px:,} px",
        "tiles": f"{workload.tiles:,} of {workload.tile_px:,} px" if tiled else "none",
    }
    tokens = {
        "image": f"{workload.image_tokens:,}",
        "prompt": f"{workload.prompt_tokens:,}",
        "context": f"{workload.context_tokens:,} (image and prompt)",
        "output": f"{workload.output_tokens:,}, a decode step each",
        "batch": f"{workload.batch_size:,} equal pages" if workload.batch_size > 1 else "1 page",
    }
    software = {
        "model": config.model.label,
        "parameters": f"{sum(config.parameters.values()):,}",
        "engine": config.engine.label,
        "attention": attention.name,
        **{f"in {spec.label}": attention.kernel(spec.tower) for spec in config.model.attention_towers},
        "precision": config.dtype,
        "KV cache": config.cache,
        "logits in prefill": LOGITS[config.prefill_logits],
        "stages": ", ".join(subject.estimate.chosen_stages),
    }
    return {"Page": page, "Tokens of a page": tokens, "Software": software, **({"Device": figures(hardware)} if hardware else {})}


def figures(hardware: HardwareSpec) -> dict[str, str]:
    """A device's label, peaks, bandwidth and memory."""
    vector = hardware.vector_fp32_flops_per_second
    peaks = {f"matrix peak, {dtype}": si(peak, "FLOP/s") for dtype, peak in hardware.matrix_flops_per_second}
    return {
        "device": hardware.label,
        **peaks,
        "vector peak, fp32": si(vector, "FLOP/s") if vector else "not published",
        "memory bandwidth": si(hardware.memory_bandwidth_bytes_per_second, "B/s"),
        "memory": si(hardware.memory_bytes, "B"),
    }


def sources(hardware: HardwareSpec) -> str:
    """Where a device's figures come from, in a sentence."""
    if _edited(hardware):
        return f"Figures of {hardware.label}: as given for this report, not those of its maker."
    documents = dict.fromkeys(f"{source.document}, {source.locator}" for source in hardware.sources)
    return f"Dense peaks of {hardware.label}, as read in: {'; '.join(documents)}."


def overrides(subject: Subject) -> list[str] | None:
    """The command-line overrides that give this estimate; None where it was made of what no config has."""
    config, workload, hardware = subject.estimate.config, subject.estimate.workload, subject.hardware
    chosen = (("model", config.model.name), ("workload", workload.mode), *((("hardware", hardware.name),) if hardware else ()))
    if any(name not in names(group) for group, name in chosen) or config.model != load_model(config.model.name):
        return None
    device = _device_overrides(hardware) if hardware else []
    if device is None:
        return None
    mode = load_mode(workload.mode)
    found = [f"workload={workload.mode}"]
    found += [
        f"workload.{side}={getattr(workload, side)}" for side in ("global_px", "tile_px") if getattr(workload, side) != getattr(mode, side)
    ]
    if workload.image_width_px:
        found += [f"workload.{side}={getattr(workload, side)}" for side in ("image_width_px", "image_height_px")]
    else:
        found += [f"workload.{side}={getattr(workload, side)}" for side in ("columns", "rows")]
    found += [f"workload.{name}={getattr(workload, name)}" for name in ("prompt_tokens", "output_tokens", "batch_size")]
    found += [f"model={config.model.name}", f"engine={config.engine.name}", *_attention(subject)]
    found += [f"dtype={config.dtype}", f"cache={config.cache}", f"prefill_logits={config.prefill_logits}"]
    if subject.estimate.chosen_stages != STAGES:
        found.append(f"stages=[{','.join(subject.estimate.chosen_stages)}]")
    return found + device


def command(subject: Subject) -> str | None:
    """The command that writes this report again; None where there is none (see `overrides`)."""
    found = overrides(subject)
    return found and shlex.join(["ocr-flops", "report", *found])


def _attention(subject: Subject) -> list[str]:
    config = subject.estimate.config
    model, attention, engine = config.model, config.attention, load_engine(config.engine.name)
    if attention.name in names("attention") and load_attention(attention.name).resolved(model, engine) == attention:
        return [f"attention={attention.name}"]
    return [f"attention.{spec.tower}={attention.kernel(spec.tower)}" for spec in model.attention_towers]


def _edited(hardware: HardwareSpec) -> bool:
    return hardware.name not in names("hardware") or hardware != load_hardware(hardware.name)


def _device_overrides(hardware: HardwareSpec) -> list[str] | None:
    """A device and what was changed of it; None where it was given a figure that its config has no key for."""
    known = load_hardware(hardware.name)
    before, peaks = dict(known.matrix_flops_per_second), dict(hardware.matrix_flops_per_second)
    if set(peaks) != set(before):
        return None
    found = [f"hardware={hardware.name}"]
    found += [f"hardware.{name}={getattr(hardware, name)!r}" for name in FIGURES if getattr(hardware, name) != getattr(known, name)]
    return found + [f"hardware.matrix_flops_per_second.{name}={peak!r}" for name, peak in peaks.items() if peak != before[name]]
