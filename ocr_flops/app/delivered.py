"""What one device delivers in each way of running the model: the sentences and rows of the talk on pages, money, serving and the ask."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from ocr_flops.app.records_overlay import conditions
from ocr_flops.app.setting import Setting
from ocr_flops.app.talk import (
    Heading,
    choose_dtype,
    compare_last,
    describe_batches,
    describe_conditions,
    describe_no_fit,
    estimates_of,
    is_missing,
    name_base,
)
from ocr_flops.charts.slides import million_pages
from ocr_flops.errors import SpecError
from ocr_flops.reports.serving import WHAT
from ocr_flops.spec.catalog import load_engine
from ocr_flops.spec.ranged import Ranged
from ocr_flops.spec.specs import STAGES, ModelSpec
from ocr_flops.timing.hidden_savings import BATCHES, LEAST, hidden_saving
from ocr_flops.timing.serving.result import CUTTING
from ocr_flops.timing.serving.steady import ENGINE, prepare
from ocr_flops.timing.timing import Timing
from ocr_flops.units import count, counted, hour_price, interval, money, seconds, share

NEARLY = 0.9  # of the most pages: more in flight only waits


class Delivered(NamedTuple):
    """What one device delivers in some way of running it: pages a day, the part of the time in which it works, time to first token, and
    what limits it where that is known."""

    pages_per_day: Ranged
    busy: float
    ttft_seconds: Ranged
    limited_by: str = ""


class AskRow(NamedTuple):
    """A row of the ask, in words: what runs, what that needs, and what it gives; None for what does not fit."""

    what: str
    needs: str
    first_token: str
    pages_a_day: str
    million_pages: str


def describe_pages(timings: Mapping[str, Timing], price: float, currency: str) -> Heading:
    """What it saves of a million pages, in money, and from which batch on.

    Args:
        timings: of one point on one device by attention mode.
        price: of an hour of the device.
        currency: "" for any.
    """
    base, best = [*timings.values()][-2:]
    mode, fitting = [*timings][-1], {name: one for name, one in timings.items() if one.fits}
    if mode not in fitting:
        return describe_no_fit(timings)
    hours = {name: million_pages(one) for name, one in fitting.items()}
    found = "".join(f", {one}" for one in compare_last(estimates_of(timings), {name: one.value for name, one in hours.items()}))
    without = [name for name in timings if name not in fitting]
    does_not = f"; {' and '.join(without)}: does not fit" if without else ""
    run = hours[mode]
    cost = f"cost {money(price * run.value, currency)}" if currency else f"take {count(run.value)} GPU hours"
    return (
        f"A million pages {cost} with {mode}{found}{does_not}",
        f"{describe_conditions(best)}, {counted(best.estimate.workload.output_tokens, 'output token')}; {count(run.value)} GPU hours, "
        f"expected {count(run.low)} to {count(run.high)}, at {hour_price(price, currency)}. Against {name_base(base.estimate)} "
        f"{_shows(base, best)}. {describe_batches(timings)}",
    )


def _shows(base: Timing, best: Timing) -> str:
    """From which batch on a user sees what the device saves of whole pages, in words."""
    hidden = hidden_saving(base, best, STAGES)
    if hidden.device < LEAST:
        return f"the GPU itself saves {share(max(hidden.device, 0), 1)} of a page's time"
    if hidden.from_batch:
        return f"at least half of what the GPU itself saves of whole pages shows from batch {hidden.from_batch} on"
    return f"the host hides more than half of what the GPU itself saves of whole pages even at batch {BATCHES[-1]}"


def serving_steps(model: ModelSpec, setting: Setting) -> tuple[dict[str, Delivered], str]:
    """What one device delivers, and why vLLM does not serve there, "" where it does.

    Args:
        setting: a page with output tokens; its batch is what its own engine runs together.

    Returns:
        the setting's engine, where it fits, then vLLM with more and more in flight, in 16 bit, by what they are.
    """
    found: dict[str, Delivered] = {}
    try:
        for step, one in _steps(model, setting):
            found[step] = one
    except SpecError as error:
        return found, str(error)
    return found, ""


def _steps(model: ModelSpec, setting: Setting) -> Iterator[tuple[str, Delivered]]:
    for batch in dict.fromkeys((1, setting.batch_size)):
        point = replace(setting, batch_size=batch)
        timing = point.estimate(model, "vendor").on(**conditions(model, point))
        if timing.fits:
            name = f"{_engine_name(setting)}, {f'{batch} at once' if batch > 1 else 'page by page'}"
            yield name, Delivered(timing.expected_pages_per_day, timing.device_busy_share, timing.expected_ttft)
    hardware, served = setting.hardware, replace(setting, engine=ENGINE, batch_size=1)
    dtype = choose_dtype(16, hardware, setting.dtype)
    under = {"host": served.host_spec, "efficiency": served.efficiency}
    server = prepare(model, served.workload, hardware, engine=load_engine(ENGINE), dtype=dtype, **under)
    for flying in dict.fromkeys((1, min(64, server.max_concurrency), server.max_concurrency)):
        one = server.solve(flying)
        served = Delivered(one.pages_per_day, one.device_busy_share, one.ttft_seconds, WHAT[one.limited_by])
        yield f"vLLM in {dtype}, {flying} in flight", served


def _engine_name(setting: Setting) -> str:
    return load_engine(setting.engine).label.partition(",")[0]


def describe_served(steps: Mapping[str, Delivered], setting: Setting, refused: str = "") -> Heading:
    """What serving makes of one device; of one that vLLM does not serve on, why, and what runs there (arguments of `serving_steps`)."""
    own = [(count(one.pages_per_day.value), name) for name, one in steps.items() if not one.limited_by]
    if refused:
        runs = "Not served, this GPU reads {} pages a day ({})".format(*own[-1]) if own else "This GPU neither serves nor fits it"
        return runs, f"{refused.removeprefix('attention: ')}."
    flying, last = next(reversed(steps.items()))
    instead = " instead of {} ({})".format(*own[-1]) if own else f"; {_engine_name(setting)} does not fit"
    batches = ", which batches do not wait for" if last.limited_by == WHAT[CUTTING] else ""
    return (
        f"Served, the same GPU reads {count(last.pages_per_day.value)} pages a day{instead}",
        f"{setting.hardware.label}, {setting.dtype}, {counted(setting.output_tokens, 'output token')} a page, as expected "
        f"({count(last.pages_per_day.low)} to {count(last.pages_per_day.high)}); {flying}, is modelled. "
        f"The GPU works {share(last.busy, 1)} of the time; the limit is {last.limited_by}{batches}. The tab "
        f"Serving has waiting times and other GPUs.",
    )


def describe_ask(timings: Mapping[str, Timing]) -> Heading:
    """What is asked for: the kernel and what it has to do, where one is missing, and what it is worth."""
    base, (mode, best) = [*timings.values()][-2], [*timings.items()][-1]
    if not best.fits:
        return describe_no_fit(timings)
    first, last = base.expected_ttft.value, best.expected_ttft.value
    worth = f"{seconds(first - last)} of {seconds(first)} to the first token"
    if base.fits:
        hours = [million_pages(one).value for one in (base, best)]
        worth += f" and {count(hours[0] - hours[1])} of {count(hours[0])} GPU hours for a million pages"
    line = f"Against {name_base(base.estimate)} it is worth {worth}: {describe_conditions(best)}; {_shows(base, best)}."
    if not base.fits:
        line = f"{name_base(base.estimate)} does not fit: {describe_conditions(best)}. {describe_batches(timings)}"
    if not is_missing(best.estimate):
        kernel = (
            f"{mode} in place of {name_base(base.estimate)}"
            if name_base(best.estimate) == mode
            else f"nothing more of attention, {mode} runs today"
        )
        return f"The ask: {kernel}; pages in batches", line
    return "The ask: an attention kernel for SAM that builds its bias on chip, and pages in batches", line


def ask_rows(timings: Mapping[str, Timing], steps: Mapping[str, Delivered], price: float) -> list[AskRow]:
    """What each step gives: every attention mode, then what serves with least in flight for nine tenths of the most pages.

    Args:
        timings: of one point on one device by attention mode.
        steps: of `serving_steps`.
        price: of an hour of the device.
    """

    def described(name: str, needs: str, one: Delivered) -> AskRow:
        pages = one.pages_per_day
        costs = [24e6 * price / value for value in (pages.value, pages.high, pages.low)]
        days, cost = (f"{count(value)} ({count(low)} to {count(high)})" for value, low, high in (pages[:3], costs))
        return AskRow(name, needs, interval(one.ttft_seconds), days, cost)

    rows = []
    for mode, one in timings.items():
        is_own, config = name_base(one.estimate) != mode, one.estimate.config
        is_here = all(kernel in config.engine.runnable_kernels(tower) for tower, kernel in config.attention.kernels)
        needs = "nothing: it runs today" if is_own else "an option that the engine has" if is_here else "another engine"
        needs = "a kernel that no engine has" if is_missing(one.estimate) else needs
        name = f"{mode}, {one.estimate.workload.batch_size} at once"
        row = described(name, needs, Delivered(one.expected_pages_per_day, one.device_busy_share, one.expected_ttft))
        rows.append(row if one.fits else AskRow(name, needs, "–", "does not fit", "–"))
    serving = [(name, one) for name, one in steps.items() if one.limited_by]
    most = max((one.pages_per_day.value for _, one in serving), default=0)
    last = [pair for pair in serving if pair[1].pages_per_day.value >= NEARLY * most][:1]
    return rows + [described(name, "an engine that batches; modelled", one) for name, one in last]
