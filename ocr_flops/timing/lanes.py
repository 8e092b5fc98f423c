"""Two lanes: a host that issues operators in order, and a device that runs their kernels in order.

The host takes h_i seconds for operator i (Python, dispatcher, launch) and never waits, except where code reads a result back. Kernel i
lasts k_i seconds and starts when it is issued and the kernel before it has ended. So the last kernel of a run of operators ends at

    max over i of (h_1 + ... + h_i) + (k_i + ... + k_n)

which is the makespan of a flow shop with two machines (Johnson, Optimal two- and three-stage production schedules, 1954). Runs compose, so
that a stage of thousands of operators is a short product over its distinct layers, exact at every point.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Seconds = float | np.ndarray  # at one point, or at many; or [part, case, point]: all, and what modules have of the critical path


def latest(one: Seconds, other: Seconds) -> Seconds:
    """The later of two moments; where they come in parts, the first part says which one that is."""
    if isinstance(one, float) and isinstance(other, float):
        return max(one, other)
    if np.ndim(one) == np.ndim(other) == 3:
        return np.where(one[:1] >= other[:1], one, other)
    return np.maximum(one, other)


class Lanes(NamedTuple):
    """A run of operators without synchronisation, in seconds.

    Args:
        host: what the host takes to issue all of it.
        device: what its kernels take, one after the other.
        end: when the last kernel ends, if both lanes are free at 0.
    """

    host: Seconds
    device: Seconds
    end: Seconds

    @property
    def seconds(self) -> Seconds:
        """From the first operator's issue until the host and the device are both done."""
        return latest(self.end, self.host)

    def synchronised(self) -> Schedule:
        """The same run, at whose end the host waits for the device."""
        return Schedule(self.device, self, 0.0 * self.end)

    def then(self, later: Lanes | Schedule) -> Lanes | Schedule:
        """This run followed by another one."""
        device = self.device + later.device
        if isinstance(later, Schedule):
            return Schedule(device, self.then(later.head), later.middle, later.tail)
        return Lanes(self.host + later.host, device, latest(self.end + later.device, self.host + later.end))

    def repeated(self, times: Seconds) -> Lanes:
        """This run several times over; nothing at all where it runs 0 times."""
        end = self.end + (times - 1) * latest(self.host, self.device)
        if isinstance(times, int | float):
            return Lanes(times * self.host, times * self.device, end if times > 0 else 0.0 * end)
        return Lanes(times * self.host, times * self.device, np.where(np.asarray(times) > 0, end, 0.0))


NOTHING = Lanes(0.0, 0.0, 0.0)


class Schedule(NamedTuple):
    """A run of operators in which the host waits for the device, in seconds.

    Args:
        device: what the device works in all.
        head: up to the first synchronisation.
        middle: from the first synchronisation to the last.
        tail: after the last synchronisation.
    """

    device: Seconds
    head: Lanes
    middle: Seconds
    tail: Lanes = NOTHING

    @property
    def seconds(self) -> Seconds:
        """From the first operator's issue until the host and the device are both done."""
        return self.head.end + self.middle + self.tail.seconds

    def synchronised(self) -> Schedule:
        """The same run, at whose end the host waits for the device."""
        return Schedule(self.device, self.head, self.middle + self.tail.end)

    def then(self, later: Lanes | Schedule) -> Schedule:
        """This run followed by another one."""
        device = self.device + later.device
        if isinstance(later, Lanes):
            return Schedule(device, self.head, self.middle, self.tail.then(later))
        return Schedule(device, self.head, self.middle + self.tail.then(later.head).end + later.middle, later.tail)

    def repeated(self, times: Seconds) -> Schedule:
        """This run several times over, at least once."""
        middle = self.middle + (times - 1) * (self.tail.then(self.head).end + self.middle)
        return Schedule(times * self.device, self.head, middle, self.tail)


def replay(host: np.ndarray, device: np.ndarray, synchronises: np.ndarray | None = None) -> np.ndarray:
    """Plays operators one by one, for a timeline.

    Args:
        host, device: seconds of each operator at one point: [operator].
        synchronises: whether the host waits for the device after an operator: [operator]; never by default.

    Returns:
        when the issue of each begins and ends, and when its kernel does, in seconds from the beginning: [operator, 4].
    """
    moments, free, finished = [], 0.0, 0.0
    for number, (issue, kernel) in enumerate(zip(host, device, strict=True)):
        issued = free + issue
        start = max(issued, finished)
        moments.append((free, issued, start, start + kernel))
        free, finished = issued, start + kernel
        if synchronises is not None and synchronises[number]:
            free = max(free, finished)
    return np.array(moments).reshape(-1, 4)
