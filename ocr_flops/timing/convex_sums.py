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

    A convex function that lies on its chord in the middle of an interval is linear on all of it, so pieces between known bends are
    halved only where the function bends besides. Points of one function share its pieces.

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
    ends = np.sort(np.concatenate([np.clip(np.floor(bends), least - 1, greatest), greatest[None]]), axis=0).astype(np.int64)
    starts = np.concatenate([least[None], ends[:-1] + 1])
    piece, of = np.nonzero(starts <= ends)
    pieces = _cut_pieces(function, of, starts[piece, of], ends[piece, of], convex)
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
    function: Callable[[np.ndarray, np.ndarray], np.ndarray], of: np.ndarray, low: np.ndarray, high: np.ndarray, convex: int
) -> _Pieces:
    """Halves pieces until the functions are linear on all of them; arguments as of `sum_convex` and `_Pieces`."""
    found: list[tuple[np.ndarray, ...]] = []
    begin, middle, count = low, (low + high) // 2, len(of)  # a middle is the end of one half and looked at, but not counted, in the other
    at = function(np.concatenate([low, middle, high]), np.concatenate([of, of, of]))
    at_low, at_middle, at_high = at[..., :count], at[..., count : 2 * count], at[..., 2 * count :]
    while True:
        rise = (at_high - at_low) / np.maximum(high - low, 1)
        bent = np.abs(at_middle - at_low - rise * (middle - low))[:convex] > 1e-12 * np.abs(at_middle[:convex])
        halved = bent.reshape(-1, len(of)).any(axis=0) & (high - low > 1)
        found.append(tuple(one[..., ~halved] for one in (of, begin, high, at_low + rise * (begin - low), rise)))
        if not halved.any():
            break
        of, middles = np.tile(of[halved], 2), middle[halved]
        begin = np.concatenate([begin[halved], middles + 1])
        low, high = np.concatenate([low[halved], middles]), np.concatenate([middles, high[halved]])
        at_low, at_high = (
            np.concatenate([one[..., halved], other[..., halved]], axis=-1) for one, other in ((at_low, at_middle), (at_middle, at_high))
        )
        middle = (low + high) // 2
        at_middle = function(middle, of)
    return _Pieces(*(np.concatenate(parts, axis=-1) for parts in zip(*found, strict=True)))
