"""The settings of a sweep: in a line, and as names and values in groups."""

from __future__ import annotations

from collections.abc import Iterable

from ocr_flops.reports.estimate_settings import LOGITS, list_figures, name_sources
from ocr_flops.spec.run_spec import RunSpec
from ocr_flops.spec.specs import HardwareSpec
from ocr_flops.studies.sweeps.folder import list_versions
from ocr_flops.studies.sweeps.plan import Sweep
from ocr_flops.studies.sweeps.results import Results
from ocr_flops.units import seconds, si

MOST = 6  # values that are listed; of more, the ends and how many
LONG = 1e6  # numbers are short from here on
TARGETS = {"ttft": "to the first token (TTFT)", "tpot": "per output token (TPOT)"}
AXES = {  # what has another name on a command line
    "attention": "attention",
    "cache": "KV caches",
    "dtype": "precisions",
    "engine": "engines",
    "hardware": "devices",
    "model": "models",
    "workload": "resolutions",
    "workload.batch_size": "pages in a batch",
}
TEXT = {"prompt tokens": "prompt_tokens", "output tokens": "output_tokens", "pages in a batch": "batch_size"}
Facts = dict[str, dict[str, str]]


def title_sweep(sweep: Sweep) -> str:
    """What it is a sweep over."""
    begin = f"{list_values(case.run.model.label for case in sweep.cases)}, a sweep"
    if sweep.name != "product":
        return f"{begin}: {sweep.label.replace('<=', '≤')}"
    varied = [AXES.get(key, key.removeprefix("workload.").replace("_", " ")) for key in sweep.config["sweep"]["axes"]]
    return f"{begin} over {', '.join(varied)}" if sweep.points > 1 else f"{begin} of one point"


def describe_conditions(sweep: Sweep) -> str:
    """The sweep in a line."""
    software, devices = _list_software(sweep), _list_devices(sweep)
    points = f"{sweep.points:,} point{'s' if sweep.points > 1 else ''}"
    attention, cache = f"attention {software['attention']}", f"{software['KV cache']} cache"
    where = f"on {list_values(device.label for device in devices)}" if devices else "no device, hence no times"
    return "; ".join([points, software["engine"], attention, software["precision"], cache, where])


def list_settings(results: Results) -> Facts:
    """Every choice behind a sweep, and what computed it, in groups."""
    sweep, targets = results.sweep, {TARGETS[phase]: seconds(target) for phase, target in results.targets.items()}
    found = {"Sweep": _list_choices(sweep), "Page and text": _list_page(sweep), "Software": _list_software(sweep), "Targets": targets}
    by_label: dict[str, list[HardwareSpec]] = {}
    for device in _list_devices(sweep):
        by_label.setdefault(device.label, []).append(device)
    for label, alike in list(by_label.items())[:MOST]:
        known = [list_figures(device) for device in alike]
        found[label] = {name: list_values(one[name] for one in known) for name in known[0] if name != "device"}
    return {**found, "Versions": list_versions()}


def list_sources(sweep: Sweep) -> list[str]:
    """Where the devices' figures come from, a sentence each."""
    return list(dict.fromkeys(name_sources(device) for device in _list_devices(sweep)))


def list_values(values: Iterable[object]) -> str:
    """Values, each once: all of a few, else the ends of numbers, or the first and the last, and how many."""
    found = list(dict.fromkeys(values))
    words = [_format_value(value) for value in found]
    if len(found) <= MOST:
        return ", ".join(words)
    ends = (
        (_format_value(min(found)), _format_value(max(found)))
        if all(not isinstance(value, str) for value in found)
        else (words[0], words[-1])
    )
    return f"{ends[0]} to {ends[1]}, {len(found):,} values"


def _format_value(value: object) -> str:
    if isinstance(value, str) or value is None:
        return value or "none"
    return si(value) if abs(value) >= LONG else f"{value:,.6g}"


def _list_devices(sweep: Sweep) -> list[HardwareSpec]:
    return list(dict.fromkeys(case.run.hardware for case in sweep.cases if case.run.hardware))


def _list_choices(sweep: Sweep) -> dict[str, str]:
    labels = {key: list_values(dict(case.labels)[key] for case in sweep.cases) for key, _ in sweep.cases[0].labels}
    left_out = [f"{what}: {reason}" for what, reason in sweep.skipped]
    more = [f"{len(left_out) - MOST:,} more"] if len(left_out) > MOST else []
    return {
        "pages and values": sweep.label.replace("<=", "≤"),
        "points": f"{sweep.points:,}",
        "stages": ", ".join(sweep.stages),
        **labels,
        "real model": f"ran beside it, on {sweep.measure}" if sweep.measure else "did not run beside it",
        **({"left out": "; ".join([*left_out[:MOST], *more])} if left_out else {}),
    }


def _list_page(sweep: Sweep) -> dict[str, str]:
    keys, axes = [case.keys for case in sweep.cases], dict(sweep.axes)

    def values(name: str) -> str:
        return list_values(axes[name].tolist() if name in axes else (getattr(one, name) for one in keys))

    found = {"resolution": list_values(one.name for one in keys), "global view, px": values("global_px"), "tile, px": values("tile_px")}
    if sweep.pages and sweep.pages.images:
        found["pages"] = f"{len(sweep.pages):,}, from {list_values(file for file, _ in sweep.pages.images)}"
    elif sweep.pages:
        grids = zip(*(sweep.pages.fields[name].tolist() for name in ("columns", "rows")), strict=True)
        found["grids"] = f"{list_values(f'{columns} × {rows}' for columns, rows in grids)} (columns × rows)"
    elif "columns" in axes or "rows" in axes or keys[0].columns is not None:
        found |= {name: values(name) for name in ("columns", "rows")}
    else:
        found |= {name: values(column) for name, column in {"width, px": "image_width_px", "height, px": "image_height_px"}.items()}
    return found | {name: values(column) for name, column in TEXT.items()}


def _list_software(sweep: Sweep) -> dict[str, str]:
    runs = [case.run for case in sweep.cases]
    return {
        "model": list_values(run.model.label for run in runs),
        "engine": list_values(run.engine.label for run in runs),
        "attention": list_values(_describe_attention(run) for run in runs),
        "precision": list_values(run.dtype for run in runs),
        "KV cache": list_values(run.cache for run in runs),
        "logits in prefill": list_values(LOGITS[run.prefill_logits] for run in runs),
    }


def _describe_attention(run: RunSpec) -> str:
    resolved = run.attention.resolved(run.model, run.engine)
    kernels = {spec.label: resolved.kernel(spec.tower) for spec in run.model.attention_towers}
    if len(set(kernels.values())) == 1:
        (kernel,) = set(kernels.values())
        return resolved.name if resolved.name == kernel else f"{resolved.name} ({kernel})"
    return f"{resolved.name} ({', '.join(f'{kernel} in {tower}' for tower, kernel in kernels.items())})"
