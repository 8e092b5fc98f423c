"""The tables of a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ocr_flops.charts.theme import module_name
from ocr_flops.reports import headline
from ocr_flops.reports.estimate_subject import Subject
from ocr_flops.reports.html import Cell, exact, table, text, time, whole

SUMMED = ("total_flops", "tensor_flops", "vector_flops", "io_bytes", "operators")


def stages_table(subject: Subject) -> str:
    """Every stage and their sum, whole numbers below readable ones."""
    timing = subject.timing
    found = (timing or subject.estimate).stages.to_dicts()
    together = {name: sum(row[name] for row in found) for name in (*SUMMED, *(("roofline_seconds", "bound_seconds") if timing else ()))}
    together |= {
        "stage": "all stages",
        "peak_activation_bytes": max(row["peak_activation_bytes"] for row in found),
        "arithmetic_intensity": together["total_flops"] / together["io_bytes"] if together["io_bytes"] else None,
        "binding_ceiling": None,
    }
    head = ["stage", "FLOPs", "tensor", "vector", "bytes moved", "live peak", "launches", "FLOPs per byte"]
    head += ["roofline time", "bound", "bound by"] if timing else []
    rows = [
        [
            text(row["stage"]),
            *(whole(row[name]) for name in ("total_flops", "tensor_flops", "vector_flops")),
            *(whole(row[name], "B") for name in ("io_bytes", "peak_activation_bytes")),
            exact(row["operators"]),
            Cell("–" if row["arithmetic_intensity"] is None else f"{row['arithmetic_intensity']:,.3g}"),
            *([time(row["roofline_seconds"]), time(row["bound_seconds"]), _ceiling(row)] if timing else []),
        ]
        for row in [*found, *([together] if len(found) > 1 else [])]
    ]
    aligned = [Cell(name, number=cell.number) for name, cell in zip(head, rows[0], strict=True)]
    return table(aligned, rows, last_is_sum=len(found) > 1)


def _ceiling(row: Mapping[str, Any]) -> Cell:
    return text(headline.BOUND[row["binding_ceiling"]] if row["binding_ceiling"] else "")


def modes_table(subject: Subject) -> str:
    """Every attention mode at the report's own grid."""
    timings = subject.timings if subject.timing and subject.timing.ttft_seconds is not None else {}
    head = [text("attention"), Cell("bytes moved"), Cell("live peak"), Cell("memory needed")]
    head += [Cell("first token"), Cell("per output token")] if timings else []
    rows = []
    for mode, estimate in subject.by_mode.items():
        numbers, needs = estimate.stage_numbers.values(), estimate.footprint
        timing = timings.get(mode)
        cells = [
            text(f"{mode}, this report" if mode == subject.mode else mode),
            whole(sum(row["io_bytes"] for row in numbers), "B"),
            whole(needs.peak_activation_bytes, "B"),
            whole(needs.total_bytes, "B"),
            *([time(timing.ttft_seconds), time(timing.tpot_seconds)] if timing else []),
            text(f"modelled: {', '.join(modelled_stages(subject, mode))}" if modelled_stages(subject, mode) else "runnable"),
        ]
        rows.append(cells)
    return table([*head, text("evidence")], rows)


def modelled_stages(subject: Subject, mode: str) -> list[str]:
    """The stages of a mode whose numbers cannot be counted and traced on the real model."""
    estimate = subject.by_mode[mode]
    return [stage for stage in estimate.chosen_stages if estimate.config.evidence(stage) == "modelled"]


def modules_table(subject: Subject) -> str:
    """Every module of every stage in whole numbers."""
    timing = subject.timing
    head = [
        "stage",
        "module",
        "tensor FLOPs",
        "vector FLOPs",
        "torch counts",
        "launches",
        "bytes moved",
        "live peak, bytes",
        "weights, bytes",
    ]
    numbers = ("tensor_flops", "vector_flops", "torch_flops", "operators", "io_bytes", "peak_activation_bytes", "weight_bytes")
    rows = [
        [
            text(row["stage"]),
            text(module_name(row["module"])),
            *(exact(row[name]) for name in numbers),
            *([time(row["roofline_seconds"]), _ceiling(row)] if timing else []),
            text(row["evidence"]),
        ]
        for row in (timing or subject.estimate).modules.to_dicts()
    ]
    head += [*(["roofline time", "bound by"] if timing else []), "evidence"]
    return table([Cell(name, number=cell.number) for name, cell in zip(head, rows[0], strict=True)], rows)
