"""Traces of a stage at several sizes as one sequence of operators, in which runs that repeat more often at larger sizes stand once."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

COLUMNS = ("tensor_flops", "vector_flops", "weight_io_bytes", "activation_io_bytes", "kv_io_bytes", "expert_bytes", "live_bytes")
LIVE = COLUMNS.index("live_bytes")


AHEAD = 12  # operators that must be alike behind a difference


class Launch(NamedTuple):
    """One executed operator of a trace.

    Args:
        path: of the nn.Module that ran it.
        name: ATen's name for it.
        place: "module/layer", or the module alone, that it is charged to.
        itemsize: bytes per element of a matrix product's inputs, 0 where it is none.
        numbers: of `COLUMNS`.
    """

    path: str
    name: str
    place: str
    itemsize: int
    numbers: tuple[int, ...]

    @property
    def key(self) -> Hashable:
        """What must be the same at all sizes."""
        return self.path, self.name, self.place, self.itemsize


class Trace(NamedTuple):
    """The operators of a stage at one point.

    Args:
        sizes: of the point, by name.
        launches: in execution order.
        repeats: of loops whose bodies differ in what is alive, not by growing alone; 0 for none.
        turns: numbers of those repeats, of such a loop, in which the most can be alive.
    """

    sizes: dict[str, int]
    launches: list[Launch]
    repeats: int = 0
    turns: Sequence[int] = (0,)


class Segment(NamedTuple):
    """Operators one after the other, or, where they are a loop, the body of one.

    Args:
        keys: of the operators.
        is_loop: whether their number of repeats depends on the sizes; it may be 0.
    """

    keys: tuple[Hashable, ...]
    is_loop: bool = False


class Folded(NamedTuple):
    """A trace laid on segments: [operator, column] over the operators of all segments in order.

    Args:
        repeats: of every loop, in order.
        totals: over all repeats; of live bytes the largest.
        once: of the first repeat.
        live: bytes alive [operator, turn], of which the largest counts.
    """

    repeats: list[int]
    totals: np.ndarray
    once: np.ndarray
    live: np.ndarray


class Unlearnable(ValueError):
    """Why a class cannot be learned: it names the operator."""


def find_segments(traces: Sequence[Trace], earlier: int = 0) -> list[Segment]:
    """The segments on which all traces lie.

    Args:
        traces: of one stage.
        earlier: by how many operators, where it can, a loop begins before the latest place: those before it are the last of its body.

    Raises:
        Unlearnable: operators differ in another way than by runs that repeat, with the first that does.
    """
    ordered = sorted(traces, key=lambda trace: len(trace.launches))
    segments = [Segment(tuple(launch.key for launch in ordered[0].launches))]
    for trace in ordered[1:]:
        keys = [launch.key for launch in trace.launches]
        while (place := _first_difference(segments, keys)) is not None:
            segments = _split(segments, keys, *place, trace, earlier)
    return segments


def _consume(segment: Segment, keys: Sequence[Hashable], start: int) -> tuple[int, int]:
    """How far a segment reaches in keys from start: (repeats, end); for a plain one (1, end), or (0, where it differs)."""
    size = len(segment.keys)
    if not segment.is_loop:
        for number, key in enumerate(segment.keys):
            if start + number >= len(keys) or keys[start + number] != key:
                return 0, start + number
        return 1, start + size
    repeats = 0
    while tuple(keys[start : start + size]) == segment.keys:
        repeats, start = repeats + 1, start + size
    return repeats, start


def _first_difference(segments: Sequence[Segment], keys: Sequence[Hashable]) -> tuple[int, int, int] | None:
    """The segment, the place in it and the place in keys from which on keys do not lie on segments; None where they do."""
    start = 0
    for number, segment in enumerate(segments):
        repeats, end = _consume(segment, keys, start)
        if not repeats and not segment.is_loop:
            return number, end - start, end
        start = end
    return None if start == len(keys) else (len(segments) - 1, len(segments[-1].keys), start)


def _split(
    segments: list[Segment], keys: Sequence[Hashable], number: int, inside: int, place: int, trace: Trace, earlier: int
) -> list[Segment]:
    """Segments in which the one that differs is cut around a loop: operators before the difference that follow themselves in keys."""
    segment = segments[number]
    behind = tuple(key for one in segments[number + 1 :] for key in one.keys)[:AHEAD]
    if not segment.is_loop:
        for strict in (True, False):  # a second loop may follow so soon that little behind the first one is alike
            for size in range(1, inside + 1):
                backs = range(min(size, inside - size) + 1)  # operators behind the loop may begin as its body does
                for back in sorted(backs, key=lambda back: abs(back - earlier)):
                    if parts := _cut(segment.keys, behind, keys, inside - back, place - back, size, strict):
                        return [*segments[:number], *parts, *segments[number + 1 :]]
        for size in range(1, len(keys) - place + 1):  # operators that some sizes do not have
            after, rest = place + size, (segment.keys[inside:] + behind)[:AHEAD]
            if tuple(keys[after : after + len(rest)]) == rest and (rest or after == len(keys)):
                body = tuple(keys[place:after])
                parts = Segment(segment.keys[:inside]), Segment(body, True), Segment(segment.keys[inside:])
                return [*segments[:number], *(part for part in parts if part.keys), *segments[number + 1 :]]
    launch = trace.launches[min(place, len(trace.launches) - 1)]
    where = f"{launch.path or 'the model'}: {launch.name}"
    raise Unlearnable(f"{where}: the sequence of operators changes here at {_words(trace.sizes)}, and not by a run that repeats")


def _cut(
    mine: tuple[Hashable, ...], behind: tuple[Hashable, ...], keys: Sequence[Hashable], end: int, at: int, size: int, strict: bool
) -> list[Segment]:
    """A plain segment cut around a loop whose body of some size ends at `end`, and goes on in keys from `at`; [] where it is none."""
    body, repeats = mine[end - size : end], 0
    while tuple(keys[at + repeats * size : at + (repeats + 1) * size]) == body:
        repeats += 1
    after, rest = at + repeats * size, (mine[end:] + behind)[: max(2 * size, 8) if strict else 1]
    if not repeats or tuple(keys[after : after + len(rest)]) != rest or (not rest and after != len(keys)):
        return []
    begin = end - size
    while begin >= size and mine[begin - size : begin] == body:
        begin -= size
    parts = Segment(mine[:begin]), Segment(body, True), Segment(mine[end:])
    return [part for part in parts if part.keys]


def _words(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sizes.items())


def fold(trace: Trace, segments: Sequence[Segment]) -> Folded:
    """Lays a trace on segments.

    Raises:
        Unlearnable: it does not lie on them, with the operator.
    """
    keys = [launch.key for launch in trace.launches]
    if (place := _first_difference(segments, keys)) is not None:
        launch = trace.launches[min(place[2], len(keys) - 1)]
        raise Unlearnable(
            f"{launch.path or 'the model'}: {launch.name}: another operator ran here than at other sizes, at {_words(trace.sizes)}"
        )
    numbers = np.array([launch.numbers for launch in trace.launches], np.int64).reshape(len(keys), len(COLUMNS))
    repeats, totals, once, live, start = [], [], [], [], 0
    for segment in segments:
        times, end = _consume(segment, keys, start)
        runs = numbers[start:end].reshape(times, len(segment.keys), len(COLUMNS))
        total = runs.sum(axis=0)
        total[:, LIVE] = runs[:, :, LIVE].max(axis=0, initial=0)
        turns = runs[list(trace.turns), :, LIVE].T if segment.is_loop and times and times == trace.repeats else total[:, [LIVE]]
        grows = (turns.max(axis=1) != total[:, LIVE]).any()  # the largest is in no turn
        live.append(np.broadcast_to(total[:, [LIVE]] if grows else turns, (len(total), len(trace.turns))))
        totals.append(total)
        once.append(runs[0] if times else total)
        repeats += [times] * segment.is_loop
        start = end
    return Folded(repeats, np.concatenate(totals), np.concatenate(once), np.concatenate(live))
