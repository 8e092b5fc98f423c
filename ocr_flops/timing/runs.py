"""Runs of operators at many points: only what does not follow from bounds is looked at one by one.

In a run without synchronisation the last kernel ends at the largest, over its operators, of what the host takes up to one and the device
from it on. Wherever one ceiling binds a kernel its seconds are linear in the program's monomials, and so are sums of such kernels; and an
operator that another one outlasts at all points need not be looked at.
"""

from functools import cached_property
from typing import Any

import numpy as np

NARROW_FROM = 64  # points from which on it pays to look for what binds at all of them
MANY_KERNELS, LEAST = 8, 128  # kernels left to be looked at one by one, so that it pays to take bounds for half the points; not for fewer
EQUAL = 1e-12  # of a stage's seconds: no difference
Lines = list[tuple[np.ndarray, np.ndarray]]  # (kernels, seconds under a ceiling [case, kernel, monomial]): first one of all


class Runs:
    """The runs of a stage.

    Args:
        order: of the program.
        lines: seconds of kernels under each ceiling.
        floor: the least seconds of a kernel: [case].
        issue: the host's seconds for every operator: [case, operation].
    """

    def __init__(self, order: Any, lines: Lines, floor: np.ndarray, issue: np.ndarray):
        self.order, self._lines, self._floor, self._layers = order, lines, floor, order.expert_layers
        self._kernel, self._starts = order.kernel[order.flat], order.starts
        self._ends = np.append(order.starts[1:], len(order.flat))
        self._issue = issue[:, order.flat]

    def kernels(self, values: np.ndarray, some: np.ndarray | None = None) -> np.ndarray:
        """Seconds of kernels, the largest of what ceilings take and the floor: [case, kernel, point].

        Args:
            values: of the monomials, the last one the experts hit over all layers: [monomial, point].
            some: of the kernels; all by default.
        """
        layers, points = self._layers if some is None else self._layers[some], values.shape[1]
        found = np.empty((len(self._floor), len(layers), points))
        for number, (where, ceiling) in enumerate(self._lines):
            if some is not None:
                kept = np.isin(where, some)
                where, ceiling = np.searchsorted(some, where[kept]), ceiling[:, kept]
            cases, count, width = ceiling.shape
            seconds = (ceiling.reshape(cases * count, width) @ values).reshape(cases, count, points)
            found[:, where] = np.maximum(found[:, where], seconds) if number else seconds
        if layers.any():
            found[:, layers > 0] /= np.maximum(values[-1] / layers[layers > 0, None], 1.0)
        return np.maximum(found, self._floor[:, None, None], out=found)

    @cached_property
    def issued(self) -> tuple[np.ndarray, np.ndarray]:
        """The host's seconds of every run [case, run, 1], and in each run up to every operator [case, operator in order, 1]."""
        host = np.add.reduceat(self._issue, self._starts, axis=1)
        return host[..., None], (self._issue.cumsum(axis=1) - (host.cumsum(axis=1) - host)[:, self.order.run])[..., None]

    def device_and_ends(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What every run takes of the device, and when its last kernel ends: [case, run, point] each; arguments as of `kernels`."""
        if values.shape[1] < NARROW_FROM:
            kernels = self.kernels(values)[:, self._kernel]
            device = np.add.reduceat(kernels, self._starts, axis=1)
            done = kernels.cumsum(axis=1) - (device.cumsum(axis=1) - device)[:, self.order.run]  # of the run up to each kernel
            return device, device + np.maximum.reduceat(self.issued[1] - done + kernels, self._starts, axis=1)
        linear, first, kernels, within = self._narrow(values.min(axis=1), values.max(axis=1))
        if len(kernels) > MANY_KERNELS and (half := values.shape[1] // 2) >= LEAST:
            halves = [self.device_and_ends(one) for one in (values[:, :half], values[:, half:])]
            return tuple(np.concatenate(parts, axis=-1) for parts in zip(*halves, strict=True))
        cases, count, width = linear.shape
        seconds = (linear.reshape(cases * count, width) @ values).reshape(cases, count, values.shape[1])
        if len(kernels):
            seconds += within @ self.kernels(values, kernels)
        ends = [seconds[:, one:other].max(axis=1) for one, other in zip(first, [*first[1:], count], strict=True)]
        return seconds[:, : len(ends)], np.stack(ends, axis=1)

    @cached_property
    def _before(self) -> np.ndarray:
        """How often each kernel runs before every operator in order, and in all: [operator in order, kernel]."""
        before = np.zeros((len(self._kernel) + 1, len(self._layers)))
        before[1:] = (self._kernel[:, None] == np.arange(len(self._layers))).cumsum(axis=0)
        return before

    def _narrow(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What is left to compute at points whose monomials lie between low and high [monomial].

        Returns:
            seconds that are linear in the monomials: first the device's of every run, then, for every operator at which the lanes can meet,
            the host's up to it and the device's from it on [case, row, monomial]; where such operators begin for each run; the kernels that
            are looked at one by one; and how often each of these runs in each row [row, kernel].
        """
        floor, count, constant = self._floor[:, None], len(self._layers), self.order.monomials.index(())
        least, most = np.zeros((len(floor), count)), np.zeros((len(floor), count))
        linear = np.array(self._lines[0][1])
        alone = np.ones((len(floor), count), bool)  # one ceiling, or the floor, binds at all points
        for number, (where, lines) in enumerate(self._lines):
            falls = np.minimum(lines, 0.0) @ (high - low)
            at_least, at_most = lines @ low + falls, lines @ high - falls
            if number:
                takes, keeps = at_least >= most[:, where], least[:, where] >= at_most
                linear[:, where] = np.where(takes[..., None], lines, linear[:, where])
                alone[:, where] = takes | (keeps & alone[:, where])
            least[:, where], most[:, where] = np.maximum(at_least, least[:, where]), np.maximum(at_most, most[:, where])
        if (per_expert := self._layers > 0).any():
            least[:, per_expert], alone[:, per_expert] = 0.0, False
            most[:, per_expert] /= np.maximum(low[-1] / self._layers[per_expert], 1.0)
        rests = most <= floor
        linear[rests] = 0.0
        linear[..., constant] += np.where(rests, floor, 0.0)
        single = (rests | (alone & (least >= floor))).all(axis=0)
        linear[:, ~single] = 0.0
        meet = self._meetings(np.maximum(least, floor), np.maximum(most, floor))
        run, (_, issued) = self.order.run[meet], self.issued
        within = self._before[np.concatenate([self._ends, self._ends[run]])] - self._before[np.concatenate([self._starts, meet])]
        rows = within @ linear
        rows[:, len(self._starts) :, constant] += issued[:, meet, 0]
        kernels = np.flatnonzero(~single)
        return rows, len(self._starts) + np.searchsorted(run, np.arange(len(self._starts))), kernels, within[:, kernels]

    def _meetings(self, least: np.ndarray, most: np.ndarray) -> np.ndarray:
        """The operators in order at which the lanes can meet, where kernels take between least and most seconds [case, kernel].

        They are those that no other one of their run outlasts at all points: neither a later one, even if the kernels before it take as
        long as they can, nor one before, even if they are as short as they can be.
        """
        order, (_, issued) = self.order, self.issued
        place = np.arange(len(order.run)) - self._starts[order.run]
        shape = len(least), len(self._starts), place.max() + 2
        late, early = np.full(shape, -np.inf), np.full(shape, -np.inf)
        for own, kernels, shift in ((late, most, 0), (early, least, 1)):
            kernels = kernels[:, self._kernel]
            done = kernels.cumsum(axis=1)
            done -= (done - kernels)[:, self._starts][:, order.run] + kernels
            own[:, order.run, place + shift] = issued[..., 0] - done
        ahead, behind = late[:, order.run, place], early[:, order.run, place + 1]
        later = np.maximum.accumulate(late[..., ::-1], axis=-1)[..., ::-1][:, order.run, place + 1]
        before = np.maximum.accumulate(early, axis=-1)[:, order.run, place]
        return np.flatnonzero(~((later >= ahead) | (before > behind + EQUAL * np.abs(behind).max())).all(axis=0))
