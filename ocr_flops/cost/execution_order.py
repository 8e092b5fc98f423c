"""The order in which a stage's operators are executed: runs of operators, layers, and what is repeated.

A tape holds the operators of identical layers once. Here they stand in the order in which they run, folded where they repeat, so that a
stage of thousands of operators stays a tree of a few nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from ocr_flops.cost.polynomial import Dim
from ocr_flops.cost.tape import Operation, Region


class Operators(NamedTuple):
    """Operators one after the other, as positions in the tape's operations."""

    positions: tuple[int, ...]


class Repeated(NamedTuple):
    """Nodes that run several times over.

    Args:
        times: how often; for `per_expert` this is once for every expert hit in a layer.
        body: what runs each time.
    """

    times: Dim
    per_expert: bool
    body: tuple[Node, ...]


Node = Operators | Repeated


def order_operations(operations: Sequence[Operation]) -> tuple[Node, ...]:
    """The operations of a tape as a tree in execution order."""
    return _split_regions(operations, range(len(operations)), 0, False)


def expand_nodes(nodes: Sequence[Node], times: Callable[[Repeated], int]) -> Iterator[int]:
    """Positions of the operations in the order in which they run, one for every execution.

    Args:
        nodes: of `order_operations`.
        times: how often a node is repeated at the point of interest.
    """
    for node in nodes:
        if isinstance(node, Operators):
            yield from node.positions
        else:
            for _ in range(times(node)):
                yield from expand_nodes(node.body, times)


def _split_regions(operations: Sequence[Operation], positions: Sequence[int], depth: int, in_layer: bool) -> tuple[Node, ...]:
    """Consecutive operations as nodes: their repeated regions from a depth on, and layers where these lie within the regions."""

    def region_of(position: int) -> Region | None:
        regions = operations[position].regions[depth:]
        return regions[0] if regions and regions[0].in_layer == in_layer else None

    nodes: list[Node] = []
    for region, inside in groupby(positions, region_of):
        if region is not None:
            nodes.append(Repeated(region.times, region.per_expert, _split_regions(operations, tuple(inside), depth + 1, in_layer)))
        elif in_layer:
            nodes.append(Operators(tuple(inside)))
        else:
            nodes += _split_layers(operations, tuple(inside), depth)
    return tuple(nodes)


def _split_layers(operations: Sequence[Operation], positions: Sequence[int], depth: int) -> list[Node]:
    """Consecutive operations as nodes, layer by layer where they belong to layers."""
    nodes: list[Node] = []
    for layered, same in groupby(positions, lambda position: bool(operations[position].runs_in)):
        same = tuple(same)
        if not layered:
            nodes.append(Operators(same))
            continue
        layers = sorted({layer for position in same for layer in operations[position].runs_in})
        inside = [tuple(position for position in same if layer in operations[position].runs_in) for layer in layers]
        nodes += _fold([_split_regions(operations, layer, depth, True) for layer in inside])
    return nodes


def _fold(layers: list[tuple[Node, ...]]) -> list[Node]:
    """Layers in order, a sequence of layers that follows itself once with how often it does."""
    folded: list[Node] = []
    start = 0
    while start < len(layers):
        most, period = 0, 1
        for length in range(1, (len(layers) - start) // 2 + 1):
            times = 1
            while layers[start + times * length : start + (times + 1) * length] == layers[start : start + length]:
                times += 1
            if times > 1 and times * length > most:
                most, period = times * length, length
        body = tuple(node for layer in layers[start : start + period] for node in layer)
        folded += [Repeated(most // period, False, body)] if most else body
        start += most or 1
    return folded
