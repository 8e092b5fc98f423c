"""What an estimate says, in sentences."""

from __future__ import annotations

from ocr_flops.charts.theme import module_name
from ocr_flops.errors import SpecError
from ocr_flops.reports.estimate_subject import Subject
from ocr_flops.reports.headline import BOUND
from ocr_flops.timing import planning
from ocr_flops.timing.estimate import Estimate
from ocr_flops.units import seconds, share, si

FIRST = ("vision", "prefill")  # the stages before the first token


def findings(subject: Subject) -> list[str]:
    """Sentences with **bold** beginnings: time, work, what attention saves, memory.

    Args:
        subject: what the report is about.

    Raises:
        SpecError: a number beyond 2^62.
    """
    found = [*_time(subject), _work(subject.estimate), *_attention(subject), _memory(subject)]
    return [sentence for sentence in found if sentence]


def _time(subject: Subject) -> list[str]:
    timing = subject.timing
    if timing is None:
        return []
    rows = {row["stage"]: row for row in timing.stages.to_dicts()}
    bound = {stage: BOUND[row["binding_ceiling"]] for stage, row in rows.items()}
    found, workload = [], subject.estimate.workload
    if timing.ttft_seconds:
        parts = " and ".join(f"{stage} {seconds(rows[stage]['roofline_seconds'])} ({bound[stage]}-bound)" for stage in FIRST)
        found.append(
            f"**The first token comes after {seconds(timing.ttft_seconds)}** on {timing.hardware.label}, by roofline: {parts}. "
            f"No implementation of the same arithmetic takes less than {seconds(timing.bound_ttft_seconds)}."
        )
    if timing.tpot_seconds:
        pages = f"; with all {workload.output_tokens:,} of them, {timing.pages_per_second:.3g} pages/s" if timing.pages_per_second else ""
        found.append(f"**Each output token takes {seconds(timing.tpot_seconds)}** and is {bound['decode']}-bound{pages}.")
    return found


def _work(estimate: Estimate) -> str:
    flops = {stage: row["total_flops"] for stage, row in estimate.stage_numbers.items()}
    total, batch = sum(flops.values()), estimate.workload.batch_size
    parts = ", ".join(f"{stage} {share(number, total)}" for stage, number in flops.items())
    (stage, module), row = max(estimate.module_numbers.items(), key=lambda item: item[1]["total_flops"])
    what = "The page takes" if batch == 1 else f"{batch:,} pages take"
    return (
        f"**{what} {si(total, 'FLOPs')}**: {parts}. "
        f"The largest part is {module_name(module)} in {stage}, {share(row['total_flops'], total)}."
    )


def _attention(subject: Subject) -> list[str]:
    """What the leanest mode saves against eager before the first token, and in decode."""
    modes = list(subject.by_mode)
    last = "flash" if "flash" in modes else "sdpa"
    base, best = (subject.by_mode[mode].stage_numbers for mode in (modes[0], last))
    stages = [stage for stage in base if stage != "decode" and base[stage]["io_bytes"]]
    found = []
    if stages:
        moved, less = (sum(one[stage]["io_bytes"] for stage in stages) for one in (base, best))
        peak, low = (max(one[stage]["peak_activation_bytes"] for stage in stages) for one in (base, best))
        timed = ""
        if subject.timings and set(FIRST) <= set(stages):
            slow, fast = (subject.timings[mode].ttft_seconds for mode in (modes[0], last))
            timed = f", and the first token comes after {seconds(fast)} instead of {seconds(slow)}"
        sentence = (
            f"**Against eager, {last} moves {si(moved - less, 'B')} less in {' and '.join(stages)}** ({share(moved - less, moved)}); "
            f"live activations peak at {si(low, 'B')} instead of {si(peak, 'B')}{timed}. Matrix FLOPs are the same."
        )
        found.append(sentence + _as_set(subject, last))
    if "decode" in base and base["decode"]["io_bytes"]:
        saved = base["decode"]["io_bytes"] - best["decode"]["io_bytes"]
        fixed = best["decode"]["weight_io_bytes"] + best["decode"]["kv_io_bytes"]
        found.append(
            f"**In decode it saves {share(saved, base['decode']['io_bytes'])} of the bytes**: "
            f"{share(fixed, best['decode']['io_bytes'])} of them are weights and KV cache, which no attention kernel avoids."
        )
    return found


def _as_set(subject: Subject, last: str) -> str:
    """What this report's own mode is, where it is another one."""
    config = subject.estimate.config
    attention = config.attention
    kernels = {spec.label: attention.kernel(spec.tower) for spec in config.model.attention_towers}
    distinct = dict.fromkeys(kernels.values())
    words = next(iter(distinct)) if len(distinct) == 1 else ", ".join(f"{kernel} in {tower}" for tower, kernel in kernels.items())
    if attention.name == "vendor":
        return f" This report is about what {config.engine.label} runs by itself: {words}."
    return "" if subject.mode == last else f" This report is about {words}."


def _memory(subject: Subject) -> str:
    needs, hardware = subject.estimate.footprint, subject.hardware
    parts = (
        f"weights {si(needs.weight_bytes, 'B')}, KV cache {si(needs.kv_cache_bytes, 'B')} at its end, "
        f"live activations {si(needs.peak_activation_bytes, 'B')} at their peak"
    )
    if hardware is None:
        return f"**It needs {si(needs.total_bytes, 'B')} of device memory**: {parts}."
    spare = hardware.memory_bytes - needs.total_bytes
    verdict = (
        f"fits {hardware.label} with {si(spare, 'B')} to spare"
        if spare >= 0
        else f"does not fit {hardware.label}: {si(-spare, 'B')} too much"
    )
    try:
        batch = planning.largest_batch(subject.estimate, hardware.memory_bytes)
    except SpecError:
        batch = None
    most = f" The largest batch that fits is {batch:,}." if batch else ""
    return f"**It {verdict}**: {si(needs.total_bytes, 'B')}, of which {parts}.{most}"
