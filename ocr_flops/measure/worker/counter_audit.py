"""Runs small operators one by one under torch's FLOP counter: what it reports beside what they compute in closed form."""

import importlib.util
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from ocr_flops.measure.events import Audit
from ocr_flops.measure.worker.counter_cases import CASES, Demonstration
from ocr_flops.measure.worker.machine import package_version


class _Seen(TorchDispatchMode):
    """Lists the operators that work on tensors, views left out."""

    def __init__(self) -> None:
        super().__init__()
        self.packets: list[Any] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not func.is_view and any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves((args, kwargs))):
            self.packets.append(func.overloadpacket)
        return func(*args, **(kwargs or {}))


def audit_counter(demonstrations: tuple[Demonstration, ...] = CASES) -> Audit:
    """Runs every demonstration here.

    Returns:
        versions and the CUDA device, and one mapping for each demonstration: name, call, device, shapes, tensor_flops, vector_flops,
        counted_flops (None where it did not run), operators (those that ran), known (those of them that the counter has a formula for),
        verdict, why, remedy. Verdicts: "counted" (all of its work), "partly", "missed" (nothing of it), "nothing to count", "differs"
        (more than there is), "not here" (a device or package is missing) and "could not run: REASON".
    """
    has_cuda = torch.cuda.is_available()
    ran = {
        "torch": torch.__version__,
        "flash_attn": package_version("flash_attn"),
        "cuda": torch.cuda.get_device_name() if has_cuda else None,
        "threads": torch.get_num_threads(),
    }
    return Audit(ran, [_run_case(case, has_cuda) for case in demonstrations])


def _run_case(case: Demonstration, has_cuda: bool) -> dict[str, Any]:
    names = ("name", "call", "device", "tensor_flops", "vector_flops")
    row = {name: getattr(case, name) for name in names} | {"shapes": [list(shape) for shape in case.shapes], "counted_flops": None}
    row |= {"operators": [], "known": [], "verdict": "not here", "why": "", "remedy": ""}
    if case.needs and importlib.util.find_spec(case.needs) is None:
        return row | {"why": f"the package {case.needs} is not installed"}
    if case.device == "cuda" and not has_cuda:
        return row | {"why": "there is no CUDA device"}
    counter, seen = FlopCounterMode(display=False), _Seen()
    try:
        inputs = [torch.randn(shape, device=case.device).to(torch.bfloat16) for shape in case.shapes]
        with torch.no_grad(), seen, counter:  # the counter decomposes first: `seen` is told what then ran
            case.run(*inputs)
    except Exception as problem:  # whatever a version of torch raises is the finding
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        return row | {"verdict": f"could not run: {reason}"}
    counted, work = int(counter.get_total_flops()), case.tensor_flops + case.vector_flops
    operators = list(dict.fromkeys(packet.__name__ for packet in seen.packets))
    known = list(dict.fromkeys(packet.__name__ for packet in seen.packets if packet in flop_registry))
    row |= {"counted_flops": counted, "operators": operators, "known": known}
    if counted > work:
        return row | {"verdict": "differs", "why": f"it ran {', '.join(known)}, for which the counter has a formula"}
    if not work:
        return row | {"verdict": "nothing to count", "why": "it moves bytes and computes nothing"}
    if not counted:
        why = f"it ran {', '.join(operators)}, for which the counter has no formula"
        return row | {"verdict": "missed", "why": why, "remedy": case.remedy}
    why = f"it ran {', '.join(known)}, for which the counter has a formula"
    if counted < work:
        rest = "softmax inside it" if known == operators else f"{case.vector_flops} vector FLOPs of its other operators"
        return row | {"verdict": "partly", "why": f"{why}, but none for the {rest}"}
    return row | {"verdict": "counted", "why": why}
