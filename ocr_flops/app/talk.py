"""The sentences of the talk on what FlashAttention saves: every number in them is computed for the setting shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from ocr_flops.charts.slides import EXPERTS, FIRST, token_traffic
from ocr_flops.charts.theme import FAMILIES, module_name
from ocr_flops.evidence.verify import LEVELS
from ocr_flops.evidence.verify.summary import find_compared
from ocr_flops.spec.specs import DTYPE_BYTES, HardwareSpec, ModelSpec
from ocr_flops.spec.tiling import queries
from ocr_flops.spec.workload import Workload
from ocr_flops.timing.estimate import Estimate, estimate
from ocr_flops.timing.hidden_savings import hidden_saving
from ocr_flops.timing.serving.result import SECONDS_PER_DAY
from ocr_flops.timing.serving.steady import prepare
from ocr_flops.timing.timing import Timing
from ocr_flops.units import count, less, seconds, share, si

Heading = tuple[str, str]  # a slide's title, and the line below it
COMPARED = {  # rows of the evidence: what they are called, and the keys of `verify.WHAT` in each
    "FLOPs": ("flops",),
    "DRAM traffic": ("traffic",),
    "kernel launches": ("operators",),
    "peak activation memory": ("peak",),
    "weights, KV cache": ("parameters", "kv"),
}
LEVEL_NAMES = {"layer": "by layer", "module": "by module", "stage": "by stage", "total": "in all"}


class ModelStep(NamedTuple):
    """A step of the model on its way from a page to tokens.

    Args:
        name: who does it.
        colour: of its part of the model.
        number, what: what it takes in.
    """

    name: str
    colour: str
    number: str
    what: str


class EvidenceRow(NamedTuple):
    """A row of the evidence: how many numbers were compared at each of `verify.LEVELS`."""

    name: str
    numbers: tuple[int, ...]


def describe_page(workload: Workload) -> Heading:
    """What the model makes of a page."""
    views = f"{workload.tiles} tiles and a global view" if workload.tiles else f"one view of {workload.global_px} px"
    return (
        f"A page becomes {views}: {workload.image_tokens:,} tokens",
        "The grid alone decides what reading a page costs: a view costs the same whatever is on it.",
    )


def model_steps(model: ModelSpec, workload: Workload) -> list[ModelStep]:
    """What happens to a page, step by step."""
    sam, clip, decoder = (model.tower(name) for name in ("sam", "clip", "decoder"))
    vectors = workload.tiles * queries(workload.tile_px) ** 2 + queries(workload.global_px) ** 2
    per_side = queries(workload.global_px)
    patches = (workload.global_px // sam.patch_px // per_side) ** 2  # to a vector
    wide = len(sam.global_layers)
    experts = f"{decoder.experts_per_token} of {decoder.experts} experts"
    return [
        ModelStep("SAM", FAMILIES["SAM"], f"{patches * vectors:,} patches", f"{sam.layers} layers, {wide} of them attend to a whole view"),
        ModelStep("CLIP", FAMILIES["CLIP"], f"{vectors:,} vectors", f"{patches} patches to one; {clip.layers} layers"),
        ModelStep(
            "Decoder",
            FAMILIES["routed experts"],
            f"{workload.context_tokens:,} tokens",
            f"page and prompt; {decoder.layers} layers, {experts}",
        ),
    ]


def choose_dtype(bits: int, device: HardwareSpec) -> str:
    """The dtype of so many bits that the device multiplies: fp16 in place of bf16 where it has no bf16.

    Args:
        bits: 16 or 32.
    """
    return "fp32" if bits == 32 else "bf16" if "bf16" in device.dtypes else "fp16"


def describe_conditions(timing: Timing) -> str:
    """Where the times hold: device, precision, batch."""
    dtype, device = timing.estimate.config.dtype, timing.hardware.label
    where = f"{device} has no bf16, so fp16" if dtype == "fp16" else f"{device}, {dtype}"
    return f"{where}, batch {timing.estimate.workload.batch_size}"


def describe_work(timing: Timing, wanted: str) -> Heading:
    """Where the FLOPs go, and where the time.

    Args:
        timing: of one point in one attention mode.
        wanted: the attention mode wanted, which fp32 or the device may not have.
    """
    estimate = timing.estimate
    stages = {stage: row["total_flops"] for stage, row in estimate.stage_numbers.items()}
    most = max(stages, key=stages.get)
    spent = {row["module"]: row["expected_seconds"] for row in timing.modules.to_dicts() if row["stage"] in FIRST}
    longest, mode = max(spent, key=spent.get), estimate.config.attention.name
    instead = f"; no {wanted} kernel takes {estimate.config.dtype} here" if mode != wanted else ""
    return (
        f"{most.capitalize()} is {share(stages[most], sum(stages.values()))} of {si(sum(stages.values()), 'FLOPs')}; "
        f"{module_name(longest)} takes {share(spent[longest], sum(spent.values()))} of the expected time to first token",
        f"Attention {mode}{instead}; {describe_conditions(timing)}. Every bar is 100 %.",
    )


def describe_growth(times: Mapping[str, float], heads: int, workload: Workload, dtype: str) -> Heading:
    """What twice the tokens cost.

    Args:
        times: of `charts.talk.doubling`.
        heads: of the decoder.
        dtype: of the scores.
    """
    (base, most), *others = times.items()
    by_factor: dict[str, list[str]] = {}
    for mode, number in others:
        by_factor.setdefault(f"{number:.1f}", []).append(mode)
    rest = ", ".join(f"{number} in {' and '.join(modes)}" for number, modes in by_factor.items())
    scores = heads * workload.context_tokens**2 * DTYPE_BYTES[dtype]
    return (
        f"Twice the tokens: {most:.1f} times the bytes in {base}, {rest}",
        f"A score for every pair of tokens: {heads} heads × {workload.context_tokens:,}² = {si(scores, 'B')} a layer for this page. "
        f"{base.capitalize()} writes and rereads them; a fused kernel keeps them on chip.",
    )


def describe_modes(estimates: Mapping[str, Estimate]) -> Heading:
    """What the last mode moves and holds against the first."""
    base, *_, best = estimates
    moved = [sum(estimates[mode].stage_numbers[stage]["io_bytes"] for stage in FIRST) for mode in (base, best)]
    held = [estimates[mode].footprint.peak_activation_bytes for mode in (base, best)]
    return (
        f"To first token {best} moves {less(*moved)} than {base}, and holds {less(*held)}",
        "Matrix FLOPs are the same in every mode: what falls away are scores, probabilities and SAM's relative-position bias.",
    )


def describe_tiles(finding: str, workload: Workload) -> Heading:
    """What each tile costs.

    Args:
        finding: of `charts.savings_by_tiles`.
    """
    pages = f"{workload.batch_size} pages" if workload.batch_size > 1 else "one page"
    return finding, f"Vision stage, {pages} at once. SAM and CLIP attend within a view: cost and savings grow with every tile alike."


def describe_first_token(timings: Mapping[str, Timing]) -> Heading:
    """What that does to the time to first token, and what fits."""
    base, *_, best = timings
    without = [mode for mode in (base, best) if not timings[mode].fits]
    fits = "; neither fits" if len(without) == 2 else "".join(f"; {mode} does not fit" for mode in without)
    first, last = (timings[mode].expected_ttft.value for mode in (base, best))
    hidden = hidden_saving(timings[base], timings[best], FIRST).describe("the time to first token")
    return (
        f"First token expected in {seconds(last)} with {best}, {seconds(first)} with {base}{fits}",
        f"{describe_conditions(timings[base])}. {hidden}. Memory: the whole run.",
    )


def describe_token(timings: Mapping[str, Timing]) -> Heading:
    """Where it does not help."""
    base, *_, best = timings
    moved = {mode: token_traffic(timings[mode].estimate) for mode in (base, best)}
    sums = {mode: sum(parts.values()) for mode, parts in moved.items()}
    parts = {kind: share(moved[best][kind], sums[best]) for kind in (EXPERTS, "KV cache")}
    return (
        f"An output token moves {less(sums[base], sums[best])} with {best} than with {base}: "
        f"{parts[EXPERTS]} are {EXPERTS}, {parts['KV cache']} KV cache",
        f"{describe_conditions(timings[base])}. One query has no square of scores. "
        f"{hidden_saving(timings[base], timings[best], ('decode',)).describe('the time')}.",
    )


def serving_steps(model: ModelSpec, workload: Workload, hardware: HardwareSpec) -> dict[str, tuple[float, float]]:
    """Pages a day of one device, and the share of the time in which it works: transformers, then vLLM with more and more in flight.

    Args:
        workload: of a page with output tokens; its batch is what transformers runs together.

    Raises:
        SpecError: a device that does not run it in this precision.
    """
    dtype, alone = choose_dtype(16, hardware), replace(workload, batch_size=1)
    found = {}
    for batch in dict.fromkeys((1, workload.batch_size)):
        timing = estimate(model, replace(workload, batch_size=batch), dtype=dtype).on(hardware)
        name = f"transformers, {batch} at once" if batch > 1 else "transformers, page by page"
        found[name] = SECONDS_PER_DAY * timing.expected_pages_per_second.value, timing.device_busy_share
    server = prepare(model, alone, hardware, dtype=dtype)
    for flying in dict.fromkeys((1, min(64, server.max_concurrency), server.max_concurrency)):
        served = server.solve(flying)
        found[f"vLLM, {flying} in flight"] = served.pages_per_day.value, served.device_busy_share
    return found


def describe_served(steps: Mapping[str, tuple[float, float]], workload: Workload, hardware: HardwareSpec) -> Heading:
    """What serving makes of one device."""
    (first, _), (last, busy) = next(iter(steps.values())), list(steps.values())[-1]
    return (
        f"Served, the same GPU reads {count(last)} pages a day instead of {count(first)}",
        f"{hardware.label}, {workload.output_tokens:,} output tokens a page, as expected; vLLM is modelled. The GPU works "
        f"{share(busy, 1)} of the time. The tab Serving has ranges, waiting times and what limits.",
    )


def describe_evidence(estimates: Mapping[str, Estimate]) -> Heading:
    """How far to trust it.

    Args:
        estimates: of the page, by attention mode; only what was compared in exactly these settings counts.
    """
    found = {mode: find_compared(one.config) for mode, one in estimates.items()}
    compared = {mode: one for mode, one in found.items() if one is not None}
    others = f"not compared: {', '.join(mode for mode in found if mode not in compared)}" if len(compared) < len(found) else ""
    if not compared:
        return "Nothing of these settings was compared with the real model", "The same rules hold for what was: see the app's tab Method."
    first, different = next(iter(compared.values())), sum(one.different for one in compared.values())
    return (
        f"{sum(one.numbers for one in compared.values()):,} numbers of {' and '.join(compared)} compared with the real model: "
        f"{f'{different:,} DIFFER' if different else 'all equal, as integers'}",
        "; ".join(filter(None, (f"{first.basis}, {first.points}", others, "ocr-flops verify repeats it where you are"))) + ".",
    )


def evidence_rows(estimates: Mapping[str, Estimate]) -> list[EvidenceRow]:
    """What was compared, and how many numbers at each level (argument as in `describe_evidence`)."""
    compared = [found for one in estimates.values() if (found := find_compared(one.config))]
    return [
        EvidenceRow(name, tuple(sum(one.levels[what][level] for one in compared for what in kinds) for level in range(len(LEVELS))))
        for name, kinds in COMPARED.items()
    ]
