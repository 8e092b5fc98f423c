"""The headline figures of one point: what it costs, how long it takes on a device, what binds there, and whether it fits."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ocr_flops.units import seconds, share, si

if TYPE_CHECKING:
    from ocr_flops.spec.specs import HardwareSpec
    from ocr_flops.timing.estimate import Estimate
    from ocr_flops.timing.timing import Timing

BOUND = {"matrix": "matrix", "vector": "vector", "bandwidth": "memory", "launch": "launch"}  # ceiling: the word before "-bound"
ROOFLINE = "By roofline: every operator at its ceiling, none overlapping."


class Figure(NamedTuple):
    """A number for people, in plain text.

    Args:
        label: what it is, in a word or two.
        value: with its unit.
        caption: what to know with it, in a few words.
        explanation: a sentence or two, for where the pointer rests.
        alarm: it means that the point cannot run as set.
    """

    label: str
    value: str
    caption: str
    explanation: str
    alarm: bool = False


def figures(estimate: Estimate, timing: Timing | None = None, hardware: HardwareSpec | None = None) -> list[Figure]:
    """The headline figures in the order they are shown.

    Args:
        estimate: of one point and all stages.
        timing: the same on a device; None leaves out times.
        hardware: the device where it gives no times; without it and `timing` nothing is said of whether it fits.

    Raises:
        SpecError: a number beyond 2^62.
    """
    device = timing.hardware if timing else hardware
    return [*(_times(timing) if timing else []), *([_fit(estimate, device)] if device else []), *_costs(estimate)]


def _times(timing: Timing) -> list[Figure]:
    stages = {row["stage"]: row for row in timing.stages.iter_rows(named=True)}
    spent = {stage: row["roofline_seconds"] for stage, row in stages.items()}
    bound = {stage: f"{BOUND[row['binding_ceiling']]}-bound" for stage, row in stages.items()}
    workload, whole = timing.estimate.workload, sum(spent.values())
    widest = max(("vision", "prefill"), key=spent.get)
    longest = max(spent, key=spent.get)
    ttft = Figure(
        "first token (TTFT)",
        seconds(timing.ttft_seconds),
        f"{share(spent[widest], timing.ttft_seconds)} {widest}, {bound[widest]}",
        f"Vision {seconds(spent['vision'])} ({bound['vision']}), prefill {seconds(spent['prefill'])} ({bound['prefill']}). {ROOFLINE} "
        f"No implementation takes less than {seconds(timing.bound_ttft_seconds)}.",
    )
    if timing.tpot_seconds is None:
        tpot = Figure("per token (TPOT)", "–", "no output tokens", "Choose a number of output tokens to see their time.")
    else:
        tpot = Figure(
            "per token (TPOT)",
            seconds(timing.tpot_seconds),
            bound["decode"],
            f"Mean of {workload.output_tokens:,} output tokens, which take {seconds(spent['decode'])} together. {ROOFLINE}",
        )
    pages = Figure(
        "pages",
        f"{timing.pages_per_second:.3g}/s",
        f"{share(spent[longest], whole)} {longest}, {bound[longest]}",
        f"The batch ({workload.batch_size:,}) over vision, prefill and decode, {seconds(whole)}. {ROOFLINE}",
    )
    return [ttft, tpot, pages]


def _fit(estimate: Estimate, hardware: HardwareSpec) -> Figure:
    memory = hardware.memory_bytes
    spare = memory - estimate.footprint.total_bytes
    fits = spare >= 0
    return Figure(
        "fits the GPU",
        "yes" if fits else "NO",
        f"{si(abs(spare), 'B')} {'spare' if fits else 'too much'}",
        f"{hardware.label} has {si(memory, 'B')}. What the CUDA context and the allocator keep for themselves is not counted.",
        alarm=not fits,
    )


def _costs(estimate: Estimate) -> list[Figure]:
    workload, memory, setup = estimate.workload, estimate.footprint, estimate.setup
    flops = {stage: row["total_flops"] for stage, row in estimate.stage_numbers.items()}
    by_stage = "; ".join(f"{stage} {si(number)}" for stage, number in flops.items())
    grid = f"{workload.columns} × {workload.rows} tiles + page" if workload.tiles else "one view"
    tokens = f"{workload.image_tokens:,} image and {workload.prompt_tokens:,} prompt tokens."
    parameters = f"{si(sum(setup.parameters.values()))} params"
    return [
        Figure("FLOPs", si(sum(flops.values())), f"batch {workload.batch_size:,}", f"{by_stage}. A multiply-add is 2 FLOPs."),
        Figure("memory", si(memory.total_bytes, "B"), "all together", "Weights, KV cache at the end and the largest live activations."),
        Figure("activations", si(memory.peak_activation_bytes, "B"), "live peak", "The most alive at once beside weights and cache."),
        Figure("image tokens", f"{workload.image_tokens:,}", grid, "What a page is to the decoder."),
        Figure("context", f"{workload.context_tokens:,}", "with prompt", tokens),
        Figure("weights", si(memory.weight_bytes, "B"), parameters, f"In {setup.dtype}; all experts are held, hit or not."),
        Figure("KV cache", si(memory.kv_cache_bytes, "B"), "at the end", "Of all layers, for prompt, image and output tokens."),
    ]
