"""What kinds of pages take on a device in batches of one grid, under an engine where a batch runs until its longest page ends."""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ocr_flops.errors import SpecError
from ocr_flops.spec.host import Ranged
from ocr_flops.spec.run_spec import RunSpec
from ocr_flops.studies.corpus.kinds import Kind, pages_of
from ocr_flops.studies.corpus.lengths import Lengths
from ocr_flops.timing.estimate import estimate_run
from ocr_flops.units import si

BATCHES = tuple(2**power for power in range(9))
NODES = 6  # lengths at which the time of a token is evaluated; between them it is taken as a straight line, which it nearly is


class Spent(NamedTuple):
    """What the pages of a kind take of one device.

    Args:
        seconds: of all of them.
        batch_size: pages run together, or in flight.
        pieces: of the work, each for one device: whole batches; 1 of an engine that serves.
        piece_seconds: one of them: a batch, or a request that is alone.
    """

    seconds: Ranged
    batch_size: int
    pieces: int
    piece_seconds: Ranged


class Batches:
    """Pages of kinds in batches, which cost the same on every device.

    Pages of a kind are batched at random, so that a batch takes as many steps as the longest of so many pages. The low end has pages of
    one length together, as if lengths were known, and the low end of expected times; the high end is at random, at their high end.

    Args:
        run: without a device.
        kinds: of `list_kinds`.
        batch_size: of every kind; by default the one with most pages a second among powers of two, and all pages at
            once, that fit the device's memory.

    Raises:
        SpecError: costs beyond 2^62.
    """

    def __init__(self, run: RunSpec, kinds: Sequence[Kind], batch_size: int | None = None):
        sizes = [sorted({min(size, kind.pages) for size in BATCHES}) if batch_size is None else [batch_size] for kind in kinds]
        self._sizes = [size for own in sizes for size in own]
        self._by_kind = np.cumsum([0, *map(len, sizes)]).tolist()  # where the sizes of a kind begin
        choices = [(kind, size) for kind, own in zip(kinds, sizes, strict=True) for size in own]
        self._batches = np.array([-(-kind.pages // size) for kind, size in choices])  # the last one as long as the others
        laws = {id(kind.lengths): kind.lengths for kind in kinds}  # most kinds have the same
        weigh = cache(lambda law, size: _weigh_steps(laws[law], size))
        nodes, weights = zip(*(weigh(id(kind.lengths), size) for kind, size in choices), strict=True)
        points = [len(one) for one in nodes]
        self._weights, self._ends = np.concatenate(weights, axis=1), np.cumsum(points)
        each = [kind for (kind, _), count in zip(choices, points, strict=True) for _ in range(count)]
        workload = pages_of(
            each,
            prompt_tokens=np.array([kind.prompt_tokens for kind in each], np.int64),
            output_tokens=np.concatenate(nodes),
            batch_size=np.repeat(self._sizes, points),
        )
        self._costs = estimate_run(run, workload)
        self._needed = self._costs.footprint.total_bytes[self._ends - 1]

    def on(self, run: RunSpec) -> tuple[list[Spent], str]:
        """Device seconds of all pages of every kind, and what they rest on.

        Args:
            run: with a device.

        Raises:
            SpecError: a kind that does not fit, or a device without figures for the precision or a kernel.
        """
        if obstacle := self._costs.config.obstacle(run.hardware):
            raise SpecError(obstacle)
        timing = self._costs.on(run.hardware, host=run.host, efficiency=run.efficiency)
        first, step = (np.stack(figure[:3]) for figure in (timing.expected_ttft, timing.expected_tpot))
        starts = np.append(0, self._ends[:-1])
        times = first[:, starts] + np.add.reduceat(step * self._weights, starts, axis=1)  # of a batch: [case, choice]
        seconds = np.where(self._needed > run.hardware.memory_bytes, np.inf, self._batches * times)
        found = []
        for begin, end in pairwise(self._by_kind):
            best = begin + int(seconds[0, begin:end].argmin())
            if np.isinf(seconds[0, begin]):
                raise SpecError(f"does not fit: needs {si(int(self._needed[begin]), 'B')}")
            whole, one = (Ranged(*column[:, best].tolist()) for column in (seconds, times))
            found.append(Spent(whole, self._sizes[best], int(self._batches[best]), one))
        return found, timing.time_basis


def _weigh_steps(lengths: Lengths, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Lengths at which the time of a token is evaluated [node], and how many tokens' time at each of them a batch of so many pages takes on
    average, as expected, in favour and against [case, node]."""
    tokens = lengths.tokens
    nodes = np.unique(np.linspace(max(1, int(tokens[0])), max(1, lengths.longest), NODES).round().astype(np.int64))
    parts = np.array([np.interp(tokens, nodes, one) for one in np.eye(len(nodes))])  # of the line between nodes: [node, length]
    longest, each = (parts @ (tokens * shares) for shares in (lengths.of_longest(size), lengths.shares))
    return nodes, np.stack([longest, each, longest])
