"""The tab Serving: what an engine that batches continuously delivers on the device and on others, at a concurrency or a rate."""

from html import escape
from typing import Any

import marimo as mo

from ocr_flops.app.served import BUDGETS, FLYING, MOST_REPLICAS, MOST_SECONDS, MOST_WORKERS, OWN, RATE, Load, Served
from ocr_flops.app.tabs.elements import choice, grid, labelled, plain_table, problem
from ocr_flops.errors import SpecError
from ocr_flops.reports.serving import describe_best, describe_context, describe_serving, describe_step, serving_table
from ocr_flops.spec.catalog import serving_engines
from ocr_flops.timing.serving.targets import CONTEXT, OTHERS, Promise, best_rate, command_line, longest_output
from ocr_flops.timing.serving.traffic import Lengths

STEPS = [1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024]
RATES = [0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 50, 80]


def load_control(load: Load = Load()) -> mo.ui.radio:  # noqa: B008  it is frozen
    """What kind of load, which decides what other controls there are."""
    return mo.ui.radio([FLYING, RATE], value=load.load, inline=True, label="load")


def serving_controls(load: Load = Load()) -> mo.ui.dictionary:  # noqa: B008  it is frozen
    """How much load, the GPUs beside the sidebar's, and the engine's options, as a link has them."""
    batched = "max_num_batched_tokens: tokens of one step, of running sequences and prompts together."
    workers = labelled("threads that cut pages", "On the CPU; each takes some 140 ms for an A4 page in Gundam, less without tiles.")
    budgets = {"the engine's own": OWN, **{f"{int(one):,}": one for one in BUDGETS}}
    bans = {"the engine's own": None, "on": True, "off": False}
    flying, arriving = labelled("in flight on each GPU", "At once."), labelled("arriving a second", "At all GPUs together.")
    wide, shown = {"full_width": True}, {"full_width": True, "show_value": True}
    copies = labelled("GPUs", "Copies of the model, each on a GPU of its own.")
    return mo.ui.dictionary(
        {
            "engine": choice(serving_engines(), load.engine, "served by", "Modelled from its sources; see Method."),
            "concurrency": mo.ui.slider(steps=sorted({*STEPS, load.concurrency}), value=load.concurrency, **shown, label=flying),
            "rate": mo.ui.slider(steps=sorted({*RATES, load.rate}), value=load.rate, **shown, label=arriving),
            "replicas": mo.ui.number(1, MOST_REPLICAS, value=load.replicas, **wide, label=copies),
            "others": mo.ui.text(load.others, **wide, label=labelled("beside it", "Other GPUs, by names of hardware=, with commas.")),
            "max_num_batched_tokens": choice(budgets, load.max_num_batched_tokens, "token budget", batched),
            "preprocess_workers": mo.ui.number(1, MOST_WORKERS, value=load.preprocess_workers, **wide, label=workers),
            "ngram_ban": choice(bans, load.ngram_ban, "n-gram ban", "A loop in Python over every sequence in every step."),
        }
    )


def promise_controls(load: Load = Load()) -> mo.ui.number:  # noqa: B008  it is frozen
    """What 95 of 100 requests are promised."""
    about = "Seconds within which 95 of 100 requests, arriving at random (Poisson), get their first token; simulated."
    label = labelled("p95 first token within (s)", about)
    return mo.ui.number(0.05, MOST_SECONDS, value=load.first_token_seconds, step=0.05, label=label)


def controls(fields: dict[str, Any], load: mo.ui.radio) -> mo.Html:
    """The controls, the one of the load that is chosen among them.

    Args:
        fields: the elements of `serving_controls`, in a plain container, so that they stay when one moves.
        load: of `load_control`.
    """
    hidden = "rate" if load.value == FLYING else "concurrency"
    return mo.vstack([load, grid(*(field for name, field in fields.items() if name != hidden))])


def answer(found: Served | SpecError) -> mo.Html:
    """A load in sentences; or a notice where there is no answer."""
    if isinstance(found, SpecError):
        return problem("It is not served.", f"{found}.")
    server, chosen = found.servers[0], found.chosen
    flying = max(1, round(chosen.concurrency or chosen.max_concurrency))
    longest = longest_output(server, flying)
    fits = f"outputs may all reach {longest:,} tokens before the cache is full"
    if longest >= CONTEXT:
        fits = f"all may reach the {CONTEXT:,} tokens that the model was made for"
    longest = f"With {flying} in flight on each, {fits}."
    said = [describe_serving(chosen), describe_step(chosen), longest, *describe_context(found.servers[0]), *found.refused]
    return mo.Html(f"<ul class='findings'>{''.join(f'<li>{escape(one)}</li>' for one in said)}</ul>")


def promised(found: Served | SpecError, seconds: float) -> mo.Html:
    """The most pages a day of each GPU with a p95 first token within so many seconds, found by simulation."""
    if isinstance(found, SpecError):
        return answer(found)
    try:
        promise, said = Promise(float(seconds)), []
        for server in found.servers:
            lengths = Lengths(server.output, limit=max(8192, int(server.output)))
            said.append(describe_best(server, best_rate(server, lengths, promise, others=OTHERS), promise, found.replicas))
    except SpecError as error:
        return problem("It is not promised.", f"{error}.")
    server = found.servers[0]
    listed = "".join(f"<li>{escape(one)}</li>" for one in said)
    return mo.Html(f"<ul class='findings'>{listed}</ul><p>So served on {escape(server.hardware.label)}:</p>{_typed(command_line(server))}")


def command(found: Served | SpecError) -> mo.Html:
    """What to type, with a button that copies it."""
    if isinstance(found, SpecError):
        return mo.Html("")
    return mo.Html(_typed(command_line(found.servers[0], found.chosen.concurrency if found.chosen.rate is None else None)))


def _typed(text: str) -> str:
    """A command with a button that copies it."""
    button = f"<button type='button' class='copy-link' data-copy='{escape(text)}'>Copy the command</button>"
    return f"<div class='command'><code>{escape(text)}</code> {button}</div>"


def numbers(found: Served | SpecError) -> mo.Html:
    """The load on every GPU in a table, and what it rests on."""
    if isinstance(found, SpecError):
        return mo.Html("")
    import polars as pl

    load = {"concurrency": found.wanted["concurrency"]} if found.wanted["load"] == FLYING else {"rate": found.wanted["rate"]}
    frames = [server.solve(**load, replicas=found.replicas).frame for server in found.servers]
    table = plain_table(serving_table(pl.concat(frames, how="diagonal_relaxed")))
    return mo.vstack([table, mo.Html(f"<small>{escape(f'Modelled, not measured; rests on {found.servers[0].basis}.')}</small>")])
