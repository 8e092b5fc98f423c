"""What lets the published code run on `meta` and without a GPU. The code itself stays as it is."""

import contextlib
from collections.abc import Callable
from typing import Any, Self
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import _disable_current_modes


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


class Shims(contextlib.ExitStack):
    """Answers what the code asks of the host, by standing in for functions of torch while it is entered.

    On `meta`: `Tensor.item` of the sum of pixels, by which the code sees whether there are any (an empty tensor has none); `Tensor.cpu` of
    the rows of each expert; `torch.autocast("meta", enabled=False)`, which torch refuses. Everywhere but on a GPU, `Tensor.cuda` stays
    where it is. Everywhere, what `Tensor.cpu` copies to the host is no work of the device and none of its memory, so it is not traced: on
    the CPU too, where the copy would be the tensor itself.

    Args:
        device: "meta", "cpu" or "cuda".

    Attributes:
        rows, per_token: of the layer being routed: rows of all its experts, and experts a token visits. Set before each expert loop.
        assumed: experts hit so far in loops that had no data.
    """

    def __init__(self, device: str):
        super().__init__()
        self._device, self.rows, self.per_token, self.assumed = device, 0, 1, 0

    def __enter__(self) -> Self:
        copied, shown, read, add, autocast = torch.Tensor.cpu, torch.Tensor.numpy, torch.Tensor.item, torch.sum, torch.autocast
        methods: dict[str, Callable] = {"cpu": _unseen(torch.Tensor.clone if self._device == "cpu" else copied), "numpy": _unseen(shown)}
        if self._device != "cuda":
            methods["cuda"] = lambda tensor, *args, **rest: tensor
        if self._device == "meta":
            nothing = torch.zeros(())

            def lenient_sum(tensor: torch.Tensor, *args: Any, **rest: Any) -> torch.Tensor:
                total = add(tensor, *args, **rest)
                return total if tensor.numel() else nothing

            def lenient_autocast(device_type: str, *args: Any, **rest: Any) -> Any:
                return contextlib.nullcontext() if device_type == "meta" else autocast(device_type, *args, **rest)

            methods["cpu"] = lambda tensor: self._assumed_rows(tensor) if tensor.is_meta else copied(tensor)
            methods["item"] = lambda tensor: 1 if tensor.is_meta else read(tensor)
            self.enter_context(patch.multiple(torch, sum=lenient_sum, autocast=lenient_autocast))
        self.enter_context(patch.multiple(torch.Tensor, **methods))
        return self

    def _assumed_rows(self, of_each: torch.Tensor) -> torch.Tensor:
        counts = assumed_counts(of_each.numel(), self.rows, self.per_token)
        self.assumed += sum(count > 0 for count in counts)
        with _disable_current_modes():
            return torch.tensor(counts, device="cpu")


def _unseen(function: Callable) -> Callable:
    """A function of torch, run where no counter and no tracer sees it."""

    def unseen(*args: Any, **rest: Any) -> Any:
        with _disable_current_modes():
            return function(*args, **rest)

    return unseen
