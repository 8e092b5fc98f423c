"""Figures that are not known exactly."""

from __future__ import annotations

from math import isfinite
from typing import NamedTuple

from ocr_flops.errors import SpecError


class Ranged(NamedTuple):
    """A figure that is not known exactly: the best guess, the interval it is expected in, and where it was read or measured."""

    value: float
    low: float
    high: float
    source: str = ""

    @classmethod
    def exact(cls, value: float, source: str = "given") -> Ranged:
        """A figure without a range."""
        return cls(value, value, value, source)

    def check(self, field: str, least: float, greatest: float) -> None:
        """Raises SpecError unless least <= low <= value <= high <= greatest, all finite numbers."""
        if not (isfinite(self.high) and least <= self.low <= self.value <= self.high <= greatest):
            allowed = f"from {least:g} up" if greatest == float("inf") else f"from {least:g} to {greatest:g}"
            if self.low == self.value == self.high:
                raise SpecError(f"{field}: {self.value!r} is not a number {allowed}")
            raise SpecError(f"{field}: low={self.low!r} value={self.value!r} high={self.high!r} are not in this order, numbers {allowed}")

    def over(self, other: Ranged) -> Ranged:
        """This figure divided by another one, neither of which is 0 in between."""
        return Ranged(self.value / other.value, self.low / other.high, self.high / other.low, self.source)

    def __mul__(self, factor: float) -> Ranged:
        """This figure so many times, where a tuple would repeat itself."""
        return Ranged(*(factor * one for one in self[:3]), self.source)

    __rmul__ = __mul__

    def __str__(self) -> str:
        """The figure and, where it has one, its range: "7 (5 to 10)"."""
        return f"{self.value:.3g}" if self.low == self.high else f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"
