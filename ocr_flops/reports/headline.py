"""The headline figures of one point: what it costs, how long it takes on a device, what limits it there, and whether it fits."""

from __future__ import annotations

from typing import NamedTuple

from ocr_flops.spec.specs import HardwareSpec
from ocr_flops.timing.estimate import Estimate
from ocr_flops.timing.timing import Timing
from ocr_flops.units import seconds, share, si

BOUND = {"matrix": "matrix", "vector": "vector", "bandwidth": "memory", "launch": "launch"}  # ceiling: the word before "-bound"
ROOFLINE = "By roofline: every operator at its ceiling, none overlapping."


class Card(NamedTuple):
    """One headline figure in plain text.

    Args:
        explanation: a sentence or two, shown where the pointer rests.
        alarm: whether it means that the point cannot run as set.
    """

    label: str
    value: str
    caption: str
    explanation: str
    alarm: bool = False


def headline_cards(estimate: Estimate, timing: Timing | None = None, hardware: HardwareSpec | None = None) -> list[Card]:
    """The headline figures in the order in which they are shown.

    Args:
        estimate: of one point and all stages.
        timing: the same on a device; without it there are no times.
        hardware: the device where it gives no times; without it and `timing` there is no figure on whether the point fits.
    """
    device = timing.hardware if timing else hardware
    return [*(_time_cards(timing) if timing else []), *([_memory_card(estimate, device)] if device else []), *_cost_cards(estimate)]


def _time_cards(timing: Timing) -> list[Card]:
    rows = {row["stage"]: row for row in timing.stages.iter_rows(named=True)}
    spent = {stage: row["roofline_seconds"] for stage, row in rows.items()}
    bound = {stage: f"{BOUND[row['binding_ceiling']]}-bound" for stage, row in rows.items()}
    workload, total = timing.estimate.workload, sum(spent.values())
    longest, longest_before_token = max(spent, key=spent.get), max(("vision", "prefill"), key=spent.get)
    ttft = Card(
        "first token (TTFT)",
        seconds(timing.ttft_seconds),
        f"{share(spent[longest_before_token], timing.ttft_seconds)} {longest_before_token}, {bound[longest_before_token]}",
        f"Vision {seconds(spent['vision'])} ({bound['vision']}), prefill {seconds(spent['prefill'])} ({bound['prefill']}). {ROOFLINE} "
        f"No implementation takes less than {seconds(timing.bound_ttft_seconds)}.",
    )
    tpot = Card("per token (TPOT)", "–", "no output tokens", "Choose a number of output tokens to see their time.")
    if timing.tpot_seconds is not None:
        explanation = f"Mean of {workload.output_tokens:,} output tokens, which take {seconds(spent['decode'])} together. {ROOFLINE}"
        tpot = Card("per token (TPOT)", seconds(timing.tpot_seconds), bound["decode"], explanation)
    pages = Card(
        "pages",
        f"{timing.pages_per_second:.3g}/s",
        f"{share(spent[longest], total)} {longest}, {bound[longest]}",
        f"The batch ({workload.batch_size:,}) over vision, prefill and decode, {seconds(total)}. {ROOFLINE}",
    )
    return [ttft, tpot, pages]


def _memory_card(estimate: Estimate, hardware: HardwareSpec) -> Card:
    spare = hardware.memory_bytes - estimate.footprint.total_bytes
    value, words = ("yes", "spare") if spare >= 0 else ("NO", "too much")
    explanation = f"{hardware.label} has {si(hardware.memory_bytes, 'B')}. What CUDA's context and the allocator keep is not counted."
    return Card("fits the GPU", value, f"{si(abs(spare), 'B')} {words}", explanation, alarm=spare < 0)


def _cost_cards(estimate: Estimate) -> list[Card]:
    workload, memory, config = estimate.workload, estimate.footprint, estimate.config
    flops = {stage: row["total_flops"] for stage, row in estimate.stage_numbers.items()}
    by_stage = "; ".join(f"{stage} {si(number)}" for stage, number in flops.items())
    grid = f"{workload.columns} × {workload.rows} tiles + page" if workload.tiles else "one view"
    tokens = f"{workload.image_tokens:,} image and {workload.prompt_tokens:,} prompt tokens."
    parameters = f"{si(sum(config.parameters.values()))} params"
    return [
        Card("FLOPs", si(sum(flops.values())), f"batch {workload.batch_size:,}", f"{by_stage}. A multiply-add is 2 FLOPs."),
        Card("memory", si(memory.total_bytes, "B"), "all together", "Weights, KV cache at its end and the peak activation memory."),
        Card("activations", si(memory.peak_activation_bytes, "B"), "peak", "The most alive at one instant beside weights and KV cache."),
        Card("image tokens", f"{workload.image_tokens:,}", grid, "What a page is to the decoder."),
        Card("context", f"{workload.context_tokens:,}", "with prompt", tokens),
        Card("weights", si(memory.weight_bytes, "B"), parameters, f"In {config.dtype}; all experts are held, hit or not."),
        Card("KV cache", si(memory.kv_cache_bytes, "B"), "at the end", "Of all layers, for prompt, image and output tokens."),
    ]
