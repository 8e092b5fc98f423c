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
ROUNDS = 4  # in which what depends on each other settles
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
    decodes = np.all(later > 0)
    lowest, least = (np.atleast_2d(one / server.output) for one in LEAST)
    doublings = np.arange(np.max(DOUBLING * np.log2(server.most_admitted / least)) + 1) / DOUBLING
    loads = np.minimum(np.hstack([lowest, least * 2**doublings]), server.most_admitted)  # those below a limit are as without it
    shape = len(times.ban), loads.shape[1]
    zero, one_more = np.zeros(shape), np.ones(shape)
    admitted, vision, ban, cut = (one_more * one for one in (loads, times.vision[0][:, None], times.ban[:, None], server.cut))
    longest, nearly, places = (one_more * one for one in (ANY_NUMBER, NEARLY, server.max_concurrency))
    beside = -np.expm1(-admitted) if decodes else one_more
    pages, company, ratio, more, others = admitted / beside, admitted, one_more, zero, longest
    in_parts = prompt + server.max_concurrency * times.mixes > budget
    at, prompts = np.empty((3 if is_closed or not decodes else 5, *shape)), np.empty((3, *shape))

    def none(seconds: np.ndarray) -> np.ndarray:  # the chance that nobody comes
        return np.maximum(one_more - rate * seconds / others, zero) ** others if is_closed else np.exp(-rate * seconds)

    def settle(now: np.ndarray, found: np.ndarray, before: tuple) -> tuple:  # towards what is found by the secant, half way at least
        moved = now - before[0]
        slope = np.minimum(np.maximum((found - before[1]) / np.where(moved == 0, np.inf, moved), -1.0), zero)
        return now + (found - now) / (one_more - slope), (now, found)

    pages_before, ratio_before, seen = (one_more, one_more), (one_more, one_more), None
    for _ in range(ROUNDS):
        running = np.minimum(admitted * later * ratio, others)
        sequences = running + one_more if decodes else running
        room = np.maximum((budget - sequences * times.mixes) / prompt, 1e-3)
        one, mine = np.minimum(one_more, room), np.minimum(one_more + company, room)
        most = np.minimum(admitted / one, one_more) if decodes else beside  # a step with pages has one, or what there is room for of it
        beside = np.minimum(beside, most)
        some = np.minimum(np.maximum(pages, 1.5), np.maximum(room, 1.01))
        at[:2], at[2], prompts[0], prompts[1], prompts[2] = sequences, running, one, some, mine
        if len(at) > 3:  # by chance there are more or fewer, and those who came in a long step run beside it all the time
            varies = np.minimum(np.sqrt(running), running)
            at[3], at[4] = sequences + more - varies, sequences + more + varies
            np.minimum(at[3:], np.maximum(places, sequences), out=at[3:])
        lanes = times.alone(at, server.context, lanes=1)
        banned = at * ban
        alone = lanes[0][0] + banned
        short = alone[0]
        with_one, with_some, own = times.mixed(*(lane[:, :3] for lane in lanes), at[:3], prompt * prompts)[0] + banned[:3]
        page = vision + (with_some - with_one) / (some - one)
        base = with_one + (vision - page) * one
        added = base - short
        own = (own + vision * mine) * np.maximum((company / 2 + one_more) / room, one_more)  # where not all of its company fit
        long = base + page * np.minimum(pages, room)
        step = short + beside * added + page * admitted if decodes else long
        rate = admitted / (step if decodes else base + page * np.minimum(np.maximum(admitted, one_more), room))
        if seen is None:
            seen, others = step, rate * (cut + with_one + later * step) if is_closed else longest
        nobody = none(long)
        if decodes:
            some_come = one_more - none(short)
            wanted = np.maximum(some_come / np.maximum(some_come + nobody, 1e-12), admitted / room)
            wanted = np.minimum(np.maximum(wanted, 1e-12), most)
            steep = wanted * (one_more - wanted) * (one_more + rate * long) * added / step  # the more steps have pages, the longer they
            beside = beside + (wanted - beside) / (one_more + np.maximum(steep, zero))  # are, and the fewer requests come in a second
            step = short + beside * added + page * admitted
            rate = admitted / step
            many = np.maximum(admitted / beside, one_more)
            pages, pages_before = settle(pages, many, pages_before)  # many in one step are followed by few in the next
        else:
            pages = np.maximum(rate * long + nobody, one_more)
        long = base + page * np.minimum(pages, room)
        step = step if decodes else long
        crowds = one_more - np.minimum(rate * page, nearly)
        spread = page**2 * (pages - one_more) / (crowds * (2 - crowds))
        met = (short**2 + beside * (long**2 + spread - short**2)) / step
        company = np.minimum(rate * met, others)
        if not decodes:
            idle, seen = nobody / (rate * long + nobody), step
        elif is_closed:
            flying = np.maximum(others, one_more)
            idle = np.maximum(one_more - rate / flying * (own + later * seen + met / 2), zero) ** flying
        else:
            idle = np.exp(-running - company)
        busy = one_more - idle
        first, rest = idle * (with_one / one + vision) + busy * own, busy * met / 2
        if np.any(in_parts):  # the last part of a prompt takes a step of its own too
            first = first + in_parts * (np.ceil(one_more / one - 1e-9) - one_more / one) * short
        if decodes:
            after = short + (one_more - none(first)) * added + page * np.minimum(rate * first, others)
            beyond = first - step
            falls = np.minimum(np.maximum((after - step) / np.where(np.abs(beyond) > 1e-9, beyond, 1e-9), 1e-9), nearly)
            seen = step + beyond * falls * (one_more - np.exp(later * np.log(falls))) / (one_more - falls) / later
            if not is_closed:
                seen = seen + ((alone[3] + alone[4]) / 2 - short) / crowds
                more = rate * np.maximum(beyond + busy * (met - step), zero)
            ratio, ratio_before = settle(ratio, seen / step, ratio_before)
        if is_closed:
            others = rate * (cut + rest + first + later * seen + server.cutting_wait(rate, others))
    return Balance(others, rate, step, seen, first, rest)


def look_up(balance: Balance, by: np.ndarray, wanted: np.ndarray) -> Balance:
    """A balance at the loads where one of its figures, which grows, is as wanted: in straight lines between them.

    Args:
        by: that figure, `others` or `rate`.
        wanted: above 0: [case, point].
    """
    grid = np.maximum.accumulate(by, axis=1)
    left = np.array([x[1:-1].searchsorted(one) for one, x in zip(wanted, grid, strict=True)]) + grid.shape[1] * np.arange(len(by))[:, None]
    table = np.array([*balance, grid]).reshape(len(balance) + 1, -1)
    low = table.take(left, axis=1)
    rise = table.take(left + 1, axis=1) - low
    return Balance(*(low + rise * np.clip((wanted - low[-1]) / np.maximum(rise[-1], 1e-300), 0.0, 1.0))[:-1])


def run_alone(server: Server) -> Balance:
    """What goes together where one request is in flight: its prompt, in parts where it exceeds the token budget, then a token a step."""
    times, budget, prompts = server.times, server.options.max_num_batched_tokens, server.times.prompt_tokens[..., None, :]
    parts = np.concatenate([np.full_like(prompts, budget), prompts % budget], axis=-2)
    nobody = np.zeros((1, 2 * prompts.shape[-1]))
    passes = times.mixed(*times.alone(nobody, 0.0, lanes=1), nobody, parts.reshape(-1, nobody.size))
    often = np.concatenate([prompts // budget, parts[..., 1:, :] > 0], axis=-2)
    first = times.vision[0] + (passes[0].reshape(-1, *parts.shape[-2:]) * often).sum(axis=1) @ times.weights
    first, seen = first[:, None], times.alone(np.ones((1, 1)), server.context, lanes=1)[0][0] + times.ban[:, None]
    step = (first + server.later * seen) / (server.later + (often.sum(axis=-2) @ times.weights)[..., None])
    return Balance(0 * step, 0 * step, step, seen, first, 0 * step)
