"""`flash` against traces: CLIP and the decoder run such a kernel; for SAM it is sdpa's trace less the operators of the n x n bias."""

import pytest

import ocr_flops as of
from ocr_flops.measure.plan import build_request
from ocr_flops.measure.protocol import Point
from ocr_flops.measure.worker import counting
from ocr_flops.measure.worker.session import Session

IO = ("weight_io_bytes", "activation_io_bytes", "kv_io_bytes")


@pytest.fixture(scope="module")
def traced(model):
    """Events of sdpa's trace on meta, of one page with 2 x 1 tiles, by stage."""
    events = []

    class Kept(counting.Tracer):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            events.append(self.events)

    session = Session(build_request(model, [], attention="sdpa", device="meta", kind="trace"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "Tracer", Kept)
        session.run_stages(Point(1024, 640, 2, 1, 10, 1, 1), counting.Tracing(session))
    return dict(zip(session.stages, events, strict=True))


def moved(events) -> int:
    return sum(getattr(event, column) for event in events for column in IO)


@pytest.mark.parametrize(
    ("stage", "module"),
    [("vision", "clip.attention"), ("vision", "clip.mlp"), ("prefill", "decoder.attention"), ("decode", "decoder.attention")],
)
def test_flash_is_the_traced_kernel_in_clip_and_decoder(model, traced, stage, module):
    flash = of.estimate(model, of.Workload.from_grid(2, 1, output_tokens=1), "flash").module_numbers[stage, module]
    events = [event for event in traced[stage] if event.module == module]
    assert any(event.name == "_scaled_dot_product_flash_attention" for event in events) or module == "clip.mlp"
    assert flash["io_bytes"] == moved(events)
    assert flash["peak_activation_bytes"] == max(event.live_bytes for event in events)
    assert flash["vector_flops"] == sum(event.vector_flops for event in events)
    assert flash["operators"] == len(events)


@pytest.mark.parametrize("module", ["sam.attention_windowed", "sam.attention_global"])
def test_flash_in_sam_is_sdpas_trace_without_the_bias(model, traced, module):
    """Leave out what writes, copies and pads the n x n bias and what the kernel reads of it; let the kernel read the n x side factors."""
    flash = of.estimate(model, of.Workload.from_grid(2, 1), "flash").module_numbers["vision", module]
    events = [event for event in traced["vision"] if event.module == module]
    expected = 0
    for position, event in enumerate(events):
        if event.name == "_scaled_dot_product_efficient_attention":
            before = [earlier for earlier in events[:position] if earlier.path == event.path]
            products = [earlier for earlier in before if earlier.name == "bmm"][-2:]
            after_products = before[before.index(products[-1]) + 1 :]  # add, clone and, where rows are odd, pad
            bias_bytes = 2 * after_products[0].vector_flops  # the sum has one element, of two bytes, per FLOP
            factors = sum(_output_bytes(product) for product in products)
            expected += moved([event]) - bias_bytes + factors - moved(after_products)
        else:
            expected += moved([event])
    assert flash["io_bytes"] == expected


def _output_bytes(product) -> int:
    """Bytes of an einsum's result [side, batch·side, side]: its FLOPs are 2·d per element, in bf16."""
    head_dim = 64
    return product.tensor_flops // (2 * head_dim) * 2


def test_flash_never_moves_or_holds_more_than_sdpa_at_small_views(model):
    for px in range(16, 700, 16):
        workload = of.Workload(px, output_tokens=1)
        sdpa, flash = (of.estimate(model, workload, mode).stage_numbers["vision"] for mode in ("sdpa", "flash"))
        assert flash["io_bytes"] <= sdpa["io_bytes"], px
        assert flash["peak_activation_bytes"] <= sdpa["peak_activation_bytes"], px
        assert flash["tensor_flops"] == sdpa["tensor_flops"]
