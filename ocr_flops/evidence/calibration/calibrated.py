"""A calibrated figure, with its band; what is reached of a ceiling; an estimate's calibrated figures, or why there are none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

Number = float | np.ndarray


class Banded(NamedTuple):
    """A figure with the range in which nine of ten measurements should lie; floats, or a column each."""

    value: Number
    low: Number
    high: Number

    def __add__(self, other: Banded) -> Banded:
        """Both together, their errors having one cause."""
        return Banded(*(mine + its for mine, its in zip(self, other, strict=True)))

    def over(self, divisor: Number) -> Banded | None:
        """Divided; None (NaN in columns) by nothing."""
        if not isinstance(divisor, np.ndarray):
            return Banded(*(one / divisor for one in self)) if divisor else None
        return Banded(*(np.divide(one, divisor, out=np.full(len(divisor), np.nan), where=divisor > 0) for one in self))


class Reached(NamedTuple):
    """What a device reaches of a ceiling.

    Args:
        ceiling: "matrix", "vector" or "bandwidth".
        efficiency: part of the peak reached, with its 90 % range; None where the device has no such figure or nothing tells.
        rate: what is reached, in FLOP/s or B/s; None where nothing tells.
        peak: the device's figure; None where it has none.
        largest_share: of the time of any record, under this ceiling.
        reason: why nothing tells; None where something does.
    """

    ceiling: str
    efficiency: Banded | None
    rate: Banded | None
    peak: float | None
    largest_share: float
    reason: str | None


@dataclass(frozen=True)
class Uncalibrated:
    """No calibrated figures.

    Args:
        reason: why, and what to do.
        left_out: why records could not be used, and how many.
    """

    reason: str
    left_out: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Calibrated:
    """An estimate's calibrated figures; each is a float for one point, a column for many.

    Args:
        seconds: of every stage that can be told.
        bound_seconds: of the same stages; None where the device's peaks are not known.
        output_tokens: of the estimate.
        allocated_bytes, reserved_bytes: what the device's allocator holds at most; None where `memory_reason` says why.
        memory_reason: why there is no memory.
        notes: what these figures stand on that no record shows.
    """

    seconds: Mapping[str, Banded]
    bound_seconds: Mapping[str, Number] | None
    output_tokens: Number
    allocated_bytes: Banded | None
    reserved_bytes: Banded | None
    memory_reason: str | None
    notes: tuple[str, ...]

    @property
    def ttft_seconds(self) -> Banded | None:
        """Time to first token: vision and prefill."""
        return self.seconds["vision"] + self.seconds["prefill"] if {"vision", "prefill"} <= set(self.seconds) else None

    @property
    def tpot_seconds(self) -> Banded | None:
        """Mean time per output token; None without any."""
        return self.seconds["decode"].over(self.output_tokens) if "decode" in self.seconds else None

    @property
    def bound_ttft_seconds(self) -> Number | None:
        """What no implementation undercuts for the time to first token."""
        if self.bound_seconds is None or self.ttft_seconds is None:
            return None
        return self.bound_seconds["vision"] + self.bound_seconds["prefill"]

    @property
    def bound_tpot_seconds(self) -> Number | None:
        """What no implementation undercuts for the mean time per output token."""
        if self.bound_seconds is None or "decode" not in self.bound_seconds:
            return None
        bound = Banded(*[self.bound_seconds["decode"]] * 3).over(self.output_tokens)
        return None if bound is None else bound.value
