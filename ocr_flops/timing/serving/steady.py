"""Steady state of an engine that batches continuously: a closed form for a number of requests in flight, or for an arrival rate.

With X requests a second of m output tokens, n = X (m - 1) T sequences run in a step of T seconds, in which a = X T pages are admitted
(Little's law). A step takes what decode takes at n sequences; where pages are admitted (in 1 - exp(-a) of all steps, or in as many as the
token budget parts their prompts into), what decode and prefill take together; what vision takes for each page; and what Python takes for
each sequence. A request waits for its page to be cut, for a place among those that run, for the rest of the step under way, and for the
step that encodes and prefills it. What a sequence sees is itself and the others: one more than the mean where requests arrive by chance,
(c - 1) / c of the others where c are in flight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from ocr_flops.errors import SpecError
from ocr_flops.spec.catalog import load_hardware, serving_engines
from ocr_flops.spec.host import EfficiencySpec, HostSpec, Ranged
from ocr_flops.spec.serving import ServingSpec, choose_options
from ocr_flops.spec.specs import AttentionSpec, EngineSpec, HardwareSpec, ModelSpec
from ocr_flops.spec.workload import Workload
from ocr_flops.timing.estimate import estimate
from ocr_flops.timing.serving.deployment import Deployment, Page
from ocr_flops.timing.serving.memory import find_pool
from ocr_flops.timing.serving.result import BUDGET, CACHE, CUTTING, PARTS, SECONDS_PER_DAY, SEQUENCES, Serving
from ocr_flops.timing.serving.step import StepTimes

ENGINE = "vllm"
HALVINGS = 16
ROUNDS = 12  # of the fixed point; it stops when nothing changes any more
BINS = 24  # lengths that stand for a distribution
SHARES = 3  # rounds in which pages a step are found from sequences that run
FULL = 0.95  # of one after another: at most as much is waited as there
LOADS = 64  # numbers of sequences at which an arrival rate is looked up


def serving(
    model: str | ModelSpec,
    workload: Workload | Sequence[Workload],
    hardware: str | HardwareSpec,
    *,
    concurrency: int | Sequence[int] | np.ndarray | None = None,
    rate: float | Sequence[float] | np.ndarray | None = None,
    replicas: int = 1,
    **served: Any,
) -> Serving:
    """What a serving engine delivers on a device, or on several of them side by side.

    Args:
        model, workload, hardware: as of `prepare`.
        concurrency: requests in flight on each replica; as many as run at once where neither this nor a rate is given.
        rate: requests that arrive in a second at all replicas, instead of a concurrency.
        replicas: copies of the model, each on a device of its own.
        **served: engine, weights, options, attention, dtype, host, efficiency, as of `prepare`.

    Raises:
        SpecError: an unknown name, a value that is not allowed, or a model that does not fit the device.
    """
    return prepare(model, workload, hardware, **served).solve(concurrency, rate, replicas)


def prepare(
    model: str | ModelSpec,
    workload: Workload | Sequence[Workload],
    hardware: str | HardwareSpec,
    *,
    engine: str | EngineSpec = ENGINE,
    weights: Sequence[float] | None = None,
    options: ServingSpec | dict[str, Any] | None = None,
    attention: str | AttentionSpec = "vendor",
    dtype: str = "bf16",
    host: str | HostSpec | None = None,
    efficiency: str | EfficiencySpec | None = None,
) -> Server:
    """An engine on a device, ready for a load.

    Args:
        model: from `load_model`, or its name.
        workload: of one request, a page and its output tokens; or several kinds of request.
        hardware: a device, or its name.
        engine: that serves.
        weights: of the kinds of request; all alike by default.
        options: of the engine, or some of them by name; its own defaults for the device otherwise.
        attention, dtype: as of `estimate`.
        host, efficiency: as of `Estimate.on`.

    Raises:
        SpecError: an unknown name, a value that is not allowed, or a model that does not fit the device.
    """
    kinds = [workload] if isinstance(workload, Workload) else list(workload)
    shares = [1.0] * len(kinds) if weights is None else [float(one) for one in weights]
    if not kinds or len(shares) != len(kinds) or min(shares) < 0 or not sum(shares) > 0:
        raise SpecError(f"weights: {shares!r} are not {len(kinds)} numbers of at least 0, one for each kind of request, with a sum above 0")
    for kind in kinds:
        if not kind.is_single or kind.batch_size != 1 or kind.output_tokens < 1:
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
    return Server(Deployment(one.config, hardware, timing.host, timing.efficiency, options, pages, timing.time_basis))


class Server:
    """What a deployment delivers under a load.

    Args:
        served: what is served, and on what.

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
        self.cut = 1e-3 * np.array(self.options.preprocess_ms[:3])[:, None]
        by_cache = int(self.pool.tokens / self.held)
        self.max_concurrency = max(1, min(self.options.max_num_seqs, by_cache))
        self.first_limit = CACHE if by_cache < self.options.max_num_seqs else SEQUENCES
        if times.mixes and not self.options.chunked_prefill:  # a whole prompt has to fit beside those that run
            room = max(1, self.options.max_num_batched_tokens - int(prompt.max()) + 1)
            if room < self.max_concurrency:
                self.max_concurrency, self.first_limit = room, BUDGET
        self.most_admitted = self._most_admitted()
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

    def _most_admitted(self) -> float:
        """Pages a step by the token budget."""
        budget, prompt, longest = self.options.max_num_batched_tokens, self.times.mean_prompt, int(self.times.prompt_tokens.max())
        if not self.options.chunked_prefill and longest > budget:
            raise SpecError(f"max_num_batched_tokens: {budget} is less than a prompt of {longest} tokens, and chunked_prefill is off")
        return budget / (prompt + self.later * self.times.mixes)

    def _capacity(self) -> tuple[np.ndarray, str]:
        """The most requests a second [case, 1], and what limits them."""
        by_sequences = self.max_concurrency / self.output
        admitted = np.full((3, 1), min(by_sequences, self.most_admitted))
        served = admitted / self.step(admitted * self.later, admitted)[0]
        by_cutting = self.options.preprocess_workers / np.maximum(self.cut, 1e-12)
        limit = self.first_limit if by_sequences < self.most_admitted else BUDGET
        return np.minimum(served, by_cutting), CUTTING if by_cutting[0, 0] < served[0, 0] else limit

    def step(self, sequences: np.ndarray, admitted: np.ndarray) -> np.ndarray:
        """Mean seconds of a step, and the device's in it: [seconds or device, case, point].

        Args:
            sequences: that run in it: [case, point].
            admitted: pages that are admitted in it, on average.
        """
        return self.parts(sequences, admitted)[0]

    def parts(self, sequences: np.ndarray, admitted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`step`, and of its device seconds those of vision, of prefill and of decode [part, case, point]."""
        times = self.times
        context = np.full(sequences.shape, self.context)
        none = np.exp(-admitted) * (self.later > 0)  # where nothing is decoded, there is no step without a page
        room = np.maximum(self.options.max_num_batched_tokens - sequences * times.mixes, 1.0)
        several = admitted * times.mean_prompt / room  # steps that prefill takes where they are full of it
        beside = np.minimum(np.maximum(1 - none, several), 1.0)
        none = 1 - beside
        tokens = times.mean_prompt * np.divide(admitted, beside, out=np.ones_like(admitted), where=beside > 0)
        alone, mixed = times.alone_and_mixed(sequences, context, tokens)
        vision = times.vision[..., None] * admitted
        whole = none * alone + beside * mixed + vision
        whole[0] += sequences * times.ban[:, None]
        return whole, np.stack([vision[1], beside * (mixed[1] - alone[1]), alone[1]])

    def own_step(self, others: np.ndarray, admitted: np.ndarray) -> np.ndarray:
        """Seconds of the steps in which a request is encoded and prefilled, beside others that run and are admitted: [case, point]."""
        times, budget = self.times, self.options.max_num_batched_tokens
        context = np.full(others.shape, self.context)
        chunks = np.maximum(times.mean_prompt / np.maximum(budget - others * times.mixes, 1.0), 1.0)
        tokens = times.mean_prompt * (1 + admitted) / chunks
        seconds = times.alone_and_mixed(others, context, tokens)[1][0] * chunks
        return seconds + times.vision[0][:, None] * (1 + admitted) + others * times.ban[:, None]

    def met(self, step: np.ndarray, admitted: np.ndarray) -> np.ndarray:
        """Mean seconds of the step that is under way when a request comes, which is more likely a long one: E[T^2] / E[T]."""
        return step + admitted * self.times.vision[0][:, None] ** 2 / np.maximum(step, 1e-12)

    def solve(self, concurrency: Any = None, rate: Any = None, replicas: int = 1) -> Serving:
        """The steady state under a load; arguments as of `serving`."""
        if concurrency is not None and rate is not None:
            raise SpecError("rate: a load is a concurrency or a rate, not both")
        if isinstance(replicas, bool) or not isinstance(replicas, int) or not 1 <= replicas <= 1_000_000:
            raise SpecError(f"replicas: {replicas!r} is not a whole number from 1 to 1000000")
        is_single = np.ndim(concurrency if rate is None else rate) == 0
        if rate is None:
            asked = np.atleast_1d(np.asarray(self.max_concurrency if concurrency is None else concurrency))
            if asked.dtype.kind not in "iu" or asked.min() < 1:
                raise SpecError(f"concurrency: {concurrency!r} is not a whole number of at least 1")
            found = self._closed(np.minimum(asked, self.max_concurrency)[None].astype(float))
            clipped = (asked > self.max_concurrency) & (found["limited_by"] != CUTTING)
            limited = np.where(clipped, self.first_limit, found["limited_by"])
            stable, arriving = np.ones(len(asked), bool), None
        else:
            arriving = np.atleast_1d(np.asarray(rate, float))
            if not np.isfinite(arriving).all() or arriving.min() <= 0:
                raise SpecError(f"rate: {rate!r} is not a number above 0")
            asked, each = None, arriving / replicas
            stable = each < self.capacity[0]
            found = self._open(np.broadcast_to(each, (3, len(each))))
            limited = found["limited_by"]
        return self._result(found, is_single, replicas, asked, arriving, stable, limited)

    def _closed(self, flying: np.ndarray) -> dict[str, Any]:
        """So many requests in flight: [1, point]."""
        later, shape = self.later, (3, flying.shape[1])
        others_share = (flying - 1) / flying
        requests = None
        least = 0.0 if later else min(1.0, self.most_admitted)  # pages of a step that has any
        admitted = np.broadcast_to(np.clip(flying / (self.output + 0.5), least, self.most_admitted), shape)
        by_cutting = self.options.preprocess_workers / np.maximum(self.cut, 1e-12)
        for _ in range(ROUNDS):
            running = admitted * later
            others = np.minimum(running * others_share, np.maximum(flying - 1, 0))
            step = self.step(1 + others if later else running, admitted * others_share)[0]
            first = self.own_step(others, admitted * others_share)
            rest = np.minimum(1.0, others + admitted * others_share) * self.met(step, admitted * others_share) / 2
            served = self._served_of(flying, self.cut + rest + first + later * step, others_share)
            updated = np.clip(served * step, least, self.most_admitted)
            done = requests is not None and np.allclose(updated, admitted, rtol=1e-4, atol=0)
            requests, admitted = np.minimum(np.minimum(served, updated / step), self.capacity), updated
            if done:
                break
        budget, cutting = admitted >= self.most_admitted * (1 - 1e-9), requests >= by_cutting * 0.98
        ttft = np.maximum(flying / requests - later * step, self.cut + rest + first)
        limited = np.where(cutting[0], CUTTING, np.where(budget[0], BUDGET, ""))
        return self._figures(requests, admitted, step, ttft, limited, admitted * later, step, False)

    def _open(self, arriving: np.ndarray) -> dict[str, Any]:
        """So many requests a second arrive by chance: [case, point]; at most the capacity is served."""
        later, most = self.later, self.most_admitted
        grid, rates, shares = self._rates
        served = np.minimum(arriving, self.capacity * (1 - 1e-9))
        place = np.stack([np.interp(np.log(one), x, grid) for one, x in zip(served, rates, strict=True)])
        share = np.stack([np.interp(one, grid, y) for one, y in zip(place, shares, strict=True)])
        running, admitted = np.exp(place) * later, np.minimum(np.exp(place) * share, most)
        if later:
            step, seen = self._seen_by_chance(running, admitted)
            load = np.minimum(served * self.times.vision[0][:, None], 0.9)
            met = self.met(step, admitted / (1 - load**2))  # a long step has more arrivals, which make the next one long
            rest = np.minimum(1.0, 1 - np.exp(-running) + admitted) * met / 2
            first = self.own_step(running, served * met)
        else:  # pages one after another
            admitted = np.maximum(admitted, min(1.0, most))
            step = seen = self.step(running, admitted)[0]
            first = self.own_step(running, running)
            rest = _wait(np.minimum(served * first, FULL), first, 1)
        cutting = self._cutting_wait(served)
        stay = first + later * seen
        full = np.sqrt(served / self.capacity * np.minimum(served * stay / self.max_concurrency, 1.0))  # the more run, the longer they stay
        places = (1 + self.spread) * _wait(np.minimum(full, 1 - 1e-9), stay, self.max_concurrency)
        ttft = self.cut + cutting + places + rest + first
        ttft = np.where(arriving < self.capacity, ttft, np.nan)  # the queue grows, and what one waits with it
        limited = np.full(arriving.shape[1], self.capacity_limit)
        return self._figures(served, admitted, step, ttft, limited, running, seen, later > 0)

    @cached_property
    def _rates(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Logarithms of sequences that run, each by the tokens that it decodes [load]; of the requests a second with which these go, and
        pages admitted a step as a part of them [case, load].
        """
        grid = np.geomspace(1e-5, 4, LOADS) * self.most_admitted
        places = np.broadcast_to(grid, (3, LOADS))
        if not self.later:
            seen, share = self.step(0 * places, np.maximum(places, min(1.0, self.most_admitted)))[0], np.ones_like(places)
        else:
            share = np.ones_like(places)
            for _ in range(SHARES):
                step, seen = self._seen_by_chance(places * self.later, places * share)
                share = step / seen
        return np.log(grid), np.maximum.accumulate(np.log(places / seen), axis=1), share

    def _seen_by_chance(self, others: np.ndarray, admitted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean seconds of the steps there are, and of those that a sequence sees, where requests come by chance: [case, point].

        It sees itself and the others, of whom there are more or fewer. Its own first step is longer than others, so that more requests
        come in it: their pages fill the next steps, each less than the one before, and they run beside it all the time.
        """
        spread = np.minimum(np.sqrt(others), others)
        step = (self.step(1 + others - spread, admitted)[0] + self.step(1 + others + spread, admitted)[0]) / 2
        page = np.maximum(self.own_step(others, 0 * admitted) - self.step(others, 0 * admitted)[0], 0)
        load = np.minimum(admitted / step * page, 0.9)
        first = self.own_step(others, admitted / step * self.met(step, admitted / (1 - load**2)))
        more = admitted / step * np.maximum(first - step, 0)  # requests that come in it beyond those of a mean step
        filled = more * page * (1 - load**self.later) / (1 - load) / self.later
        return step, self.step(1 + others + more, admitted)[0] + step - self.step(1 + others, admitted)[0] + filled

    def _cutting_wait(self, served: np.ndarray) -> np.ndarray:
        """Mean seconds in which pages wait for a thread that cuts them."""
        workers = self.options.preprocess_workers
        return _wait(np.minimum(served * self.cut / workers, 1 - 1e-9), self.cut, workers)

    def _served_of(self, flying: np.ndarray, cycle: np.ndarray, others_share: np.ndarray) -> np.ndarray:
        """Requests a second where each takes a cycle, and waits for a thread that cuts pages as long as this many make it wait.

        What they wait grows with their number, so that it is found by halving.
        """
        low, high = np.zeros_like(cycle), np.minimum(flying / cycle, self.options.preprocess_workers / np.maximum(self.cut, 1e-12))
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            fits = middle * (cycle + others_share * self._cutting_wait(middle)) <= flying
            low, high = np.where(fits, middle, low), np.where(fits, high, middle)
        return high

    def _figures(
        self,
        requests: np.ndarray,
        admitted: np.ndarray,
        step: np.ndarray,
        ttft: np.ndarray,
        limited: np.ndarray,
        running: np.ndarray,
        seen: np.ndarray,
        is_open: bool,
    ) -> dict[str, Any]:
        whole, (vision, prefill, decode) = self.parts(running, admitted)
        vision, prefill, decode = vision[0], prefill[0], decode[0]
        taken = step[0] * np.where(is_open & (running[0] < 1), running[0], 1.0)  # while nobody is there, no step is made
        host = np.maximum(taken - vision - prefill - decode, 0.0)
        parts = np.stack([vision, prefill, decode, host])
        parts = parts * step[0] / np.maximum(taken, parts.sum(axis=0))
        busy = np.minimum(1.0, requests[0] / np.maximum(admitted[0], 1e-300) * whole[1][0])
        largest = parts.argmax(axis=0)
        tokens = running[0] + self.times.mean_prompt * np.maximum(admitted[0], 1.0)
        ceiling = self.times.binding(running[0], tokens, largest == PARTS.index("prefill"))
        named = np.where(np.isin(largest, [PARTS.index(part) for part in ("vision", "host")]), np.array(PARTS)[largest], ceiling)
        limited = np.where(limited == "", named, limited)
        used = np.minimum(1.0, (running[0] * self.held + admitted[0] * self.times.mean_prompt) / self.pool.tokens)
        return {
            "requests": requests,
            "step": step,
            "tpot": seen,
            "ttft": ttft,
            "parts": parts,
            "busy": busy,
            "limited_by": limited,
            "used": used,
        }

    def _result(
        self, found: dict[str, Any], is_single: bool, replicas: int, asked: Any, arriving: Any, stable: np.ndarray, limited: np.ndarray
    ) -> Serving:
        def one(values: Any) -> Any:
            return _item(values[0]) if is_single else values

        def ranged(values: np.ndarray) -> Ranged:
            return Ranged(
                *map(one, (values[0], values[0] - np.nanmax(values[:1] - values, axis=0, initial=0.0), values.max(axis=0))), self.basis
            )

        requests = found["requests"] * replicas
        flying = requests[0] / replicas * (found["ttft"][0] + self.later * found["tpot"][0])
        return Serving(
            engine=self.config.engine.name,
            hardware=self.hardware,
            options=self.options,
            pool=self.pool,
            replicas=replicas,
            concurrency=one(np.minimum(asked, self.max_concurrency) if arriving is None else flying),
            asked_concurrency=None if asked is None else one(asked),
            rate=None if arriving is None else one(arriving),
            is_stable=one(stable),
            max_concurrency=self.max_concurrency,
            kv_capacity_tokens=self.pool.tokens,
            kv_use_share=one(found["used"]),
            step_seconds=ranged(found["step"]),
            ttft_seconds=ranged(found["ttft"]),
            tpot_seconds=ranged(found["tpot"]),
            output_tokens_per_second=ranged(requests * self.output),
            requests_per_second=ranged(requests),
            pages_per_second=ranged(requests),
            pages_per_day=ranged(requests * SECONDS_PER_DAY),
            capacity_per_second=ranged(np.broadcast_to(self.capacity * replicas, requests.shape)),
            device_busy_share=one(found["busy"]),
            step_parts=found["parts"][:, 0] if is_single else found["parts"],
            limited_by=one(limited),
            time_basis=self.basis,
        )


def _wait(load: np.ndarray, seconds: np.ndarray, places: int) -> np.ndarray:
    """Mean seconds in which requests by chance wait for one of so many places, which each takes as long (M/D/c, Sakasegawa's form)."""
    return seconds / 2 * load ** (np.sqrt(2 * (places + 1)) - 1) / (places * (1 - load))


def _item(value: Any) -> Any:
    """A number of Python; None where there is none."""
    return None if isinstance(value, float) and np.isnan(value) else value.item()
