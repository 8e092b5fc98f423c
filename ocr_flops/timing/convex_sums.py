"""Exact sums over decode steps: a step's seconds are a convex function of its context, linear between the contexts where it bends."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


def sum_convex(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray],
    number: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
    bends: np.ndarray,
    convex: int = 1,
) -> np.ndarray:
    """Sums of convex functions over whole numbers, where the functions are linear piece by piece; exact to rounding.

    A convex function that lies on its chord in the middle of an interval is linear on all of it. Where it does not, it is cut where the
    lines at its two ends meet, which is where it bends if it bends once. Points of one function share its pieces.

    Args:
        function: takes arguments [n] and the numbers of the functions [n] they are of; returns values [figure, ..., n].
        number: the function of every point; each has one at least: [point].
        first, last: the range of every point, both included; empty where last < first: [point].
        bends: arguments after which functions may bend, in any order, also outside the range: [bend, function].
        convex: how many of the figures are such functions; the others are linear where these are.

    Returns:
        the sums [..., point].
    """
    least = np.full(bends.shape[1], np.iinfo(np.int64).max)
    np.minimum.at(least, number, first)
    greatest = least.copy()
    np.maximum.at(greatest, number, last)
    pieces = _cut_pieces(function, least, greatest, bends, convex)
    if len(number) == 1:
        return pieces.sums().sum(axis=-1, keepdims=True) * (last >= first)
    return pieces.sum_ranges(number, first, last, len(least))


class _Pieces(NamedTuple):
    """Functions cut where they bend.

    Args:
        of, low, high: the function of every piece, its first argument and its last: [piece].
        at_low, rise: the value at the first, and what each further argument adds: [..., piece].
    """

    of: np.ndarray
    low: np.ndarray
    high: np.ndarray
    at_low: np.ndarray
    rise: np.ndarray

    def sums(self) -> np.ndarray:
        """The sum over each piece: [..., piece]."""
        count = self.high - self.low + 1
        return count * (self.at_low + self.rise * ((count - 1) / 2))

    def sum_ranges(self, number: np.ndarray, first: np.ndarray, last: np.ndarray, functions: int) -> np.ndarray:
        """Sums from first to last of the functions of points: [..., point]; arguments as of `sum_convex`."""
        by_place = np.lexsort((self.low, self.of))
        pieces = _Pieces(*(column[..., by_place] for column in self))
        begins = np.searchsorted(pieces.of, np.arange(functions))
        rank = np.arange(len(by_place)) - begins[pieces.of]
        before = np.zeros((*self.rise.shape[:-1], functions, rank.max() + 2))  # by function, so that none loses digits to another
        before[..., pieces.of, rank + 1] = pieces.sums()
        before = before.cumsum(axis=-1)[..., pieces.of, rank]
        keys = (pieces.of << 32) + pieces.low

        def sum_to(x: np.ndarray) -> np.ndarray:
            at = np.maximum(np.searchsorted(keys, (number << 32) + x, side="right") - 1, begins[number])
            count = x - pieces.low[at] + 1
            below, at_low, rise = (column.take(at, axis=-1) for column in (before, pieces.at_low, pieces.rise))
            return below + count * (at_low + rise * ((count - 1) / 2))

        return sum_to(np.maximum(last, first - 1)) - sum_to(first - 1)


def _cut_pieces(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray, bends: np.ndarray, convex: int
) -> _Pieces:
    """Cuts functions, each from low to high, until they are linear on all pieces; other arguments as of `sum_convex`."""
    found: list[tuple[np.ndarray, ...]] = []
    of = np.arange(len(low))
    while len(of):
        ends = np.sort(np.concatenate([np.clip(np.floor(bends), low - 1, high), high[None]]), axis=0).astype(np.int64)
        starts = np.concatenate([low[None], ends[:-1] + 1])
        cut, piece = np.nonzero(starts <= ends)
        of, low, high = of[piece], starts[cut, piece], ends[cut, piece]
        width, middle = high - low, (low + high) // 2
        arguments = np.concatenate([low, np.minimum(low + 1, high), middle, np.maximum(high - 1, low), high])
        at = function(arguments, np.tile(of, 5))
        at_low, second, at_middle, last_but_one, at_high = np.moveaxis(at.reshape(*at.shape[:-1], 5, -1), -2, 0)
        rise = (at_high - at_low) / np.maximum(width, 1)
        bent = np.abs(at_middle - at_low - rise * (middle - low))[:convex] > 1e-12 * np.abs(at_middle[:convex])
        bent = bent.reshape(-1, len(of)) & (width > 1)
        again = bent.any(axis=0)
        found.append(tuple(one[..., ~again] for one in (of, low, high, at_low, rise)))
        first, last = (one[:convex].reshape(bent.shape) for one in (second - at_low, at_high - last_but_one))
        meet = (rise[:convex].reshape(bent.shape) - last) * width / np.where(first == last, np.inf, first - last)
        meet = np.where((meet > 0) & (meet < width), meet, width / 2)  # rounding hides where the flattest ones meet
        bends = np.where(bent, low + meet, high)[:, again]
        of, low, high = of[again], low[again], high[again]
    return _Pieces(*(np.concatenate(parts, axis=-1) for parts in zip(*found, strict=True)))
