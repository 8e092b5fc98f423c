"""Sizes that may still be unknown: integer polynomials in named quantities such as `batch` or `tokens`.

The operators of a tower are written once, over sizes. With ints they yield ints; with `Dimension("batch")` they yield a polynomial
whose coefficients are found once per model and then evaluated for one workload or for a million (see `program.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

Column = int | np.ndarray
Monomial = tuple[str, ...]  # sorted names, repeated for powers: ("batch", "tokens", "tokens")


class Dimension:
    """An integer polynomial in named quantities.

    Args:
        name: the quantity, for example "batch"; `Dimension("batch") * Dimension("tokens") + 1` builds larger ones.
    """

    __slots__ = ("terms",)

    def __init__(self, name: str):
        self.terms: dict[Monomial, int] = {(name,): 1}

    @classmethod
    def of_terms(cls, terms: dict[Monomial, int]) -> Dimension:
        """The polynomial with these coefficients."""
        size = cls.__new__(cls)
        size.terms = {monomial: value for monomial, value in terms.items() if value}
        return size

    def __add__(self, other: Dim) -> Dimension:
        if not other:
            return self
        terms = dict(self.terms)
        for monomial, value in terms_of(other).items():
            terms[monomial] = terms.get(monomial, 0) + value
        return Dimension.of_terms(terms)

    __radd__ = __add__

    def __neg__(self) -> Dimension:
        return Dimension.of_terms({monomial: -value for monomial, value in self.terms.items()})

    def __sub__(self, other: Dim) -> Dimension:
        return self + -other

    def __rsub__(self, other: int) -> Dimension:
        return -self + other

    def __mul__(self, other: Dim) -> Dimension:
        if isinstance(other, int):
            return self if other == 1 else Dimension.of_terms({monomial: value * other for monomial, value in self.terms.items()})
        terms: dict[Monomial, int] = {}
        for left, value in self.terms.items():
            for right, factor in other.terms.items():
                monomial = tuple(sorted(left + right))
                terms[monomial] = terms.get(monomial, 0) + value * factor
        return Dimension.of_terms(terms)

    __rmul__ = __mul__

    def __floordiv__(self, divisor: int) -> Dimension:
        if any(value % divisor for value in self.terms.values()):
            raise ValueError(f"{self} is not divisible by {divisor}")
        return Dimension.of_terms({monomial: value // divisor for monomial, value in self.terms.items()})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dimension | int) and self.terms == terms_of(other)

    def __bool__(self) -> bool:
        return bool(self.terms)

    def __hash__(self) -> int:
        return hash(frozenset(self.terms.items()))

    def __repr__(self) -> str:
        return " + ".join("·".join([str(value), *monomial]) for monomial, value in sorted(self.terms.items())) or "0"


Dim = Dimension | int  # of a tensor: known, or symbolic


def terms_of(size: Dim) -> dict[Monomial, int]:
    """The polynomial's terms; an int is a constant term under the empty monomial."""
    if isinstance(size, Dimension):
        return size.terms
    return {(): size} if size else {}


def product(sizes: Iterable[Dim]) -> Dim:
    """Product of sizes, 1 for none."""
    total: Dim = 1
    for size in sizes:
        total = size * total
    return total


def evaluate(size: Dim, monomial: Callable[[Monomial], Column]) -> Column:
    """A polynomial at the values of its monomials; exact for ints, int64 for columns."""
    value: Column = 0
    for name, coefficient in terms_of(size).items():
        value = value + monomial(name) * coefficient
    return value


def dominates(size: Dim, other: Dim) -> bool:
    """Whether a polynomial is at least as large as another in every coefficient, so at every point (quantities are never negative)."""
    mine, theirs = terms_of(size), terms_of(other)
    return all(mine.get(name, 0) >= theirs.get(name, 0) for name in mine.keys() | theirs.keys())


def undominated(sizes: Iterable[Dim]) -> tuple[Dim, ...]:
    """The polynomials that no other one dominates, those with the largest coefficients first: nothing after them can dominate them."""
    unique = {frozenset(terms_of(size).items()): size for size in sizes}.values()
    found: list[Dim] = []
    for size in sorted(unique, key=lambda size: -sum(terms_of(size).values())):
        if not any(dominates(larger, size) for larger in found):
            found.append(size)
    return tuple(found)
