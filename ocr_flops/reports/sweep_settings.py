"""What a sweep was asked for: in a line, and as names and values in groups."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ocr_flops.reports.estimate_settings import LOGITS, list_figures, name_sources
from ocr_flops.studies.sweeps.folder import list_versions
from ocr_flops.units import seconds, si

if TYPE_CHECKING:
    from ocr_flops.reports.sweep_report import SweepReport
    from ocr_flops.spec.run_spec import RunSpec
    from ocr_flops.spec.specs import HardwareSpec
    from ocr_flops.studies.sweeps.plan import Sweep

MOST = 6  # values that are listed; of more, the ends and how many
LONG = 1e6  # numbers are short from here on
TARGETS = {"ttft": "to the first token (TTFT)", "tpot": "per output token (TPOT)"}
AXES = {  # what has another name on a command line
    "attention": "attention modes",
    "cache": "KV caches",
    "dtype": "precisions",
    "engine": "engines",
    "hardware": "devices",
    "model": "models",
    "workload": "resolution modes",
    "workload.batch_size": "pages in a batch",
}
TEXT = {"prompt tokens": "prompt_tokens", "output tokens": "output_tokens", "pages in a batch": "batch_size"}
Facts = dict[str, dict[str, str]]


def title(sweep: Sweep) -> str:
    """What it is a sweep over."""
    begin = f"{listed(case.run.model.label for case in sweep.cases)}, a sweep"
    if sweep.name != "product":
        return f"{begin}: {sweep.label.replace('<=', '≤')}"
    varied = [AXES.get(key, key.removeprefix("workload.").replace("_", " ")) for key in sweep.config["sweep"]["axes"]]
    return f"{begin} over {', '.join(varied)}" if sweep.points > 1 else f"{begin} of one point"


def conditions(report: SweepReport) -> str:
    """The sweep in a line."""
    sweep = report.sweep
    software, devices = _software(sweep), _devices(sweep)
    points = f"{sweep.points:,} point{'s' if sweep.points > 1 else ''}"
    attention, cache = f"attention {software['attention']}", f"{software['KV cache']} cache"
    where = f"on {listed(device.label for device in devices)}" if devices else "no device, hence no times"
    return "; ".join([points, software["engine"], attention, software["precision"], cache, where])


def asked(report: SweepReport) -> Facts:
    """Every choice behind a sweep, and what computed it, in groups."""
    sweep, targets = report.sweep, {TARGETS[phase]: seconds(target) for phase, target in report.results.targets.items()}
    found = {"Sweep": _sweep(sweep), "Page and text": _page(sweep), "Software": _software(sweep), "Targets": targets}
    by_label: dict[str, list[HardwareSpec]] = {}
    for device in _devices(sweep):
        by_label.setdefault(device.label, []).append(device)
    for number, (label, alike) in enumerate(by_label.items()):
        told = [list_figures(device) for device in alike]
        if number < MOST:
            found[label] = {name: listed(one[name] for one in told) for name in told[0] if name != "device"}
    return {**found, "Versions": list_versions()}


def figures_from(report: SweepReport) -> list[str]:
    """Where the devices' figures come from, a sentence each."""
    return list(dict.fromkeys(name_sources(device) for device in _devices(report.sweep)))


def listed(values: Iterable[object]) -> str:
    """Values, each once: all of a few, else the ends of numbers, or the first and the last, and how many."""
    found = list(dict.fromkeys(values))
    words = [_word(value) for value in found]
    if len(found) <= MOST:
        return ", ".join(words)
    ends = (_word(min(found)), _word(max(found))) if all(not isinstance(value, str) for value in found) else (words[0], words[-1])
    return f"{ends[0]} to {ends[1]}, {len(found):,} values"


def _word(value: object) -> str:
    if isinstance(value, str) or value is None:
        return value or "none"
    return si(value) if abs(value) >= LONG else f"{value:,.6g}"


def _devices(sweep: Sweep) -> list[HardwareSpec]:
    return list(dict.fromkeys(case.run.hardware for case in sweep.cases if case.run.hardware))


def _sweep(sweep: Sweep) -> dict[str, str]:
    labels = {key: listed(dict(case.labels)[key] for case in sweep.cases) for key, _ in sweep.cases[0].labels}
    left_out = [f"{what}: {reason}" for what, reason in sweep.skipped]
    return {
        "asked for": sweep.label.replace("<=", "≤"),
        "points": f"{sweep.points:,}",
        "stages": ", ".join(sweep.stages),
        **labels,
        "real model": f"ran beside it, on {sweep.measure}" if sweep.measure else "did not run beside it",
        **(
            {"left out": "; ".join([*left_out[:MOST], *([f"{len(left_out) - MOST:,} more"] if len(left_out) > MOST else [])])}
            if left_out
            else {}
        ),
    }


def _page(sweep: Sweep) -> dict[str, str]:
    keys, axes = [case.keys for case in sweep.cases], dict(sweep.axes)

    def values(name: str) -> str:
        return listed(axes[name].tolist() if name in axes else (getattr(one, name) for one in keys))

    found = {"resolution mode": listed(one.name for one in keys), "global view, px": values("global_px"), "tile, px": values("tile_px")}
    if sweep.pages and sweep.pages.images:
        found["pages"] = f"{len(sweep.pages):,}, from {listed(file for file, _ in sweep.pages.images)}"
    elif sweep.pages:
        grids = zip(*(sweep.pages.fields[name].tolist() for name in ("columns", "rows")), strict=True)
        found["grids"] = f"{listed(f'{columns} × {rows}' for columns, rows in grids)} (columns × rows)"
    elif "columns" in axes or "rows" in axes or keys[0].columns is not None:
        found |= {name: values(name) for name in ("columns", "rows")}
    else:
        found |= {name: values(column) for name, column in {"width, px": "image_width_px", "height, px": "image_height_px"}.items()}
    return found | {name: values(column) for name, column in TEXT.items()}


def _software(sweep: Sweep) -> dict[str, str]:
    runs = [case.run for case in sweep.cases]
    return {
        "model": listed(run.model.label for run in runs),
        "engine": listed(run.engine.label for run in runs),
        "attention": listed(_attention(run) for run in runs),
        "precision": listed(run.dtype for run in runs),
        "KV cache": listed(run.cache for run in runs),
        "logits in prefill": listed(LOGITS[run.prefill_logits] for run in runs),
    }


def _attention(run: RunSpec) -> str:
    resolved = run.attention.resolved(run.model, run.engine)
    kernels = {spec.label: resolved.kernel(spec.tower) for spec in run.model.attention_towers}
    if len(set(kernels.values())) == 1:
        (kernel,) = set(kernels.values())
        return resolved.name if resolved.name == kernel else f"{resolved.name} ({kernel})"
    return f"{resolved.name} ({', '.join(f'{kernel} in {tower}' for tower, kernel in kernels.items())})"
