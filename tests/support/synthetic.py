"""Frames of records as a device would leave them of which everything is known: its efficiencies, its launches, its noise."""

import json
from dataclasses import replace
from itertools import product

import numpy as np
import polars as pl

import ocr_flops as of
from ocr_flops.evidence.records import COLUMNS, SCHEMA
from ocr_flops.evidence.records.frame import FIGURES
from ocr_flops.evidence.records.schema import POINT_NUMBERS
from ocr_flops.spec.specs import STAGES

PAGES = [("tiny", (1, 1)), ("small", (1, 1)), ("base", (1, 1)), ("large", (1, 1))]
PAGES += [(mode, grid) for mode in ("gundam", "gundam_m") for grid in ((1, 2), (2, 2), (2, 3), (3, 3))]
WORKSPACE_BYTES = 40_000_000
BATCHES, LENGTHS = (1, 4, 16), ((10, 16), (500, 32), (2000, 64))
EFFICIENCY = {"matrix": 0.62, "vector": 0.35, "bandwidth": 0.8}
LAUNCH_SECONDS = {"vision": 5e-6, "prefill": 6e-6, "decode": 7e-6}


def workloads(pages=PAGES, batches=BATCHES, lengths=LENGTHS):
    return [
        of.Workload.from_grid(*grid, mode=mode, batch_size=batch, prompt_tokens=prompt, output_tokens=output)
        for (mode, grid), batch, (prompt, output) in product(pages, batches, lengths)
    ]


def frame(
    points,
    model,
    *,
    hardware="h200",
    attention=("eager", "sdpa"),
    efficiency=EFFICIENCY,
    launch_seconds=LAUNCH_SECONDS,
    hidden=False,
    noise=0.0,
    seed=0,
    **labels,
):
    """A frame of records: seconds are the roofline's, step by step, at the peaks times the efficiencies, and launches."""
    spec = of.load_hardware(hardware)
    matrix, vector = efficiency["matrix"], spec.vector_fp32_flops_per_second
    slow = replace(
        spec,
        matrix_flops_per_second=(("bf16", spec.matrix_peak("bf16") * matrix), ("fp32", vector * matrix)),  # the router's products
        vector_fp32_flops_per_second=vector * efficiency["vector"],
        memory_bandwidth_bytes_per_second=spec.memory_bandwidth_bytes_per_second * efficiency["bandwidth"],
    )
    shaken, rows = np.random.default_rng(seed), []
    for mode in attention:
        whole = of.Workload.stack(list(points))
        estimate = of.estimate(model, whole, mode)
        timing = estimate.on(slow)
        seconds = {stage: np.atleast_1d(timing._seconds(stage)) for stage in STAGES}
        for number in range(whole.points):
            for stage in STAGES:
                row = estimate.stage_numbers[stage]
                launched = np.atleast_1d(row["operators"])[number] * launch_seconds[stage]
                spent = max(seconds[stage][number], launched) if hidden else seconds[stage][number] + launched
                held = sum(estimate.config.parameters.values()) * 2 + np.atleast_1d(row["kv_cache_bytes"])[number]
                rows.append(
                    {
                        **dict.fromkeys(COLUMNS),
                        "record_id": f"{hardware}-{mode}-{number}",
                        "measured_at": "2026-01-02T03:04:05.000+00:00",
                        "state": "done",
                        "source": "user",
                        "engine": "transformers",
                        "attention": mode,
                        "experts": "grouped_mm",
                        "dtype": "bf16",
                        "device": spec.label,
                        "hardware": hardware,
                        "model": model.name,
                        "prefill_logits": estimate.config.prefill_logits,
                        "cache": "dynamic",
                        "stage": stage,
                        **{name: int(np.atleast_1d(getattr(points[number], name))[0]) for name in POINT_NUMBERS},
                        "median_seconds": float(spent * np.exp(noise * shaken.standard_normal())),
                        "peak_allocated_bytes": int(held + np.atleast_1d(row["peak_activation_bytes"])[number] + WORKSPACE_BYTES),
                        "peak_reserved_bytes": int(1.1 * (held + np.atleast_1d(row["peak_activation_bytes"])[number] + WORKSPACE_BYTES)),
                        "peak_source": "allocator",
                        **labels,
                    }
                )
    return framed(rows)


def framed(rows):
    return pl.DataFrame(rows, COLUMNS, orient="row")


def written(rows, folder):
    """The rows of such a frame as record files."""
    folder.mkdir(parents=True, exist_ok=True)
    for _, one in rows.group_by("record_id", maintain_order=True):
        first = one.row(0, named=True)
        figures = {row["stage"]: {name: row[name] for name in FIGURES} | {"runs": 5, "modules": {}} for row in one.iter_rows(named=True)}
        record = {
            "schema": SCHEMA,
            "failure": None,
            "finished": first["measured_at"],
            "host": "there",
            "asked": {
                "attention": dict.fromkeys(("sam", "clip", "decoder"), first["attention"]),
                "experts": None,
                "device": "cuda",
                "stages": list(STAGES),
                **{name: first[name] for name in ("engine", "dtype", "prefill_logits", "cache")},
            },
            "ran": {"experts": first["experts"], "device_name": first["device"], "torch": "2.13.0", "transformers": "5.23.0"},
            "hardware": {"name": first["hardware"]},
            "model": {"name": first["model"]},
            "workload": {name: first[name] for name in (*POINT_NUMBERS, "mode")},
            "stages": {},
            "derived": figures,
            **{name: first[name] for name in ("record_id", "state")},
        }
        (folder / f"{first['record_id']}.json").write_text(json.dumps(record), encoding="utf-8")
