"""How many tokens pages yield, where no column says it: one number, quantiles, or a lognormal law; and pages that repeat themselves."""

from collections.abc import Callable, Mapping, Sequence
from math import exp, isfinite, log, sqrt
from typing import NamedTuple, Self

import numpy as np

from ocr_flops.errors import SpecError
from ocr_flops.spec.workload import LIMITS
from ocr_flops.units import counted

PARTS = 256  # equally likely parts of a law
NORMAL_95 = 1.6448536269514722  # the standard normal's 95th percentile
MOST_SPREAD = exp(NORMAL_95**2 / 2)  # p95 / mean of a lognormal law is at most this
DEFAULT_TOKENS, DEFAULT_LIMIT = 256, 8192  # 8192: the published examples' max_new_tokens
FORMS = "800, lognormal:800:2000 (mean, 95th percentile), or quantiles:0.5=700,0.95=2000"


class Lengths(NamedTuple):
    """Output lengths of pages.

    Args:
        tokens: lengths in growing order, int64.
        shares: the part of the pages that has each; together 1.
        basis: where they come from, in words.
    """

    tokens: np.ndarray
    shares: np.ndarray
    basis: str

    @property
    def mean(self) -> float:
        """Mean length in tokens."""
        return float(self.tokens @ self.shares)

    @property
    def longest(self) -> int:
        """The greatest length."""
        return int(self.tokens[-1])

    def of_longest(self, pages: int) -> np.ndarray:
        """With what probability each length is the longest of so many pages drawn at random."""
        return np.diff(np.minimum(np.cumsum(self.shares), 1.0) ** pages, prepend=0.0)

    def with_loops(self, share: float, limit: int = DEFAULT_LIMIT) -> Self:
        """The same lengths, but for a share of pages (below 1) that repeat themselves until a limit ends them, which no length may
        exceed."""
        if not 0 <= share < 1:
            raise SpecError(f"loops: {share!r} is not a share of pages from 0 to below 1")
        if not share:
            return self
        if limit < self.longest:
            raise SpecError(f"limit: {limit} output tokens, and some pages have {self.longest}")
        basis = f"{self.basis}; {share:.3g} of all pages repeat themselves up to {limit:,} tokens"
        return _merged(np.append(self.tokens, limit), np.append(self.shares * (1 - share), share), basis)


def fixed(tokens: int) -> Lengths:
    """Every page of the same length."""
    return Lengths(np.array([_checked(tokens)], np.int64), np.ones(1), f"{counted(tokens, 'token')} a page")


def lognormal(mean: float, p95: float, limit: int = DEFAULT_LIMIT) -> Lengths:
    """A lognormal law by its mean and its 95th percentile, in equally likely parts, each at its own mean; a limit ends longer pages.

    Of the two laws with these figures the narrower one is taken.

    Raises:
        SpecError: a mean below 1, or a percentile that is not between the mean and 3.87 times the mean.
    """
    from scipy.special import ndtr, ndtri

    if not (isfinite(mean) and mean >= 1):
        raise SpecError(f"lengths: a mean of {mean!r} is not a number of tokens from 1 up")
    most = mean * MOST_SPREAD
    if not mean < p95 <= most:
        raise SpecError(f"lengths: a 95th percentile of {p95:g} for a mean of {mean:g}; it lies between the mean and {most:.0f}")
    spread = NORMAL_95 - sqrt(max(0.0, NORMAL_95**2 - 2 * log(p95 / mean)))
    edges = ndtri(np.linspace(0, 1, PARTS + 1))
    tokens = np.diff(ndtr(edges - spread)) * PARTS * mean
    basis = f"a lognormal law of mean {mean:g} and 95th percentile {p95:g} tokens, at most {limit:,}"
    return _merged(np.rint(np.minimum(tokens, limit)).astype(np.int64), np.full(PARTS, 1 / PARTS), basis)


def quantiles(given: Mapping[float, float]) -> Lengths:
    """Lengths by their quantiles, such as {0.5: 700, 0.95: 2000}: straight lines between them, and beyond the outermost their values.

    Raises:
        SpecError: no quantile, one outside 0 to 1, or lengths that fall where quantiles grow.
    """
    places, tokens = np.array(sorted(given.items()), float).reshape(-1, 2).T
    if not len(places) or places[0] < 0 or places[-1] > 1 or (np.diff(tokens) < 0).any():
        raise SpecError(f"lengths: {dict(given)} are no quantiles; give shares from 0 to 1 with lengths that do not fall")
    for value in tokens:
        _checked(value)
    middles = (np.arange(PARTS) + 0.5) / PARTS
    basis = f"quantiles {', '.join(f'{place:g}: {value:g}' for place, value in zip(places, tokens, strict=True))} tokens"
    return _merged(np.rint(np.interp(middles, places, tokens)).astype(np.int64), np.full(PARTS, 1 / PARTS), basis)


def read_lengths(text: str, limit: int = DEFAULT_LIMIT) -> Lengths:
    """Lengths as a command line has them: "800", "lognormal:800:2000" or "quantiles:0.5=700,0.95=2000"."""
    kind, _, rest = text.partition(":")
    readers: dict[str, Callable[[], Lengths]] = {
        "lognormal": lambda: lognormal(*map(float, rest.split(":")), limit=limit),
        "quantiles": lambda: quantiles({float(place): float(value) for place, value in (one.split("=") for one in rest.split(","))}),
    }
    try:
        return readers[kind]() if kind in readers else fixed(int(text))
    except (ValueError, TypeError) as problem:
        if isinstance(problem, SpecError):
            raise
        raise SpecError(f"lengths: {text!r} is not {FORMS}") from None


def _checked(tokens: float) -> float:
    least, most = LIMITS["output_tokens"]
    if isinstance(tokens, bool) or not least <= tokens <= most:
        raise SpecError(f"lengths: {tokens!r} is not a number of tokens from {least} to {most:,}")
    return tokens


def _merged(tokens: np.ndarray, shares: np.ndarray, basis: str) -> Lengths:
    """Equal lengths once."""
    found, places = np.unique(tokens, return_inverse=True)
    return Lengths(found, np.bincount(places, shares), basis)


def from_sample(tokens: Sequence[float], basis: str) -> Lengths | None:
    """The lengths of some pages for all of them, each as likely as the others; None where there are none."""
    if not len(tokens):
        return None
    rounded = np.clip(np.rint(tokens), *LIMITS["output_tokens"]).astype(np.int64)
    return _merged(rounded, np.full(len(rounded), 1 / len(rounded)), basis)
