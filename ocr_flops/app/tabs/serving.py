"""The tab Serving: what an engine that batches continuously delivers on the device and on others, at a concurrency or a rate."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from typing import Any, NamedTuple

import marimo as mo

from ocr_flops.app.records_overlay import conditions
from ocr_flops.app.setting import FIGURES
from ocr_flops.app.tabs.elements import choice, labelled, plain_table, problem, row
from ocr_flops.app.views import Results
from ocr_flops.charts import Chart
from ocr_flops.charts.serving import serving_charts
from ocr_flops.errors import SpecError
from ocr_flops.reports.serving import describe_best, describe_serving, describe_step, serving_table
from ocr_flops.spec.catalog import load_engine, load_hardware
from ocr_flops.timing.serving.steady import ENGINE, Server, Serving, prepare
from ocr_flops.timing.serving.targets import Promise, best_rate, command_line, longest_output
from ocr_flops.timing.serving.traffic import Lengths

FLYING, RATE = "requests in flight", "requests a second"
STEPS = [1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024]
RATES = [0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 50, 80]
OTHERS = "a100_40gb, h100_sxm"
OWN = "own"  # of an option: what the engine chooses for the device


class Served(NamedTuple):
    """Engines on the devices that run it, the load chosen on the first, and why the others do not run it."""

    servers: list[Server]
    chosen: Serving
    refused: list[str]
    replicas: int
    asked: dict[str, Any]


def serving_controls() -> mo.ui.dictionary:
    """The load, the GPUs beside the sidebar's, and the engine's options."""
    batched = "max_num_batched_tokens: tokens of one step, of running sequences and prompts together."
    workers = "Threads that decode and cut pages, each some 140 ms a page."
    return mo.ui.dictionary(
        {
            "engine": choice(("vllm", "sglang"), ENGINE, "served by", "Modelled from its sources; see Method."),
            "load": mo.ui.radio([FLYING, RATE], value=FLYING, inline=True, label="load"),
            "concurrency": mo.ui.slider(steps=STEPS, value=64, show_value=True, label=labelled("in flight on each GPU", "At once.")),
            "rate": mo.ui.slider(steps=RATES, value=1, show_value=True, label=labelled("arriving a second", "At all GPUs together.")),
            "replicas": mo.ui.number(1, 100_000, value=1, label=labelled("GPUs", "Copies of the model, each on a GPU of its own.")),
            "others": mo.ui.text(OTHERS, label=labelled("beside it", "Other GPUs, by names of hardware=, with commas.")),
            "max_num_batched_tokens": choice(
                {"the engine's own": OWN, **{f"{one:,}": str(one) for one in (1024, 2048, 4096, 8192, 16384)}}, OWN, "token budget", batched
            ),
            "preprocess_workers": mo.ui.number(1, 256, value=1, label=labelled("cutting threads", workers)),
            "ngram_ban": mo.ui.checkbox(value=True, label=labelled("n-gram ban", "A loop in Python over every sequence in every step.")),
        }
    )


def promise_controls() -> mo.ui.number:
    """What 95 of 100 requests are promised."""
    about = "Seconds within which 95 of 100 requests that come by chance get their first token; simulated."
    return mo.ui.number(0.05, 1000, value=5, step=0.05, label=labelled("p95 first token within (s)", about))


def serve(results: Results, asked: dict[str, Any]) -> Served | SpecError:
    """The sidebar's page under the load that is asked for; why there is no answer, where there is none."""
    try:
        return _serve(results, asked)
    except SpecError as error:
        return error


def _serve(results: Results, asked: dict[str, Any]) -> Served:
    setting = replace(results.setting, engine=asked["engine"], batch_size=1)
    workload, config = setting.workload, results.main.config
    options = {"preprocess_workers": asked["preprocess_workers"], "ngram_ban": asked["ngram_ban"]}
    if asked["max_num_batched_tokens"] != OWN:
        options["max_num_batched_tokens"] = int(asked["max_num_batched_tokens"])
    is_own = results.setting.engine == asked["engine"]
    engine = setting.engine_spec if is_own else load_engine(asked["engine"])
    attention = config.attention.name if is_own else "vendor"
    servers, refused = [], []
    for name in dict.fromkeys([setting.gpu, *filter(None, (one.strip() for one in asked["others"].split(",")))]):
        own = setting if name == setting.gpu else replace(setting, gpu=name, **dict.fromkeys(FIGURES))
        try:
            device = own.device if name == setting.gpu else load_hardware(name)
            lanes = conditions(results.model, own) if is_own else {"host": own.host_spec, "efficiency": own.efficiency}
            given = {"host": lanes.get("host"), "efficiency": lanes.get("efficiency"), "attention": attention, "dtype": setting.dtype}
            servers.append(prepare(results.model, workload, device, engine, None, options, **given))
        except SpecError as error:
            refused.append(str(error))
    if not servers or servers[0].hardware.name != setting.gpu:
        raise SpecError(refused[0])
    load = {"concurrency": asked["concurrency"]} if asked["load"] == FLYING else {"rate": asked["rate"]}
    return Served(servers, servers[0].solve(**load, replicas=asked["replicas"]), refused, asked["replicas"], asked)


def drawn(found: Served | SpecError | None) -> tuple[Chart, ...]:
    """The charts of a load; none without an answer."""
    return tuple(serving_charts(found.servers, found.chosen).values()) if isinstance(found, Served) else ()


def controls(fields: dict[str, Any], load: str) -> mo.Html:
    """The controls, the one of the load that is chosen among them.

    Args:
        fields: the elements of `serving_controls`, in a plain container, so that they stay when one moves.
        load: what kind of load is chosen.
    """
    first = ("load", "concurrency" if load == FLYING else "rate", "replicas")
    second = ("engine", "max_num_batched_tokens", "preprocess_workers", "ngram_ban", "others")
    return mo.vstack([row(*(fields[name] for name in first), gap=2), row(*(fields[name] for name in second), gap=2)])


def answer(found: Served | SpecError) -> mo.Html:
    """A load in sentences; or a notice where there is no answer."""
    if isinstance(found, SpecError):
        return problem("It is not served.", f"{found}.")
    server, chosen = found.servers[0], found.chosen
    flying = max(1, round(chosen.concurrency or chosen.max_concurrency))
    longest = f"With {flying} in flight on each, outputs may all reach {longest_output(server, flying):,} tokens before the cache is full."
    said = [describe_serving(chosen), describe_step(chosen), longest, *found.refused]
    return mo.Html(f"<ul class='findings'>{''.join(f'<li>{escape(one)}</li>' for one in said)}</ul>")


def promised(found: Served | SpecError, seconds: float) -> mo.Html:
    """The most pages a day of each GPU with a p95 first token within so many seconds, found by simulation."""
    if isinstance(found, SpecError):
        return answer(found)
    try:
        promise, said = Promise(float(seconds)), []
        for server in found.servers:
            lengths = Lengths(server.output, limit=max(8192, int(server.output)))
            said.append(describe_best(server, best_rate(server, lengths, promise), promise, found.replicas))
    except SpecError as error:
        return problem("It is not promised.", f"{error}.")
    return mo.Html(f"<ul class='findings'>{''.join(f'<li>{escape(one)}</li>' for one in said)}</ul>")


def command(found: Served | SpecError) -> mo.Html | None:
    """What to type, with a button that copies it."""
    if isinstance(found, SpecError):
        return None
    text = escape(command_line(found.servers[0], found.chosen.concurrency if found.chosen.rate is None else None))
    button = f"<button type='button' class='copy-link' data-copy='{text}'>Copy the command</button>"
    return mo.Html(f"<div class='command'><code>{text}</code> {button}</div>")


def numbers(found: Served | SpecError) -> mo.Html | None:
    """The load on every GPU in a table, and what it rests on."""
    if isinstance(found, SpecError):
        return None
    import polars as pl

    load = {"concurrency": found.asked["concurrency"]} if found.asked["load"] == FLYING else {"rate": found.asked["rate"]}
    frames = [server.solve(**load, replicas=found.replicas).frame for server in found.servers]
    table = plain_table(serving_table(pl.concat(frames, how="diagonal_relaxed")))
    return mo.vstack([table, mo.Html(f"<small>{escape(f'Modelled, not measured; rests on {found.servers[0].basis}.')}</small>")])
