"""The same work by other tools that can be installed (extra `bench`): the vision stage of one 1024 px view on meta, time and value.

A tool counts the real model's modules, already built; the estimate has neither. A missing tool is skipped. What a tool says is printed
beside what torch's counter reports of the same call, which the estimate equals; nothing is asserted of the tools. Not here: fvcore,
whose tracer fails on meta's convolutions, and llm-analysis, which wants transformers below 5 and knows no vision tower.
"""

import contextlib
import io
import warnings

import pytest

import ocr_flops as of

WORK = of.Workload(1024)
MULTIPLY_ADDS = ("ptflops", "torchinfo")  # what these report; two FLOPs each


@pytest.fixture(scope="module", params=["eager", "sdpa"])
def attention(request):
    return request.param


@pytest.fixture(scope="module")
def vision(model, attention):
    """SAM, CLIP and projector as one module, with pixels for it."""
    import torch

    from ocr_flops.measure.plan import build_request
    from ocr_flops.measure.worker.transformers_engine import build_model

    net = build_model(build_request(model, [], attention=attention), "meta", "batched_mm").model

    class Vision(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.tower, self.projector = net.vision_tower, net.multi_modal_projector

        def forward(self, pixels):
            return self.projector(self.tower(pixels).last_hidden_state)

    return Vision().eval(), torch.randn(1, 3, 1024, 1024, device="meta").to(torch.bfloat16)


@pytest.fixture(scope="module")
def analytic(model, attention):
    """FLOPs as torch counts them, and the seconds of an estimate of a point not seen before."""
    import time

    of.estimate(model, WORK, attention, stages=("vision",)).stage_numbers  # noqa: B018  compiles
    took = []
    for batch in range(2, 52):
        start = time.perf_counter()
        of.estimate(model, of.Workload(1024, batch_size=batch), attention, stages=("vision",)).stage_numbers  # noqa: B018
        took.append(time.perf_counter() - start)
    return of.estimate(model, WORK, attention, stages=("vision",)).stage_numbers["vision"]["torch_flops"], sorted(took)[25]


def with_torch(module, pixels):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        module(pixels)
    return counter.get_total_flops()


def with_calflops(module, pixels):
    from calflops import calculate_flops

    return calculate_flops(module, args=[pixels], print_results=False, output_as_string=False)[0]


def with_ptflops(backend):
    def count(module, pixels):
        from ptflops import get_model_complexity_info

        options = {"as_strings": False, "print_per_layer_stat": False, "backend": backend}
        return get_model_complexity_info(module, (3, 1024, 1024), input_constructor=lambda shape: {"pixels": pixels}, **options)[0]

    return count


def with_torchinfo(module, pixels):
    from torchinfo import summary

    return summary(module, input_data=pixels, verbose=0, device="meta").total_mult_adds


TOOLS = {
    "torch FlopCounterMode": ("torch", with_torch),
    "calflops": ("calflops", with_calflops),
    "ptflops, backend aten": ("ptflops", with_ptflops("aten")),
    "ptflops, backend pytorch": ("ptflops", with_ptflops("pytorch")),
    "torchinfo": ("torchinfo", with_torchinfo),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_vision_of_one_view(benchmark, tell, vision, analytic, attention, tool):
    import torch

    package, count = TOOLS[tool]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are the tools' own
        pytest.importorskip(package)
        found = []

        def work():
            with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
                found.append(count(*vision))

        benchmark.pedantic(work, rounds=2, warmup_rounds=1)
    right, seconds = analytic
    flops = found[-1] * (2 if package in MULTIPLY_ADDS else 1)
    once = benchmark.stats.stats.min
    value = "the same FLOPs" if flops == right else f"{flops:,} FLOPs, {100 * (flops / right - 1):+.1f} %"
    tell(
        f"vision of one view, {attention}: {tool}",
        f"{once * 1e3:.0f} ms",
        f"{once / seconds:,.0f} x the estimate's {seconds * 1e3:.2f} ms; {value}",
    )
    if package == "torch":
        assert flops == right
