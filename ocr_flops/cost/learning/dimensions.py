"""The quantities that learned polynomials are in: sizes of the page, batch and tokens, and what code makes of them by whole division."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ocr_flops.cost.polynomial import Monomial, product
from ocr_flops.spec.workload import Column


class DerivedSize(NamedTuple):
    """A quantity derived from a product of others, cut into parts of n.

    Args:
        kind: "floor": whole parts; "ceil": parts, the last one perhaps smaller; "squares": the sum of the squares of all parts; "beyond":
            whole parts and one more; "last": the size of the last part; "before": what stands before the last part but one; "uneven": 1
            where the last part is smaller, else 0; "any": 1 where there is anything, else 0.
        of: the names multiplied.
        n: size of a part.
    """

    kind: str
    of: Monomial
    n: int

    def value(self, values: Mapping[str, Column]) -> Column:
        """Its value, of ints or columns."""
        whole = product(values[name] for name in self.of)
        if self.kind == "floor":
            return whole // self.n
        if self.kind == "ceil":
            return -(-whole // self.n)
        if self.kind == "beyond":
            return whole // self.n + 1
        if self.kind == "last":
            return (whole - 1) % self.n + 1
        if self.kind == "before":
            return ((whole - 1) // self.n - 1) * self.n * (whole > self.n)
        if self.kind == "any":
            return (whole > 0) * 1
        if self.kind == "uneven":
            return (whole % self.n > 0) * 1
        return whole // self.n * self.n**2 + (whole % self.n) ** 2


def with_parts(values: dict[str, Column], parts: Mapping[str, DerivedSize]) -> dict[str, Column]:
    """Values and the derived quantities beside them, in order: a part may be of parts before it."""
    values = dict(values)
    for name, part in parts.items():
        if all(one in values for one in part.of):
            values[name] = part.value(values)
    return values


def monomials_of(*factors: Iterable[Monomial]) -> list[Monomial]:
    """All products of one monomial of each group."""
    found: list[Monomial] = [()]
    for group in factors:
        found = [tuple(sorted(left + right)) for left in found for right in group]
    return list(dict.fromkeys(found))
