"""Steady state of an engine that batches continuously: a closed form for a number of requests in flight, or for an arrival rate.

With X requests a second of m output tokens, n = X (m - 1) T sequences run in a step of T seconds, in which a = X T pages are admitted
(Little's law). A step takes what decode takes at n sequences; where pages are admitted (in 1 - exp(-a) of all steps, or in as many as the
token budget parts their prompts into), what decode and prefill take together; what vision takes for each page; and what Python takes for
each sequence. A request waits for its page to be cut, for a place among those that run, for the rest of the step under way, and for the
step that encodes and prefills it. What a sequence sees is itself and the others: one more than the mean where requests arrive by chance,
(c - 1) / c of the others where c are in flight.

More of a device delivers no less at the same options, but for two things: sequences that more memory makes room for can fill the rows of
every expert up to one more block, which takes up to half a percent (played step by step too); and where `is_rough`, approximation took up
to 0.3 % in a few of 2,400 random settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from ocr_flops.errors import SpecError, whole_number
from ocr_flops.spec.catalog import load_hardware, serving_engines
from ocr_flops.spec.host import EfficiencySpec, HostSpec, Ranged
from ocr_flops.spec.serving import ServingSpec, choose_options, cutting_part
from ocr_flops.spec.specs import AttentionSpec, EngineSpec, HardwareSpec, ModelSpec
from ocr_flops.spec.workload import Workload
from ocr_flops.timing.estimate import estimate
from ocr_flops.timing.serving.balance import Balance, find_balance, look_up, run_alone
from ocr_flops.timing.serving.memory import find_pool
from ocr_flops.timing.serving.result import BUDGET, CACHE, CUTTING, PARTS, SEQUENCES, Serving
from ocr_flops.timing.serving.step import Deployment, Page, StepTimes
from ocr_flops.units import SECONDS_PER_DAY

ENGINE = "vllm"
CUTTERS = (0, 1, 2, 2, 1)  # what cutting a page takes, by case of `DEVICE`
FULL_CACHE = 0.95  # of the cache: above it running requests are sent away
NUMBERS = ("output", "later", "context", "most_admitted", "max_concurrency")  # of a server
BINS = 24  # lengths that stand for a distribution


def serving(
    model: str | ModelSpec,
    workload: Workload | Sequence[Workload],
    hardware: str | HardwareSpec,
    *,
    concurrency: int | Sequence[int] | np.ndarray | None = None,
    rate: float | Sequence[float] | np.ndarray | None = None,
    replicas: int = 1,
    engine: str | EngineSpec = ENGINE,
    weights: Sequence[float] | None = None,
    options: ServingSpec | Mapping[str, Any] | None = None,
    attention: str | AttentionSpec = "vendor",
    dtype: str = "bf16",
    host: str | HostSpec | None = None,
    efficiency: str | EfficiencySpec | None = None,
) -> Serving:
    """What a serving engine delivers on a device, or on several of them side by side.

    Args:
        model: from `load_model`, or its name.
        workload: of one request, a page and its output tokens; or several kinds of request.
        hardware: a device, or its name.
        concurrency: requests in flight on each replica; as many as run at once where neither this nor a rate is given.
        rate: requests that arrive in a second at all replicas, instead of a concurrency.
        replicas: copies of the model, each on a device of its own.
        engine: that serves, "vllm" or "sglang", or an `EngineSpec`.
        weights: of the kinds of request, shares of any sum; all alike by default.
        options: a `ServingSpec`, or a dict of some of its fields; the engine's own for the device by default, of vLLM on an L4 these. In
            tokens: max_num_batched_tokens of a step (2048), block_size of the cache (16). In sequences: max_num_seqs that run at once
            (256). A share: gpu_memory_utilization (0.92). Yes or no: chunked_prefill (True), ngram_ban (True). Of the CPU:
            preprocess_workers, threads (1), preprocess_ms of an A4 page in Gundam (140), ban_us of a sequence and step (30).
        attention: "vendor", "eager", "sdpa", "flash", or an `AttentionSpec`.
        dtype: "bf16", "fp16" or "fp32".
        host: what issues the operators, as of `Estimate.on`; the engine's own by default.
        efficiency: what kernels reach of the device's peaks, as of `Estimate.on`; "published" by default.

    Raises:
        SpecError: an unknown name, a value that is not allowed, or a model that does not fit the device.
    """
    runs = {"attention": attention, "dtype": dtype, "host": host, "efficiency": efficiency}
    return prepare(model, workload, hardware, engine=engine, weights=weights, options=options, **runs).solve(concurrency, rate, replicas)


def prepare(
    model: str | ModelSpec,
    workload: Workload | Sequence[Workload],
    hardware: str | HardwareSpec,
    *,
    engine: str | EngineSpec = ENGINE,
    weights: Sequence[float] | None = None,
    options: ServingSpec | Mapping[str, Any] | None = None,
    attention: str | AttentionSpec = "vendor",
    dtype: str = "bf16",
    host: str | HostSpec | None = None,
    efficiency: str | EfficiencySpec | None = None,
) -> Server:
    """An engine on a device, ready for a load; arguments and errors as of `serving`."""
    kinds = list(workload) if isinstance(workload, Iterable) else [workload]
    shares = [1.0] * len(kinds) if weights is None else [float(one) for one in weights]
    if not kinds or len(shares) != len(kinds) or min(shares) < 0 or not sum(shares) > 0:
        raise SpecError(f"weights: {shares!r} are not {len(kinds)} numbers of at least 0, one for each kind of request, with a sum above 0")
    for kind in kinds:
        if not isinstance(kind, Workload) or not kind.is_single or kind.batch_size != 1 or kind.output_tokens < 1:
            raise SpecError("workload: a request is one page with output_tokens of at least 1; set concurrency or rate for many")
    hardware = load_hardware(hardware) if isinstance(hardware, str) else hardware
    one = estimate(model, kinds[0], attention, engine=engine, dtype=dtype)
    spec = one.config.engine
    if spec.block_tokens is None:
        raise SpecError(f"engine: {spec.name} does not batch continuously; choose {' or '.join(serving_engines())}")
    timing = one.on(hardware, host=host, efficiency=efficiency)
    if not isinstance(options, ServingSpec):
        own = {"block_size": spec.block_tokens, **one.config.engine_code.serving_options(hardware)}
        options = choose_options(own, options or {})
    pages = tuple(Page(kind, share) for kind, share in zip(kinds, shares, strict=True))
    return _server(Deployment(one.config, hardware, timing.host, timing.efficiency, options, pages, timing.time_basis))


class Flow(NamedTuple):
    """What goes through a server: requests a second, seconds of a step, of one in which a request decodes, and to its first token [case,
    point]; what limits, "" for the largest part, whether that is rough, and the part of the time in which steps are made [point]."""

    requests: np.ndarray
    step: np.ndarray
    seen: np.ndarray
    ttft: np.ndarray
    limited: np.ndarray
    is_rough: np.ndarray
    there: np.ndarray | float = 1.0


class Server:
    """What a deployment delivers under a load.

    Raises:
        SpecError: the cache of not even one page is left, or a whole prompt exceeds the token budget.
    """

    def __init__(self, served: Deployment):
        self.served, self.config, self.hardware, self.options = served, served.config, served.hardware, served.options
        self.pages, self.basis = served.pages, served.basis
        self.times = times = StepTimes(served)
        largest = max((page.workload for page in self.pages), key=lambda one: one.context_tokens + one.output_tokens)
        self.pool = find_pool(self.config, self.hardware, self.options, largest)
        prompt, output = times.prompt_tokens, times.output_tokens
        self.output = float(times.weights @ output)
        self.later = self.output - 1  # tokens of a request that decode yields
        steps = times.weights * np.maximum(output - 1, 1e-9)
        held = prompt + output / 2 + (self.options.block_size - 1) / 2  # mean cache of a running sequence
        self.context = float(steps @ (prompt + (output + 1) / 2) / steps.sum())
        self.held = float(steps @ held / steps.sum())
        self.spread = float(times.weights @ (output / self.output - 1) ** 2)  # variance of lengths, the mean being 1
        part = float(times.weights @ [cutting_part(page.workload) for page in self.pages])
        self.cut = 1e-3 * part * np.array(self.options.preprocess_ms[:3])[list(CUTTERS), None]
        self.most_cut = self.options.preprocess_workers / np.maximum(self.cut, 1e-12)  # pages a second
        self.by_cache = by_cache = int(self.pool.tokens / self.held)
        self.max_concurrency = max(1, min(self.options.max_num_seqs, by_cache))
        self.first_limit = CACHE if by_cache < self.options.max_num_seqs else SEQUENCES
        if times.mixes and not self.options.chunked_prefill:  # a whole prompt has to fit beside those that run
            room = max(1, self.options.max_num_batched_tokens - int(prompt.max()) + 1)
            if room < self.max_concurrency:
                self.max_concurrency, self.first_limit = room, BUDGET
        budget, longest = self.options.max_num_batched_tokens, int(prompt.max())
        self.is_in_parts = longest > budget  # a prompt takes several steps
        if not self.options.chunked_prefill and longest > budget:
            raise SpecError(f"max_num_batched_tokens: {budget} is less than a prompt of {longest} tokens, and chunked_prefill is off")
        self.most_admitted = budget / (times.mean_prompt + self.later * times.mixes)  # pages a step by the token budget
        self.capacity, self.capacity_limit = self._capacity()

    def with_lengths(self, output_tokens: np.ndarray, kinds: np.ndarray) -> Server:
        """The same engine for requests that make these tokens: every kind of page with up to `BINS` lengths.

        Args:
            output_tokens, kinds: of many requests, as of `Traffic`.
        """
        pages = []
        for kind, page in enumerate(self.pages):
            mine = np.sort(output_tokens[kinds == kind])
            for part in np.array_split(mine, min(BINS, len(np.unique(mine)))) if len(mine) else ():
                length = max(1, round(float(part.mean())))
                pages.append(Page(replace(page.workload, output_tokens=length), len(part)))
        return Server(replace(self.served, pages=tuple(pages)))

    def _capacity(self) -> tuple[np.ndarray, str]:
        """The most requests a second [case, 1], and what limits them."""
        by_sequences = self.max_concurrency / self.output
        admitted = np.full(self.cut.shape, min(by_sequences, self.most_admitted))
        self.full_step = self._parts(admitted * self.later, admitted)[0][0]
        served = admitted / self.full_step
        limit = self.first_limit if by_sequences < self.most_admitted else BUDGET
        return np.minimum(served, self.most_cut), CUTTING if self.most_cut[0, 0] < served[0, 0] else limit

    def _parts(self, sequences: np.ndarray, admitted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean seconds of a step and the device's in it [seconds or device, case, point], and of the latter those of vision, of prefill
        and of decode [part, case, point].

        Args:
            sequences: that run in it: [case, point].
            admitted: pages that are admitted in it, on average.
        """
        times = self.times
        none = np.exp(-admitted) * (self.later > 0)  # where nothing is decoded, there is no step without a page
        room = np.maximum(self.options.max_num_batched_tokens - sequences * times.mixes, 1.0)
        several = admitted * times.mean_prompt / room  # steps that prefill takes where they are full of it
        beside = np.minimum(np.maximum(1 - none, several), 1.0)
        none = 1 - beside
        tokens = times.mean_prompt * (admitted / np.maximum(beside, 1e-300))
        alone, attention = times.alone(sequences, self.context)
        mixed = times.mixed(alone, attention, sequences, tokens)
        vision = times.vision[..., None] * admitted
        whole = none * alone + beside * mixed + vision
        whole[0] += sequences * times.ban[:, None]
        return whole, np.array([vision[1], beside * (mixed[1] - alone[1]), alone[1]])

    def solve(self, concurrency: Any = None, rate: Any = None, replicas: int = 1) -> Serving:
        """The steady state under a load; arguments as of `serving`."""
        if concurrency is not None and rate is not None:
            raise SpecError("rate: a load is a concurrency or a rate, not both")
        whole_number("replicas", replicas, 1, 1_000_000)
        is_single = np.ndim(concurrency if rate is None else rate) == 0
        if rate is None:
            wanted = np.atleast_1d(np.asarray(self.max_concurrency if concurrency is None else concurrency))
            if wanted.dtype.kind not in "iu" or wanted.min() < 1:
                raise SpecError(f"concurrency: {concurrency!r} is not a whole number of at least 1")
            flow = self._closed(np.minimum(wanted, self.max_concurrency)[None].astype(float))
            stable, arriving = np.ones(len(wanted), bool), None
        else:
            arriving = np.atleast_1d(np.asarray(rate, float))
            if not np.isfinite(arriving).all() or arriving.min() <= 0:
                raise SpecError(f"rate: {rate!r} is not a number above 0")
            wanted, each = None, arriving / replicas
            stable = each < self.capacity[0]
            flow = self._open(np.broadcast_to(each, (len(self.cut), len(each))))
        return self._result(flow, is_single, replicas, wanted, arriving, stable)

    @cached_property
    def _by_flying(self) -> Balance:
        return find_balance(self, is_closed=True)

    @cached_property
    def _by_rate(self) -> Balance:
        return find_balance(self, is_closed=False)

    def _closed(self, flying: np.ndarray) -> Flow:
        """So many requests in flight: [1, point]."""
        found, requests, seen, ttft, is_full, is_cut = self._in_flight(flying)
        is_alone = flying[0] == 1
        limits = CUTTING, self.capacity_limit, self.first_limit
        limited = np.select([is_cut[0], is_full[0], flying[0] >= self.max_concurrency], limits, "")
        wait = found.rest[0] + found.first[0]
        is_rough = (
            (wait > 0.05 * self.later * found.seen[0]) | (requests[0] > 0.8 * self.most_cut[0]) | (requests[0] * wait > 0.75) & ~is_full[0]
        ) | ((flying[0] > FULL_CACHE * self.by_cache) | self.is_in_parts)
        there = np.where(is_alone, (requests * (found.first + self.later * found.seen))[0], 1.0)
        return Flow(requests, np.where(is_full, seen, found.step), seen, ttft, limited, is_rough & ~is_alone, there)

    def _in_flight(self, flying: np.ndarray) -> tuple[Balance, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of so many requests in flight [case or 1, point] the balance, how many a second are done, seconds of a step in which one decodes
        and to its first token, and whether the capacity or cutting limits them: [case, point]."""
        others = np.broadcast_to(flying - 1, (len(self.cut), flying.shape[1]))
        is_alone = flying == 1
        found = None if is_alone.all() else look_up(self._by_flying, self._by_flying.others, others)
        if is_alone.any():
            alone = run_alone(self)
            found = Balance(*np.where(is_alone, alone, alone if found is None else found))
        cycle, share = self.cut + found.rest + found.first + self.later * found.seen, (flying - 1) / flying / self.most_cut
        whole = cycle + self.cutting_wait(found.rate, others) * (1 - np.minimum(found.rate / self.most_cut, 1 - 1e-9)) + flying * share
        requests = 2 * flying / (whole + np.sqrt(np.maximum(whole**2 - 4 * flying * cycle * share, 0)))  # the wait is of the other ones
        requests = np.minimum(requests, self.most_cut)
        is_cut = requests >= 0.98 * self.most_cut  # most of the others wait to be cut
        if (is_cut > is_alone).any():
            by_rate = look_up(self._by_flying, self._by_flying.rate, np.maximum(requests * (flying - 1) / flying, 1e-300))
            found = Balance(*np.where(is_cut > is_alone, by_rate, found))
        is_full = (requests >= self.capacity * (1 - 1e-9)) & ~is_cut & ~is_alone
        requests = np.minimum(requests, self.capacity)
        soonest, seen = self.cut + found.rest + found.first, found.step
        if np.all(self.later > 0):
            left = (flying / requests - soonest) / self.later  # more is not left of a request's time for each token
            seen = np.where(is_full, np.maximum(found.seen, np.minimum(self.full_step, left)), found.seen)
        return found, requests, seen, np.maximum(flying / requests - self.later * seen, soonest), is_full, is_cut

    def _open(self, arriving: np.ndarray) -> Flow:
        """So many requests a second arrive by chance: [case, point]; at most the capacity is served."""
        served = np.minimum(arriving, self.capacity * (1 - 1e-9))
        found = look_up(self._by_rate, self._by_rate.rate, served)
        stay = found.first + self.later * found.seen
        full = np.sqrt(served / self.capacity * np.minimum(served * stay / self.max_concurrency, 1.0))  # the more run, the longer they stay
        places = (1 + self.spread) * _wait(np.minimum(full, 1 - 1e-9), stay, self.max_concurrency)
        ttft = self.cut + self.cutting_wait(served) + places + found.rest + found.first
        ttft = np.where(arriving < self.capacity, ttft, np.nan)  # the queue grows, and what one waits with it
        limited = np.full(arriving.shape[1], self.capacity_limit)
        there = np.minimum((served * stay)[0], 1.0)  # while nobody is there, no step is made
        waits = (found.rest[0] + found.first[0]) / np.maximum(self.later * found.seen[0], 1e-12)
        is_rough = (waits > 0.2) | (waits > 0.05) & (served[0] > 0.4 * self.most_cut[0]) | (served[0] > 0.7 * self.capacity[0])
        is_rough |= self.is_in_parts
        return Flow(served, found.step, found.seen, ttft, limited, is_rough, there)

    def cutting_wait(self, rate: np.ndarray, others: np.ndarray | float = np.inf) -> np.ndarray:
        """Mean seconds in which a page waits for a thread that cuts it.

        Args:
            rate: pages a second that come beside it.
            others: that are in flight beside it; it does not wait where there is a thread for each.
        """
        workers = self.options.preprocess_workers
        waits = _wait(np.minimum(rate / self.most_cut, 1 - 1e-9), self.cut, workers)
        return waits * np.minimum(np.maximum(others - (workers - 1), 0.0), 1.0)

    def _result(self, flow: Flow, is_single: bool, replicas: int, wanted: Any, arriving: Any, stable: np.ndarray) -> Serving:
        running, admitted = flow.requests * self.later * flow.seen, np.minimum(flow.requests * flow.step, self.most_admitted)
        whole, device = self._parts(running, admitted)
        step, taken = flow.step[0], flow.step[0] * flow.there
        parts = np.array([*device[:, 0], np.maximum(taken - device[:, 0].sum(axis=0), 0.0)])
        parts = parts * step / np.maximum(taken, parts.sum(axis=0))
        largest = parts.argmax(axis=0)
        tokens = running[0] + self.times.mean_prompt * np.maximum(admitted[0], 1.0)
        ceiling = self.times.binding(running[0], tokens, largest == PARTS.index("prefill"))
        own = (largest == PARTS.index("vision")) | (largest == PARTS.index("host"))
        named = np.where(own, np.array(PARTS)[largest], ceiling)
        used = np.minimum(1.0, (running[0] * self.held + admitted[0] * self.times.mean_prompt) / self.pool.tokens)

        def one(values: Any) -> Any:  # a number of Python, None where there is none
            return values if not is_single else None if values[0] != values[0] else values[0].item()

        requests = flow.requests * replicas
        flying = flow.requests[0] * (flow.ttft[0] + self.later * flow.seen[0])
        tokens, capacity = requests * self.output, self.capacity * replicas + 0 * requests
        figures = np.array([flow.step, flow.ttft, flow.seen, tokens, requests, requests * SECONDS_PER_DAY, capacity])
        lowest = np.where(np.isnan(figures[:, 0]), np.nan, np.fmin.reduce(figures, axis=1))
        ranges = [Ranged(*map(one, figure), self.basis) for figure in zip(figures[:, 0], lowest, figures.max(axis=1), strict=True)]
        step, ttft, tpot, tokens, requests, pages, capacity = ranges
        return Serving(
            engine=self.config.engine.name,
            hardware=self.hardware,
            options=self.options,
            pool=self.pool,
            replicas=replicas,
            concurrency=one(np.minimum(wanted, self.max_concurrency) if arriving is None else flying),
            asked_concurrency=None if wanted is None else one(wanted),
            rate=None if arriving is None else one(arriving),
            is_stable=one(stable),
            max_concurrency=self.max_concurrency,
            kv_capacity_tokens=self.pool.tokens,
            kv_use_share=one(used),
            step_seconds=step,
            ttft_seconds=ttft,
            tpot_seconds=tpot,
            output_tokens_per_second=tokens,
            requests_per_second=requests,
            pages_per_second=requests,
            pages_per_day=pages,
            capacity_per_second=capacity,
            device_busy_share=one(np.minimum(1.0, flow.requests[0] / np.maximum(admitted[0], 1e-300) * whole[1][0])),
            step_parts=parts[:, 0] if is_single else parts,
            limited_by=one(np.where(flow.limited == "", named, flow.limited)),
            is_rough=one(flow.is_rough),
            time_basis=self.basis,
        )


def solve_each(served: Deployment) -> tuple[np.ndarray, list[Ranged]]:
    """Of every kind of page alone what is expected in a second with as many in flight as fit, and seconds of a request without another one.

    All kinds are solved together, but for those of a single token, which are apart.

    Raises:
        SpecError: as `Server`.
    """
    servers = [Server(replace(served, pages=(page._replace(weight=1.0),))) for page in served.pages]
    rates, requests = np.empty(len(servers)), np.empty((len(servers), len(CUTTERS)))
    for kinds in ([i for i, one in enumerate(servers) if bool(one.later) is decodes] for decodes in (False, True)):
        if kinds:
            as_expected, every = (_stack([servers[kind] for kind in kinds], cases) for cases in ([0], range(len(CUTTERS))))
            rates[kinds] = as_expected._in_flight(as_expected.max_concurrency.astype(float))[1][:, 0]
            _, _, seen, ttft, *_ = every._in_flight(np.ones_like(every.later))
            requests[kinds] = (ttft + every.later * seen).reshape(len(kinds), -1)
    return rates, [Ranged(one[0], min(one), max(one)) for one in requests.tolist()]


def _stack(servers: Sequence[Server], cases: Sequence[int]) -> Server:
    """Servers of single kinds of page, under the same options, as one: its cases are these of the first, then of the next, and so on; what
    is a number of a server is a column [case, 1]."""
    found = copy(servers[0])
    found.times = StepTimes.stacked([one.times for one in servers], cases)
    for name in NUMBERS:
        setattr(found, name, np.repeat([getattr(one, name) for one in servers], len(cases))[:, None])
    for name in ("cut", "most_cut", "capacity", "full_step"):
        setattr(found, name, np.concatenate([getattr(one, name).take(cases, 0) for one in servers]))
    return found


_server = lru_cache(maxsize=128)(Server)  # whose balances are found once


def _wait(load: np.ndarray, seconds: np.ndarray, places: int) -> np.ndarray:
    """Mean seconds in which requests by chance wait for one of so many places, which each takes as long (M/D/c, Sakasegawa's form)."""
    return seconds / 2 * load ** (np.sqrt(2 * (places + 1)) - 1) / (places * (1 - load))
