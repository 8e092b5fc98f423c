"""Questions asked backwards: the load that keeps a promise, the GPUs that it takes, the best options, and the longest output that fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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

REQUESTS = 3_000  # that are simulated to see whether a rate keeps a promise, besides some for each that runs at once
FULL = 0.95  # of the capacity: nearer to it the queue takes ever longer to settle
HALVINGS = 7  # of the interval that the rate is sought in: to 1 % of the capacity
SETTLED = 0.2  # of the requests come before the engine is as full as it gets; they are left out of percentiles
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
        """The 95th percentiles of a run, once the engine has filled."""
        first = int(SETTLED * len(run.ttft_seconds))
        later = run.tpot_seconds[first:]
        later = later[np.isfinite(later)]
        return float(np.percentile(run.ttft_seconds[first:], 95)), float(np.percentile(later, 95)) if len(later) else 0.0

    def broken(self, run: Simulation) -> Promise:
        """What of it a run does not keep; nothing where it keeps all."""
        limits = (self.ttft_p95, self.tpot_p95)
        return Promise(*(limit if limit and seconds > limit else None for limit, seconds in zip(limits, self.found(run), strict=True)))


class BestRate(NamedTuple):
    """The most requests a second on one replica that keep a promise.

    Args:
        rate: as expected, and with all figures against and in favour; 0 where not even a single request is fast enough.
        ttft_p95, tpot_p95: seconds found at that rate, as expected; None at 0.
        by_promise: what of the promise a higher rate does not keep, as expected; nothing where the capacity limits.
    """

    rate: Ranged
    ttft_p95: float | None
    tpot_p95: float | None
    by_promise: Promise


def best_rate(server: Server, lengths: Lengths | list[Lengths], promise: Promise, seed: int = 0) -> BestRate:
    """The most requests a second that one replica serves, arriving at random (Poisson), with a promise kept; found by simulation.

    Args:
        server: the engine on its device.
        lengths: of outputs, of all kinds of page or of each.
        promise: without one, the rate is `FULL` of the capacity.
        seed: of the arrivals.
    """
    weights = [page.weight for page in server.pages]
    unit = draw_traffic(REQUESTS + 6 * server.max_concurrency, lengths, weights, rate=1.0, seed=seed)
    own = server.with_lengths(unit.output_tokens, unit.kinds)
    rates, seen = [], (None, None)
    for case in range(3):
        capacity = float(own.capacity[case, 0])

        def run(share: float, case: int = case, capacity: float = capacity) -> Simulation:
            return simulate(server, replace(unit, arrivals=unit.arrivals / (share * capacity)), case=case)

        low, high, kept = 0.0, FULL, None
        one = run(FULL)
        limit = promise.broken(one)
        if not limit:
            low, kept = FULL, one
        for _ in range(HALVINGS * (kept is None)):
            middle = (low + high) / 2
            one = run(middle)
            broken = promise.broken(one)
            low, high, kept, limit = (low, middle, kept, broken) if broken else (middle, high, one, limit)
        rates.append(low * capacity)
        if case == 0:
            seen, by_promise = (promise.found(kept) if kept else (None, None)), limit
    return BestRate(Ranged(rates[0], min(rates), max(rates), server.basis), *seen, by_promise)


def count_gpus(
    servers: Iterable[Server],
    rate: float,
    lengths: Lengths | list[Lengths],
    promise: Promise,
    progress: Callable[[str], None] | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """How many of each GPU an arrival rate takes with a promise kept, the fewest first; those that cannot keep it last.

    Args:
        servers: an engine on each kind of GPU.
        rate: requests a second at all of them.
        lengths, promise, seed: as of `best_rate`.
        progress: is told which GPU is looked at.

    Returns:
        rows with hardware, label, gpus (None where none would do), gpus_low, gpus_high, rate_per_gpu, ttft_p95_seconds, tpot_p95_seconds.
    """
    rows = []
    for server in servers:
        if progress:
            progress(server.hardware.label)
        best = best_rate(server, lengths, promise, seed)
        counts = [ceil(rate / one - 1e-9) if one else None for one in (best.rate.value, best.rate.high, best.rate.low)]
        names = {"hardware": server.hardware.name, "label": server.hardware.label}
        found = {"rate_per_gpu": best.rate.value, "ttft_p95_seconds": best.ttft_p95, "tpot_p95_seconds": best.tpot_p95}
        rows.append(names | dict(zip(("gpus", "gpus_low", "gpus_high"), counts, strict=True)) | found)
    return sorted(rows, key=lambda row: (row["gpus"] is None, row["gpus"], -row["rate_per_gpu"]))


def best_options(server: Server, promise: Promise) -> tuple[Server, int]:
    """The token budget and the concurrency that deliver most, with mean times that keep a promise, by steady state.

    Raises:
        SpecError: no concurrency keeps it.
    """
    best: tuple[float, int, Server] | None = None
    for budget in sorted({*BUDGETS, server.options.max_num_batched_tokens}):
        try:
            one = Server(replace(server.served, options=replace(server.options, max_num_batched_tokens=budget)))
        except SpecError:  # no memory is left, or no prompt fits
            continue
        flying = np.unique(np.geomspace(1, one.max_concurrency, 48).round().astype(np.int64))
        found = one.solve(flying)
        ttft, tpot = (np.asarray(getattr(found, name).value) for name in ("ttft_seconds", "tpot_seconds"))
        kept = (ttft <= (promise.ttft_p95 or np.inf)) & (tpot <= (promise.tpot_p95 or np.inf))
        if not kept.any():
            continue
        served = np.where(kept, found.requests_per_second.value, 0.0)
        most = int(np.flatnonzero(served >= 0.99 * served.max())[0])  # what is within 1 % waits less
        if best is None or served[most] > 1.01 * best[0]:
            best = float(served[most]), int(flying[most]), one
    if best is None:
        raise SpecError(f"ttft_p95, tpot_p95: not even one request at a time is that fast on {server.hardware.label}")
    return best[2], best[1]


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


def command_line(server: Server, concurrency: int | None = None) -> str:
    """What to type so that the engine serves as the model here has it.

    Args:
        server: the engine on its device.
        concurrency: requests at once, as `max_num_seqs`, which is the most; the option's own where None.
    """
    options, engine = server.options, server.config.engine
    sequences = min(concurrency or options.max_num_seqs, options.max_num_seqs)
    longest = int((server.times.prompt_tokens + server.times.output_tokens).max())
    code, context = server.config.engine_code, max(CONTEXT, 1 << (longest - 1).bit_length())
    parts = code.serving_command(replace(options, max_num_seqs=sequences), context)
    parts += ["--dtype float16"] * (server.config.dtype == "fp16") + ["--quantization fp8"] * bool(engine.weights)
    return " ".join(parts + [f"--kv-cache-dtype {code.cache_dtype}"] * bool(engine.cache))
