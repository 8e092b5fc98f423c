"""A serving engine step by step: requests that come, wait, are encoded and prefilled, run, and are sent away when the cache is full.

The scheduler is vLLM's (vllm/v1/core/sched/scheduler.py): a step first takes a token of every running sequence, then prefills in the order
of arrival what the token budget, `max_num_seqs` and the free blocks allow; when a running sequence finds no block, the youngest one is
sent away and prefilled anew later. Steps take what `StepTimes` says, as in steady state. While nobody comes or goes a step differs from
the one before by its context alone, so that any number of them is one sum.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf, sqrt
from typing import Any

import numpy as np
import polars as pl

from ocr_flops.errors import SpecError
from ocr_flops.timing.serving.steady import Server
from ocr_flops.timing.serving.step import CONTEXTS
from ocr_flops.timing.serving.traffic import Traffic
from ocr_flops.units import SECONDS_PER_DAY

PERCENTILES = (50, 90, 95, 99)
SAMPLES = 2_000  # moments at which the queue is kept, at most twice as many
TELL = 5_000  # requests between two reports of progress
MIDDLE = (0.1, 0.9)  # throughput is taken between these parts of the requests: the first ones and the last ones find an empty engine


@dataclass(frozen=True, eq=False)
class Simulation:
    """What became of the requests that are done.

    Args:
        requested: how many were wanted.
        seconds: from the first arrival to the last token.
        ttft_seconds, tpot_seconds, total_seconds: of each request that is done: to its first token, for each later one (NaN where there is
            none), and to its last one.
        finished: when each was done, in the order of arrival.
        output_tokens: that each made; of so many in flight the first ones make parts, evenly, or those of one length would stay together.
        preemptions: how often a running sequence was sent away.
        steps: of the engine.
        busy_seconds: in which it had something to do.
        samples: columns seconds, waiting (to be cut, or for the engine), running, cache_share over time.
    """

    requested: int
    seconds: float
    ttft_seconds: np.ndarray
    tpot_seconds: np.ndarray
    total_seconds: np.ndarray
    finished: np.ndarray
    output_tokens: np.ndarray
    preemptions: int
    steps: int
    busy_seconds: float
    samples: pl.DataFrame

    @property
    def requests_per_second(self) -> float:
        """Requests served a second in the middle of the run."""
        done = np.sort(self.finished)
        if len(done) < 20:
            return len(done) / self.seconds if self.seconds else 0.0
        first, last = (int(part * (len(done) - 1)) for part in MIDDLE)
        return float((last - first) / max(done[last] - done[first], 1e-12))

    def percentiles(self) -> pl.DataFrame:
        """Mean and percentiles of the times: a row for each of ttft, tpot and total."""
        rows = []
        for name in ("ttft", "tpot", "total"):
            values = getattr(self, f"{name}_seconds")
            values = values[np.isfinite(values)]
            if len(values):
                found = dict(zip((f"p{one}_seconds" for one in PERCENTILES), np.percentile(values, PERCENTILES).tolist(), strict=True))
                rows.append({"time": name, "mean_seconds": float(values.mean()), **found})
        return pl.DataFrame(rows)

    def summary(self) -> dict[str, Any]:
        """The figures of the run as plain data."""
        return {
            "requests": len(self.finished),
            "requested": self.requested,
            "seconds": self.seconds,
            "requests_per_second": self.requests_per_second,
            "output_tokens_per_second": self.requests_per_second * float(self.output_tokens.mean()) if len(self.output_tokens) else 0.0,
            "pages_per_day": self.requests_per_second * SECONDS_PER_DAY,
            "preemptions": self.preemptions,
            "steps": self.steps,
            "engine_busy_share": self.busy_seconds / self.seconds if self.seconds else 0.0,
            "times": self.percentiles().to_dicts(),
        }


def simulate(server: Server, traffic: Traffic, progress: Callable[[int, int], None] | None = None, case: int = 0) -> Simulation:
    """Runs requests through one replica of an engine.

    Args:
        progress: is told how many are done, and how many there are. If it, or the user, raises KeyboardInterrupt, what is done is kept.
        case: of times, a number of `expected.CASES`: as expected, all figures in favour, all against.

    Raises:
        SpecError: a request that the cache cannot hold alone.
    """
    longest = int((server.times.prompt_tokens[traffic.kinds] + traffic.output_tokens).max())
    if longest > server.pool.tokens:
        raise SpecError(f"output_limit: a request of {longest} tokens does not fit the cache of {server.pool.tokens}; lower the limit")
    run = _Run(server, traffic, case, longest)
    with contextlib.suppress(KeyboardInterrupt):
        run.go(progress or (lambda done, total: None))
    return run.result()


class _Run:
    """The state of a simulation."""

    def __init__(self, server: Server, traffic: Traffic, case: int, longest: int):
        self.server, self.traffic, self.case, self.longest = server, traffic, case, longest
        self.count, self.tokens = len(traffic.output_tokens), traffic.output_tokens.copy()
        flying = min(traffic.concurrency, self.count)  # evenly in their outputs at first, as in an engine that has run for long
        self.tokens[:flying] = np.ceil(self.tokens[:flying] * np.arange(1, flying + 1) / max(flying, 1))
        self.first, self.done, self.arrived = np.full(self.count, np.nan), np.full(self.count, np.nan), np.zeros(self.count)
        self.preemptions = self.steps = self.finished = 0
        self.now = self.busy = 0.0
        self.samples: list[tuple[float, int, int, float]] = []

    def go(self, progress: Callable[[int, int], None]) -> None:
        """Plays all requests; the state stays whole between two events."""
        times, options, case, count = self.server.times, self.server.options, self.case, self.count
        budget, most, size, chunked = options.max_num_batched_tokens, options.max_num_seqs, options.block_size, options.chunked_prefill
        numbers = np.arange(most + 1, dtype=float)[None]
        low, high = (times.alone(np.maximum(numbers, 1.0), float(context))[0][0, case] for context in CONTEXTS)
        grows = (high - low) / (CONTEXTS[1] - CONTEXTS[0])
        bans = numbers[0] * times.ban[case]
        alone = (low - grows * CONTEXTS[0] + bans).tolist()  # seconds of a step of n sequences without context
        slope, ban = grows.tolist(), bans.tolist()  # for each token of mean context; of Python
        forward, slack = times.forward_seconds(max(budget, self.longest) + most, case)
        vision, prompt, mixes = times.vision_by_page[0, case].tolist(), times.prompt_tokens.tolist(), times.mixes
        pool, cut, workers = self.server.pool.blocks, float(self.server.cut[case, 0]), options.preprocess_workers
        tokens, kinds = self.tokens.tolist(), self.traffic.kinds.tolist()
        first, arrived = self.first, self.arrived
        closed = self.traffic.arrivals is None
        cutters = deque([0.0] * workers)  # when each thread is free; pages take all the same time, so that they take turns
        ready: deque[tuple[float, int]] = deque()  # pages that are cut, or will be, in order
        coming = 0  # requests that have arrived or have been sent to be cut

        def send(number: int, moment: float) -> None:
            free = cutters.popleft()
            ended = (moment if moment > free else free) + cut
            cutters.append(ended)
            arrived[number] = moment
            ready.append((ended, number))

        def finish(number: int, moment: float) -> None:
            nonlocal coming
            self.done[number] = moment
            self.finished += 1
            if closed and coming < count:
                send(coming, moment)
                coming += 1

        if closed:
            for number in range(min(self.traffic.concurrency, count)):
                send(number, 0.0)
            coming = len(ready)
        else:
            cuts = _cut_in_turn(self.traffic.arrivals, cut, workers)
            arrived[:] = self.traffic.arrivals
            ready.extend(zip(cuts.tolist(), range(count), strict=True))

        back: list[tuple[int, int]] = []  # sent away: (number, tokens to prefill), the last one to come back first
        running: dict[int, tuple[int, int, int]] = {}  # number -> (context when it began, step, tokens still to come then), oldest first
        ends: list[tuple[int, int]] = []  # heap of (step at whose end a sequence is done, number)
        phases = [0] * size  # sequences by what their context is at step 0, modulo the block
        part: tuple[int, int, int] | None = None  # a prompt in the middle of its prefill: (number, all its tokens, those left)
        step = blocks = context = 0  # steps made, blocks in use, tokens that running sequences attend to
        now, next_sample, interval, reported = 0.0, 0.0, 0.0, 0
        left = dict[int, int]()  # tokens that a request that was sent away has still to make

        while self.finished < count:
            sequences = len(running)
            free = pool - blocks
            # blocks that running sequences need in this step
            needed = phases[-step % size]
            preempted = False
            while needed > free and running:
                number, (began, since, todo) = running.popitem()
                phase = (began - since) % size
                held = began + step - since
                phases[phase] -= 1
                context -= held
                freed = -(-held // size)
                blocks -= freed
                free += freed
                left[number] = todo - (step - since)
                back.append((number, held))
                self.preemptions += 1
                preempted = True
                sequences -= 1
                needed = phases[-step % size]
            room = max(0, budget - sequences * mixes)
            prefilled, encoding, begun = 0, 0.0, []
            if part is not None:
                number, whole, rest = part
                taken = min(rest, room)
                prefilled, room = taken, room - taken
                part = (number, whole, rest - taken) if rest > taken else None
                if part is None:
                    begun.append((number, whole))
            free -= needed
            while not preempted and part is None and room > 0 and sequences + len(begun) < most:
                if back:
                    number, whole = back[-1]
                elif ready and ready[0][0] <= now:
                    number = ready[0][1]
                    whole = prompt[kinds[number]]
                else:
                    break
                reserved = -(-whole // size)
                if reserved > free or (not chunked and whole > room and room < budget):
                    break
                if back:
                    back.pop()
                else:
                    ready.popleft()
                    encoding += vision[kinds[number]]
                free -= reserved
                blocks += reserved
                taken = min(whole, room) if chunked else whole
                prefilled, room = prefilled + taken, max(0, room - taken)
                if taken < whole:
                    part = (number, whole, whole - taken)
                else:
                    begun.append((number, whole))

            if prefilled:  # one step with prefill
                mean = context / sequences + 1 if sequences else 0.0
                decode = alone[sequences] + slope[sequences] * mean if sequences else 0.0
                if mixes:
                    rows, attention = prefilled + sequences, slope[sequences] * mean if sequences else 0.0
                    both = forward[rows] + (attention - slack[rows] if attention > slack[rows] else 0.0) + ban[sequences]
                    seconds = both if both > decode else decode
                else:
                    seconds = forward[prefilled] + decode
                seconds += encoding
                now += seconds
                self.busy += seconds
                made = 1
            elif sequences:  # steps until somebody comes, is done or finds no block
                made = ends[0][0] - step
                at_first = alone[sequences] + slope[sequences] * (context / sequences + 1)
                grows = slope[sequences]
                if (back or ready) and part is None and sequences < most:
                    until = inf if not ready or ready[0][0] <= now else ready[0][0] - now
                    if until < inf:
                        if grows > 0:
                            enough = (sqrt((at_first - grows / 2) ** 2 + 2 * grows * until) - at_first + grows / 2) / grows
                        else:
                            enough = until / at_first
                        made = min(made, max(1, int(enough) + (enough > int(enough))))
                if blocks + (made // size + 1) * sequences > pool:
                    made = min(made, _steps_that_fit(phases, step, pool - blocks, sequences, size))
                seconds = made * at_first + grows * made * (made - 1) / 2
                now += seconds
                self.busy += seconds
            elif ready:
                now = max(now, ready[0][0])
                continue
            elif back:
                continue
            else:
                raise RuntimeError("requests are left, and none can run")

            cycles, rest = divmod(made, size)
            blocks += cycles * sequences
            for one in range(step + 1, step + 1 + rest):
                blocks += phases[(1 - one) % size]
            context += made * sequences
            step += made
            self.steps += made
            while ends and ends[0][0] <= step:
                when, number = heappop(ends)
                entry = running.get(number)
                if entry is None or entry[1] + entry[2] != when:
                    continue  # it was sent away
                began, since, _ = running.pop(number)
                held = began + step - since
                phases[(began - since) % size] -= 1
                context -= held
                blocks -= -(-held // size)
                finish(number, now)
            for number, whole in begun:
                todo = left.pop(number, tokens[number] - 1)
                if first[number] != first[number]:
                    first[number] = now
                if todo <= 0:
                    blocks -= -(-whole // size)
                    finish(number, now)
                    continue
                running[number] = (whole, step, todo)
                phases[(whole - step) % size] += 1
                context += whole
                heappush(ends, (step + todo, number))
            if now >= next_sample:
                waiting = len(ready) if closed or not ready else int(arrived.searchsorted(now, "right")) - ready[0][1]
                self.samples.append((now, len(back) + max(0, waiting), len(running), blocks / pool))
                next_sample = now + interval
                if len(self.samples) > 2 * SAMPLES:
                    self.samples = self.samples[::2]
                    interval = 2 * interval or now / SAMPLES
            self.now = now
            if self.finished - reported >= TELL:
                reported = self.finished
                progress(reported, count)
        progress(self.finished, count)

    def result(self) -> Simulation:
        """What is done by now."""
        done = np.flatnonzero(np.isfinite(self.done))
        tokens = self.tokens[done]
        ttft, total = self.first[done] - self.arrived[done], self.done[done] - self.arrived[done]
        later = np.where(tokens > 1, tokens - 1, 1)
        tpot = np.where(tokens > 1, (total - ttft) / later, np.nan)
        samples = pl.DataFrame(self.samples, ["seconds", "waiting", "running", "cache_share"], orient="row")
        seconds = float(self.done[done].max()) if len(done) else 0.0
        return Simulation(self.count, seconds, ttft, tpot, total, self.done[done], tokens, self.preemptions, self.steps, self.busy, samples)


def _cut_in_turn(arrivals: np.ndarray, seconds: float, workers: int) -> np.ndarray:
    """When pages are cut by threads that each take the same time for one."""
    found = np.empty_like(arrivals)
    for worker in range(workers):
        mine = arrivals[worker::workers]
        turns = seconds * np.arange(len(mine))
        found[worker::workers] = np.maximum.accumulate(mine - turns) + turns + seconds
    return found


def _steps_that_fit(phases: list[int], step: int, free: int, sequences: int, size: int) -> int:
    """How many steps running sequences can make with so many free blocks; at least 1, for which there is room."""
    cycles, free = divmod(free, sequences)
    for extra in range(1, size + 1):
        free -= phases[(1 - step - extra) % size]
        if free < 0:
            return max(1, cycles * size + extra - 1)
    return max(1, (cycles + 1) * size)
