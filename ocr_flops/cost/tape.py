"""Records the operators of a run in execution order, with the module each belongs to and the activations alive beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from ocr_flops.cost.ops import Operator, Tensor, copy, new
from ocr_flops.cost.polynomial import Dim, Dimension

EXPERT_BYTES = Dimension("expert_bytes")  # of the down projections of all experts hit, in all layers
EXPERTS_HIT = Dimension("experts_hit")  # in all layers


WORK, TRAFFIC = ("tensor_flops", "vector_flops"), ("weight_io_bytes", "activation_io_bytes", "kv_io_bytes")
SUMS = {"total_flops": WORK, "io_bytes": TRAFFIC}
COSTS = (*WORK, "total_flops", "torch_flops", "operators", *TRAFFIC, "io_bytes")


class Region(NamedTuple):
    """Operators that run several times over, one repeat after the other.

    Args:
        number: tells the regions of a tape apart.
        times: how often operators in it are launched.
        per_expert: whether that is once for every expert hit in a layer.
        in_layer: whether it lies within a layer; otherwise layers lie within it.
    """

    number: int
    times: Dim
    per_expert: bool
    in_layer: bool


class Operation(NamedTuple):
    """One operator as it is charged.

    Args:
        module: whom it belongs to.
        layers: those that run it, all at the same cost; empty outside layers.
        name: ATen's name for it.
        matrix_itemsize: bytes per element of a matrix product's inputs; 0 where it is none.
        costs: `COSTS` over all repeats.
        live_bytes: activations alive while it runs.
        other_live_bytes: what may be more, in other repeats.
        once: tensor FLOPs, vector FLOPs and bytes moved in one execution, without the weights of experts.
        runs_in: the layers in which it is executed: `layers`, or the ones before where it is charged to the layer it feeds.
        regions: the repeated regions around it, outermost first.
        expert_thirds: how many thirds of every expert hit it reads, in one execution in each layer; of an operator of some of the layers
            with experts their part of it.
        synchronises: whether the host waits for its result.
    """

    module: str
    layers: Sequence[int]
    name: str
    matrix_itemsize: int
    costs: dict[str, Dim]
    live_bytes: Dim
    once: tuple[Dim, Dim, Dim]
    runs_in: Sequence[int]
    regions: tuple[Region, ...]
    expert_thirds: float = 0
    synchronises: bool = False
    other_live_bytes: tuple[Dim, ...] = ()

    @property
    def all_live_bytes(self) -> tuple[Dim, ...]:
        """Activations alive while it runs, of which the most count."""
        return self.live_bytes, *self.other_live_bytes


class Tape:
    """Runs operators on shapes: `out = tape(ops.linear(x, w))` records the operator and hands back its result.

    Args:
        itemsize: bytes per element of weights and activations.

    Attributes:
        operations: in execution order.
        parameters: by module and layer (None outside layers).
        weight_bytes: what these take, and the scales that belong to them.
        live: bytes of the activations alive now.
    """

    def __init__(self, itemsize: int):
        self.itemsize = itemsize
        self.operations: list[Operation] = []
        self.parameters: dict[tuple[str, int | None], int] = {}
        self.weight_bytes: dict[tuple[str, int | None], int] = {}
        self.live: Dim = 0
        self._module = ""
        self._layers: Sequence[int] = ()
        self._times: Dim = 1
        self._launches: Dim = 1
        self._regions: tuple[Region, ...] = ()
        self._regions_begun = 0

    @contextmanager
    def module(self, name: str, layers: Sequence[int] = ()) -> Iterator[None]:
        """Operators inside belong to the module called name and run once in each of the layers of that tower (identical layers are
        recorded once), or once where it has none."""
        outer = self._module, self._layers
        self._module, self._layers = name, layers
        yield
        self._module, self._layers = outer

    @contextmanager
    def times(self, times: Dim, launches: Dim | None = None) -> Iterator[None]:
        """Everything inside runs `times` over, its parameters being the same each time.

        Args:
            times: how often; costs and launches are multiplied by it.
            launches: how often operators are launched, where that is not `times` (work that some workloads do not have).
        """
        outer, launches = (self._times, self._launches), times if launches is None else launches
        self._times, self._launches = times * self._times, launches * self._launches
        with self._region(launches):
            yield
        self._times, self._launches = outer

    @contextmanager
    def _region(self, times: Dim, per_expert: bool = False) -> Iterator[None]:
        outer = self._regions
        self._regions = (*outer, Region(self._regions_begun, times, per_expert, bool(self._layers)))
        self._regions_begun += 1
        yield
        self._regions = outer

    def weight(self, *shape: int, itemsize: int | None = None) -> Tensor:
        """A parameter of the current module, one for each layer."""
        tensor = new(shape, itemsize or self.itemsize, "weight")
        for layer in self._layers or (None,):
            place = self._module, layer
            self.parameters[place] = self.parameters.get(place, 0) + tensor.elements
        self._add_weight_bytes(tensor)
        return tensor

    def scale(self, count: int = 1) -> Tensor:
        """The scales of a parameter in 8 bits, fp32: kept with it, and no parameters themselves."""
        tensor = self.buffer(count, itemsize=4)
        self._add_weight_bytes(tensor)
        return tensor

    def _add_weight_bytes(self, tensor: Tensor) -> None:
        for layer in self._layers or (None,):
            place = self._module, layer
            self.weight_bytes[place] = self.weight_bytes.get(place, 0) + tensor.size_bytes

    def buffer(self, *shape: int, itemsize: int) -> Tensor:
        """A constant that the model carries beside its parameters."""
        return new(shape, itemsize, "weight")

    def hold(self, *shape: Dim, itemsize: int | None = None) -> Tensor:
        """A tensor that lives from now on and that no operator makes: an input of the stage, or `empty`."""
        tensor = new(shape, itemsize or self.itemsize)
        self.live = self.live + tensor.storage.size_bytes
        return tensor

    def __call__(self, operator: Operator, keep: int | None = None, feeds: dict[str, Sequence[int]] | None = None) -> Tensor:
        """Records an operator and returns its result.

        Args:
            keep: how many of its outputs stay alive afterwards (all by default); the rest counts only while it runs.
            feeds: modules to charge instead of the current one, each with its layers (residual additions); empty where it has none.
        """
        for tensor in operator.outputs:
            self.live = self.live + tensor.storage.size_bytes
        moved: dict[str, Dim] = {"weight": 0, "activation": 0, "cache": 0}
        for tensor in (*operator.reads, *operator.writes, *operator.outputs):
            moved[tensor.storage.role] = moved[tensor.storage.role] + tensor.size_bytes
        for module, layers in (feeds or {self._module: self._layers}).items():
            repeat = len(layers) or 1
            costs = {
                "tensor_flops": operator.tensor_flops,
                "vector_flops": operator.vector_flops,
                "torch_flops": operator.tensor_flops if operator.visible else 0,
                **dict(zip(TRAFFIC, moved.values(), strict=True)),
            }
            once = operator.tensor_flops, operator.vector_flops, sum(moved.values())
            costs = {name: cost * (repeat * self._times) for name, cost in costs.items()}
            costs |= {name: sum(costs[addend] for addend in addends) for name, addends in SUMS.items()}
            costs["operators"] = EXPERTS_HIT if any(region.per_expert for region in self._regions) else repeat * self._launches
            runs_in = layers if feeds is None else [layer - 1 for layer in layers] or self._layers[-1:]
            charged = module, layers, operator.name, operator.matrix_itemsize, costs, self.live
            self.operations.append(Operation(*charged, once, runs_in, self._regions))
        if keep is not None:
            self.free(*operator.outputs[keep:])
        return operator.outputs[0] if operator.outputs else operator.writes[0]

    @contextmanager
    def per_expert(self) -> Iterator[None]:
        """Operators inside are launched once for every expert hit; their sizes are the sums over those launches."""
        with self._region(1, per_expert=True):
            yield

    def synchronise(self) -> None:
        """The host waits for the result of the operator recorded last, because the code reads it."""
        self.operations[-1] = self.operations[-1]._replace(synchronises=True)

    def multiply_experts(
        self, operator: Operator, offsets: Tensor | None, experts: int, thirds: int, itemsize: int | None = None
    ) -> Tensor:
        """Records a matrix product of rows with the experts they are routed to, charged with the bytes of those hit.

        Args:
            operator: the product, without weights.
            offsets: rows of each expert, read by a grouped kernel.
            experts: experts of a layer, whose matrices [in, out] are parameters.
            thirds: how many of an expert's three equal matrices the product reads.
            itemsize: bytes per element of these matrices, where that is not the tape's.
        """
        if offsets is not None:
            operator.reads = (*operator.reads, offsets)
        self.weight(experts, operator.reads[0].shape[1], operator.outputs[0].shape[1], itemsize=itemsize)
        out = self(operator)
        costs = self.operations[-1].costs
        costs |= {name: costs[name] + EXPERT_BYTES * thirds for name in ("weight_io_bytes", "io_bytes")}
        self.operations[-1] = self.operations[-1]._replace(expert_thirds=thirds)
        return out

    def free(self, *tensors: Tensor) -> None:
        """Ends the life of the tensors' storages (weights stay)."""
        for tensor in tensors:
            if tensor.storage.role != "weight":
                self.live = self.live - tensor.storage.size_bytes

    def free_copy(self, copy: Tensor, original: Tensor) -> None:
        """Ends the life of a copy, unless it is the original itself or a view of it, which stays alive."""
        if copy.storage is not original.storage:
            self.free(copy)

    def cast(self, x: Tensor, itemsize: int) -> Tensor:
        """x in another precision: x itself where it already has it."""
        return x if x.itemsize == itemsize else self(copy("_to_copy", x, itemsize=itemsize))

    def then_free(self, operator: Operator, *tensors: Tensor, feeds: dict[str, Sequence[int]] | None = None) -> Tensor:
        """Records an operator and ends the life of tensors that nothing needs after it."""
        out = self(operator, feeds=feeds)
        self.free(*tensors)
        return out
