"""A tape as polynomials: integer coefficients of every operator's cost over a few monomials such as batch·tokens².

All operators of a stage share about a dozen monomials, so a stage at many points is a handful of products and sums of columns: no loop
over points, exact in Python ints for one point and in int64 for many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cached_property, reduce

import numpy as np

from ocr_flops.cost.polynomial import Column, Dim, Monomial, evaluate, terms_of, undominated
from ocr_flops.cost.tape import COSTS, Operation, Tape


class Program:
    """The operators of a tape.

    Attributes:
        operations: in execution order.
        modules: module labels in order of first use.
        parameters: parameters per module.
        weight_bytes: what these take per module, with the scales of those in 8 bits.
        layer_parameters: parameters per module and layer (None outside layers).
    """

    def __init__(self, tape: Tape):
        self.layer_parameters = dict(tape.parameters)
        self.parameters, self.weight_bytes = Counter[str](), Counter[str]()
        for found, of_layers in ((self.parameters, tape.parameters), (self.weight_bytes, tape.weight_bytes)):
            for (module, _), count in of_layers.items():
                found[module] += count
        self.operations = tuple(tape.operations)
        self.modules = tuple(dict.fromkeys(operation.module for operation in self.operations))

    @cached_property
    def monomials(self) -> tuple[Monomial, ...]:
        """All that the costs are sums of."""
        return tuple(dict.fromkeys(name for one in self.operations for cost in one.costs.values() for name in terms_of(cost)))

    def coefficients(self, cost: str) -> np.ndarray:
        """A cost of every operator as floats [operator, monomial]."""
        terms = [terms_of(operation.costs[cost]) for operation in self.operations]
        return np.array([[one.get(monomial, 0) for monomial in self.monomials] for one in terms], np.float64)

    @cached_property
    def _costs(self) -> dict[str | None, dict[str, Dim]]:
        """The sums over the operators of every module, and (None) over all."""
        sums: dict[str | None, dict[str, Dim]] = {module: dict.fromkeys(COSTS, 0) for module in (None, *self.modules)}
        for operation in self.operations:
            for row in (sums[None], sums[operation.module]):
                row |= {name: cost + row[name] for name, cost in operation.costs.items()}
        return sums

    @cached_property
    def _peaks(self) -> dict[str | None, tuple[Dim, ...]]:
        """Live sums that can be the largest in their module, or (None) in the stage."""
        peaks = {
            module: undominated(live for operation in self.operations if operation.module == module for live in operation.all_live_bytes)
            for module in self.modules
        }
        return {**peaks, None: undominated(live for candidates in peaks.values() for live in candidates)}

    @cached_property
    def peak_operations(self) -> dict[Dim, Operation]:
        """The live sums that can be the stage's peak, each with the first operation that has it."""
        pairs = [(live, operation) for operation in self.operations for live in operation.all_live_bytes]
        return {live: operation for live, operation in reversed(pairs) if live in self._peaks[None]}

    def costs(self, module: str | None = None) -> dict[str, Dim]:
        """The polynomial of every cost, of one module or of the whole stage."""
        return self._costs[module]

    def peak(self, monomial: Callable[[Monomial], Column], module: str | None = None) -> Column:
        """The largest live sum in bytes, of one module or of the stage, given the values of monomials."""
        sums = [evaluate(live, monomial) for live in self._peaks[module]]
        return greatest(sums)


def greatest(values: list[Column]) -> Column:
    """The largest of ints, or the elementwise largest of columns."""
    return reduce(np.maximum, values) if any(isinstance(value, np.ndarray) for value in values) else max(values)
