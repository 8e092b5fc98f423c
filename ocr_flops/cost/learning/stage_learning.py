"""Traces of a stage -> its operators with polynomial costs, identical layers once."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from itertools import groupby
from operator import ge
from typing import NamedTuple

from ocr_flops.cost.learning.folding import COLUMNS, Folded, Launch, Segment, Trace, Unlearnable, find_segments, fold
from ocr_flops.cost.learning.program_file import Evidence, LearnedOperator, LearnedStage
from ocr_flops.cost.learning.solving import Solver
from ocr_flops.cost.polynomial import Monomial

LAYER = re.compile(r"^(.*?\b(?:layers|blocks|layer|h))\.(\d+)(?:\.|$)")
EXPERTS = COLUMNS.index("expert_bytes")
WEIGHTS = COLUMNS.index("weight_io_bytes")
BEGINS = (0, 1, 2, 3, 1000)  # by how many operators loops are tried to begin earlier: what is like the end of a body may stand behind it
TRAFFIC = (WEIGHTS, WEIGHTS + 1, WEIGHTS + 2)
Terms = tuple[int, ...]  # coefficients of a polynomial, in order of the monomials


class Names(dict):
    """Texts, or other values, each once, with their places."""

    def place(self, value: Hashable) -> int:
        """The place of a value, which is added where it is new."""
        return self.setdefault(value, len(self))


class _Operator(NamedTuple):
    """An operator of a stage before layers are folded: its launch, its layer or None, its polynomials, its loop and that one's."""

    launch: Launch
    stack: str
    layer: int | None
    costs: tuple[Terms, ...]
    live: tuple[Terms, ...]
    thirds: int
    loop: int
    repeats: Terms | None
    once: tuple[Terms, ...] | None


class StageKey(NamedTuple):
    """Which stage is learned; see `LearnedStage`."""

    stage: str
    attention: str
    is_one: bool
    variant: tuple[int, ...] = ()

    def __str__(self) -> str:
        pages = "one page" if self.is_one else "several pages"
        return ", ".join([self.stage, self.attention, pages, *([f"variant {self.variant}"] if self.variant else [])])


def learn_stage(key: StageKey, traces: Sequence[Trace], monomials: Sequence[Monomial], texts: Names, expert_third: int = 0) -> LearnedStage:
    """Solves for every cost of every operator of a stage.

    Args:
        traces: at more points than there are monomials.
        monomials: what costs may be made of.
        texts: takes labels and names.
        expert_third: bytes of one matrix of all experts of a layer; 0 for a dense decoder.

    Raises:
        Unlearnable: a cost is no such polynomial, or operators change; it names the operator.
        ValueError: too few points, or points that do not tell the monomials apart.
    """
    solver = Solver(monomials, [trace.sizes for trace in traces])
    problem: Unlearnable | None = None
    for earlier in BEGINS:
        try:
            return _learn_folded(key, traces, find_segments(traces, earlier), solver, texts, expert_third)
        except Unlearnable as found:
            problem = problem or found
    raise problem


def _learn_folded(
    key: StageKey, traces: Sequence[Trace], segments: Sequence[Segment], solver: Solver, texts: Names, expert_third: int
) -> LearnedStage:
    """The stage by its segments; arguments and errors as of `learn_stage`."""
    monomials = solver.monomials
    folded = [fold(trace, segments) for trace in traces]
    firsts = _first_launches(traces, segments)
    loops: list[Terms] = []

    def solve(values: list[int], launch: Launch, what: str) -> Terms:
        found = solver.solve(tuple(values))
        if found is None:
            points = "; ".join(f"{value} at {trace.sizes}" for value, trace in list(zip(values, traces, strict=True))[:4])
            raise Unlearnable(
                f"{launch.path or 'the model'}: {launch.name}: {what} are no polynomial with whole coefficients ({points} ...)"
            )
        return found

    operators: list[_Operator] = []
    loop = -1
    for segment in segments:
        loop += segment.is_loop
        if segment.is_loop:
            loops.append(solve([one.repeats[loop] for one in folded], firsts[len(operators)], "its repeats"))
        for _ in segment.keys:
            place = len(operators)
            operators.append(_solve_operator(place, firsts[place], folded, solve, loop if segment.is_loop else -1, loops, expert_third))
    found: list[LearnedOperator] = []
    numbers, table = Names(), Names()
    for _, stack in groupby(operators, lambda operator: operator.stack):
        found += _fold_layers(list(stack), texts, numbers, table)
    kept_loops = [table.place(loops[number]) for number in numbers]
    used = set(solver.used)
    points = [trace.sizes for trace in traces]
    evidence = Evidence([points[i] for i in sorted(used)], [point for i, point in enumerate(points) if i not in used])
    kept = [place for place in range(len(monomials)) if any(row[place] for row in table)]
    polynomials = [[(number, row[place]) for number, place in enumerate(kept) if row[place]] for row in table]
    names = [list(monomials[place]) for place in kept]
    return LearnedStage(*key[:3], list(key.variant), names, polynomials, found, kept_loops, evidence)


def _first_launches(traces: Sequence[Trace], segments: Sequence[Segment]) -> list[Launch]:
    """A launch of every operator of the segments."""
    wanted = [key for segment in segments for key in segment.keys]
    known = {launch.key: launch for trace in traces for launch in trace.launches}
    return [known[key] for key in wanted]


def _solve_operator(place: int, launch: Launch, folded: Sequence[Folded], solve, loop: int, loops: list[int], third: int) -> _Operator:
    def column(number: int, totals: bool = True) -> list[int]:
        return [int((one.totals if totals else one.once)[place, number]) for one in folded]

    handed = column(EXPERTS)
    values = [column(number) for number in range(EXPERTS)]
    values[WEIGHTS] = [all_bytes - some for all_bytes, some in zip(values[WEIGHTS], handed, strict=True)]
    costs = tuple(solve(one, launch, f"its {COLUMNS[number].replace('_', ' ')}") for number, one in enumerate(values))
    turns = zip(*(one.live[place].tolist() for one in folded), strict=True)
    live = _undominated(solve(list(turn), launch, "its live bytes") for turn in turns)
    once = None
    if loop >= 0:
        moved = [sum(one) for one in zip(*(column(number, False) for number in TRAFFIC), strict=True)]
        once = tuple(solve(one, launch, "costs of its first repeat") for one in (column(0, False), column(1, False), moved))
    stack = LAYER.match(launch.path)
    thirds = handed[0] // third if third else 0
    layer = (stack[1], int(stack[2])) if stack else ("", None)
    return _Operator(launch, *layer, costs, live, thirds, loop, loops[loop] if loop >= 0 else None, once)


def _undominated(polynomials: Iterable[Terms]) -> tuple[Terms, ...]:
    """Those of which no other one is at least as large in every coefficient."""
    unique = dict.fromkeys(polynomials)
    return tuple(one for one in unique if not any(other != one and all(map(ge, other, one)) for other in unique))


def _fold_layers(operators: Sequence[_Operator], texts: Names, loops: Names, table: Names) -> list[LearnedOperator]:
    """The operators of one stack, those of layers that cost the same once, in order of the first of these layers.

    What is alive in these layers may differ, as where each leaves something behind: the most counts.
    """

    def learned(operator: _Operator, module: str, layers: list[int], runs_in: list[int]) -> LearnedOperator:
        launch = operator.launch
        places = texts.place(module), texts.place(launch.name)
        costs, live, once = (tuple(map(table.place, terms or ())) for terms in (operator.costs, operator.live, operator.once))
        loop = loops.place(operator.loop) if operator.loop >= 0 else -1
        alive = live[0] if len(live) == 1 else list(live)
        return LearnedOperator(*places, layers, runs_in, launch.itemsize, costs, alive, operator.thirds, loop, once or None)

    if operators[0].layer is None:
        return [learned(one, one.launch.place.partition("/")[0], [], []) for one in operators]
    alike: dict[Hashable, list[list[_Operator]]] = {}
    for _, same in groupby(operators, lambda one: one.layer):
        body = list(same)
        first = {loop: number for number, loop in enumerate(dict.fromkeys(one.loop for one in body if one.loop >= 0))}
        signature = tuple(
            (one.launch.name, one.launch.itemsize, one.costs, one.thirds, first.get(one.loop), one.repeats, one.once) for one in body
        )
        alike.setdefault(signature, []).append(body)
    found = []
    for bodies in alike.values():
        for number, operator in enumerate(bodies[0]):
            operator = operator._replace(live=_undominated(live for body in bodies for live in body[number].live))
            charged: dict[Hashable, tuple[list[int], list[int]]] = {}
            for body in bodies:
                module, _, layer = body[number].launch.place.partition("/")
                executing = body[number].layer
                offset = int(layer) - executing if layer else f"outside, in {executing}"
                layers, runs_in = charged.setdefault((module, offset), ([], []))
                runs_in.append(executing)
                layers += [int(layer)] if layer else []
            for (module, _), (layers, runs_in) in charged.items():
                found.append(learned(operator, module, layers, runs_in))
    return found
