"""Results as the worker would send them, made without running it."""

from dataclasses import asdict

import ocr_flops as of
from ocr_flops.measure.events import Result
from ocr_flops.measure.plan import build_request
from ocr_flops.spec.workload import Workload

MODEL = of.load_model("deepseek_ocr")


def result(scenario, steps=3, off=0, **ran):
    """What the worker would send for a scenario if it counted what is analytic, `off` more in each module."""
    wanted = build_request(MODEL, [scenario.workload], decode_steps=steps)
    attention = dict.fromkeys(("sam", "clip", "decoder"), "eager")
    ran = {
        "engine": "transformers",
        "attention": attention,
        "dtype": "bf16",
        "device": "meta",
        "prefill_logits": "last",
        "kind": "count",
        "label": "transformers, UnlimitedOcr class, random weights, eager, meta",
    } | ran
    numbers = of.estimate(MODEL, Workload(**asdict(wanted.workloads[0])), "eager", prefill_logits=ran["prefill_logits"]).module_numbers
    stages = {}
    for (stage, module), row in numbers.items():
        modules = stages.setdefault(stage, {"modules": {}})["modules"]
        modules[module] = row["torch_flops"] + off
    for seen in stages.values():
        seen["flops"] = sum(seen["modules"].values())
    return Result(0, wanted.workloads[0], ran, stages)
