"""Requests as they come: when they arrive, of which kind they are, and how many tokens they make. A seed repeats them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ocr_flops.errors import SpecError, one_of, whole_number

ARRIVALS = ("poisson", "constant", "bursts")
Z95 = 1.6448536269514722  # of the normal distribution
COLUMNS = ("arrival_seconds", "output_tokens")


@dataclass(frozen=True)
class Lengths:
    """How many tokens a request makes.

    Args:
        mean: of the distribution; every request makes as many where there is neither p95 nor quantiles.
        p95: of a lognormal distribution with that mean.
        quantiles: pairs (share of requests below, tokens), read off in straight lines between them.
        loops: share of requests that repeat themselves until the limit.
        limit: tokens at most.
    """

    mean: float
    p95: float | None = None
    quantiles: tuple[tuple[float, float], ...] = ()
    loops: float = 0.0
    limit: int = 8192

    def __post_init__(self) -> None:
        whole_number("output_limit", self.limit, 1, 1_048_576)
        if not 0 <= self.loops <= 1:
            raise SpecError(f"loops: {self.loops!r} is not a share from 0 to 1")
        if not 1 <= self.mean <= self.limit:
            raise SpecError(f"output_tokens: {self.mean:g} is not a number from 1 to the limit of {self.limit}")
        if self.p95 is not None and not self.mean <= self.p95 <= self.mean * np.exp(Z95**2 / 2):
            most = self.mean * np.exp(Z95**2 / 2)
            raise SpecError(f"output_p95: {self.p95:g} is not a number from the mean, {self.mean:g}, to {most:.0f}, as a lognormal has")
        shares, tokens = zip(*self.quantiles, strict=True) if self.quantiles else ((), ())
        if any(not 0 <= share <= 1 for share in shares) or list(shares) != sorted(set(shares)) or list(tokens) != sorted(tokens):
            raise SpecError(f"output_quantiles: {self.quantiles!r} are not growing shares from 0 to 1 with growing tokens")

    @property
    def differ(self) -> bool:
        """Whether requests of one kind make different numbers of tokens."""
        return bool(self.quantiles or self.p95 is not None or self.loops)

    def draw(self, count: int, random: np.random.Generator) -> np.ndarray:
        """Tokens of so many requests, whole numbers from 1 to the limit."""
        if self.quantiles:
            shares, tokens = zip(*self.quantiles, strict=True)
            drawn = np.interp(random.random(count), shares, tokens)
        elif self.p95 is not None:
            spread = Z95 - sqrt(max(0.0, Z95**2 - 2 * log(self.p95 / self.mean)))
            drawn = np.exp(random.normal(log(self.mean) - spread**2 / 2, spread, count))
        else:
            drawn = np.full(count, float(self.mean))
        drawn[random.random(count) < self.loops] = self.limit
        return np.clip(drawn.round(), 1, self.limit).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Traffic:
    """Requests in the order in which they arrive.

    Args:
        arrivals: seconds at which they come; None where one comes whenever another one is done.
        concurrency: how many are in flight then; 0 otherwise.
        output_tokens: that each makes.
        kinds: of page, numbers of the server's.
    """

    arrivals: np.ndarray | None
    concurrency: int
    output_tokens: np.ndarray
    kinds: np.ndarray

    @property
    def rate(self) -> float | None:
        """Requests a second, on average from the first arrival to the last; None for a concurrency."""
        if self.arrivals is None:
            return None
        later = self.arrivals - self.arrivals[0]
        return np.count_nonzero(later) / float(later[-1]) if later[-1] else len(later) / max(float(self.arrivals[0]), 1e-9)

    def split(self, replicas: int) -> Traffic:
        """What one of so many replicas gets that take turns: the first request, and every replicas-th after it."""
        arrivals = None if self.arrivals is None else self.arrivals[::replicas]
        return Traffic(arrivals, self.concurrency, self.output_tokens[::replicas], self.kinds[::replicas])


def draw_traffic(
    count: int,
    lengths: Lengths | Sequence[Lengths],
    weights: Sequence[float] = (1.0,),
    *,
    rate: float | None = None,
    concurrency: int | None = None,
    pattern: str = "poisson",
    burst: int = 20,
    seed: int = 0,
) -> Traffic:
    """Requests of a rate or of a concurrency.

    Args:
        count: how many.
        lengths: tokens that they make, of each kind of page or of all.
        weights: of the kinds.
        rate: requests a second on one replica.
        concurrency: requests in flight, instead of a rate.
        pattern: one of `ARRIVALS`: by chance, evenly, or so many at once at moments by chance.
        burst: how many.
        seed: of what is left to chance.
    """
    whole_number("requests", count, 1, 100_000_000)
    if burst < 1:
        raise SpecError(f"arrivals: bursts of {burst!r} requests; a burst has at least 1")
    random = np.random.default_rng(seed)
    shares = np.asarray(weights, float) / np.sum(weights)
    kinds = random.choice(len(shares), count, p=shares) if len(shares) > 1 else np.zeros(count, np.int64)
    each = [lengths] * len(shares) if isinstance(lengths, Lengths) else list(lengths)
    tokens = np.empty(count, np.int64)
    for kind, one in enumerate(each):
        mine = kinds == kind
        tokens[mine] = one.draw(int(mine.sum()), random)
    if rate is None:
        return Traffic(None, int(concurrency), tokens, kinds)
    one_of("arrivals", pattern, ARRIVALS)
    if pattern == "constant":
        arrivals = np.arange(count) / rate
    elif pattern == "bursts":
        arrivals = np.repeat(np.cumsum(random.exponential(burst / rate, -(-count // burst))), burst)[:count]
    else:
        arrivals = np.cumsum(random.exponential(1 / rate, count))
    return Traffic(arrivals, 0, tokens, kinds)


def read_trace(path: Path, lengths: Lengths, seed: int = 0) -> Traffic:
    """Requests of a table, CSV or Parquet, with a column arrival_seconds and, where it has one, output_tokens.

    Raises:
        SpecError: a file that cannot be read, without that column, or with values that are no times or no tokens.
    """
    try:
        frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path)
    except (OSError, pl.exceptions.PolarsError) as problem:
        raise SpecError(f"arrivals: {path}: {' '.join(str(problem).split())[:200]}") from None
    if COLUMNS[0] not in frame.columns or not frame.height:
        raise SpecError(f"arrivals: {path}: no rows with a column arrival_seconds (and output_tokens); it has {', '.join(frame.columns)}")
    frame = frame.sort(COLUMNS[0])
    arrivals, tokens = _numbers(frame, COLUMNS[0], 0.0), None
    if COLUMNS[1] in frame.columns:
        tokens = np.minimum(_numbers(frame, COLUMNS[1], 1.0), lengths.limit).astype(np.int64)
    drawn = lengths.draw(frame.height, np.random.default_rng(seed)) if tokens is None else tokens
    return Traffic(arrivals - arrivals[0], 0, drawn, np.zeros(frame.height, np.int64))


def _numbers(frame: Any, name: str, least: float) -> np.ndarray:
    column = frame[name]
    if not column.dtype.is_numeric() or column.null_count():
        raise SpecError(f"arrivals: column {name} has values that are no numbers")
    values = column.cast(float).to_numpy()
    if not np.isfinite(values).all() or values.min() < least:
        raise SpecError(f"arrivals: column {name} has {values.min():g}, which is less than {least:g}, or is no number")
    return values
