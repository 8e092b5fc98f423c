"""What a serving engine delivers, in sentences and as a table for people."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from ocr_flops.timing.serving.result import PARTS, Serving
from ocr_flops.timing.serving.simulator import Simulation
from ocr_flops.timing.serving.steady import Server
from ocr_flops.timing.serving.targets import CONTEXT, STEP, BestRate, Promise, longest_request
from ocr_flops.timing.serving.traffic import Lengths
from ocr_flops.units import SECONDS_PER_DAY, count, count_interval, counted, interval, seconds, share, si

FEW = 5  # requests for each that is in flight: of fewer a simulation's pages a day are off by more than 5 %
NEAR = 0.9  # of the capacity: from there on the queue at the end depends on who came when
WHAT = {  # names of limits in words
    "cache": "the cache",
    "sequences": "max_num_seqs",
    "token budget": "max_num_batched_tokens",
    "preprocessing": "threads that cut pages on the CPU",
    "vision": "vision",
    "bandwidth": "memory bandwidth (weights and cache are read for every token)",
    "matrix": "matrix units",
    "host": "the host (Python between steps)",
}
PROMISED = {"ttft_p95": "p95 first token", "tpot_p95": "p95 time per token"}


def time_interval(row: Any) -> str:
    """Three times, of which the last one may have no end: 369 ms (260 ms to 628 ms)."""
    return interval(row) if row[2] is not None else f"{seconds(row[0])} ({seconds(row[1])}, or the queue grows)"


def name_devices(server: Serving | Server, replicas: int) -> str:
    """The devices in words: one NVIDIA L4 (24 GB), or 8 of them."""
    return f"one {server.hardware.label}" if replicas == 1 else f"{replicas} x {server.hardware.label}"


def describe_serving(serving: Serving) -> str:
    """One concurrency or rate in a few sentences: pages a day, waiting times, what limits, what was clipped."""
    devices, limit = name_devices(serving, serving.replicas), WHAT[serving.limited_by]
    if not serving.is_stable:
        most = f"{count_interval(serving.capacity_per_second)} requests/s, which is {count_interval(serving.pages_per_day)} pages a day"
        return f"Unstable: the queue grows. {si(serving.rate)} requests/s arrive; {devices} can serve {most}. Limited by {limit}."
    why = " This is rough: long steps, prompts in parts, cutting, a full cache or a queue decide here, which only a simulation plays."
    rough = why * bool(serving.is_rough)
    load = f"{counted(serving.concurrency, 'request')} in flight" if serving.rate is None else f"{si(serving.rate)} requests/s"
    load += " on each" if serving.replicas > 1 and serving.rate is None else ""
    has_later = serving.output_tokens_per_second.value > 1.000001 * serving.requests_per_second.value
    said = (
        f"{devices[:1].upper()}{devices[1:]} with {load}: {count_interval(serving.pages_per_day)} pages a day. "
        f"The first token comes after {time_interval(serving.ttft_seconds)} on average"
        f"{f', each later one after {interval(serving.tpot_seconds)}' * has_later}."
    )
    if serving.asked_concurrency and serving.asked_concurrency > serving.concurrency:
        most = count_interval([one * SECONDS_PER_DAY for one in serving.capacity_per_second[:3]])
        said += f" {serving.asked_concurrency} were asked for; {serving.concurrency} run at once, so this is shown: pages of the others are"
        said += f" cut meanwhile, which brings at most {most} pages a day."
    if serving.rate is not None:
        return f"{said} At most {count_interval(serving.capacity_per_second)} requests/s, limited by {limit}.{rough}"
    return f"{said} Limited by {limit}.{rough}"


def describe_step(serving: Serving) -> str:
    """Where the time of a step goes, and what the cache holds."""
    parts = ", ".join(f"{name} {seconds(float(part))}" for name, part in zip(PARTS, serving.step_parts, strict=True))
    return (
        f"A step takes {seconds(serving.step_seconds.value)}: {parts}. "
        f"The device is busy {100 * serving.device_busy_share:.0f} % of the time. "
        f"The cache holds {serving.kv_capacity_tokens:,} tokens, of which {100 * serving.kv_use_share:.0f} % are in use; "
        f"at most {counted(serving.max_concurrency, 'such request')} at once."
    )


def describe_context(server: Server) -> list[str]:
    """That requests are longer than those which the checkpoint was made for; nothing where they are not."""
    longest = longest_request(server)
    return [f"Requests have up to {longest:,} tokens: the published checkpoint was made for {CONTEXT:,}."] if longest > CONTEXT else []


def describe_lengths(lengths: Lengths) -> str:
    """How the outputs of a kind of page differ."""
    law = f"lognormal with a p95 of {lengths.p95:,.0f} tokens" if lengths.p95 is not None else "of that many tokens"
    if lengths.quantiles:
        law = f"by quantiles instead, {', '.join(f'{part:g}={tokens:g}' for part, tokens in lengths.quantiles)}"
    loops = f"; {share(lengths.loops, 1)} repeat themselves up to {lengths.limit:,}" if lengths.loops else ""
    return f"Outputs are {law}{loops}."


def describe_promise(promise: Promise) -> str:
    """What is promised, in words: a p95 first token within 5 s."""
    return " and ".join(
        f"a {name} within {seconds(limit)}" for key, name in PROMISED.items() if (limit := getattr(promise, key)) is not None
    )


def describe_best(server: Server, best: BestRate, promise: Promise, replicas: int) -> str:
    """The pages a day that keep a promise."""
    devices = name_devices(server, replicas)
    limits, seeds = (promise.ttft_p95, promise.tpot_p95), best.by_seed or ((best.ttft_p95, best.tpot_p95),)
    found = "simulated p95 " + " and ".join(
        f"{name} {seconds(mine[0])}" + f" ({seconds(min(mine))} to {seconds(max(mine))} over {len(mine)} seeds)" * (len(mine) > 1)
        for name, limit, mine in zip(("first token", "time per token"), limits, zip(*seeds, strict=True), strict=True)
        if limit is not None
    )
    kept = sum(all(limit is None or value <= limit for limit, value in zip(limits, one, strict=True)) for one in seeds)
    found += f", kept with {kept} of them" * (kept < len(seeds) and bool(best.by_seed))
    if not best.rate.value:
        return (
            f"{devices[:1].upper()}{devices[1:]}: not even {100 * STEP:.1f} % of the capacity keeps {describe_promise(promise)}: {found}."
        )
    days = [one * replicas * SECONDS_PER_DAY for one in best.rate[:3]]
    why = (
        describe_promise(best.by_promise)
        if best.by_promise
        else f"{WHAT[server.capacity_limit]}: more than 95 % of the capacity is not tried"
    )
    return (
        f"{devices[:1].upper()}{devices[1:]} with {describe_promise(promise)}: {count_interval(days)} pages a day, "
        f"{replicas * best.rate.value:g} requests/s arriving at random (Poisson). S{found[1:]}. Limited by {why}."
    )


def describe_gpus(rows: list[dict[str, Any]], rate: float, promise: Promise) -> str:
    """The fewest GPUs for a rate."""
    able = [row for row in rows if row["gpus"]]
    if not able:
        return f"No GPU keeps {describe_promise(promise)}."
    first = able[0]
    question, alike = f"{si(rate)} requests/s with {describe_promise(promise)}", sum(row["gpus"] == first["gpus"] for row in able) - 1
    others = f"; {counted(alike, 'other')} {'takes' if alike == 1 else 'take'} as few" * bool(alike)
    limit = WHAT.get(first["limited_by"]) or f"the {_name_promised(first['limited_by'])}"
    return f"{question} take {_gpus_interval(first)} x {first['label']}: the fewest of the GPUs listed{others}. Limited by {limit}."


def _name_promised(limited_by: str) -> str:
    """What limits a rate, in words where it is of a promise: p95 first token."""
    return " and ".join(PROMISED.get(name, name) for name in limited_by.split(", "))


def describe_simulation(server: Server, run: Simulation, steady: Serving, replicas: int) -> str:
    """What a simulation found, beside the steady state of the same requests."""
    if not len(run.finished):
        return "Nothing was done yet when it was stopped."
    devices, times = name_devices(server, replicas), {row["time"]: row for row in run.percentiles().iter_rows(named=True)}
    served, expected = run.requests_per_second * replicas, steady.requests_per_second.value * replicas
    stopped = "" if len(run.finished) == run.requested else f" Stopped after {len(run.finished):,} of {run.requested:,} requests."
    is_short = run.requested < FEW * (steady.asked_concurrency or 0)
    few = " The engine fills and empties in most of this: more --requests come nearer to its steady state." * is_short
    most = 100 * float(run.samples["cache_share"].max() or 0)
    is_near = bool(steady.rate and steady.rate > NEAR * steady.capacity_per_second.value)
    few += " So near the capacity another --seed has another p95." * is_near
    return (
        f"{devices[:1].upper()}{devices[1:]}, {counted(len(run.finished), 'request')} simulated on one: {si(served)} requests/s, "
        f"{count(served * SECONDS_PER_DAY)} pages a day (steady state {count(expected * SECONDS_PER_DAY)}). First token: median "
        f"{seconds(times['ttft']['p50_seconds'])}, p95 {seconds(times['ttft']['p95_seconds'])}. At most "
        f"{run.samples['waiting'].max():,} requests waited to be cut or for the engine, "
        f"the cache was at most {most:.0f} % full, {run.preemptions:,} preemptions.{few}{stopped}"
    )


def rates_table(servers: Sequence[Server], rates: Sequence[BestRate], replicas: int) -> pl.DataFrame:
    """What each GPU serves with a promise kept, for people."""
    return pl.DataFrame(
        {
            "hardware": server.hardware.name,
            "GPUs": str(replicas),
            "pages a day": count_interval([one * replicas * SECONDS_PER_DAY for one in best.rate[:3]]),
            "p95 first token": seconds(best.ttft_p95),
            "p95 a token": seconds(best.tpot_p95),
            "at once": str(server.max_concurrency),
            "limited by": describe_promise(best.by_promise).removeprefix("a ") if best.by_promise else server.capacity_limit,
        }
        for server, best in zip(servers, rates, strict=True)
    )


def _gpus_interval(row: dict[str, Any]) -> str:
    """How many GPUs of a row of `count_gpus` with their range: 8 (6 to 11)."""
    if row["gpus"] is None:
        return "none keeps it"
    ends = (row["gpus_low"], row["gpus_high"])
    return f"{row['gpus']}" if ends == (row["gpus"],) * 2 else f"{row['gpus']} ({ends[0]} to {ends[1] or 'any number'})"


def gpus_table(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """How many of each GPU a rate takes, for people."""
    return pl.DataFrame(
        {
            "hardware": row["hardware"],
            "GPUs": _gpus_interval(row),
            "requests/s each": f"{row['rate_per_gpu']:.3g}",
            "p95 first token": seconds(row["ttft_p95_seconds"]),
            "p95 a token": seconds(row["tpot_p95_seconds"]),
            "limited by": _name_promised(row["limited_by"]),
        }
        for row in rows
    )


def serving_table(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame of one or several servings as a table for people, every time and rate with its range."""

    def spread(row: dict[str, Any], stem: str, unit: str = "") -> tuple[Any, ...]:
        return tuple(row[f"{stem}{part}{unit}"] for part in ("", "_low", "_high"))

    rows = []
    for row in frame.iter_rows(named=True):
        part_of = f" of {row['asked_concurrency']}" * (row["rate"] is None and row["asked_concurrency"] > row["concurrency"])
        load = {"in flight": f"{row['concurrency']}{part_of}"} if row["rate"] is None else {"requests/s": f"{row['rate']:.3g}"}
        first = time_interval(spread(row, "ttft", "_seconds")) if row["is_stable"] else "the queue grows"
        rows.append(
            {"hardware": row["hardware"], **load}
            | {"pages a day": count_interval(spread(row, "pages_per_day")), "first token": first}
            | {"a token": interval(spread(row, "tpot", "_seconds")), "busy": f"{100 * row['device_busy_share']:.0f} %"}
            | {"most at once": str(row["max_concurrency"]), "limited by": row["limited_by"]}
        )
    return pl.DataFrame(rows)
