"""Records what every executed ATen operator of the real model computes and moves, and how much memory is alive, on any device.

This is the second, independent source of the analytic numbers: it knows nothing of `ops.py` or the towers. On the `meta` device it
needs neither a GPU nor memory, because only shapes, dtypes and storage lifetimes matter.
"""

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

# Vector FLOPs per element: composites from one table, everything else 1 per output element.
_PER_OUTPUT = {"gelu": 5, "silu": 4, "sigmoid": 4, "_softmax": 5, "_safe_softmax": 5, "native_layer_norm": 8}
_REDUCTIONS = {"mean", "sum", "topk", "histc", "cumsum", "_is_all_true", "max", "amax"}
_FREE = {  # copies, casts, gathers, scatters and creation: no arithmetic
    "_to_copy", "clone", "copy_", "cat", "stack", "constant_pad_nd", "split_with_sizes_copy", "triu", "tril", "lift_fresh",
    "is_same_size", "sort", "argsort", "nonzero", "embedding", "index", "_unsafe_index", "index_select", "repeat_interleave",
    "index_put_", "index_copy_", "masked_scatter", "masked_scatter_", "scatter_", "slice_scatter", "arange", "zeros", "zeros_like",
    "new_zeros", "zero_", "ones", "ones_like", "new_ones", "full", "full_like", "fill_", "scalar_tensor",
}  # fmt: skip
_UNSEEN = {"_local_scalar_dense", "empty", "empty_like", "new_empty", "empty_strided", "detach"}  # neither compute nor move anything
_CREATION = {"new_zeros", "new_ones", "zeros_like", "ones_like", "full_like"}  # shaped like their input, which they do not read
_PARTIAL = {"index_put_", "masked_scatter_", "scatter_"}  # in place, and in part
_MATRIX = {"mm", "addmm", "bmm", "baddbmm", "convolution", "_convolution", "_grouped_mm"}
_ALIASES = {"grouped_mm_fallback": "_grouped_mm"}
_FUSED_ATTENTION = {"_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention"}


@dataclass
class Event:
    """One executed operator: what it computed and moved, in FLOPs and bytes, and what was alive once it had run."""

    path: str
    place: str  # module/layer, or the module alone
    name: str
    tensor_flops: int = 0
    vector_flops: int = 0
    weight_io_bytes: int = 0
    activation_io_bytes: int = 0
    kv_io_bytes: int = 0
    live_bytes: int = 0
    itemsize: int = 0  # bytes per element of a matrix product's inputs; 0 where it is none
    expert_bytes: int = 0  # of all experts' weights that a grouped matmul was handed; it is charged for those of the experts hit

    @property
    def module(self) -> str:
        """The module without its layer."""
        return self.place.partition("/")[0]


COLUMNS = ("tensor_flops", "vector_flops", "weight_io_bytes", "activation_io_bytes", "kv_io_bytes")


def sum_events(events: Iterable[Event], key: str, table: dict[str, dict[str, int]]) -> None:
    """Adds events to the rows of a table, {module or place: {column: integer}}, in order of first execution: `COLUMNS` and operators add
    up, and of live bytes the peak is kept."""
    for event in events:
        row = table.setdefault(getattr(event, key), dict.fromkeys((*COLUMNS, "operators", "peak_activation_bytes"), 0))
        for column in COLUMNS:
            row[column] += getattr(event, column)
        row["operators"] += 1
        row["peak_activation_bytes"] = max(row["peak_activation_bytes"], event.live_bytes)


def bytes_of(tensor: torch.Tensor) -> int:
    """Bytes of the distinct elements a tensor shows: dimensions of stride 0 (expanded) are one element wide."""
    elements = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        elements *= 1 if stride == 0 and size > 1 else size
    return elements * tensor.element_size()


class Tracer(TorchDispatchMode):
    """Traces the operators run while it is active.

    Args:
        weights: tensors whose storages are weights (parameters and buffers).
        place_of: maps (nn.Module path, operator name, how often that operator already ran at that path) to a module, or "module/layer".
        cache_tensors: yields the tensors that are KV cache at this moment.
        paths: its last item is the path of the nn.Module that runs (see `follow_modules`).
    """

    def __init__(
        self,
        weights: Iterable[torch.Tensor],
        place_of: Callable[[str, str, int], str],
        cache_tensors: Callable[[], Iterable[torch.Tensor]] = tuple,
        paths: Sequence[str] = ("",),
    ):
        super().__init__()
        self.events: list[Event] = []  # in execution order
        self._paths = paths
        self.in_cache_update = False
        self._weights = {_key(tensor) for tensor in weights}
        self._place_of = place_of
        self._read: set[int] = set()
        self.cached = cache_tensors
        self._cache: set[int] = set()
        self._live: dict[int, int] = {}
        self._seen: dict[tuple[str, str], int] = {}

    def hold(self, tensors: Iterable[torch.Tensor]) -> None:
        """Counts tensors made before the trace began (a stage's inputs) as alive until they are released."""
        for tensor in tensors:
            self._track(tensor)

    def hold_cache(self, tensors: Iterable[torch.Tensor]) -> None:
        """Counts tensors made before the trace began as KV cache."""
        for tensor in tensors:
            self._track(tensor)
            self._cache.add(_key(tensor))

    def _track(self, tensor: torch.Tensor) -> None:
        storage, key = tensor.untyped_storage(), _key(tensor)
        if key in self._weights or key in self._live:
            return
        self._live[key] = storage.nbytes()
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self._live.pop(key, None)
        self._cache.discard(key)

    def live_bytes(self) -> int:
        """Bytes of live storages that are neither weights nor, at this moment, KV cache."""
        cached = {_key(tensor) for tensor in self.cached()}
        return sum(size for key, size in self._live.items() if key not in cached)

    def was_read(self, weight: torch.Tensor) -> bool:
        """Whether an operator has read a weight."""
        return _key(weight) in self._read

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = _as_on_cuda(func, func(*args, **(kwargs or {})))
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        outputs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        shared = {_key(tensor) for tensor in inputs}
        is_view = outputs and not func._schema.is_mutable and all(_key(tensor) in shared for tensor in outputs)
        name = _ALIASES.get(func.overloadpacket.__name__, func.overloadpacket.__name__)
        if is_view or not outputs or name in _UNSEEN:
            self.hold(outputs)
            return out
        for tensor in outputs:
            self._track(tensor)
            if self.in_cache_update:
                self._cache.add(_key(tensor))
        self.events.append(self._event(func, name, args, kwargs or {}, inputs, outputs, out))
        return out

    def _event(self, func, name, args, kwargs, inputs, outputs, out) -> Event:
        path = self._paths[-1]
        order = self._seen.get((path, name), 0)
        self._seen[path, name] = order + 1
        event = Event(path, self._place_of(path, name, order), name)
        event.tensor_flops = _tensor_flops(func, name, args, kwargs, out)
        event.itemsize = inputs[0].element_size() if event.tensor_flops else 0
        event.vector_flops = _vector_flops(name, inputs, outputs)
        moved = [(tensor, bytes_of(tensor)) for tensor in ([] if name in _CREATION else inputs) + outputs]
        if name in ("embedding", "index"):  # the rows gathered, not the table
            moved[0] = (inputs[0], bytes_of(outputs[0]))
        if name in _PARTIAL:  # reads indices and values, writes only the elements named
            moved = [(inputs[0], _written(name, inputs))] + [(tensor, bytes_of(tensor)) for tensor in inputs[1:]]
        if name == "_grouped_mm":
            event.expert_bytes = bytes_of(inputs[1])
        for tensor, size in moved:
            key = _key(tensor)
            if key in self._weights:
                event.weight_io_bytes += size
                self._read.add(key)
            elif key in self._cache:
                event.kv_io_bytes += size
            else:
                event.activation_io_bytes += size
        event.live_bytes = self.live_bytes()
        return event


def _as_on_cuda(func, out):
    """What an operator returns, with the side results that CUDA has in torch 2.7 and later.

    LayerNorm's statistics are in fp32 there and on `meta`, but on the CPU in the input's dtype. The random state of flash attention is a
    seed and an offset in one tensor; torch 2.6 has a tensor for each, 8 bytes less together with the one that is left unused.
    """
    if func is torch.ops.aten.native_layer_norm.default:
        return out[0], out[1].float(), out[2].float()
    if func is torch.ops.aten._scaled_dot_product_flash_attention.default and not out[6].ndim:
        return *out[:6], out[6].new_empty(2), *out[7:]
    return out


def _written(name: str, inputs: list[torch.Tensor]) -> int:
    """Bytes that an operator of `_PARTIAL` writes: as many elements as there are values, or, with one value for all, indices."""
    return inputs[-1].numel() * inputs[0].element_size() if name == "scatter_" else bytes_of(inputs[-1])


def _key(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _tensor_flops(func, name: str, args, kwargs, out) -> int:
    if name == "_grouped_mm":  # torch's counter has no formula for it: rows x in x out, two FLOPs each
        return 2 * args[0].shape[0] * args[1].shape[-2] * args[1].shape[-1]
    formula = flop_registry.get(func.overloadpacket)
    return formula(*args, **kwargs, out_val=out) if formula else 0


def _vector_flops(name: str, inputs: list[torch.Tensor], outputs: list[torch.Tensor]) -> int:
    if name in _FUSED_ATTENTION:  # softmax and scaling of every score, and the bias where there is one
        query, key = inputs[0], inputs[1]
        scores = query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2]
        return scores * (6 + (len(inputs) > 3))
    if name in _FREE or name in _MATRIX:
        return 0
    if name in _REDUCTIONS:
        return inputs[0].numel()
    return _PER_OUTPUT.get(name, 1) * outputs[0].numel()


@contextlib.contextmanager
def follow_modules(model: torch.nn.Module, paths: list[str], changing: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Keeps the last item of `paths` at the path of the nn.Module that is running; calls `changing` before another one runs."""
    names = {module: name for name, module in model.named_modules()}

    def enter(module: torch.nn.Module, args: object) -> None:
        changing()
        paths.append(names[module])

    def leave(module: torch.nn.Module, args: object, output: object) -> None:
        changing()
        paths.pop()

    with contextlib.ExitStack() as stack:
        for module in names:
            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave).remove)
        yield
