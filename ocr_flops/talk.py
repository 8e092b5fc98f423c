"""The sentences of the talk on what FlashAttention saves: every number in them is computed for the setting shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ocr_flops.charts.memory import TRAFFIC
from ocr_flops.charts.style import module_name, seconds, share, si
from ocr_flops.estimates import Estimate
from ocr_flops.timing import Timing
from ocr_flops.workload import Workload

FIRST = ("vision", "prefill")  # the stages before the first token
Said = tuple[str, str]  # a slide's title, and the line below it


def page(workload: Workload) -> Said:
    """What the model makes of a page."""
    views = f"{workload.tiles} tiles and a global view" if workload.tiles else f"one view of {workload.global_px} px"
    return (
        f"A page becomes {views}: {workload.image_tokens:,} tokens",
        "SAM reads every view in patches of 16 px, CLIP reads SAM's map; 16 patches make a token for the decoder.",
    )


def work(estimate: Estimate, timing: Timing) -> Said:
    """Where the FLOPs go, and where the time."""
    stages = {stage: row["total_flops"] for stage, row in estimate.stage_numbers.items()}
    most = max(stages, key=stages.get)
    spent = {row["module"]: row["roofline_seconds"] for row in timing.modules.to_dicts() if row["stage"] in FIRST}
    longest = max(spent, key=spent.get)
    return (
        f"{most.capitalize()} is {share(stages[most], sum(stages.values()))} of {si(sum(stages.values()), 'FLOPs')}; "
        f"{module_name(longest)} takes {share(spent[longest], sum(spent.values()))} of the time to the first token",
        f"Attention {estimate.setup.attention.name}, batch {estimate.workload.batch_size}, {timing.hardware.label}. Every bar is 100 %.",
    )


def quadratic(times: Mapping[str, float]) -> Said:
    """What twice the tokens cost.

    Args:
        times: of `charts.talk.doubling`.
    """
    first, *others = times.items()
    told = ", ".join(f"{number:.1f} in {mode}" for mode, number in others)
    return (
        f"Twice the tokens, {first[1]:.1f} times the bytes in {first[0]}; {told}",
        "Eager attention writes a score for every pair of tokens, then reads and writes it again. A fused kernel keeps it on chip.",
    )


def modes(estimates: Mapping[str, Estimate]) -> Said:
    """What the last mode moves and holds against the first."""
    base, *_, best = estimates
    moved = [sum(estimates[mode].stage_numbers[stage]["io_bytes"] for stage in FIRST) for mode in (base, best)]
    held = [estimates[mode].footprint.peak_activation_bytes for mode in (base, best)]
    return (
        f"{best} moves {less(*moved)} to the first token than {base}, and holds {less(*held)}",
        "Matrix FLOPs are the same in every mode: what falls away are scores, probabilities and SAM's relative-position bias.",
    )


def first_token(timings: Mapping[str, Timing]) -> Said:
    """What that does to the time to first token, and what fits."""
    base, *_, best = timings
    device = timings[base].hardware
    needs = [
        f"{mode} needs {si(one.estimate.footprint.total_bytes, 'B')}{'' if one.fits else ' and does not fit'}"
        for mode, one in timings.items()
    ]
    return (
        f"{device.label}: first token in {seconds(timings[best].ttft_seconds)} with {best}, "
        f"{seconds(timings[base].ttft_seconds)} with {base}",
        f"Roofline time: every operator at its ceiling. Of {si(device.memory_bytes, 'B')} of memory, {'; '.join(needs)}.",
    )


def one_token(estimates: Mapping[str, Estimate]) -> Said:
    """Where it does not help."""
    base, *_, best = estimates
    rows = [estimates[mode].stage_numbers["decode"] for mode in (base, best)]
    moved = [row["io_bytes"] for row in rows]
    if not moved[0]:
        return "No output tokens, nothing to save", "Move the slider to see what an output token costs."
    parts = {kind: share(rows[1][column], moved[1]) for kind, (column, _) in TRAFFIC.items()}
    return (
        f"An output token moves {less(*moved)} with {best} than with {base}: "
        f"{parts['weights read']} are weights, {parts['KV cache']} KV cache",
        "One query has no square of scores to keep off memory. Batch shares the weights; a cache written in place shrinks the rest.",
    )


def evidence(record: Mapping[str, Any]) -> Said:
    """How far to trust it.

    Args:
        record: of `evidence.recorded`.
    """
    wrong = sum(row["largest_difference"] != 0 for row in record["rows"])
    verdict = "all equal, as integers" if not wrong else f"{wrong} rows differ"
    versions = record["versions"]
    return (
        f"{record['numbers']:,} numbers compared with the real model: {verdict}",
        f"{record['date']}, transformers {versions['transformers']}, torch {versions['torch']}; ocr-flops verify repeats it where you are.",
    )


def less(base: float, best: float) -> str:
    """A saving in words: 75 % less."""
    if base == best:
        return "no less"
    return f"{share(abs(base - best), base)} {'less' if best < base else 'more'}"
