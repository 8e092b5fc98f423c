"""Integer coefficients of polynomials from their values at points, exactly, and their check at points that were not used."""

from collections.abc import Sequence
from fractions import Fraction
from math import lcm

from ocr_flops.cost.polynomial import Monomial, product

PRIME = 2_147_483_647
Values = tuple[int, ...]  # of one quantity at all points


class Solver:
    """Finds polynomials in given monomials.

    Args:
        monomials: all that may occur.
        points: the sizes of every point, in the order of the values that are solved for.

    Attributes:
        used: numbers of the points that coefficients are solved from; the others check them.

    Raises:
        ValueError: the points do not tell the monomials apart.
    """

    def __init__(self, monomials: Sequence[Monomial], points: Sequence[dict[str, int]]):
        self.monomials = tuple(monomials)
        self.rows = [[product(point[name] for name in monomial) for monomial in monomials] for point in points]
        self.used = independent_rows(self.rows, len(monomials))
        if len(self.used) < len(monomials):
            raise ValueError(f"{len(points)} points tell {len(self.used)} of {len(monomials)} monomials apart")
        self._inverse, self._scale = _invert([self.rows[number] for number in self.used])
        self._known: dict[Values, tuple[int, ...] | None] = {}

    def solve(self, values: Values) -> tuple[int, ...] | None:
        """The whole coefficients of the polynomial with these values at the points; None where there is none."""
        if values not in self._known:
            self._known[values] = self._solve(values)
        return self._known[values]

    def _solve(self, values: Values) -> tuple[int, ...] | None:
        taken = [values[number] for number in self.used]
        scaled = [sum(a * b for a, b in zip(row, taken, strict=True)) for row in self._inverse]
        if any(one % self._scale for one in scaled):
            return None
        found = tuple(one // self._scale for one in scaled)
        holds = all(sum(a * b for a, b in zip(row, found, strict=True)) == value for row, value in zip(self.rows, values, strict=True))
        return found if holds else None


def independent_rows(rows: Sequence[Sequence[int]], most: int) -> list[int]:
    """The first rows that are linearly independent, at most so many (by elimination modulo a prime: never one too many)."""
    basis: list[tuple[int, list[int]]] = []
    found = []
    for number, row in enumerate(rows):
        rest = [value % PRIME for value in row]
        for pivot, other in basis:
            if factor := rest[pivot]:
                rest = [(a - factor * b) % PRIME for a, b in zip(rest, other, strict=True)]
        pivot = next((place for place, value in enumerate(rest) if value), None)
        if pivot is None:
            continue
        inverse = pow(rest[pivot], -1, PRIME)
        basis.append((pivot, [value * inverse % PRIME for value in rest]))
        found.append(number)
        if len(found) == most:
            break
    return found


def _invert(rows: Sequence[Sequence[int]]) -> tuple[list[list[int]], int]:
    """The inverse of a square matrix as whole numbers and what they are divided by."""
    size = len(rows)
    wide = [[Fraction(value) for value in row] + [Fraction(int(i == j)) for j in range(size)] for i, row in enumerate(rows)]
    for column in range(size):
        pivot = next(number for number in range(column, size) if wide[number][column])
        wide[column], wide[pivot] = wide[pivot], wide[column]
        head = wide[column][column]
        wide[column] = [value / head for value in wide[column]]
        for number in range(size):
            if number != column and (factor := wide[number][column]):
                wide[number] = [a - factor * b for a, b in zip(wide[number], wide[column], strict=True)]
    scale = lcm(*(value.denominator for row in wide for value in row[size:]))
    return [[int(value * scale) for value in row[size:]] for row in wide], scale
