"""The headline figures of one point: what it costs, how long it takes on a device, what limits it there, and whether it fits."""

from typing import NamedTuple

from ocr_flops.reports.tables import BOUND
from ocr_flops.spec.host import Ranged
from ocr_flops.spec.specs import STAGES, HardwareSpec
from ocr_flops.timing.estimate import Estimate
from ocr_flops.timing.timing import Timing
from ocr_flops.units import counted, seconds, share, si


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
    times, busy = (_time_cards(timing), [_busy_card(timing)]) if timing else ([], [])
    return [*times, *([_memory_card(estimate, device)] if device else []), *_cost_cards(estimate), *busy]


def _time_cards(timing: Timing) -> list[Card]:
    workload, rests = timing.estimate.workload, f"It rests on {timing.time_basis}."
    vision, prefill, decode = (seconds(timing.lane_seconds(stage, "expected")[0]) for stage in STAGES)
    peaks = f"The device alone, at its peaks: {seconds(timing.ttft_seconds)}; no implementation takes less than"
    explanation = f"Expected: vision {vision}, prefill {prefill}. {rests} {peaks} {seconds(timing.bound_ttft_seconds)}."
    cards = [_expected_card("first token (TTFT)", timing.expected_ttft, explanation)]
    if timing.expected_tpot is None:
        cards.append(Card("per token (TPOT)", "–", "no output tokens", "Choose a number of output tokens to see their time."))
    else:
        together = f"Expected mean of {counted(workload.output_tokens, 'output token')}, which take {decode} together."
        peaks = f"The device alone, at its peaks: {seconds(timing.tpot_seconds)}, {BOUND[timing.binding_ceilings['decode']]}-bound."
        cards.append(_expected_card("per token (TPOT)", timing.expected_tpot, f"{together} {rests} {peaks}"))
    batch = f"The batch ({workload.batch_size:,}) over vision, prefill and decode, as expected; the device runs kernels"
    busy = f"{batch} in {share(timing.device_busy_share, 1)} of that time. {timing.expected_pages_per_second.value:.3g} a second. {rests}"
    pages, low, high = map(si, timing.expected_pages_per_day[:3])
    return [*cards, Card(f"pages a day, batch {workload.batch_size:,}", pages, f"{low} to {high}", busy)]


def _expected_card(label: str, figure: Ranged, explanation: str) -> Card:
    value, low, high = map(seconds, figure[:3])
    return Card(label, value, "exactly" if low == high else f"{low} to {high}", explanation)


def _busy_card(timing: Timing) -> Card:
    words = "The part of the expected time in which the device runs kernels; in the rest it waits for the host to issue them."
    return Card("device busy", share(timing.device_busy_share, 1), f"host: {timing.host.name}", words)


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
    held = f"In {config.dtype}" + ", the decoder's linear layers and experts (in vLLM CLIP's too) in fp8" * bool(config.engine.weights)
    held += ". All experts are held, hit or not." if any("experts" in name for name in config.parameters) else "."
    return [
        Card("FLOPs", si(sum(flops.values())), f"batch {workload.batch_size:,}", f"{by_stage}. A multiply-add is 2 FLOPs."),
        Card("memory", si(memory.total_bytes, "B"), "all together", "Weights, KV cache at its end and the peak activation memory."),
        Card("activations", si(memory.peak_activation_bytes, "B"), "peak", "The most alive at one instant of one call, beside those."),
        Card("image tokens", f"{workload.image_tokens:,}", grid, "What a page is to the decoder."),
        Card("context", f"{workload.context_tokens:,}", "with prompt", tokens),
        Card("weights", si(memory.weight_bytes, "B"), parameters, held),
        Card("KV cache", si(memory.kv_cache_bytes, "B"), "at the end", "Of all layers, for prompt, image and output tokens."),
    ]
