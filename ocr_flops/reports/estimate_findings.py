"""What an estimate shows, in whole sentences: time, work, what leaner attention saves, memory."""

from __future__ import annotations

from ocr_flops.charts.theme import module_name
from ocr_flops.errors import SpecError
from ocr_flops.reports.estimate_subject import Subject
from ocr_flops.reports.headline import BOUND
from ocr_flops.timing import planning
from ocr_flops.timing.estimate import Estimate
from ocr_flops.units import seconds, share, si

FIRST = ("vision", "prefill")  # the stages before the first token


def find_all(subject: Subject) -> list[str]:
    """All findings, each a sentence or two with a **bold** beginning.

    Args:
        subject: what the report is about.

    Raises:
        SpecError: a number is beyond 2^62.
    """
    return [*find_times(subject), find_work(subject.estimate), *find_savings(subject), find_memory(subject)]


def find_times(subject: Subject) -> list[str]:
    """Time to the first token and per output token, and what limits each; nothing without a device."""
    timing = subject.timing
    if timing is None:
        return []
    rows = {row["stage"]: row for row in timing.stages.to_dicts()}
    bound = {stage: BOUND[row["binding_ceiling"]] for stage, row in rows.items()}
    config, workload = subject.estimate.config, subject.estimate.workload
    found = []
    if timing.ttft_seconds:
        parts = " and ".join(f"{stage} {seconds(rows[stage]['roofline_seconds'])} ({bound[stage]}-bound)" for stage in FIRST)
        found.append(
            f"**The first token comes after {seconds(timing.ttft_seconds)}** on {timing.hardware.label} in {config.dtype}, by roofline: "
            f"{parts}. No implementation of the same arithmetic takes less than {seconds(timing.bound_ttft_seconds)}."
        )
    if timing.tpot_seconds:
        pages = f"; with all {workload.output_tokens:,} of them, {timing.pages_per_second:.3g} pages/s" if timing.pages_per_second else ""
        found.append(f"**Each output token takes {seconds(timing.tpot_seconds)}** by roofline and is {bound['decode']}-bound{pages}.")
    return found


def find_work(estimate: Estimate) -> str:
    """FLOPs, their shares by stage, and the largest module."""
    flops = {stage: row["total_flops"] for stage, row in estimate.stage_numbers.items()}
    total, batch = sum(flops.values()), estimate.workload.batch_size
    parts = ", ".join(f"{stage} {share(number, total)}" for stage, number in flops.items())
    (stage, module), row = max(estimate.module_numbers.items(), key=lambda item: item[1]["total_flops"])
    subject = "The page takes" if batch == 1 else f"{batch:,} pages take"
    return (
        f"**{subject} {si(total, 'FLOPs')}**: {parts}. "
        f"The largest part is {module_name(module)} in {stage}, {share(row['total_flops'], total)}."
    )


def find_savings(subject: Subject) -> list[str]:
    """What the leanest attention mode saves against eager before the first token, and in decode."""
    lean = "flash" if "flash" in subject.by_mode else "sdpa"
    eager, best = (subject.by_mode[mode].stage_numbers for mode in ("eager", lean))
    stages = [stage for stage in FIRST if stage in eager and eager[stage]["io_bytes"]]
    found = []
    if stages:
        moved, less = (sum(numbers[stage]["io_bytes"] for stage in stages) for numbers in (eager, best))
        peak, low = (max(numbers[stage]["peak_activation_bytes"] for stage in stages) for numbers in (eager, best))
        modelled = f" No {lean} kernel can be counted in this engine, so it is modelled." if subject.modelled_stages(lean) else ""
        times = ""
        if subject.timings and len(stages) == len(FIRST):
            slow, fast = (subject.timings[mode].ttft_seconds for mode in ("eager", lean))
            times = f", and the first token comes after {seconds(fast)} instead of {seconds(slow)}"
        found.append(
            f"**Against eager, {lean} moves {si(moved - less, 'B')} less in {' and '.join(stages)}** ({share(moved - less, moved)}); "
            f"activations peak at {si(low, 'B')} instead of {si(peak, 'B')}{times}. Matrix FLOPs are the same.{modelled}"
            f"{_name_kernels(subject, lean)}"
        )
    if "decode" in eager and eager["decode"]["io_bytes"]:
        moved, less = (numbers["decode"]["io_bytes"] for numbers in (eager, best))
        fixed = best["decode"]["weight_io_bytes"] + best["decode"]["kv_io_bytes"]
        found.append(
            f"**In decode {lean} saves {share(moved - less, moved)} of eager's DRAM traffic**: {share(fixed, less)} of what it moves are "
            "weights and KV cache, which no attention kernel avoids."
        )
    return found


def _name_kernels(subject: Subject, lean: str) -> str:
    """Which attention kernels this report is about, where they are not the leanest ones."""
    config = subject.estimate.config
    kernels = {spec.label: config.attention.kernel(spec.tower) for spec in config.model.attention_towers}
    same = len(set(kernels.values())) == 1
    words = subject.mode if same else ", ".join(f"{kernel} in {tower}" for tower, kernel in kernels.items())
    if config.attention.name == "vendor":
        return f" This report is about what {config.engine.label} runs by itself: {words}."
    return "" if subject.mode == lean else f" This report is about {words}."


def find_memory(subject: Subject) -> str:
    """Device memory and its parts; with a device whether it fits, and the largest batch that does."""
    needs, hardware = subject.estimate.footprint, subject.hardware
    parts = (
        f"weights {si(needs.weight_bytes, 'B')}, KV cache {si(needs.kv_cache_bytes, 'B')} at its end, "
        f"activations {si(needs.peak_activation_bytes, 'B')} at their peak"
    )
    if hardware is None:
        return f"**It needs {si(needs.total_bytes, 'B')} of device memory**: {parts}."
    spare = hardware.memory_bytes - needs.total_bytes
    verdict = f"It fits {hardware.label} with {si(spare, 'B')} to spare"
    if spare < 0:
        verdict = f"It does not fit {hardware.label}: {si(-spare, 'B')} too much"
    try:
        batch = planning.largest_batch(subject.estimate, hardware.memory_bytes)
    except SpecError:
        batch = 0
    largest = f" The largest batch that fits is {batch:,}." if batch else ""
    return f"**{verdict}**: {si(needs.total_bytes, 'B')}, of which {parts}.{largest}"
