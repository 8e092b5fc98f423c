"""Questions asked backwards: the load that keeps a promise, the GPUs that it takes, the best options, and the longest output that fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from ocr_flops.errors import SpecError
from ocr_flops.spec.host import Ranged
from ocr_flops.timing.serving.result import Serving
from ocr_flops.timing.serving.simulator import Simulation, simulate
from ocr_flops.timing.serving.steady import Server
from ocr_flops.timing.serving.traffic import Lengths, draw_traffic

REQUESTS = 10_000  # that are simulated to see whether a rate keeps a promise, as by `serving --simulate`
FULL = 0.95  # of the capacity: nearer to it the queue takes ever longer to settle
OTHERS = 4  # further seeds that are played where a rate is said: near the capacity each has another p95
STEP = FULL / 2**7  # of the capacity, to which a rate is sought; the least that is tried
CONTEXT = 8192  # tokens of a request that the published checkpoint was made for, its prompt included
BUDGETS = (1024, 2048, 4096, 8192, 16384)


@dataclass(frozen=True)
class Promise:
    """What 95 of 100 requests are promised, in seconds; None for nothing.

    Args:
        ttft_p95: to the first token.
        tpot_p95: for each later token, on average over the request.
    """

    ttft_p95: float | None = None
    tpot_p95: float | None = None

    def __post_init__(self) -> None:
        for name in ("ttft_p95", "tpot_p95"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise SpecError(f"{name}: {value!r} is not a number of seconds above 0")

    def __bool__(self) -> bool:
        return self.ttft_p95 is not None or self.tpot_p95 is not None

    def found(self, run: Simulation) -> tuple[float, float]:
        """The 95th percentiles of a run."""
        later = run.tpot_seconds[np.isfinite(run.tpot_seconds)]
        return float(np.percentile(run.ttft_seconds, 95)), float(np.percentile(later, 95)) if len(later) else 0.0

    def broken(self, run: Simulation) -> Promise:
        """What of it a run does not keep; nothing where it keeps all."""
        limits = (self.ttft_p95, self.tpot_p95)
        return Promise(*(limit if limit and seconds > limit else None for limit, seconds in zip(limits, self.found(run), strict=True)))


class BestRate(NamedTuple):
    """The most requests a second on one replica that keep a promise.

    Args:
        rate: as expected, and with all figures against and in favour, to three digits; 0 where not even `STEP` of the capacity keeps it.
        ttft_p95, tpot_p95: seconds found at that rate, as expected; at `STEP` of the capacity where it is 0.
        by_promise: what of the promise a higher rate does not keep, as expected; nothing where the capacity limits.
        by_seed: ttft_p95 and tpot_p95 as this seed and others find them at that rate; nothing where no other was played.
    """

    rate: Ranged
    ttft_p95: float
    tpot_p95: float
    by_promise: Promise
    by_seed: tuple[tuple[float, float], ...] = ()

    @property
    def limited_by(self) -> str:
        """What of the promise limits, "ttft_p95" or "tpot_p95" or both; "" for the capacity."""
        return ", ".join(name for name, limit in vars(self.by_promise).items() if limit is not None)


def _play(server: Server, lengths: Lengths | list[Lengths], rate: float, seed: int, requests: int, case: int = 0) -> Simulation:
    """Requests that arrive at random, as `serving --simulate --rate` plays them."""
    weights = [page.weight for page in server.pages]
    return simulate(server, draw_traffic(requests, lengths, weights, rate=rate, seed=seed), case=case)


def best_rate(
    server: Server,
    lengths: Lengths | list[Lengths],
    promise: Promise,
    seed: int = 0,
    requests: int = REQUESTS,
    cases: int = 3,
    others: int = 0,
) -> BestRate:
    """The most requests a second that one replica serves, arriving at random (Poisson), with a promise kept; found by simulation.

    Args:
        lengths: of outputs, of all kinds of page or of each.
        promise: without one, the rate is `FULL` of the capacity.
        seed: of the arrivals.
        requests: that are simulated.
        cases: of times; 1 for those that are expected alone.
        others: further seeds whose percentiles are found at that rate.
    """
    drawn = draw_traffic(requests, lengths, [page.weight for page in server.pages], rate=1.0, seed=seed)
    capacities = server.with_lengths(drawn.output_tokens, drawn.kinds).capacity[:cases, 0]
    rates, best, near = [], None, 0.0
    for case, capacity in enumerate(capacities):
        low, high, kept, limit = 0.0, 2 * FULL, None, promise
        ahead = [min(near + 4 * STEP, FULL), near - 4 * STEP] if case else []  # other times keep it at much the same part of the capacity
        while low < FULL and high - low > 1.01 * STEP:
            share = next((one for one in ahead if low < one < high), min(FULL, (low + high) / 2))
            rate = float(f"{share * capacity:.3g}")  # as it is printed, so that it can be played again
            run = _play(server, lengths, rate, seed, requests, case)
            broken = promise.broken(run)
            if broken:
                high, limit = share, broken
            else:
                low, kept = share, (rate, run)
        rates.append(kept[0] if kept else 0.0)
        if case == 0:
            near, best = low, (*promise.found(kept[1] if kept else run), limit if low < FULL else Promise())
    seeds = range(seed + 1, seed + 1 + others) if rates[0] else ()
    by_seed = tuple(promise.found(_play(server, lengths, rates[0], one, requests)) for one in seeds)
    return BestRate(Ranged(rates[0], min(rates), max(rates), server.basis), *best, (best[:2], *by_seed) if by_seed else ())


def count_gpus(
    servers: Iterable[Server],
    rate: float,
    lengths: Lengths | list[Lengths],
    promise: Promise,
    progress: Callable[[str], None] | None = None,
    seed: int = 0,
    requests: int = REQUESTS,
) -> list[dict[str, Any]]:
    """How many of each GPU an arrival rate takes with a promise kept, the fewest first; those that cannot keep it last.

    Args:
        servers: an engine on each kind of GPU.
        rate: requests a second at all of them.
        lengths, promise, seed, requests: as of `best_rate`.
        progress: is told which GPU is looked at.

    Returns:
        rows with hardware, label, gpus (None where none would do), gpus_low, gpus_high, rate_per_gpu, ttft_p95_seconds, tpot_p95_seconds,
        limited_by.
    """
    rows = []
    for server in servers:
        if progress:
            progress(server.hardware.label)
        best = best_rate(server, lengths, promise, seed, requests)
        counts = [ceil(rate / one - 1e-9) if one else None for one in (best.rate.value, best.rate.high, best.rate.low)]
        names = {"hardware": server.hardware.name, "label": server.hardware.label}
        found = {"rate_per_gpu": best.rate.value, "ttft_p95_seconds": best.ttft_p95, "tpot_p95_seconds": best.tpot_p95}
        found["limited_by"] = best.limited_by or server.capacity_limit
        rows.append(names | dict(zip(("gpus", "gpus_low", "gpus_high"), counts, strict=True)) | found)
    return sorted(rows, key=lambda row: (row["gpus"] is None, row["gpus"], -row["rate_per_gpu"]))


def best_budget(server: Server, lengths: Lengths | list[Lengths], promise: Promise, seed: int = 0, requests: int = REQUESTS) -> Server:
    """The engine with the token budget that serves most with a promise kept, by simulation; its own where none serves 1 % more."""
    best, most = server, 0.0
    for one in [server, *_with_budgets(server)]:
        if not promise.broken(_play(one, lengths, max(1.01 * most, 1e-9), seed, requests)):
            rate = best_rate(one, lengths, promise, seed, requests, cases=1).rate.value
            best, most = (one, rate) if rate > most else (best, most)
    return best


def best_options(server: Server) -> tuple[Server, int]:
    """The token budget and the concurrency that deliver most, by steady state; the least of those within 1 %."""
    best: tuple[float, int, Server] | None = None
    for one in sorted([server, *_with_budgets(server)], key=lambda one: one.options.max_num_batched_tokens):
        flying = np.unique(np.geomspace(1, one.max_concurrency, 48).round().astype(np.int64))
        served = one.solve(flying).requests_per_second.value
        least = int(np.flatnonzero(served >= 0.99 * served.max())[0])  # what is within 1 % waits less
        if best is None or served[least] > 1.01 * best[0]:
            best = float(served[least]), int(flying[least]), one
    return best[2], best[1]


def _with_budgets(server: Server) -> Iterable[Server]:
    """The engine with other token budgets, where memory is left and a prompt fits."""
    for budget in {*BUDGETS} - {server.options.max_num_batched_tokens}:
        with suppress(SpecError):
            yield Server(replace(server.served, options=replace(server.options, max_num_batched_tokens=budget)))


def find_knee(found: Serving, waits: np.ndarray) -> int:
    """Which of several loads is the knee of a curve: the one farthest from the line between its ends, beyond which more requests in flight
    cost more waiting than they bring pages.

    Args:
        found: of growing concurrencies.
        waits: seconds of a page at each.
    """
    pages = np.asarray(found.pages_per_second.value)
    x, y = ((one - one[0]) / max(one[-1] - one[0], 1e-12) for one in (pages, waits))
    return int((x - y).argmax())


def longest_output(server: Server, concurrency: int) -> int:
    """The largest output limit at which so many requests fit the cache even if all of them reach it; 0 if none does."""
    blocks = server.pool.blocks // concurrency
    return max(0, blocks * server.pool.block_size - int(server.times.prompt_tokens.max()) + 1)


def longest_request(server: Server) -> int:
    """Tokens of the longest request, its prompt included."""
    return int((server.times.prompt_tokens + server.times.output_tokens).max())


def command_line(server: Server, concurrency: int | None = None) -> str:
    """What to type so that the engine serves as the model here has it.

    Args:
        concurrency: requests at once, as `max_num_seqs`, which is the most; the option's own where None.
    """
    options, engine = server.options, server.config.engine
    sequences = min(concurrency or options.max_num_seqs, options.max_num_seqs)
    code, context = server.config.engine_code, max(CONTEXT, 1 << (longest_request(server) - 1).bit_length())
    parts = code.serving_command(replace(options, max_num_seqs=sequences), context)
    parts += ["--dtype float16"] * (server.config.dtype == "fp16") + ["--quantization fp8"] * bool(engine.weights)
    return " ".join(parts + [f"--kv-cache-dtype {code.cache_dtype}"] * bool(engine.cache))
