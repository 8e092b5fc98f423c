"""Runs of operators at many points: only what does not follow from bounds is looked at one by one.

In a run without synchronisation the last kernel ends at the largest, over its operators, of what the host takes up to one and the device
from it on. Wherever one ceiling binds a kernel its seconds are linear in the program's monomials, and so are sums of such kernels; and an
operator that a neighbour outlasts need not be looked at.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

CHUNK, LEAST_CHUNK = 2_048, 128  # points for which bounds are taken together; few, where bounds settle few kernels
MANY_KERNELS = 8  # left to be looked at one by one, so that it pays to take bounds for half the points
Lines = list[tuple[np.ndarray, np.ndarray]]  # (operations, seconds under a ceiling [case, operation, monomial]): first one of all


def kernel_seconds(lines: Lines, floor: np.ndarray, expert_layers: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Seconds of kernels, the largest of what ceilings take and the floor: [case, operation, point].

    Args:
        lines: seconds under each ceiling.
        floor: the least seconds of a kernel: [case].
        expert_layers: layers of operators that run once for every expert hit, 0 for others: [operation].
        values: of the monomials, the last one the experts hit over all layers: [monomial, point].
    """
    found = np.empty((len(floor), len(expert_layers), values.shape[1]))
    for number, (where, ceiling) in enumerate(lines):
        cases, count, width = ceiling.shape
        seconds = (ceiling.reshape(cases * count, width) @ values).reshape(cases, count, values.shape[1])
        found[:, where] = np.maximum(found[:, where], seconds) if number else seconds
    if expert_layers.any():
        layers = expert_layers[expert_layers > 0, None]
        found[:, expert_layers > 0] /= np.maximum(values[-1] / layers, 1.0)
    return np.maximum(found, floor[:, None, None], out=found)


def find_distinct(values: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points at which all columns differ, from small to large, and which of them each point equals.

    Args:
        values: [column, point].
        size: what is the same where values are: [point].

    Returns:
        indices of points [distinct], and indices into these [point].
    """
    by_size = np.argsort(size)
    ordered = values.take(by_size, axis=1)
    differs = (ordered[:, 1:] != ordered[:, :-1]).any(axis=0)
    place = np.empty(len(by_size), np.int64)
    place[by_size] = np.concatenate([[0], differs.cumsum()])
    return by_size[np.concatenate([[0], np.flatnonzero(differs) + 1])], place


class _Rows(NamedTuple):
    """What is left to compute of runs where most operators are bound by one ceiling at all points.

    Args:
        linear: seconds that are linear in the monomials: first the device's of every run, then, for every operator at which the lanes can
            meet, the host's up to it and the device's from it on: [case, row, monomial].
        first: where such operators begin for each run, among them.
        kernels: the operations of the others, which are looked at one by one.
        within: how often each of these runs in each row: [row, kernel].
    """

    linear: np.ndarray
    first: np.ndarray
    kernels: np.ndarray
    within: np.ndarray


class RunGroup:
    """Runs whose kernels depend on the same monomials.

    Args:
        order: of the program.
        lines, floor: as of `kernel_seconds`.
        issue: the host's seconds for every operator: [case, operation].
        constant: the monomial that is 1.
        runs: numbers of the runs.
    """

    def __init__(self, order: Any, lines: Lines, floor: np.ndarray, issue: np.ndarray, constant: int, runs: np.ndarray):
        self.runs, self._floor = runs, floor
        mine = np.isin(order.run, runs)
        operations, self._flat = np.unique(order.flat[mine], return_inverse=True)
        self._run = np.searchsorted(runs, order.run[mine])
        self._starts = np.searchsorted(self._run, np.arange(len(runs)))
        self._issue = issue[:, order.flat[mine]]
        self._layers = order.expert_layers[operations]
        used = np.zeros(lines[0][1].shape[2], bool)
        used[constant], used[-1] = True, self._layers.any()
        kept = [np.isin(where, operations) for where, _ in lines]
        for (_, ceiling), some in zip(lines, kept, strict=True):
            used |= ceiling[:, some].any(axis=(0, 1))
        self._used, self._constant = np.flatnonzero(used), int(used[:constant].sum())
        self._lines = [
            (np.searchsorted(operations, where[some]), ceiling[:, some][..., used])
            for (where, ceiling), some in zip(lines, kept, strict=True)
            if some.any()
        ]
        self._size = self._lines[0][1][0].sum(axis=0)

    def device_and_ends(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What every run takes of the device, and when its last kernel ends: [case, run, point] each; arguments as of `kernel_seconds`."""
        mine = values[self._used]
        first, place = find_distinct(mine, self._size @ mine)  # batch and tiles take few values
        chunks = np.array_split(first, -(-len(first) // CHUNK))
        parts = [self._chunk(mine.take(chunk, axis=1)) for chunk in chunks]
        device, ends = (np.concatenate(part, axis=-1).take(place, axis=-1) for part in zip(*parts, strict=True))
        return device, ends

    def _chunk(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = self._narrow(values.min(axis=1), values.max(axis=1))
        if len(rows.kernels) > MANY_KERNELS and (half := values.shape[1] // 2) >= LEAST_CHUNK:
            halves = [self._chunk(one) for one in (values[:, :half], values[:, half:])]
            return tuple(np.concatenate(parts, axis=-1) for parts in zip(*halves, strict=True))
        cases, count, width = rows.linear.shape
        seconds = (rows.linear.reshape(cases * count, width) @ values).reshape(cases, count, values.shape[1])
        if len(rows.kernels):
            lines = []
            for operations, ceiling in self._lines:
                some = np.isin(operations, rows.kernels)
                lines.append((np.searchsorted(rows.kernels, operations[some]), ceiling[:, some]))
            seconds += rows.within @ kernel_seconds(lines, self._floor, self._layers[rows.kernels], values)
        return seconds[:, : len(self.runs)], np.maximum.reduceat(seconds[:, len(self.runs) :], rows.first, axis=1)

    def _narrow(self, low: np.ndarray, high: np.ndarray) -> _Rows:
        """What is left to compute at points whose monomials lie between low and high [monomial].

        The operators of a run at which the lanes can meet are those that neither neighbour outlasts at all points.
        """
        floor, count = self._floor[:, None], len(self._layers)
        least, most = np.zeros((len(floor), count)), np.zeros((len(floor), count))
        linear = np.array(self._lines[0][1])
        alone = np.ones((len(floor), count), bool)  # one ceiling, or the floor, binds at all points
        for number, (where, lines) in enumerate(self._lines):
            falls = np.minimum(lines, 0.0)
            at_least, at_most = lines @ low + falls @ (high - low), lines @ high - falls @ (high - low)
            if number:
                takes, keeps = at_least >= most[:, where], least[:, where] >= at_most
                linear[:, where] = np.where(takes[..., None], lines, linear[:, where])
                alone[:, where] = takes | (keeps & alone[:, where])
            least[:, where], most[:, where] = np.maximum(at_least, least[:, where]), np.maximum(at_most, most[:, where])
        per_expert = self._layers > 0
        least[:, per_expert], alone[:, per_expert] = 0.0, False
        most[:, per_expert] /= np.maximum(low[-1] / self._layers[per_expert], 1.0)
        rests = most <= floor
        linear[rests] = 0.0
        linear[..., self._constant] += np.where(rests, floor, 0.0)
        single = (rests | (alone & (least >= floor))).all(axis=0)
        linear[:, ~single] = 0.0
        least, most = np.maximum(least, floor), np.maximum(most, floor)

        flat, starts, run, issue = self._flat, self._starts, self._run, self._issue
        follows, outlasted = run[1:] == run[:-1], np.zeros(issue.shape, bool)
        outlasted[:, :-1] |= follows & (most[:, flat[:-1]] <= issue[:, 1:])  # by the next one
        outlasted[:, 1:] |= follows & (least[:, flat[:-1]] > issue[:, 1:])  # by the one before
        candidates = np.flatnonzero(~outlasted.all(axis=0))
        ends = np.array([*starts[1:], len(flat)])
        sums = np.zeros((len(floor), len(flat) + 1, linear.shape[2]))
        sums[:, 1:] = linear[:, flat].cumsum(axis=1)
        begin, end = np.concatenate([starts, candidates]), np.concatenate([ends, ends[run[candidates]]])
        rows = sums[:, end] - sums[:, begin]
        issued = np.concatenate([np.zeros((len(floor), 1)), issue.cumsum(axis=1)], axis=1)
        rows[:, len(starts) :, self._constant] += issued[:, candidates + 1] - issued[:, starts[run[candidates]]]
        kernels = np.flatnonzero(~single)
        counts = np.zeros((len(flat) + 1, len(kernels)))
        counts[1:] = (flat[:, None] == kernels).cumsum(axis=0)
        first = np.searchsorted(run[candidates], np.arange(len(starts)))
        return _Rows(rows, first, kernels, counts[end] - counts[begin])
