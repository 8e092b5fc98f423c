"""The sentences of the talk on what FlashAttention saves: every number in them is computed for the setting shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from ocr_flops.app.setting import FIGURES, REACHED, Setting
from ocr_flops.charts.slides import EXPERTS, FIRST, million_pages, token_traffic, traffic_to_first_token
from ocr_flops.charts.theme import ATTENTION_COLOURS, FAMILIES, module_name
from ocr_flops.errors import SpecError
from ocr_flops.evidence.verify import LEVELS
from ocr_flops.evidence.verify.summary import find_compared
from ocr_flops.spec.catalog import load_engine, load_hardware, names
from ocr_flops.spec.ranged import Ranged
from ocr_flops.spec.specs import DTYPE_BYTES, STAGES, HardwareSpec, ModelSpec
from ocr_flops.spec.tiling import queries
from ocr_flops.spec.workload import Workload
from ocr_flops.timing.estimate import Estimate, estimate
from ocr_flops.timing.hidden_savings import LEAST, hidden_saving
from ocr_flops.timing.planning import largest_batch
from ocr_flops.timing.serving.result import SECONDS_PER_DAY
from ocr_flops.timing.serving.steady import prepare
from ocr_flops.timing.timing import Timing
from ocr_flops.units import count, interval, less, seconds, share, si

Heading = tuple[str, str]  # a slide's title, and the line below it
BATCH, PRICE = 8, 1.0  # with which the talk begins where nothing is asked for
NEARLY = 0.9  # of the most pages: more in flight only waits
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


class Delivered(NamedTuple):
    """What one device delivers in some way of running it: pages a day, the part of the time in which it works, time to first token."""

    pages_per_day: Ranged
    busy: float
    ttft_seconds: Ranged


class AskRow(NamedTuple):
    """A row of the ask, in words: what runs, what that needs, and what it gives; None for what does not fit."""

    what: str
    needs: str
    first_token: str
    pages_a_day: str
    million_pages: str


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


def begin(setting: Setting) -> Setting:
    """What the talk begins with, for the app's setting: DeepSeek-OCR, its own grid, some output, and an engine that runs here.

    Args:
        setting: of a link; where it is the app's default, the talk begins with a batch and a price of its own.
    """
    is_default, engine = setting == Setting(), load_engine(setting.engine)
    workload = replace(setting, model=Setting.model).workload
    prices, _ = _prices(setting)
    return replace(
        setting,
        model=Setting.model,
        source="grid",
        columns=workload.columns,
        rows=workload.rows,
        output_tokens=setting.output_tokens or Setting.output_tokens,
        batch_size=BATCH if is_default else setting.batch_size,
        attention=setting.attention if setting.attention in ATTENTION_COLOURS else "sdpa",
        engine=setting.engine if engine.block_tokens is None else Setting.engine,
        price=prices.get(setting.gpu, PRICE),
        prices=_prices(setting)[1],
    )


def on_device(page: Setting, gpu: str, bits: int, output_tokens: int) -> Setting:
    """A page on a device, in a precision of so many bits that it has; edited figures stay with their own device."""
    figures = {} if gpu == page.gpu else dict.fromkeys((*FIGURES, *REACHED))
    return replace(page, gpu=gpu, dtype=choose_dtype(bits, load_hardware(gpu)), output_tokens=output_tokens, **figures)


def _prices(setting: Setting) -> tuple[dict[str, float], str]:
    try:
        return setting.hour_prices
    except SpecError:
        return {}, ""


def choose_dtype(bits: int, device: HardwareSpec) -> str:
    """The dtype of so many bits that the device multiplies: fp16 in place of bf16 where it has no bf16.

    Args:
        bits: 16 or 32.
    """
    return "fp32" if bits == 32 else "bf16" if "bf16" in device.dtypes else "fp16"


def describe_conditions(timing: Timing) -> str:
    """Where the times hold: device, precision, batch, engine."""
    config, device = timing.estimate.config, timing.hardware.label
    where = f"{device} has no bf16, so fp16" if config.dtype == "fp16" else f"{device}, {config.dtype}"
    return f"{where}, batch {timing.estimate.workload.batch_size}, {config.engine.label.partition(',')[0]}"


def name_base(estimate: Estimate) -> str:
    """An attention mode to compare with, "today's" where the engine runs it by itself."""
    own, attention = dict(estimate.config.engine.kernels), estimate.config.attention
    is_own = all(own[tower] == kernel for tower, kernel in attention.kernels)
    return f"today's {attention.name}" if is_own else attention.name


def compare_last(estimates: Mapping[str, Estimate], figures: Mapping[str, float]) -> list[str]:
    """How much less the last mode takes than each before it, the nearest first: "35 % less than today's sdpa", "71 % less than eager".

    Args:
        estimates: by attention mode.
        figures: of some of them, in the same order.
    """
    *others, best = figures
    return [f"{less(figures[mode], figures[best])} than {name_base(estimates[mode])}" for mode in reversed(others)]


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
    """What the last mode moves less than the one before it, where, and what its kernel has to do for it."""
    (before, base), (mode, best) = [*estimates.items()][-2:]
    parts = {name: traffic_to_first_token(one) for name, one in estimates.items()}
    saved = {name: value - parts[mode][name] for name, value in parts[before].items()}
    where, moved = max(saved, key=saved.get), {name: sum(one.values()) for name, one in parts.items()}
    kernel = "It keeps scores and probabilities on chip; SAM's bias for every pair of patches is still written and read."
    if _is_missing(best):
        sam, config = best.config.model.tower("sam"), best.config
        side = best.workload.global_px // sam.patch_px
        whole, terms = (si(DTYPE_BYTES[config.dtype] * sam.heads * side**2 * each, "B") for each in (side**2, 2 * side))
        kernel = (
            f"With {before} SAM writes and rereads a bias for every pair of patches: {sam.heads} heads × {side**2:,}² = {whole} in a "
            f"global layer. A kernel that builds it on chip of {side} row and {side} column terms a patch reads {terms}. No engine has it."
        )
    nearest, *others = compare_last(estimates, moved)
    there = f"{nearest}, {share(saved[where], sum(saved.values()))} of that in {where} attention"
    return f"To the first token {mode} moves {'; '.join([there, *others])}", kernel


def describe_first_token(timings: Mapping[str, Timing]) -> Heading:
    """What that does to the time to first token, and what fits."""
    base, best = [*timings.values()][-2:]
    without = [mode for mode, one in timings.items() if not one.fits]
    fits = f"; {' and '.join(without)} {'does' if len(without) == 1 else 'do'} not fit" if without else ""
    found = ", ".join(compare_last(_estimates(timings), {mode: one.expected_ttft.value for mode, one in timings.items()}))
    hidden = hidden_saving(base, best, FIRST).describe("the time to first token")
    return (
        f"First token in {seconds(best.expected_ttft.value)} with {[*timings][-1]}: {found}{fits}",
        f"{describe_conditions(base)}; expected {interval(best.expected_ttft)}. "
        f"Against {name_base(base.estimate)}: {hidden[0].lower()}{hidden[1:]}.",
    )


def describe_token(timings: Mapping[str, Timing]) -> Heading:
    """Where it does not help."""
    moved = {mode: token_traffic(timings[mode].estimate) for mode in timings}
    best, found = [*moved][-1], ", ".join(compare_last(_estimates(timings), {mode: sum(one.values()) for mode, one in moved.items()}))
    parts = {kind: share(moved[best][kind], sum(moved[best].values())) for kind in (EXPERTS, "KV cache")}
    return (
        f"With {best} an output token moves {found}: {parts[EXPERTS]} are {EXPERTS}, {parts['KV cache']} KV cache",
        f"{describe_conditions(timings[best])}. One query has no square of scores, so {best} has little to save.",
    )


def describe_pages(timings: Mapping[str, Timing], price: float, currency: str) -> Heading:
    """What it saves of a million pages, in money, and from which batch on.

    Args:
        timings: of one point on one device by attention mode.
        price: of an hour of the device.
        currency: "" for any.
    """
    base, best = [*timings.values()][-2:]
    mode, fitting = [*timings][-1], {name: one for name, one in timings.items() if one.fits}
    largest = ", ".join(f"{name} {largest_batch(one.estimate, one.hardware.memory_bytes)}" for name, one in timings.items())
    fits = f"The largest batch that fits: {largest}."
    if mode not in fitting:
        return f"Batch {best.estimate.workload.batch_size} does not fit, whatever the attention", f"{describe_conditions(best)}. {fits}"
    hours = {name: million_pages(one) for name, one in fitting.items()}
    found = "".join(f", {one}" for one in compare_last(_estimates(timings), {name: one.value for name, one in hours.items()}))
    hidden = hidden_saving(base, best, STAGES)
    shows = f"the saving shows from batch {hidden.from_batch} on" if hidden.from_batch else "the host hides the saving at every batch"
    shows = shows if hidden.device >= LEAST else f"the GPU itself saves {share(max(hidden.device, 0), 1)}"
    without = [name for name in timings if name not in fitting]
    does_not = f"; {' and '.join(without)}: does not fit" if without else ""
    run, at = hours[mode], "" if currency else f" at {money(price, '')} a GPU hour"
    return (
        f"A million pages cost {money(price * run.value, currency)}{at} with {mode}{found}{does_not}",
        f"{describe_conditions(best)}, {best.estimate.workload.output_tokens:,} output tokens; {count(run.value)} GPU hours, expected "
        f"{count(run.low)} to {count(run.high)}, at {money(price, currency)} each. Against {name_base(base.estimate)} {shows}. {fits}",
    )


def money(amount: float, currency: str) -> str:
    """An amount, with its currency where it has one."""
    return f"{count(amount)} {currency}".strip()


def serving_steps(model: ModelSpec, workload: Workload, hardware: HardwareSpec) -> dict[str, Delivered]:
    """What one device delivers: transformers, then vLLM with more and more in flight.

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
        found[name] = Delivered(_a_day(timing), timing.device_busy_share, timing.expected_ttft)
    server = prepare(model, alone, hardware, dtype=dtype)
    for flying in dict.fromkeys((1, min(64, server.max_concurrency), server.max_concurrency)):
        served = server.solve(flying)
        found[f"vLLM, {flying} in flight"] = Delivered(served.pages_per_day, served.device_busy_share, served.ttft_seconds)
    return found


def _a_day(timing: Timing) -> Ranged:
    return Ranged(*(SECONDS_PER_DAY * pages for pages in timing.expected_pages_per_second[:3]))


def describe_served(steps: Mapping[str, Delivered], workload: Workload, hardware: HardwareSpec) -> Heading:
    """What serving makes of one device."""
    first, last = next(iter(steps.values())), list(steps.values())[-1]
    return (
        f"Served, the same GPU reads {count(last.pages_per_day.value)} pages a day instead of {count(first.pages_per_day.value)}",
        f"{hardware.label}, {workload.output_tokens:,} output tokens a page, as expected; vLLM is modelled. The GPU works "
        f"{share(last.busy, 1)} of the time. The tab Serving has ranges, waiting times and what limits.",
    )


def describe_ask(timings: Mapping[str, Timing]) -> Heading:
    """What is asked for: the kernel and what it has to do, where one is missing, and what it is worth."""
    (before, base), (mode, best) = [*timings.items()][-2:]
    first, last = base.expected_ttft.value, best.expected_ttft.value
    worth = f"{seconds(first - last)} of {seconds(first)} to the first token"
    if base.fits and best.fits:
        hours = [million_pages(one).value for one in (base, best)]
        worth += f" and {count(hours[0] - hours[1])} of {count(hours[0])} GPU hours for a million pages"
    line = f"Against {name_base(base.estimate)} it is worth {worth}: {describe_conditions(best)}."
    if not _is_missing(best.estimate):
        kernel = f"{mode} in place of {before}" if name_base(best.estimate) == mode else f"nothing more of attention, {mode} runs today"
        return f"The ask: {kernel}; pages in batches", line
    return "The ask: an attention kernel for SAM that builds its bias on chip, and pages in batches", line


def ask_rows(timings: Mapping[str, Timing], steps: Mapping[str, Delivered], price: float) -> list[AskRow]:
    """What each step gives: every attention mode, then what serves with least in flight for nine tenths of the most pages.

    Args:
        timings: of one point on one device by attention mode.
        steps: of `serving_steps`; empty where the device does not serve.
        price: of an hour of the device.
    """

    def described(name: str, needs: str, one: Delivered) -> AskRow:
        pages = one.pages_per_day
        costs = [24e6 * price / value for value in (pages.value, pages.high, pages.low)]
        days, cost = (f"{count(value)} ({count(low)} to {count(high)})" for value, low, high in (pages[:3], costs))
        return AskRow(name, needs, interval(one.ttft_seconds), days, cost)

    rows = []
    for mode, one in timings.items():
        is_own, is_here = name_base(one.estimate) != mode, one.estimate.config.evidence("vision") != "modelled"
        needs = "nothing: it runs today" if is_own else "an option: it is there" if is_here else "another engine"
        needs = "a kernel that no engine has" if _is_missing(one.estimate) else needs
        name = f"{mode}, {one.estimate.workload.batch_size} at once"
        row = described(name, needs, Delivered(_a_day(one), one.device_busy_share, one.expected_ttft))
        rows.append(row if one.fits else AskRow(name, needs, "–", "does not fit", "–"))
    most = max((one.pages_per_day.value for one in steps.values()), default=0)
    serving = ((name, one) for name, one in reversed(steps.items()) if one.pages_per_day.value >= NEARLY * most)
    last = [*serving][-1:]
    return rows + [described(name, "an engine that batches; modelled", one) for name, one in last]


def _is_missing(estimate: Estimate) -> bool:
    """Whether no engine that runs here has the attention kernel of SAM."""
    runnable = (load_engine(name).runnable_kernels("sam") for name in names("engine"))
    return not any(estimate.config.attention.kernel("sam") in kernels for kernels in runnable)


def _estimates(timings: Mapping[str, Timing]) -> dict[str, Estimate]:
    return {mode: one.estimate for mode, one in timings.items()}


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
