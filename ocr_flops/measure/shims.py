"""What lets the vendor's own code run on `meta` and without a GPU. The code itself stays as it is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

Tensor = torch.Tensor


def assumed_counts(experts: int, rows: int, per_token: int) -> list[int]:
    """Rows of each expert where there is no data to route by: the expected number of experts hit, rounded, shares the rows evenly.

    The FLOPs of an expert loop depend on the sum alone, which is `rows`; how many experts are hit decides how many operators run and how
    many weights are read. Uniform routing hits experts · (1 − (1 − per_token / experts)^tokens) of them, tokens = rows / per_token.

    Args:
        experts: of a layer.
        rows: tokens times experts per token.
        per_token: experts that each token visits.
    """
    hit = round(experts * (1 - (1 - per_token / experts) ** (rows // per_token)))
    share, rest = divmod(rows, hit)
    return [share + (number < rest) for number in range(hit)] + [0] * (experts - hit)


class Shims(TorchFunctionMode):
    """Answers what the code asks of the host.

    On `meta`: `Tensor.item` of the sum of pixels, by which the code sees whether there are any (an empty tensor has none); `Tensor.cpu` of
    the rows of each expert. Everywhere but on a GPU, `Tensor.cuda` stays where it is.

    Args:
        device: "meta", "cpu" or "cuda".

    Attributes:
        rows, per_token: of the layer being routed: rows of all its experts, and experts a token visits. Set before each expert loop.
        assumed: experts hit so far in loops that had no data.
    """

    def __init__(self, device: str):
        super().__init__()
        self._device, self._nothing = device, torch.zeros(())
        self.rows, self.per_token, self.assumed = 0, 1, 0

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is Tensor.cuda and self._device != "cuda":
            return args[0]
        if self._device == "meta":
            if func is Tensor.item and args[0].is_meta:
                return 1
            if func is Tensor.cpu and args[0].is_meta:
                counts = assumed_counts(args[0].numel(), self.rows, self.per_token)
                self.assumed += sum(count > 0 for count in counts)
                return torch.from_numpy(_array(counts))
            if func is torch.sum and not args[0].numel():
                func(*args, **(kwargs or {}))
                return self._nothing
        return func(*args, **(kwargs or {}))


def _array(counts: list[int]) -> Any:
    import numpy as np

    return np.array(counts, dtype=np.int64)


@contextlib.contextmanager
def autocast_on_meta() -> Iterator[None]:
    """Lets `torch.autocast("meta", enabled=False)`, which torch refuses, do nothing."""
    autocast = torch.autocast

    def lenient(device_type: str, *args: Any, **rest: Any) -> Any:
        return contextlib.nullcontext() if device_type == "meta" else autocast(device_type, *args, **rest)

    torch.autocast = lenient
    try:
        yield
    finally:
        torch.autocast = autocast
