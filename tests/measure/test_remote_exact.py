"""Every number of engine remote_code against a trace of the tests' snapshot, which has the operators and lifetimes of the published code."""

from dataclasses import replace

import pytest
import torch

import ocr_flops as of
from ocr_flops.cost.engines.remote_code import RemoteCode
from ocr_flops.cost.engines.transformers import Transformers
from ocr_flops.cost.run_config import stage_program
from ocr_flops.evidence import verify
from ocr_flops.measure.plan import build_request
from ocr_flops.measure.worker.remote_engine import Remote
from ocr_flops.measure.worker.remote_shims import Shims
from ocr_flops.measure.worker.tracer import Tracer
from tests.support.remote_snapshot import VENDOR, make

STAGES = ("vision", "prefill", "decode", "call")
POINTS = [
    of.Workload(256, 128, 3, 2, prompt_tokens=5, output_tokens=2),  # CLIP's positions as trained and resized, SAM's too
    of.Workload(128, prompt_tokens=4, output_tokens=1),
    of.Workload(192, 64, 2, 1, prompt_tokens=3, output_tokens=2, batch_size=2),  # tiles of one query a side
    of.Workload(64, prompt_tokens=0, output_tokens=1, batch_size=3),
    of.Workload(320, 192, 1, 3, prompt_tokens=40, output_tokens=3, batch_size=4),  # tiles in order already
    of.Workload(256, 256, 2, 2, prompt_tokens=1, batch_size=2),
]


@pytest.fixture
def traced(serve, tmp_path):
    """Traces the snapshot of a model at some points."""

    def tracing(model, points, **options):
        rest = {"engine": "remote_code", "snapshot": make(model, tmp_path / "snapshot"), "trust_remote_code": True, "device": "meta"}
        return serve(build_request(model, points, attention=VENDOR, prefill_logits="all", kind="trace", **rest | options))

    return tracing


def of_decoder(model, **dimensions):
    return replace(model, towers=tuple(replace(spec, **dimensions) if spec.tower == "decoder" else spec for spec in model.towers))


@pytest.mark.parametrize(("device", "dtype", "points"), [
    ("meta", "bf16", POINTS[1:4]), ("meta", "fp16", POINTS[:1]), ("cpu", "fp32", POINTS[::2]), ("cpu", "bf16", POINTS[1::2]),
    *(pytest.param("meta", *of, marks=pytest.mark.verification) for of in (("bf16", POINTS[:1] + POINTS[4:]), ("fp32", POINTS[2:3]))),
])  # fmt: skip
def test_every_traced_number_is_the_analytic_one(tiny, traced, device, dtype, points):
    results = traced(tiny, points, device=device, dtype=dtype, decode_steps=3 if device == "meta" else 1, stages=STAGES)
    assert len(results) == len(points)
    for result in results:
        assert tuple(result.stages) == STAGES
        found = verify.compare_numbers(tiny, result)
        assert not found.filter(found["difference"] != 0).rows()
        assert set(found["level"]) == set(verify.LEVELS)
        assert {"peak_activation_bytes", "weight_io_bytes", "activation_io_bytes", "kv_io_bytes", "operators"} <= set(found["column"])
        assert result.stages["vision"]["trace"]["merge"]["vector_flops"] > 0  # pixels were summed


OTHERS = {"dense_layers": 2}, {"experts": 1, "experts_per_token": 1}


@pytest.mark.parametrize("dimensions", [{"expert_width": 200}, *(pytest.param(other, marks=pytest.mark.verification) for other in OTHERS)])
def test_other_models_of_the_family(tiny, traced, dimensions):
    model = of_decoder(tiny, **dimensions)
    for result in traced(model, POINTS[1:3], decode_steps=1):
        found = verify.compare_numbers(model, result)
        assert not found.filter(found["difference"] != 0).rows()


@pytest.mark.verification
def test_the_published_dimensions_and_counts(model, traced):
    (result,) = traced(model, [of.Workload.from_grid(2, 1, output_tokens=1, batch_size=2)], stages=STAGES)
    stages = result.stages
    assert result.ran["parameters"] == 3_336_106_240
    assert stages["vision"]["flops"] == 2 * 1_916_266_708_992
    assert stages["vision"]["flops"] + stages["prefill"]["flops"] == 2 * 2_497_258_421_760
    found = verify.compare_numbers(model, result)
    assert not found.filter(found["difference"] != 0).rows()


def test_a_plain_forward_without_what_generate_does_with_its_logits(tiny, traced, monkeypatch):
    monkeypatch.setattr(Remote, "_next_logits", lambda self, **arguments: [self.model(**arguments, use_cache=True).logits][:0])
    monkeypatch.setattr(RemoteCode, "clones_logits", False)
    stage_program.cache_clear()
    try:
        for result in traced(tiny, POINTS[2:3], stages=STAGES):
            found = verify.compare_numbers(tiny, result)
            assert not found.filter(found["difference"] != 0).rows()
    finally:
        stage_program.cache_clear()


def test_lifetimes_decide_peaks_and_nothing_else(model):
    class Otherwise(RemoteCode, name="otherwise"):
        named = Transformers.named

    engine, page = of.load_engine("remote_code"), of.Workload.from_grid(2, 1)
    published, other = (of.estimate(model, page, engine=one) for one in (engine, replace(engine, name="otherwise")))
    rows = [(row, other.module_numbers[key]) for key, row in published.module_numbers.items()]
    assert {name for ours, theirs in rows for name in ours if ours[name] != theirs[name]} == {"peak_activation_bytes"}


def test_a_batch_keeps_names_of_the_page_before(model):
    """Both encoders' results of a page are alive while those of the next page are made; the peak is in its global view."""
    one, two = (of.estimate(model, of.Workload.from_grid(2, 1, batch_size=batch), engine="remote_code") for batch in (1, 2))
    pixels, page = 3 * (1024**2 + 2 * 640**2), two.workload.image_tokens * 1280
    named = 16 * 16 * 1024 + (16 * 16 + 1) * 1024 + 16 * 17 * 1280  # SAM's map, CLIP's states and the lines of the global view
    grown = two.stage_numbers["vision"]["peak_activation_bytes"] - one.stage_numbers["vision"]["peak_activation_bytes"]
    assert grown == 2 * (pixels + named + 2 * page)  # the assembled page twice: by name, and as a result


@pytest.mark.parametrize("device", ["meta", "cpu", "cuda"])
def test_what_stands_in_for_torch_leaves_with_the_run(device):
    names = [(torch.Tensor, name) for name in ("cpu", "cuda", "numpy", "item")] + [(torch, "sum"), (torch, "autocast")]
    before = [getattr(owner, name) for owner, name in names]
    inside = []
    with pytest.raises(KeyError, match="ended"), Shims(device):
        inside += [getattr(owner, name) for owner, name in names]
        raise KeyError("ended")
    assert [getattr(owner, name) for owner, name in names] == before != inside
    assert not {"cpu", "cuda", "numpy", "item"} & set(vars(torch.Tensor))


def test_what_goes_to_the_host_is_not_traced():
    tracer = Tracer([], lambda path, name, order: "moe")
    with torch.no_grad(), Shims("cpu"), tracer:
        counts = torch.ones(3, dtype=torch.long)
        alone = tracer.live_bytes()
        host = counts.cpu().numpy()
        assert tracer.live_bytes() == alone
        del counts
        assert tracer.live_bytes() == 0  # the host's copy does not keep it
    assert host.tolist() == [1, 1, 1]
    assert [event.name for event in tracer.events] == ["ones"]


def test_the_host_is_asked_on_meta():
    shims = Shims("meta")
    with torch.no_grad(), shims:
        shims.rows, shims.per_token = 6, 3
        pixels = torch.randn(2, 3, device="meta")
        assert torch.sum(pixels).item() != 0 and torch.sum(pixels[:0]).item() == 0
        assert torch.zeros(8, dtype=torch.long, device="meta").cpu().numpy().sum() == 6
        assert torch.ones(2).cpu().numpy().sum() == 2 and torch.ones(1).item() == 1
        with torch.autocast("meta", enabled=False), torch.autocast("cpu", enabled=False):
            assert pixels.cuda() is pixels
    assert shims.assumed == 5
