"""The sentences of the talk on what FlashAttention saves: every number in them is computed for the setting shown."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import NamedTuple

from ocr_flops.app import links
from ocr_flops.app.links import Link, Query
from ocr_flops.app.setting import FIGURES, REACHED, Setting
from ocr_flops.app.tabs import TABS
from ocr_flops.charts.slides import EXPERTS, FIRST, token_traffic, traffic_to_first_token
from ocr_flops.charts.theme import ATTENTION_COLOURS, FAMILIES, module_name
from ocr_flops.errors import SpecError
from ocr_flops.evidence.verify import LEVELS
from ocr_flops.evidence.verify.summary import describe_points, find_compared
from ocr_flops.spec.catalog import load_engine, load_hardware, names
from ocr_flops.spec.specs import DTYPE_BYTES, HardwareSpec, ModelSpec
from ocr_flops.spec.tiling import queries
from ocr_flops.spec.workload import Workload
from ocr_flops.timing.estimate import Estimate
from ocr_flops.timing.hidden_savings import hidden_saving
from ocr_flops.timing.planning import largest_batch
from ocr_flops.timing.timing import Timing
from ocr_flops.units import interval, less, seconds, share, si

Heading = tuple[str, str]  # a slide's title, and the line below it
BATCH, PRICE = 8, 1.0  # with which the talk begins where nothing is asked for
TODAY = "today"  # what an engine runs by itself, where its towers have different kernels
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


def read(query: Query) -> Link:
    """What a link asks the talk for: of nothing, a batch of the talk's own; prices that cannot be read are left out, with a notice."""
    link = links.read(query, TABS)
    if link.setting == Setting():
        return replace(link, setting=replace(link.setting, batch_size=BATCH))
    try:
        link.setting.hour_prices  # noqa: B018  raises
    except SpecError as problem:
        return replace(link, setting=replace(link.setting, prices=""), notices=(*link.notices, f"{problem}."))
    return link


def begin(setting: Setting) -> Setting:
    """What the talk begins with, for a link's setting: DeepSeek-OCR, its own grid, some output, and an engine that runs here."""
    engine = setting.engine if load_engine(setting.engine).block_tokens is None else Setting.engine
    setting = replace(setting, engine=engine, model=Setting.model)
    workload = setting.workload
    return replace(
        setting,
        source="grid",
        columns=workload.columns,
        rows=workload.rows,
        output_tokens=setting.output_tokens or Setting.output_tokens,
        attention=setting.attention if setting.attention in attention_choices(setting).values() else "sdpa",
    )


def attention_choices(setting: Setting) -> dict[str, str]:
    """The attention modes that the talk's list has, by name: `TODAY` where the engine's towers have different kernels."""
    is_mixed = len({kernel for _, kernel in load_engine(setting.engine).kernels}) > 1
    return {mode: mode for mode in ATTENTION_COLOURS} | ({TODAY: "vendor"} if is_mixed else {})


def keep(setting: Setting, shown: Setting, price: float) -> Setting:
    """A link's setting with what the controls have changed since, for the address.

    Args:
        setting: of the link.
        shown: what the controls say.
        price: of an hour of its GPU.
    """
    start = begin(setting)
    start = on_device(start, start.gpu, 8 * DTYPE_BYTES[start.dtype], start.output_tokens)
    changed = {one.name for one in fields(Setting) if getattr(start, one.name) != getattr(shown, one.name)}
    changed |= {"source", "columns", "rows"} if changed & {"columns", "rows"} else set()
    found = replace(setting, **{name: getattr(shown, name) for name in changed})
    if price == price_of(found, shown.gpu):
        return found
    others = [word for word in setting.prices.replace(",", " ").split() if word.partition("=")[0].lower() != shown.gpu]
    return replace(found, prices=" ".join([f"{shown.gpu}={price:.15g}", *others]))


def price_of(setting: Setting, gpu: str) -> float:
    """The price of an hour of a GPU; one where the setting has none."""
    return setting.hour_prices[0].get(gpu, PRICE)


def on_device(page: Setting, gpu: str, bits: int, output_tokens: int) -> Setting:
    """A page on a device, in a precision of so many bits that it has; edited figures stay with their own device."""
    figures = {} if gpu == page.gpu else dict.fromkeys((*FIGURES, *REACHED))
    return replace(page, gpu=gpu, dtype=choose_dtype(bits, load_hardware(gpu), page.dtype), output_tokens=output_tokens, **figures)


def choose_dtype(bits: int, device: HardwareSpec, wanted: str = "bf16") -> str:
    """The dtype of so many bits that the device multiplies: the wanted one, else bf16, else fp16.

    Args:
        bits: 16 or 32.
    """
    if bits == 32:
        return "fp32"
    return next((name for name in (wanted, "bf16") if DTYPE_BYTES[name] == 2 and name in device.dtypes), "fp16")


def by_mode(model: ModelSpec, setting: Setting) -> dict[str, Estimate]:
    """The point in every attention mode, the most wasteful first; and `TODAY`, where it is none of them, before the last."""
    found, own = setting.by_mode(model), setting.estimate(model, "vendor")
    if own.config.attention.kernels in [one.config.attention.kernels for one in found.values()]:
        return found
    *others, last = found.items()
    return dict([*others, (TODAY, own), last])


def describe_conditions(timing: Timing) -> str:
    """Where the times hold: device, precision, batch, engine."""
    config, device = timing.estimate.config, timing.hardware.label
    where = f"{device}, {config.dtype}" if "bf16" in timing.hardware.dtypes or config.dtype != "fp16" else f"{device} has no bf16, so fp16"
    return f"{where}, batch {timing.estimate.workload.batch_size}, {config.engine.label.partition(',')[0]}"


def name_base(estimate: Estimate) -> str:
    """An attention mode to compare with, "today's" where the engine runs it by itself."""
    own, attention = dict(estimate.config.engine.kernels), estimate.config.attention
    if attention.name == "vendor":
        return "what runs today"
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
        wanted: the attention mode wanted, by `attention_choices`, which fp32 or the device may not have.
    """
    estimate = timing.estimate
    stages = {stage: row["total_flops"] for stage, row in estimate.stage_numbers.items()}
    most = max(stages, key=stages.get)
    spent = {row["module"]: row["expected_seconds"] for row in timing.modules.to_dicts() if row["stage"] in FIRST}
    longest, mode = max(spent, key=spent.get), estimate.config.attention.name.replace("vendor", TODAY)
    fits = "" if timing.fits else ", which does not fit"
    instead = f"; no {wanted} kernel takes {estimate.config.dtype} here" if mode != wanted else ""
    return (
        f"{most.capitalize()} is {share(stages[most], sum(stages.values()))} of {si(sum(stages.values()), 'FLOPs')}; "
        f"{share(spent[longest], sum(spent.values()))} of the expected time to first token goes to {module_name(longest)}",
        f"Attention {mode}{instead}; {describe_conditions(timing)}{fits}. Every bar is 100 %.",
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
    if is_missing(best):
        sam, config = best.config.model.tower("sam"), best.config
        side = best.workload.global_px // sam.patch_px
        whole, terms = (si(DTYPE_BYTES[config.dtype] * sam.heads * side**2 * each, "B") for each in (side**2, 2 * side))
        kernel = (
            f"With {name_base(base)} SAM writes and rereads a bias for every pair of patches: {sam.heads} heads × {side**2:,}² = {whole} "
            f"in a global layer. A kernel that builds it on chip of {side} row and {side} column terms a patch reads {terms}. "
            "No engine has it."
        )
    nearest, *others = compare_last(estimates, moved)
    there = f"{nearest}, {share(saved[where], sum(saved.values()))} of that in {where} attention"
    run = f"Batch {best.workload.batch_size} in {best.config.dtype}, whatever the GPU. "
    return f"To the first token {mode} moves {'; '.join([there, *others])}", run + kernel


def describe_first_token(timings: Mapping[str, Timing]) -> Heading:
    """What that does to the time to first token, and what fits."""
    base, best = [*timings.values()][-2:]
    without = [mode for mode, one in timings.items() if not one.fits]
    fits = f"; {' and '.join(without)} {'does' if len(without) == 1 else 'do'} not fit" if without else ""
    if not best.fits:
        return describe_no_fit(timings)
    last = [*timings][-1]
    found = "".join(
        f", {one}"
        for one in compare_last(estimates_of(timings), {mode: one.expected_ttft.value for mode, one in timings.items() if one.fits})
    )
    hidden = hidden_saving(base, best, FIRST).describe("the time to first token")
    return (
        f"First token in {seconds(best.expected_ttft.value)} with {last}{found}{fits}",
        f"{describe_conditions(base)}; expected {interval(best.expected_ttft)}. "
        f"Against {name_base(base.estimate)}: {hidden[0].lower()}{hidden[1:]}.",
    )


def describe_no_fit(timings: Mapping[str, Timing]) -> Heading:
    """That not even the leanest mode fits."""
    best = [*timings.values()][-1]
    title = f"Batch {best.estimate.workload.batch_size} does not fit, whatever the attention"
    return title, f"{describe_conditions(best)}. {describe_batches(timings)}"


def describe_batches(timings: Mapping[str, Timing]) -> str:
    """The largest batch that fits in each mode, in a sentence."""
    largest = (f"{name} {largest_batch(one.estimate, one.hardware.memory_bytes)}" for name, one in timings.items())
    return f"The largest batch that fits: {', '.join(largest)}."


def describe_token(timings: Mapping[str, Timing]) -> Heading:
    """Where it does not help."""
    moved = {mode: token_traffic(timings[mode].estimate) for mode in timings}
    best, found = [*moved][-1], ", ".join(compare_last(estimates_of(timings), {mode: sum(one.values()) for mode, one in moved.items()}))
    parts = {kind: share(moved[best][kind], sum(moved[best].values())) for kind in (EXPERTS, "KV cache")}
    return (
        f"With {best} an output token moves {found}: {parts[EXPERTS]} are {EXPERTS}, {parts['KV cache']} KV cache",
        f"{describe_conditions(timings[best])}. One query has no square of scores, so {best} has little to save.",
    )


def is_missing(estimate: Estimate) -> bool:
    """Whether no engine that runs here has the attention kernel of SAM."""
    runnable = (load_engine(name).runnable_kernels("sam") for name in names("engine"))
    return not any(estimate.config.attention.kernel("sam") in kernels for kernels in runnable)


def estimates_of(timings: Mapping[str, Timing]) -> dict[str, Estimate]:
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
        "; ".join(filter(None, (f"{first.basis}, {describe_points(compared)}", others, "ocr-flops verify repeats it where you are"))) + ".",
    )


def evidence_rows(estimates: Mapping[str, Estimate]) -> list[EvidenceRow]:
    """What was compared, and how many numbers at each level (argument as in `describe_evidence`)."""
    compared = [found for one in estimates.values() if (found := find_compared(one.config))]
    return [
        EvidenceRow(name, tuple(sum(one.levels[what][level] for one in compared for what in kinds) for level in range(len(LEVELS))))
        for name, kinds in COMPARED.items()
    ]
