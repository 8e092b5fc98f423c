"""Requests that come, wait, run and go in balance: what a server's steps are like at growing numbers of pages that are admitted in one.

What a sequence sees are the steps of the others. A step without a page takes D, with k of them A + k V. Whether there is one depends on
how long the step before was, in which pages come: where one comes in a short step with probability q0 and in a long one with q1, a share
q0 / (q0 + 1 - q1) of all steps has pages. A request comes in a step that is more likely a long one, E[T^2] / E[T], with all others that
come in it. Its own first step is longer than others, and so are the steps after it, in which those are admitted that came meanwhile: each
lasts r times as much beyond the mean as the one before, a geometric sum over the steps of its tokens. Others come by chance (Poisson) or,
where so many requests are in flight, each of them once in a cycle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from ocr_flops.timing.serving.steady import Server

DOUBLING = 3  # steps in which the number of pages admitted in a step doubles
LEAST = (1e-6, 1e-2)  # sequences that run where nobody comes, and from where on they double
ROUNDS = 6  # in which what depends on each other settles
ANY_NUMBER = 1e9  # of others, where requests come by chance
NEARLY = 0.97  # of a load that has no balance beyond 1


class Balance(NamedTuple):
    """What goes together at growing loads: each [case, load].

    Args:
        others: that are in flight beside a request.
        rate: requests a second of the others.
        step: mean seconds of a step.
        seen: mean seconds of those in which a request decodes.
        first: seconds of the step that encodes and prefills a request.
        rest: seconds of the step under way when it comes.
    """

    others: np.ndarray
    rate: np.ndarray
    step: np.ndarray
    seen: np.ndarray
    first: np.ndarray
    rest: np.ndarray


def find_balance(server: Server, is_closed: bool) -> Balance:
    """The balance of a server where requests come by chance, or (closed) where one comes whenever another one is done."""
    times, later, prompt, budget = server.times, server.later, server.times.mean_prompt, server.options.max_num_batched_tokens
    vision, ban, least = times.vision[0][:, None], times.ban[:, None], LEAST[1] / server.output
    loads = least * 2 ** (np.arange(DOUBLING * np.log2(server.most_admitted / least) + 1) / DOUBLING)
    loads = np.minimum(np.append(LEAST[0] / server.output, loads), server.most_admitted)  # those below a limit are as without it
    shape = len(times.ban), len(loads)
    admitted = np.broadcast_to(loads, shape)
    one_more, longest = np.ones(shape), np.full(shape, ANY_NUMBER)
    more = np.zeros(shape)
    pages, company, beside, ratio, others = np.ones(shape), np.zeros(shape), np.full(shape, 0.5 if later else 1.0), 1.0, longest

    def none(seconds: np.ndarray) -> np.ndarray:  # the chance that nobody comes
        return np.maximum(1 - rate * seconds / others, 0.0) ** others if is_closed else np.exp(-rate * seconds)

    seen: np.ndarray | None = None
    for _ in range(ROUNDS):
        running = np.minimum(admitted * later * ratio, others)
        sequences = running + one_more if later else running
        room = np.maximum((budget - sequences * times.mixes) / prompt, 1e-3)
        one, mine = np.minimum(one_more, room), np.minimum(1 + company, room)
        most = np.minimum(admitted / one, 1.0) if later else beside  # a step with pages has one at least, or what there is room for of it
        beside = np.minimum(beside, most)
        some = np.minimum(np.maximum(pages, 1.5), np.maximum(room, 1.01))
        at, tokens = np.concatenate([sequences, sequences, running], axis=1), prompt * np.concatenate([one, some, mine], axis=1)
        banned = at * ban
        alone, mixed = (lane[0] + banned for lane in times.alone_and_mixed(at, server.context, tokens, lanes=1))
        short, (with_one, with_some, own) = alone[:, : len(loads)], mixed.reshape(-1, 3, len(loads)).swapaxes(0, 1)
        page = vision + (with_some - with_one) / (some - one)
        base = with_one + (vision - page) * one
        added = base - short
        own += vision * mine
        own = np.where(1 + company > room, np.maximum(own, own * (company / 2 + 1) / room), own)
        long = base + page * np.minimum(pages, room)
        step = short + beside * added + page * admitted if later else long
        rate = admitted / (step if later else base + page * np.maximum(admitted, 1))
        if seen is None:
            seen, others = step, rate * (server.cut + with_one + later * step) if is_closed else longest
        nobody = none(long)
        if later:
            some_come = 1 - none(short)
            wanted = np.maximum(some_come / np.maximum(some_come + nobody, 1e-12), admitted / room)
            wanted = np.minimum(np.maximum(wanted, 1e-12), most)
            steep = wanted * (1 - wanted) * (1 + rate * long) * added / step  # the more steps have pages, the longer they are, and
            beside = beside + (wanted - beside) / (1 + np.maximum(steep, 0))  # the fewer requests come in a second
            step = short + beside * added + page * admitted
            rate = admitted / step
            pages = (pages + np.maximum(admitted / beside, 1.0)) / 2  # many in one step are followed by few in the next
        else:
            pages = np.maximum(rate * long + nobody, 1.0)
        long = base + page * np.minimum(pages, room)
        step = step if later else long
        spread = page**2 * (pages - 1) / (1 - np.minimum(rate * page, NEARLY) ** 2)
        met = ((1 - beside) * short**2 + beside * (long**2 + spread)) / step
        company = np.minimum(rate * met, others)
        if not later:
            idle = nobody / (rate * long + nobody)
        elif is_closed:
            there = rate / np.maximum(others, 1) * (own + later * seen + met / 2)
            idle = np.maximum(1 - there, 0.0) ** np.maximum(others, 1)
        else:
            idle = np.exp(-running - company)
        first, rest = idle * (with_one / one + vision) + (1 - idle) * own, (1 - idle) * met / 2
        if later:
            after = 1 - none(first)
            after = short + after * added + page * np.minimum(rate * first, others)
            beyond = first - step
            falls = np.minimum(np.maximum((after - step) / np.where(np.abs(beyond) > 1e-9, beyond, 1e-9), 0), NEARLY)
            seen = step + beyond * falls * (1 - falls**later) / (1 - falls) / later
            if not is_closed:  # by chance there are more or fewer, and those who came in a long step run beside it all the time
                varies = np.minimum(np.sqrt(running), running)
                crowd = np.concatenate([sequences + more - varies, sequences + more + varies], axis=1)
                crowd = np.minimum(crowd, np.tile(np.maximum(server.max_concurrency, sequences), 2))
                crowded = times.alone(crowd, server.context, lanes=1)[0][0] + crowd * ban
                seen = seen + (sum(np.split(crowded, 2, axis=1)) / 2 - short) / (1 - np.minimum(rate * page, NEARLY))
                more = rate * np.maximum(beyond + (1 - idle) * (met - step), 0)
            ratio = (ratio + seen / step) / 2
        if is_closed:
            cycle = server.cut + rest + first + later * seen
            others = rate * (cycle + server.cutting_wait(rate, others))
    return Balance(others, rate, step, seen, first, rest)


def look_up(balance: Balance, by: np.ndarray, wanted: np.ndarray) -> Balance:
    """A balance at the loads where one of its figures, which grows, is as wanted: in straight lines between them.

    Args:
        by: that figure, `others` or `rate`.
        wanted: above 0: [case, point].
    """
    grid = np.maximum.accumulate(by, axis=1)
    places = np.stack([np.interp(one, x, np.arange(len(x))) for one, x in zip(wanted, grid, strict=True)])
    left = np.minimum(places.astype(np.int64), grid.shape[1] - 2)
    table, cases = np.stack(balance), np.arange(len(by))[:, None]
    low, high = table[:, cases, left], table[:, cases, left + 1]
    return Balance(*(low + (high - low) * (places - left)))


def run_alone(server: Server) -> Balance:
    """What goes together where one request is in flight: its prompt, in parts where it exceeds the token budget, then a token a step."""
    times, budget = server.times, server.options.max_num_batched_tokens
    parts = np.stack([np.full_like(times.prompt_tokens, budget), times.prompt_tokens % budget])
    _, passes = times.alone_and_mixed(np.zeros((1, parts.size)), 0.0, parts.reshape(1, -1), lanes=1)
    often = np.stack([times.prompt_tokens // budget, parts[1] > 0])
    first = times.vision[0] + (passes[0].reshape(-1, *parts.shape) * often).sum(axis=1) @ times.weights
    first, seen = first[:, None], times.alone(np.ones((1, 1)), server.context, lanes=1)[0][0] + times.ban[:, None]
    step = (first + server.later * seen) / (server.later + often.sum(axis=0) @ times.weights)
    return Balance(0 * step, 0 * step, step, seen, first, 0 * step)
