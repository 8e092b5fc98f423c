"""The numbers behind the findings of a report on one estimate; their sentences are in `templates/findings.md.j2`."""

from __future__ import annotations

from typing import Any, NamedTuple

from markupsafe import Markup

from ocr_flops.charts.theme import module_name
from ocr_flops.errors import SpecError
from ocr_flops.reports.estimate_subject import Subject
from ocr_flops.reports.markdown import render_markdown
from ocr_flops.timing import planning


class Movement(NamedTuple):
    """What an attention mode moves and holds.

    Args:
        first_bytes: DRAM traffic before the first token.
        peak_bytes: peak activation memory before the first token.
        decode_bytes: DRAM traffic of decode.
        fixed_decode_bytes: the part of it that is weights and KV cache.
    """

    first_bytes: int
    peak_bytes: int
    decode_bytes: int
    fixed_decode_bytes: int


def write_findings(subject: Subject) -> Markup:
    """Time, work, what leaner attention saves, and memory, as a list in Markdown.

    Raises:
        SpecError: a number is beyond 2^62.
    """
    estimate = subject.estimate
    (stage, module), row = max(estimate.module_numbers.items(), key=lambda item: item[1]["total_flops"])
    lean = "flash" if "flash" in subject.by_mode else "sdpa"  # no flash kernel takes fp32
    text = render_markdown(
        "findings.md.j2",
        subject=subject,
        work={stage: row["total_flops"] for stage, row in estimate.stage_numbers.items()},
        largest={"stage": stage, "module": module_name(module), "flops": row["total_flops"]},
        first_stages=[stage for stage in subject.busy_stages if stage != "decode"],
        lean_mode=lean,
        lean=_sum_movement(subject.by_mode[lean].stage_numbers),
        eager=_sum_movement(subject.by_mode["eager"].stage_numbers),
        largest_batch=_find_largest_batch(subject),
        kernels=_name_kernels(subject),
    )
    return Markup(text)


def _sum_movement(numbers: dict[str, dict[str, Any]]) -> Movement:
    first = [row for stage, row in numbers.items() if stage != "decode"]
    decode = [row for stage, row in numbers.items() if stage == "decode"]
    return Movement(
        sum(row["io_bytes"] for row in first),
        max((row["peak_activation_bytes"] for row in first), default=0),
        sum(row["io_bytes"] for row in decode),
        sum(row["weight_io_bytes"] + row["kv_io_bytes"] for row in decode),
    )


def _find_largest_batch(subject: Subject) -> int:
    try:
        return planning.largest_batch(subject.estimate, subject.hardware.memory_bytes) if subject.hardware else 0
    except SpecError:
        return 0


def _name_kernels(subject: Subject) -> str:
    """The attention kernels of the report: the mode's name where all towers have the same."""
    config = subject.estimate.config
    kernels = {spec.label: config.attention.kernel(spec.tower) for spec in config.model.attention_towers}
    same = len(set(kernels.values())) == 1
    return subject.mode if same else ", ".join(f"{kernel} in {tower}" for tower, kernel in kernels.items())
