"""A stage's two lanes at many points: the seconds of its runs of operators, and how runs follow each other.

Kernel i lasts max(roofline seconds of its binding ceiling / efficiency of that ceiling, floor); the host takes a constant for every
operator (see `HostSpec`), times what the engine says of the language model's. A graph's floor is of a kernel, of which an engine's
operator is a part or the whole.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ocr_flops.cost.execution_order import Node, Operators, order_operations
from ocr_flops.cost.polynomial import Dim, Monomial, evaluate, terms_of
from ocr_flops.cost.program import Program
from ocr_flops.cost.run_config import RunConfig
from ocr_flops.cost.stage_groups import StageGroup
from ocr_flops.cost.tape import EXPERT_BYTES, Operation
from ocr_flops.spec.host import EfficiencySpec, HostSpec
from ocr_flops.spec.specs import PRODUCTS, HardwareSpec
from ocr_flops.timing.lanes import Lanes, Schedule, Seconds
from ocr_flops.timing.runs import Lines, Runs

BLOCK = 2_048  # points looked at together, so that what is computed of them stays in the processor's cache
CONTEXT = "context"
HITS = ("experts_hit",)


class Repeat(NamedTuple):
    """Items that run several times over: `times`, or (where it is not 0) once for every expert hit in each of `expert_layers` layers."""

    times: Dim
    expert_layers: int
    items: tuple[Item, ...]


Item = int | None | Repeat  # the number of a run; the host waits for the device; a repeat


class _Order(NamedTuple):
    """A program in execution order.

    Args:
        flat: positions of its operations, run after run.
        starts: where each run begins in it.
        run: the run of each of them.
        items: how runs follow each other.
        monomials: what the work of one execution is made of, the decode step's context left out; the last one is `HITS`.
        grows: which of them are multiplied by the context.
        kernel: which of the kernels that differ each operation has: [operation].
        work: tensor FLOPs, vector FLOPs and bytes of one execution: [3, kernel, monomial].
        itemsize: as of `Operation.matrix_itemsize`: [kernel].
        expert_layers: layers of the kernels that run once for every expert hit, 0 for others.
        weights: whether an operation reads weights, so that it stands for the call of a module.
        owner: 1 where an operation belongs to a module, else 0: [module, operation].
    """

    flat: np.ndarray
    starts: np.ndarray
    run: np.ndarray
    items: tuple[Item, ...]
    monomials: tuple[Monomial, ...]
    grows: np.ndarray
    kernel: np.ndarray
    work: np.ndarray
    itemsize: np.ndarray
    expert_layers: np.ndarray
    weights: np.ndarray
    owner: np.ndarray


@functools.cache
def compile_order(program: Program, waits: bool = False) -> _Order:
    """The operators of a program as runs, with their work in one execution; if the host waits for every one, each is a run."""
    operations, runs = program.operations, []
    items = _split_runs(order_operations(operations), operations, runs, waits)
    polynomials = []
    for operation in operations:
        tensor, vector, moved = map(terms_of, operation.once)
        if operation.expert_thirds:
            (expert,) = terms_of(EXPERT_BYTES)
            moved = moved | {expert: moved.get(expert, 0) + operation.expert_thirds / len(operation.layers)}
        polynomials.append((tensor, vector, moved))
    names = ((), *dict.fromkeys(name for kinds in polynomials for terms in kinds for name in terms if name not in ((), HITS)), HITS)
    work = np.array([[[terms.get(name, 0) for name in names] for terms in kinds] for kinds in polynomials], float)
    layers = [len(one.layers) * any(region.per_expert for region in one.regions) for one in operations]
    both = np.array([(one.matrix_itemsize, count) for one, count in zip(operations, layers, strict=True)])
    _, first, kernel = np.unique(np.hstack([work.reshape(len(both), -1), both]), axis=0, return_index=True, return_inverse=True)
    return _Order(
        np.concatenate(runs),
        np.cumsum([0, *map(len, runs)])[:-1],
        np.repeat(np.arange(len(runs)), [len(one) for one in runs]),
        items,
        tuple(tuple(part for part in name if part != CONTEXT) for name in names),
        np.array([CONTEXT in name for name in names]),
        kernel.reshape(-1),
        work[first].transpose(1, 0, 2),
        *both[first].T,
        np.array([bool(one.costs["weight_io_bytes"]) for one in operations], float),
        np.array([[one.module == module for one in operations] for module in program.modules], float),
    )


def _split_runs(nodes: Sequence[Node], operations: Sequence[Operation], runs: list[list[int]], waits: bool) -> tuple[Item, ...]:
    """Nodes as items; the operations of each run are appended to runs."""
    items: list[Item] = []
    is_open = False
    for node in nodes:
        if not isinstance(node, Operators):
            inner = _split_runs(node.body, operations, runs, waits)
            layers = len(operations[runs[-1][0]].layers) if node.per_expert else 0
            items.append(Repeat(node.times, layers, inner))
            is_open = False
            continue
        for position in node.positions:
            if not is_open:
                items.append(len(runs))
                runs.append([])
                is_open = True
            runs[-1].append(position)
            if waits or operations[position].synchronises:
                items.append(None)
                is_open = False
    return tuple(items)


class StageLanes:
    """A program on a device and a host, in three cases: as expected, all figures in favour, all against.

    Args:
        config: what runs, for the precision of matrix products and what its operators are on host and device.
        host: what it takes to issue operators.
        efficiency: what kernels reach of the device's peaks.
    """

    def __init__(self, program: Program, stage: str, hardware: HardwareSpec, config: RunConfig, host: HostSpec, efficiency: EfficiencySpec):
        self.is_graph = stage in host.graphs or (stage == "vision" and config.engine.packs_images and bool(host.graphs))
        self.waits = host.waits and not self.is_graph
        self.order = order = compile_order(program, self.waits)
        matrix = np.ones(len(order.itemsize))
        for size in np.unique(order.itemsize[order.itemsize > 0]).tolist():
            matrix[order.itemsize == size] = hardware.matrix_peak(PRODUCTS.get(size, config.dtype))
        others = (hardware.vector_fp32_flops_per_second or np.inf, hardware.memory_bandwidth_bytes_per_second)
        peaks = np.stack([matrix, *(np.full(len(matrix), one) for one in others)])
        efficiencies = np.array([[one.value, one.high, one.low] for one in (efficiency.matrix, efficiency.vector, efficiency.bandwidth)])
        seconds = order.work[:, None] / (peaks[:, None] * efficiencies[:, :, None])[..., None]  # [ceiling, case, kernel, monomial]
        self._lines = self._undominated(seconds)
        floor = host.graph_floor_us.over(config.engine.operators_a_kernel) if self.is_graph else host.kernel_floor_us
        self.floor = 1e-6 * np.array(floor[:3])
        launch, operator, module = (1e-6 * np.array(one[:3]) for one in (host.launch_us, host.operator_us, host.module_us))
        if stage != "vision":
            operator = operator * np.array(config.engine.host_operators[:3])
        issue = (operator + launch)[:, None] + module[:, None] * order.weights
        self.issue = np.zeros_like(issue) if self.is_graph else issue  # [case, operation]
        self.once = launch if self.is_graph else np.zeros(3)
        self.step = 1e-6 * np.array(host.step_us[:3])
        self.runs = Runs(order, self._lines, self.floor, self.issue)

    def last_values(self, group: StageGroup) -> np.ndarray:
        """The monomials at a group's points, in decode of the last step: [monomial, point]."""
        values = self.settled_values(group)
        return np.where(self.order.grows[:, None], values * group.values.get(CONTEXT, 1), values)

    def settled_values(self, group: StageGroup) -> np.ndarray:
        """The monomials at a group's points, the context of a decode step left out: [monomial, point]."""
        values = np.empty((len(self.order.monomials), group.workload.points))
        for row, name in zip(values[:-1], self.order.monomials[:-1], strict=True):
            row[:] = group.last(name)
        values[-1] = group.values.get(*HITS, 1)
        return values

    @staticmethod
    def _undominated(seconds: np.ndarray) -> Lines:
        """Ceilings as (kernels, their lines [case, kernel, monomial]): first one for every kernel, then what may exceed it."""
        largest = (seconds[:, None] >= seconds[None]).all(axis=(2, 4))  # ceiling a is at least b in every coefficient: [a, b, kernel]
        first = largest.sum(axis=1).argmax(axis=0)
        everything = np.arange(seconds.shape[2])
        lines = [(everything, seconds[first, :, everything].transpose(1, 0, 2))]
        for ceiling in range(len(seconds)):
            where = np.flatnonzero((first != ceiling) & ~largest[first, ceiling, everything])
            if len(where):
                lines.append((where, seconds[ceiling][:, where]))
        return lines

    @functools.cached_property
    def _crossing(self) -> tuple[np.ndarray, np.ndarray]:
        """Of `crossings` the numerators and denominators: [crossing, monomial], in the latter those that the context multiplies."""
        grows, lines = self.order.grows, np.zeros((len(self._lines) + 1, *self._lines[0][1].shape))
        for own, (where, found) in zip(lines, self._lines, strict=False):
            own[:, where] = found
        lines[-1, ..., self.order.monomials.index(())] = self.floor[:, None]
        pairs = [lines[i] - lines[j] for i in range(len(lines)) for j in range(i)]
        found = np.concatenate(pairs, axis=1).reshape(-1, lines.shape[-1])
        found = np.unique(found[found[:, grows].any(axis=1)], axis=0)  # keys and values are alike
        return np.where(grows, 0.0, -found), np.where(grows, found, 0.0)

    def crossings(self, values: np.ndarray) -> np.ndarray:
        """The contexts at which another ceiling, or none but the floor, comes to bind a kernel whose work grows with it.

        Args:
            values: of the monomials, the context left out: [monomial, point].

        Returns:
            contexts, also such as never occur: [crossing, point].
        """
        above, below = (terms @ values for terms in self._crossing)
        return np.divide(above, below, out=np.full_like(above, -1.0), where=below != 0)

    def figures(self, values: np.ndarray, group: StageGroup, points: np.ndarray) -> np.ndarray:
        """Seconds, and those of the device alone, of one pass over the stage, or of one decode step: [figure, case, point].

        Args:
            values: as of `Runs.kernels`; fastest where points that are alike stand together.
            group: gives how often regions are repeated.
            points: the group's points that values are of.
        """
        found, host = np.empty((2, 3, values.shape[1])), self.runs.issued[0]
        if values.shape[1] != 1:
            for start in range(0, values.shape[1], BLOCK):
                block = slice(start, start + BLOCK)
                lanes = host, *self.runs.device_and_ends(values[:, block])
                runs = [Lanes(*(lane[:, run] for lane in lanes)) for run in range(host.shape[1])]
                whole = self._launch(self._join(self.order.items, runs, values[-1, block], group, points[block]), self.once[:, None])
                found[0, :, block], found[1, :, block] = whole.seconds, whole.device
            return found
        # numbers one by one are faster than arrays of one
        lanes = host, *self.runs.device_and_ends(values)
        for case, (once, *runs) in enumerate(zip(self.once.tolist(), *(lane[..., 0].tolist() for lane in lanes), strict=True)):
            runs = [Lanes(*run) for run in zip(*runs, strict=True)]
            whole = self._launch(self._join(self.order.items, runs, float(values[-1, 0]), group, points), once)
            found[:, case, 0] = whole.seconds, whole.device
        return found

    def _launch(self, whole: Lanes | Schedule, once: Seconds) -> Lanes | Schedule:
        """A stage after the launch of its graph, where it is one."""
        return Lanes(once, 0.0 * once, once).then(whole) if self.is_graph else whole

    def critical_path(self, values: np.ndarray, group: StageGroup, points: np.ndarray) -> np.ndarray:
        """What each module has of the critical path, as expected, of one pass or one decode step; arguments as of `figures`.

        It is the chain of host and device work that decides when the stage ends. A graph's launch belongs to no module.

        Returns:
            seconds in which the host issues its operators, then those in which the device runs its kernels: [2 x module, point].
        """
        order = self.order
        kernels, issue = self.runs.kernels(values)[0, order.kernel[order.flat]], self.issue[0, order.flat, None]
        ends = np.array([*order.starts[1:], len(order.flat)])
        modules = len(order.owner)
        lanes = [np.zeros((1 + 2 * modules, 1, len(ends), values.shape[1])) for _ in range(3)]
        for run, (start, end) in enumerate(zip(order.starts, ends, strict=True)):
            host, device, owner = issue[start:end], kernels[start:end], order.owner[:, order.flat[start:end]]
            meets = (host.cumsum(axis=0) - device.cumsum(axis=0) + device).argmax(axis=0)
            place = np.arange(end - start)[:, None]
            paths = (host, 0.0 * device), (0.0 * host, device), (np.where(place <= meets, host, 0.0), np.where(place >= meets, device, 0.0))
            for lane, (issuing, running) in zip(lanes, paths, strict=True):
                lane[0, 0, run] = issuing.sum(axis=0) + running.sum(axis=0)
                lane[1 : 1 + modules, 0, run], lane[1 + modules :, 0, run] = owner @ issuing, owner @ running
        runs = [Lanes(*(lane[:, :, run] for lane in lanes)) for run in range(len(ends))]
        return self._join(order.items, runs, values[-1], group, points).seconds[1:, 0]

    def _join(self, items: Sequence[Item], runs: Sequence[Lanes], hits: Seconds, group: StageGroup, points: np.ndarray) -> Lanes | Schedule:
        """Runs one after the other, as items say."""
        whole: Lanes | Schedule | None = None
        for item in items:
            if item is None:
                whole = whole.synchronised()
                continue
            if isinstance(item, Repeat):
                times = np.maximum(hits / item.expert_layers, 1.0) if item.expert_layers else repeats(item.times, group, points)
                part = self._join(item.items, runs, hits, group, points).repeated(times)
            else:
                part = runs[item]
            whole = part if whole is None else whole.then(part)
        return whole


def repeats(times: Dim, group: StageGroup, points: np.ndarray) -> Seconds:
    """How often a region is repeated, at the points of a group; a number where it is the same at all."""
    found = times if isinstance(times, int) else evaluate(times, group.last)
    if not isinstance(found, np.ndarray):
        return float(found)
    found = found if len(found) == 1 else found[points]
    return found.astype(float) if len(found) > 1 else float(found[0])
