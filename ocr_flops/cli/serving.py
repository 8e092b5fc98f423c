"""The command `ocr-flops serving`: what an engine that batches continuously delivers on one GPU or many."""

from __future__ import annotations

import contextlib
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ocr_flops.cli import console
from ocr_flops.cli.console import Columns, Form, Out, Overrides
from ocr_flops.errors import SpecError
from ocr_flops.spec.serving import OPTIONS

if TYPE_CHECKING:
    from ocr_flops.spec.run_spec import RunSpec
    from ocr_flops.spec.workload import Workload
    from ocr_flops.timing.serving.steady import Server
    from ocr_flops.timing.serving.targets import Promise
    from ocr_flops.timing.serving.traffic import Lengths, Traffic

Engine = partial(typer.Option, rich_help_panel="Engine", show_default="the engine's own")
Switch = partial(Engine, rich_help_panel="Engine, on or off")  # in a panel of their own, whose second names take no width of the others
Requests = partial(typer.Option, rich_help_panel="Requests", show_default=False)
Target = partial(typer.Option, rich_help_panel="Targets", show_default=False)
STEADY = 100_000  # requests at least, whose outputs a steady state is of: their mean is off by 0.3 %, where that of few is of chance


def serve_workload(
    overrides: Overrides = None,
    concurrency: Annotated[str, typer.Option(metavar="N,...", help="Requests in flight on each GPU; as many as fit by default.")] = "",
    rate: Annotated[str, typer.Option(metavar="R,...", help="Requests a second that arrive at all GPUs, instead of a concurrency.")] = "",
    gpus: Annotated[str, typer.Option(metavar="NAME,...", help="GPUs to compare, or all, instead of hardware=.")] = "",
    replicas: Annotated[int, typer.Option(metavar="N", help="Copies of the model, each on a GPU of its own.")] = 1,
    ttft_p95: Annotated[
        float | None, Target(metavar="SECONDS", help="First token of 95 of 100 requests. With --rate: how many of which GPU it takes.")
    ] = None,
    tpot_p95: Annotated[float | None, Target(metavar="SECONDS", help="The same for each later token.")] = None,
    best: Annotated[
        bool, Target("--best", help="Choose the token budget that delivers most, and without targets the concurrency.")
    ] = False,
    simulate: Annotated[bool, Requests("--simulate", help="Play requests step by step: percentiles, queue, preemptions.")] = False,
    requests: Annotated[int, Requests(metavar="N", help="How many on each GPU.", show_default=True)] = 10_000,
    seed: Annotated[int, Requests(metavar="N", help="Of what is left to chance; repeats a run.", show_default=True)] = 0,
    arrivals: Annotated[
        str,
        Requests(
            metavar="HOW",
            help="poisson, constant, bursts:N, or a table (CSV, Parquet) with arrival_seconds and perhaps output_tokens.",
            show_default="poisson",
        ),
    ] = "poisson",
    mix: Annotated[str, Requests(metavar="MODE[:TOKENS]=W,...", help="Kinds of page with weights: base:300=1,gundam:900=2.")] = "",
    output_p95: Annotated[float | None, Requests(metavar="TOKENS", help="Lognormal outputs with workload.output_tokens as mean.")] = None,
    output_quantiles: Annotated[str, Requests(metavar="PART=TOKENS,...", help="Outputs by quantiles: 0=50,0.5=700,1=3000.")] = "",
    loops: Annotated[float, Requests(metavar="PART", help="Share of requests that repeat themselves until the limit.")] = 0.0,
    output_limit: Annotated[int, Requests(metavar="TOKENS", help="Tokens of a request at most.", show_default=True)] = 8192,
    max_num_batched_tokens: Annotated[int | None, Engine(metavar="N", help="Tokens of a step at most.")] = None,
    max_num_seqs: Annotated[int | None, Engine(metavar="N", help="Sequences at once at most.")] = None,
    gpu_memory_utilization: Annotated[float | None, Engine(metavar="PART", help="Part of the memory it takes.")] = None,
    block_size: Annotated[int | None, Engine(metavar="N", help="Tokens of a block of the cache.")] = None,
    chunked_prefill: Annotated[bool | None, Switch("--chunked-prefill/--no-chunked-prefill", help="Prompts in several steps.")] = None,
    ngram_ban: Annotated[bool | None, Switch("--ngram-ban/--no-ngram-ban", help="Forbid n-grams that repeat, in Python.")] = None,
    preprocess_workers: Annotated[int | None, Engine(metavar="N", help="Threads that cut pages into views.")] = None,
    preprocess_ms: Annotated[float | None, Engine(metavar="MS", help="What one takes for an A4 page of 200 dpi in Gundam.")] = None,
    form: Form = "table",
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.", rich_help_panel="Output")] = False,
    out: Out = None,
    columns: Columns = "",
) -> int:
    """How many pages a GPU delivers in production, and what one waits for the first token."""
    options = {name: value for name, value in locals().items() if name in OPTIONS}
    import polars as pl

    from ocr_flops.reports.serving import (
        describe_best,
        describe_context,
        describe_gpus,
        describe_lengths,
        describe_serving,
        describe_step,
        gpus_table,
        rates_table,
        serving_table,
    )
    from ocr_flops.spec.run_spec import load_run
    from ocr_flops.timing.serving.steady import ENGINE
    from ocr_flops.timing.serving.targets import OTHERS, Promise, best_budget, best_options, best_rate, command_line, count_gpus
    from ocr_flops.timing.serving.traffic import draw_traffic

    given = list(overrides or ())
    if not any(one.startswith("engine=") for one in given):
        given.append(f"engine={ENGINE}")
    run = load_run(given).of_whole_pages()
    promise = Promise(ttft_p95, tpot_p95)
    load = {"concurrency": _numbers("--concurrency", concurrency, int), "rate": _numbers("--rate", rate, float)}
    is_single = all(one is None or not hasattr(one, "__len__") for one in load.values())
    if (promise or simulate or best) and not is_single:
        raise SpecError("--concurrency, --rate: one number each with --simulate, --best and targets")
    if arrivals != "poisson" and not simulate:
        raise SpecError(f"--arrivals: {arrivals!r} is played by --simulate alone; add it")
    if promise and load["concurrency"] is not None:
        raise SpecError("--concurrency: a target is kept by requests that arrive at random; leave out one of them, or give --rate")
    counts = bool(promise) and load["rate"] is not None and not simulate
    if counts and replicas != 1:
        raise SpecError(f"--replicas: {replicas} is given, and with --rate and targets it is what is looked for; leave it out")
    workloads, weights = _kinds(run, mix)
    servers, refused = _servers(run, gpus or ("all" if counts and not run.hardware else ""), workloads, weights, options)
    lengths, kinds = [_lengths(kind, output_p95, output_quantiles, loops, output_limit) for kind in workloads], servers[0].pages
    outputs = [describe_lengths(lengths[0])] if lengths[0].differ else []
    if outputs and not (promise or simulate):  # which draw them
        drawn = draw_traffic(max(requests, STEADY), lengths, weights or [1.0], rate=1.0, seed=seed)
        servers = [server.with_lengths(drawn.output_tokens, drawn.kinds) for server in servers]
    outputs += describe_context(servers[0])
    loads, rates, question = {server.hardware.name: load for server in servers}, [], (lengths, promise, seed, requests)
    if best and not promise:
        chosen = [best_options(server) for server in servers]
        servers = [server for server, _ in chosen]
        if load["rate"] is None:
            loads = {server.hardware.name: {**load, "concurrency": flying} for server, flying in chosen}
    elif promise:
        with console.show_progress() as progress:
            for place, server in enumerate(servers):
                progress(server.hardware.label)
                servers[place] = server = best_budget(server, *question) if best else server
                if load["rate"] is None:
                    rates.append(best_rate(server, *question, others=OTHERS))
                    loads[server.hardware.name] = {**load, "rate": replicas * max(rates[-1].rate.value, 1e-9)}
    if simulate:
        traffic = partial(_traffic, loads, replicas, requests, lengths, weights, arrivals, seed)
        said = outputs + [describe_best(server, one, promise, replicas) for server, one in zip(servers, rates, strict=False)]
        return _simulate(run, servers, refused, traffic, replicas, "json" if json else form, out, columns, said, promise)
    typed = servers if best else servers[:1]
    flying = {name: one["concurrency"] if is_single else None for name, one in loads.items()}
    commands = {server.hardware.name: command_line(server, flying[server.hardware.name]) for server in typed}
    basis = servers[0].basis
    if counts:
        with console.show_progress() as progress:
            rows = count_gpus(servers, load["rate"], lengths, promise, progress, seed, requests)
        said, shown, data = [describe_gpus(rows, load["rate"], promise)], gpus_table(rows), {"rows": rows}
        frame = pl.DataFrame(rows)
        first = next(server for server in servers if server.hardware.name == rows[0]["hardware"])
        commands, replicas = {first.hardware.name: command_line(first)} if rows[0]["gpus"] else {}, rows[0]["gpus"] or 1
    elif rates:
        found = [server.solve(**loads[server.hardware.name], replicas=replicas) for server in servers]
        said = [describe_best(server, one, promise, replicas) for server, one in zip(servers, rates, strict=True)]
        frame = pl.concat([one.frame for one in found], how="diagonal_relaxed")
        columns_of = {"best_rate": "value", "best_rate_low": "low", "best_rate_high": "high"}
        frame = frame.with_columns(
            *(pl.Series(name, [replicas * getattr(one.rate, part) for one in rates]) for name, part in columns_of.items()),
            pl.Series("ttft_p95_seconds", [one.ttft_p95 for one in rates], pl.Float64),
            pl.Series("tpot_p95_seconds", [one.tpot_p95 for one in rates], pl.Float64),
            pl.Series("limited_by", [one.limited_by or server.capacity_limit for server, one in zip(servers, rates, strict=True)]),
        )
        shown, data = rates_table(servers, rates, replicas), None
        kept = {server.hardware.name for server, one in zip(servers, rates, strict=True) if one.rate.value}
        commands = {name: one for name, one in commands.items() if name in kept}
    else:
        found = [server.solve(**loads[server.hardware.name], replicas=replicas) for server in servers]
        said = [f"{describe_serving(one)} {describe_step(one)}" for one in found] if is_single else []
        frame = pl.concat([one.frame for one in found], how="diagonal_relaxed")
        shown, data = serving_table(frame), None
    listed = frame.to_dicts()
    data = data or (listed[0] if len(listed) == 1 else {"rows": listed})
    data = {**data, "time_basis": basis, "command": next(iter(commands.values()), ""), "refused": refused}
    typed = [f"{one}  # {name}" if len(commands) > 1 else one for name, one in commands.items()]
    if replicas > 1 and typed:
        said.append(f"Start the command below {replicas} times, each on a GPU of its own, behind a router that shares out requests.")
    values = {"said": outputs + said, "refused": refused, "rows": frame if columns else shown, "commands": typed, "basis": basis}
    values["kinds"] = kinds
    console.write_result("serving", "json" if json else form, out, frame, data, run=run, columns=columns, **values)
    return 0


def _simulate(
    run: RunSpec,
    servers: list[Server],
    refused: list[str],
    traffic: Any,
    replicas: int,
    form: str,
    out: Path | None,
    columns: str,
    said: list[str],
    promise: Promise,
) -> int:
    """Simulates requests on each GPU, beside its steady state, and prints or writes what came of it, after what is said, and whether that
    keeps a promise."""
    import polars as pl

    from ocr_flops.reports.serving import describe_promise, describe_simulation
    from ocr_flops.timing.serving.simulator import simulate

    rows, tables, samples = [], [], []
    with contextlib.suppress(ValueError):  # where a command does not run in the main thread, Ctrl-C is another's
        signal.set_wakeup_fd(-1)  # what is done is kept, however long it takes to say
    with console.show_bars() as bars:
        for server in servers:
            drawn: Traffic = traffic(server)
            result = simulate(server, drawn, partial(bars, server.hardware.label))
            steady = server.with_lengths(drawn.output_tokens, drawn.kinds).solve(drawn.concurrency or None, drawn.rate)
            said.append(describe_simulation(server, result, steady, replicas))
            if promise and len(result.finished):
                broken = promise.broken(result)
                said[-1] += f" It {'does not keep' if broken else 'keeps'} {describe_promise(broken or promise)}."
            names = {"hardware": server.hardware.name, "replicas": replicas}
            rows.append({**names, **result.summary(), "steady_requests_per_second": steady.requests_per_second.value})
            tables.append(result.percentiles().select(pl.lit(server.hardware.name).alias("hardware"), pl.all()))
            samples.append(result.samples.select(pl.lit(server.hardware.name).alias("hardware"), pl.all()))
            if len(result.finished) < result.requested:
                break
    shown, series = pl.concat(tables, how="diagonal_relaxed"), pl.concat(samples)
    data = {**(rows[0] if len(rows) == 1 else {"rows": rows}), "refused": refused, "time_basis": servers[0].basis}
    values = {"said": said, "refused": refused, "rows": shown, "commands": [], "basis": servers[0].basis, "kinds": servers[0].pages}
    console.write_result("serving", form, out, series, data, run=run, columns=columns, **values)
    return 130 if rows[-1]["requests"] < rows[-1]["requested"] else 0


def _servers(
    run: RunSpec, gpus: str, workloads: list[Workload], weights: list[float] | None, options: dict[str, Any]
) -> tuple[list[Server], list[str]]:
    """The engine on each GPU that it runs on, and why it does not run on the others."""
    from ocr_flops.evidence.calibration.conditions import with_records
    from ocr_flops.spec.catalog import load_hardware, names
    from ocr_flops.timing.serving.steady import prepare

    if gpus.strip().isdigit():
        raise SpecError(f"--gpus: {gpus} is a number, not names of GPUs, as in l4,a100_40gb; for copies of the model: --replicas {gpus}")
    if gpus and run.hardware:
        raise SpecError(f"--gpus: hardware={run.hardware.name} is given too; leave out one of them")
    if not gpus and not run.hardware:
        raise SpecError("hardware: missing; name a GPU, as in hardware=l4 or --gpus l4,a100_40gb")
    known = names("hardware")
    chosen = (
        [load_hardware(one) for one in (known if gpus == "all" else console.known_names("--gpus", gpus, known))] if gpus else [run.hardware]
    )
    servers, refused = [], []
    for gpu in chosen:
        own = with_records(replace(run, hardware=gpu))
        try:
            lanes = {name: getattr(own, name) for name in ("engine", "attention", "dtype", "host", "efficiency")}
            servers.append(prepare(own.model, workloads, gpu, weights=weights, options=options, **lanes))
        except SpecError as problem:
            refused.append(str(problem))
    if not servers:
        raise SpecError("; ".join(refused))
    return servers, refused


def _numbers(option: str, text: str, kind: type) -> Any:
    """The numbers, separated by commas, that an option gives: None, one, or an array of several."""
    import numpy as np

    try:
        found = [kind(one) for one in text.split(",") if one.strip()]
    except ValueError:
        raise SpecError(f"{option}: {text!r} is not a {'whole ' * (kind is int)}number, or several with commas between") from None
    return np.array(found) if len(found) > 1 else found[0] if found else None


def _kinds(run: RunSpec, mix: str) -> tuple[list[Workload], list[float] | None]:
    """The kinds of page that `--mix` names, each with its weight, and what it does not say as in the run."""
    if not mix:
        return [run.workload], None
    from ocr_flops.spec.catalog import names
    from ocr_flops.spec.workload import Workload

    kinds, weights = [], []
    for one in mix.split(","):
        kind, _, weight = one.partition("=")
        mode, _, tokens = kind.partition(":")
        try:
            weights.append(float(weight))
            output = int(tokens) if tokens else run.workload.output_tokens
        except ValueError:
            raise SpecError(f"--mix: {one!r} is not of the form MODE=WEIGHT or MODE:TOKENS=WEIGHT, as in base:300=1,gundam:900=2") from None
        mode = console.known_names("--mix", mode, names("workload"))[0]
        rest = {"prompt_tokens": run.workload.prompt_tokens, "output_tokens": output}
        if run.workload.image_width_px:
            kinds.append(Workload.from_image(run.workload.image_width_px, run.workload.image_height_px, mode, **rest))
        else:
            grid = (run.workload.columns, run.workload.rows) if mode.startswith("gundam") else (1, 1)
            kinds.append(Workload.from_grid(*grid, mode, **rest))
    return kinds, weights


def _lengths(kind: Workload, p95: float | None, quantiles: str, loops: float, limit: int) -> Lengths:
    from ocr_flops.timing.serving.traffic import Lengths

    try:
        pairs = tuple((float(part), float(tokens)) for part, tokens in (one.split("=") for one in quantiles.split(",") if one))
    except ValueError:
        raise SpecError(f"--output-quantiles: {quantiles!r} is not of the form PART=TOKENS,..., as in 0=50,0.5=700,1=3000") from None
    return Lengths(kind.output_tokens, p95, pairs, loops, max(limit, kind.output_tokens))


def _traffic(
    loads: dict[str, dict[str, Any]],
    replicas: int,
    requests: int,
    lengths: list[Lengths],
    weights: list[float] | None,
    arrivals: str,
    seed: int,
    server: Server,
) -> Traffic:
    """The requests that one replica gets."""
    from ocr_flops.timing.serving.traffic import ARRIVALS, draw_traffic, read_trace

    load = loads[server.hardware.name]
    pattern, _, burst = arrivals.partition(":")
    if pattern not in ARRIVALS:
        if not Path(arrivals).is_file():
            raise SpecError(f"--arrivals: {arrivals!r} is neither one of {', '.join(ARRIVALS)} (bursts:N) nor a file")
        return read_trace(Path(arrivals), lengths[0], seed).split(replicas)
    if burst and not burst.isdigit():
        raise SpecError(f"--arrivals: {arrivals!r} is not of the form bursts:N")
    shape = {"pattern": pattern, "burst": int(burst or 20), "seed": seed}
    if load["rate"] is not None:
        return draw_traffic(requests, lengths, weights or [1.0], rate=load["rate"] / replicas, **shape)
    flying = min(load["concurrency"] or server.max_concurrency, requests)
    return draw_traffic(requests, lengths, weights or [1.0], concurrency=flying, **shape)
