"""The settings of a sweep: its title, and values of the templates `sweep.md.j2` and `sweep_settings.md.j2`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ocr_flops.reports.estimate_settings import LOGITS, list_figures, name_kernels, name_sources
from ocr_flops.spec.run_spec import RunSpec
from ocr_flops.studies.sweeps.folder import list_versions
from ocr_flops.studies.sweeps.plan import Sweep
from ocr_flops.studies.sweeps.results import Results
from ocr_flops.units import si

MOST = 6  # values that are listed; of more, the ends and how many
LONG = 1e6  # numbers are short from here on
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


def title_sweep(sweep: Sweep) -> str:
    """What it is a sweep over."""
    begin = f"{list_values(case.run.model.label for case in sweep.cases)}, a sweep"
    if sweep.name != "product":
        return f"{begin}: {sweep.label.replace('<=', '≤')}"
    varied = [AXES.get(key, key.removeprefix("workload.").replace("_", " ")) for key in sweep.config["sweep"]["axes"]]
    return f"{begin} over {', '.join(varied)}" if sweep.points > 1 else f"{begin} of one point"


def describe_settings(results: Results) -> dict[str, Any]:
    """Every choice behind a sweep, and what computed it, as values of the template."""
    sweep, runs = results.sweep, [case.run for case in results.sweep.cases]
    devices = list(dict.fromkeys(run.hardware for run in runs if run.hardware))
    left_out = [f"{what}: {reason}" for what, reason in sweep.skipped]
    by_label: dict[str, list[dict[str, str]]] = {}
    for device in devices:
        by_label.setdefault(device.label, []).append(list_figures(device))
    return {
        "sweep": sweep,
        "runs": runs,
        "labels": {key: [dict(case.labels)[key] for case in sweep.cases] for key, _ in sweep.cases[0].labels},
        "left_out": left_out[:MOST] + ([f"{len(left_out) - MOST:,} more"] if len(left_out) > MOST else []),
        "page": _list_page(sweep),
        "attention": list_values(map(_describe_attention, runs)),
        "logits_words": LOGITS,
        "targets": results.targets,
        "device_names": list_values(device.label for device in devices),
        "devices": {
            label: {name: list_values(one[name] for one in figures) for name in figures[0] if name != "device"}
            for label, figures in list(by_label.items())[:MOST]
        },
        "sources": " ".join(dict.fromkeys(map(name_sources, devices))),
        "versions": list_versions(),
        "list_values": list_values,
    }


def list_values(values: Iterable[object]) -> str:
    """Values, each once: all of a few, else the ends of numbers, or the first and the last, and how many."""
    found = list(dict.fromkeys(values))
    if len(found) <= MOST:
        return ", ".join(map(_format_value, found))
    ends = (found[0], found[-1]) if any(isinstance(value, str) for value in found) else (min(found), max(found))
    return f"{' to '.join(map(_format_value, ends))}, {len(found):,} values"


def _format_value(value: object) -> str:
    if isinstance(value, str) or value is None:
        return value or "none"
    return si(value) if abs(value) >= LONG else f"{value:,.6g}"


def _list_page(sweep: Sweep) -> dict[str, str]:
    """Resolutions, pages and text by name."""
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
        found |= {"width, px": values("image_width_px"), "height, px": values("image_height_px")}
    return found | {name: values(column) for name, column in TEXT.items()}


def _describe_attention(run: RunSpec) -> str:
    attention = run.attention.resolved(run.model, run.engine)
    kernels = name_kernels(run.model, attention)
    return attention.name if attention.name == kernels else f"{attention.name} ({kernels})"
