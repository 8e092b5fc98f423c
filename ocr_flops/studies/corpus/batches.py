"""What kinds of pages take on a device in batches of one grid, under an engine where a batch runs until its longest page ends."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ocr_flops.errors import SpecError
from ocr_flops.spec.host import Ranged
from ocr_flops.spec.run_spec import RunSpec
from ocr_flops.studies.corpus.kinds import Kind, pages_of
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


def time_batches(run: RunSpec, kinds: Sequence[Kind], batch_size: int | None = None) -> tuple[list[Spent], str]:
    """Device seconds of all pages of every kind, and what they rest on.

    Pages of a kind are batched at random, so that a batch takes as many steps as the longest of so many pages. The low end has pages of
    one length together, as if lengths were known, and the low end of expected times; the high end is at random, at their high end.

    Args:
        run: with a device.
        kinds: of `list_kinds`.
        batch_size: of every kind; by default the one with most pages a second among powers of two, and all pages at
            once, that fit the device's memory.

    Raises:
        SpecError: a kind that does not fit, or a device without figures for the precision or a kernel.
    """
    nodes = [_nodes(kind) for kind in kinds]
    choices = [sorted({min(size, kind.pages) for size in BATCHES}) if batch_size is None else [batch_size] for kind in kinds]
    points = [(kind, size, node) for kind, own, sizes in zip(kinds, nodes, choices, strict=True) for size in sizes for node in own]
    each = [kind for kind, *_ in points]
    workload = pages_of(
        each,
        prompt_tokens=np.array([kind.prompt_tokens for kind in each], np.int64),
        output_tokens=np.array([node for *_, node in points], np.int64),
        batch_size=np.array([size for _, size, _ in points], np.int64),
    )
    costs = estimate_run(run, workload)
    if obstacle := costs.config.obstacle(run.hardware):
        raise SpecError(obstacle)
    needed = costs.footprint.total_bytes
    timing = costs.on(run.hardware, host=run.host, efficiency=run.efficiency)
    first, step = (np.stack(figure[:3]) for figure in (timing.expected_ttft, timing.expected_tpot))
    found, start = [], 0
    for kind, own, sizes in zip(kinds, nodes, choices, strict=True):
        best = None
        for size in sizes:
            place = slice(start, start + len(own))
            start = place.stop
            if needed[place.stop - 1] > run.hardware.memory_bytes:
                if size == sizes[0]:
                    raise SpecError(f"does not fit: needs {si(int(needed[place.stop - 1]), 'B')}")
                continue
            spent = _spent(kind, size, own, first[:, place.start], step[:, place])
            if best is None or spent.seconds.value < best.seconds.value:
                best = spent
        found.append(best)
    return found, timing.time_basis


def _nodes(kind: Kind) -> np.ndarray:
    tokens = kind.lengths.tokens
    return np.unique(np.linspace(max(1, int(tokens[0])), max(1, kind.lengths.longest), NODES).round().astype(np.int64))


def _spent(kind: Kind, size: int, nodes: np.ndarray, first: np.ndarray, step: np.ndarray) -> Spent:
    """The time of all pages of a kind in batches, from that of the first token [case] and of a token at each node [case, node]."""
    tokens, shares = kind.lengths.tokens, kind.lengths.shares
    decode = tokens * np.stack([np.interp(tokens, nodes, one) for one in step])
    longest = kind.lengths.of_longest(size)
    batches = -(-kind.pages // size)  # the last one as long as the others
    times = first + np.stack([decode[0] @ longest, decode[1] @ shares, decode[2] @ longest])
    return Spent(Ranged(*(batches * times).tolist()), size, batches, Ranged(*times.tolist()))
