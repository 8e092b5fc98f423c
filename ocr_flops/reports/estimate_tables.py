"""The tables of a report on one estimate, as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl
from markupsafe import Markup

from ocr_flops.charts.theme import module_name
from ocr_flops.evidence.verify import summary
from ocr_flops.reports.estimate_subject import Subject
from ocr_flops.reports.headline import BOUND
from ocr_flops.reports.markdown import table_markdown
from ocr_flops.reports.tables import TITLES, verification_table
from ocr_flops.units import interval, seconds, share, si

TIMES = [
    "expected_seconds",
    "expected_low_seconds",
    "expected_high_seconds",
    "device_busy_share",
    "roofline_seconds",
    "bound_seconds",
    "binding_ceiling",
]
SUMS = ("total_flops", "tensor_flops", "vector_flops", "io_bytes", "operators", *TIMES[:3], "roofline_seconds", "bound_seconds")
TOGETHER = "**all stages**"
Formats = Mapping[str, Callable[[Any], str]]


def print_integer(value: int, unit: str = "") -> Markup:
    """An integer with an SI prefix, and exactly below it."""
    return Markup(f"{si(value, unit)} <small>{value:,}</small>" if abs(value) >= 1000 else f"{value:,}")


def print_bytes(value: int) -> Markup:
    """A number of bytes with its unit, and exactly below it."""
    return print_integer(value, "B")


FORMATS: Formats = {
    "stage": lambda stage: Markup(stage) if stage == TOGETHER else stage,
    "module": module_name,
    "arithmetic_intensity": "{:,.3g}".format,
    "binding_ceiling": BOUND.get,
    "device_busy_share": lambda busy: share(busy, 1),
    **dict.fromkeys((*TIMES[:3], "roofline_seconds", "bound_seconds"), seconds),
    **dict.fromkeys(("expected_ttft", "expected_tpot"), str),
}
READABLE: Formats = FORMATS | dict.fromkeys(("total_flops", "tensor_flops", "vector_flops"), print_integer)
READABLE |= dict.fromkeys(("io_bytes", "peak_activation_bytes", "total_bytes"), print_bytes)


def stages_table(subject: Subject) -> Markup:
    """Every stage and their sum: readable numbers with the exact ones below."""
    work = ["total_flops", "tensor_flops", "vector_flops", "io_bytes", "peak_activation_bytes", "operators", "arithmetic_intensity"]
    frame = (subject.timing or subject.estimate).stages.select("stage", *work, *(TIMES if subject.timing else []))
    frame = frame.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String), pl.col(pl.Int64).cast(pl.Int128))  # sums may exceed 2^63
    sums = frame.select(
        pl.lit(TOGETHER).alias("stage"),
        *(pl.col(name).sum() for name in SUMS if name in frame.columns),
        pl.col("peak_activation_bytes").max(),
        (pl.col("total_flops").sum() / pl.col("io_bytes").sum()).fill_nan(None).alias("arithmetic_intensity"),
    )
    return _render(pl.concat([frame, sums], how="diagonal") if frame.height > 1 else frame, READABLE)


def modules_table(subject: Subject) -> Markup:
    """Every module of every stage in integers."""
    numbers = ["tensor_flops", "vector_flops", "torch_flops", "operators", "io_bytes", "peak_activation_bytes", "weight_bytes"]
    times = ["expected_seconds", "roofline_seconds", "binding_ceiling"] if subject.timing else []
    return _render((subject.timing or subject.estimate).modules.select("stage", "module", *numbers, *times, "evidence"), FORMATS)


def modes_table(subject: Subject) -> Markup:
    """Every attention mode at the report's own grid."""
    times = ("expected_ttft", "expected_tpot") if subject.timing and subject.timing.expected_ttft else ()
    rows = []
    for mode, estimate in subject.by_mode.items():
        modelled = ", ".join(subject.modelled_stages(mode))
        rows.append(
            {
                "attention": f"{mode}, this report" if mode == subject.mode else mode,
                "io_bytes": sum(row["io_bytes"] for row in estimate.stage_numbers.values()),
                "peak_activation_bytes": estimate.footprint.peak_activation_bytes,
                "total_bytes": estimate.footprint.total_bytes,
                **{name: (found := getattr(subject.timings[mode], name)) and interval(found) for name in times},
                "evidence": f"modelled: {modelled}" if modelled else "runnable",
            }
        )
    return _render(pl.DataFrame(rows), READABLE)


def evidence_table() -> Markup:
    """What this version was compared with before its release, without stages and modules."""
    rows = verification_table(summary.read_verification()).group_by("number", "against", maintain_order=True)
    return table_markdown(rows.agg(pl.col("compared").sum(), pl.col("largest difference").max()))


def _render(frame: pl.DataFrame, formats: Formats) -> Markup:
    titles = {name: TITLES.get(name, name).removesuffix(" (B)" if formats.get(name) is print_bytes else "") for name in frame.columns}
    return table_markdown(frame.rename(titles), {titles[name]: formats[name] for name in frame.columns if name in formats})
