"""A tape as matrices: coefficients of every operator's cost over a few monomials, evaluated for one point or a million at once.

A cost is a polynomial with integer coefficients in sizes such as `batch` and `tokens`. All operators of a stage share a dozen monomials,
so a stage at many points is a product of two small matrices: no loop over points, and int64 throughout.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

import numpy as np

from ocr_flops.sizes import Monomial, Size, terms_of
from ocr_flops.tape import Record, Tape

COSTS = ("tensor_flops", "vector_flops", "torch_flops", "operators", "weight_io_bytes", "activation_io_bytes", "kv_io_bytes")
EXPERT_BYTES, EXPERTS_HIT = Size("expert_bytes"), Size("experts_hit")

Values = Mapping[str, "int | np.ndarray"]


class Program:
    """The compiled operators of a tape.

    Args:
        tape: the recorded operators.

    Attributes:
        modules: module labels in order of first use.
        parameters: parameters per module.
    """

    def __init__(self, tape: Tape):
        self.parameters = dict(tape.parameters)
        self._rows = _merged(tape.records)
        self.modules = tuple(dict.fromkeys(record.module for record, _ in self._rows))

    @cached_property
    def _stage(self) -> dict[str, dict[Monomial, int]]:
        return {cost: _sum(costs[cost] for _, costs in self._rows) for cost in COSTS}

    @cached_property
    def _by_module(self) -> dict[str, dict[str, dict[Monomial, int]]]:
        return {module: {cost: _sum(costs[cost] for record, costs in self._rows if record.module == module) for cost in COSTS}
                for module in self.modules}

    @cached_property
    def _peaks(self) -> dict[str, tuple[dict[Monomial, int], ...]]:
        """Live sums that can be the largest in their module: those no other one dominates coefficient by coefficient."""
        peaks: dict[str, list[dict[Monomial, int]]] = {module: [] for module in self.modules}
        for record, _ in self._rows:
            peaks[record.module].append(terms_of(record.live_bytes))
        return {module: _undominated(candidates) for module, candidates in peaks.items()}

    @cached_property
    def _stage_peaks(self) -> tuple[dict[Monomial, int], ...]:
        return _undominated([terms for candidates in self._peaks.values() for terms in candidates])

    def costs(self, module: str | None = None) -> dict[str, dict[Monomial, int]]:
        """The polynomial of every cost, of one module or of the whole stage."""
        return self._stage if module is None else self._by_module[module]

    def peak(self, values: Values, module: str | None = None):
        """The largest live sum in bytes, of one module or of the stage."""
        sums = [evaluate(terms, values) for terms in (self._stage_peaks if module is None else self._peaks[module])]
        return max(sums) if not any(isinstance(value, np.ndarray) for value in sums) else np.maximum.reduce(np.broadcast_arrays(*sums))


def evaluate(terms: Mapping[Monomial, int], values: Values):
    """A polynomial at the given values of its quantities; exact for ints, int64 for columns."""
    total = 0
    for monomial, coefficient in terms.items():
        term = coefficient
        for name in monomial:
            term = values[name] * term
        total = total + term
    return total


def _merged(records: Iterable[Record]) -> list[tuple[Record, dict[str, dict[Monomial, int]]]]:
    """Records with their costs over all repeats, as polynomials."""
    rows = []
    for record in records:
        costs = {cost: terms_of(getattr(record, cost) * record.repeat) for cost in COSTS if cost != "operators"}
        costs["operators"] = terms_of(EXPERTS_HIT if record.per_expert else record.operators)
        if record.expert_thirds:
            costs["weight_io_bytes"] = terms_of(record.weight_io_bytes * record.repeat + EXPERT_BYTES * record.expert_thirds)
        rows.append((record, costs))
    return rows


def _sum(polynomials: Iterable[dict[Monomial, int]]) -> dict[Monomial, int]:
    total: dict[Monomial, int] = {}
    for terms in polynomials:
        for monomial, coefficient in terms.items():
            total[monomial] = total.get(monomial, 0) + coefficient
    return {monomial: coefficient for monomial, coefficient in total.items() if coefficient}


def _undominated(candidates: list[dict[Monomial, int]]) -> tuple[dict[Monomial, int], ...]:
    """Drops polynomials that another one is at least equal to in every coefficient (sizes are never negative)."""
    unique = [dict(items) for items in {tuple(sorted(terms.items())) for terms in candidates}]
    kept = []
    for i, terms in enumerate(unique):
        rivals = (other for j, other in enumerate(unique) if i != j)
        if not any(all(other.get(monomial, 0) >= terms.get(monomial, 0) for monomial in {*terms, *other}) for other in rivals):
            kept.append(terms)
    return tuple(kept)
