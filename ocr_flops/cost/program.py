"""A tape compiled to polynomials: integer coefficients of every operator's cost over a few monomials such as batch·tokens².

All operators of a stage share about a dozen monomials, so a stage at many points is a handful of products and sums of columns: no loop
over points, exact in Python ints for one point and in int64 for many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ocr_flops.cost.polynomial import Monomial, terms_of
from ocr_flops.cost.tape import Record, Tape

RECORDED = ("tensor_flops", "vector_flops", "torch_flops", "operators", "weight_io_bytes", "activation_io_bytes", "kv_io_bytes")
SUMS = {"total_flops": ("tensor_flops", "vector_flops"), "io_bytes": ("weight_io_bytes", "activation_io_bytes", "kv_io_bytes")}
COSTS = (*RECORDED[:2], "total_flops", *RECORDED[2:], "io_bytes")

Polynomial = Mapping[Monomial, int]
Column = int | np.ndarray


class Operation(NamedTuple):
    """One operator with its costs over all repeats; `layers` are those that run it, all at the same cost (empty outside layers)."""

    module: str
    layers: Sequence[int]
    name: str
    matrix_itemsize: int
    costs: dict[str, Polynomial]
    live: Polynomial


class Program:
    """The compiled operators of a tape.

    Args:
        tape: the recorded operators.

    Attributes:
        operations: in execution order.
        modules: module labels in order of first use.
        parameters: parameters per module.
        layer_parameters: parameters per module and layer (None outside layers).
    """

    def __init__(self, tape: Tape):
        self.layer_parameters = dict(tape.parameters)
        self.parameters: dict[str, int] = {}
        for (module, _), count in tape.parameters.items():
            self.parameters[module] = self.parameters.get(module, 0) + count
        self.operations = [_operation(record) for record in tape.records]
        self.modules = tuple(dict.fromkeys(operation.module for operation in self.operations))

    @cached_property
    def monomials(self) -> tuple[Monomial, ...]:
        """All that the costs are sums of."""
        return tuple(dict.fromkeys(name for operation in self.operations for terms in operation.costs.values() for name in terms))

    def coefficients(self, cost: str) -> np.ndarray:
        """A cost of every operator as floats [operator, monomial]."""
        rows = [[operation.costs[cost].get(monomial, 0) for monomial in self.monomials] for operation in self.operations]
        return np.array(rows, np.float64)

    @cached_property
    def _stage(self) -> dict[str, Polynomial]:
        return {cost: total(operation.costs[cost] for operation in self.operations) for cost in COSTS}

    @cached_property
    def _by_module(self) -> dict[str, dict[str, Polynomial]]:
        return {
            module: {cost: total(operation.costs[cost] for operation in self.operations if operation.module == module) for cost in COSTS}
            for module in self.modules
        }

    @cached_property
    def _peaks(self) -> dict[str | None, tuple[Polynomial, ...]]:
        """Live sums that can be the largest in their module, or (None) in the stage."""
        peaks = {
            module: undominated(operation.live for operation in self.operations if operation.module == module) for module in self.modules
        }
        return {**peaks, None: undominated(terms for candidates in peaks.values() for terms in candidates)}

    def costs(self, module: str | None = None) -> dict[str, Polynomial]:
        """The polynomial of every cost, of one module or of the whole stage."""
        return self._stage if module is None else self._by_module[module]

    def peak(self, monomial: Callable[[Monomial], Column], module: str | None = None) -> Column:
        """The largest live sum in bytes, of one module or of the stage, given the values of monomials."""
        sums = [evaluate(terms, monomial) for terms in self._peaks[module]]
        return sums[0] if len(sums) == 1 else greatest(sums)


def evaluate(terms: Mapping[Monomial, float], monomial: Callable[[Monomial], Column]) -> Column:
    """A polynomial, given the values of its monomials; exact for ints, int64 for columns."""
    value: Column = 0
    for name, coefficient in terms.items():
        value = value + monomial(name) * coefficient
    return value


def greatest(values: list[Column]) -> Column:
    """The largest of ints, or the elementwise largest of columns."""
    if not any(isinstance(value, np.ndarray) for value in values):
        return max(values)
    largest = values[0]
    for value in values[1:]:
        largest = np.maximum(largest, value)
    return largest


def total(polynomials: Iterable[Polynomial]) -> dict[Monomial, int]:
    """Sum of polynomials."""
    summed: dict[Monomial, int] = {}
    for terms in polynomials:
        for monomial, coefficient in terms.items():
            summed[monomial] = summed.get(monomial, 0) + coefficient
    return {monomial: coefficient for monomial, coefficient in summed.items() if coefficient}


def dominates(terms: Mapping[Monomial, float], other: Mapping[Monomial, float]) -> bool:
    """Whether a polynomial is at least as large as another in every coefficient, so at every point (sizes are never negative)."""
    return all(terms.get(monomial, 0) >= other.get(monomial, 0) for monomial in {*terms, *other})


def undominated(candidates: Iterable[Polynomial]) -> tuple[Polynomial, ...]:
    """The polynomials that no other one dominates."""
    unique = [dict(items) for items in dict.fromkeys(tuple(sorted(terms.items())) for terms in candidates)]
    return tuple(terms for i, terms in enumerate(unique) if not any(i != j and dominates(other, terms) for j, other in enumerate(unique)))


def _operation(record: Record) -> Operation:
    """A record with its costs and their sums as polynomials."""
    costs = {cost: terms_of(value) for cost, value in record.costs.items()}
    costs |= {cost: total(costs[addend] for addend in addends) for cost, addends in SUMS.items()}
    return Operation(record.module, record.layers, record.name, record.matrix_itemsize, costs, terms_of(record.live_bytes))
