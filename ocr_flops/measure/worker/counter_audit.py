"""Runs small operators one by one under torch's FLOP counter: what it reports beside what they compute in closed form."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from ocr_flops.measure.worker.counter_cases import Case, cases


class _Seen(TorchDispatchMode):
    """Lists the operators that work on tensors, views left out."""

    def __init__(self) -> None:
        super().__init__()
        self.packets: list[Any] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not func.is_view and any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves((args, kwargs))):
            self.packets.append(func.overloadpacket)
        return func(*args, **(kwargs or {}))


def audit(demonstrations: list[Case] | None = None) -> dict[str, Any]:
    """Runs every demonstration here.

    Args:
        demonstrations: all of `cases` by default.

    Returns:
        {"ran": versions and the CUDA device, "cases": one mapping for each: name, call, device, shapes, tensor_flops, vector_flops,
        counted_flops (None where it did not run), operators (those that ran), known (those of them that the counter has a formula for),
        verdict, why, remedy}. Verdicts: "counted" (all of its work), "partly", "missed" (nothing of it), "nothing to count", "differs"
        (more than there is), "not here" (a device or package is missing) and "could not run: REASON".
    """
    has_cuda = torch.cuda.is_available()
    ran = {
        "torch": torch.__version__,
        "flash_attn": _version("flash_attn"),
        "cuda": torch.cuda.get_device_name() if has_cuda else None,
        "threads": torch.get_num_threads(),
    }
    return {"ran": ran, "cases": [_demonstrated(case, has_cuda) for case in (cases() if demonstrations is None else demonstrations)]}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _demonstrated(case: Case, has_cuda: bool) -> dict[str, Any]:
    told = {
        "name": case.name,
        "call": case.call,
        "device": case.device,
        "shapes": [list(shape) for shape in case.shapes],
        "tensor_flops": case.tensor_flops,
        "vector_flops": case.vector_flops,
        "counted_flops": None,
        "operators": [],
        "known": [],
        "verdict": "not here",
        "why": "",
        "remedy": "",
    }
    if case.needs and importlib.util.find_spec(case.needs) is None:
        return told | {"why": f"the package {case.needs} is not installed"}
    if case.device == "cuda" and not has_cuda:
        return told | {"why": "there is no CUDA device"}
    counter, seen = FlopCounterMode(display=False), _Seen()
    try:
        inputs = [torch.randn(shape, device=case.device).to(torch.bfloat16) for shape in case.shapes]
        with torch.no_grad(), seen, counter:  # the counter decomposes first: `seen` is told what then ran
            case.run(*inputs)
    except Exception as problem:  # whatever a version of torch raises is the finding
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        return told | {"verdict": f"could not run: {reason}"}
    counted = int(counter.get_total_flops())
    operators = list(dict.fromkeys(packet.__name__ for packet in seen.packets))
    known = list(dict.fromkeys(packet.__name__ for packet in seen.packets if packet in flop_registry))
    verdict = _verdict(case, counted)
    return told | {
        "counted_flops": counted,
        "operators": operators,
        "known": known,
        "verdict": verdict,
        "why": _why(case, verdict, operators, known),
        "remedy": case.remedy if verdict == "missed" else "",
    }


def _verdict(case: Case, counted: int) -> str:
    work = case.tensor_flops + case.vector_flops
    if counted > work:
        return "differs"
    if not work:
        return "nothing to count"
    return "counted" if counted == work else "partly" if counted else "missed"


def _why(case: Case, verdict: str, operators: list[str], known: list[str]) -> str:
    """From what ran: which of its operators the counter has a formula for."""
    ran = ", ".join(operators)
    if verdict in ("counted", "differs"):
        return f"it ran {', '.join(known)}, for which the counter has a formula"
    if verdict == "partly":
        inside = "softmax inside it" if known == operators else f"{case.vector_flops} vector FLOPs of its other operators"
        return f"it ran {', '.join(known)}, for which the counter has a formula, but none for the {inside}"
    if verdict == "nothing to count":
        return "it moves bytes and computes nothing"
    return f"it ran {ran}, for which the counter has no formula"
