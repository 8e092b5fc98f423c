"""The real model at small dimensions equals the analytic numbers, counted and traced, on meta and on cpu."""

import polars as pl
import pytest

import ocr_flops as of
from ocr_flops.evidence import verify
from ocr_flops.evidence.verify.compare import estimate_result
from ocr_flops.measure.plan import build_request
from ocr_flops.measure.protocol import Point, Request

VIEWS = [  # global_px, tile_px, columns, rows: trained sizes, no multiples of 64, windows that need and need no padding
    (256, 128, 1, 1),
    (256, 128, 2, 1),
    (208, 224, 1, 3),
    (224, 528, 2, 2),
    (528, 208, 3, 1),
    (64, 0, 1, 1),
    (80, 240, 1, 2),
    (64, 48, 2, 2),
    (1024, 640, 1, 2),
    (32, 32, 2, 1),
]
MIXED = {"sam": "sdpa", "clip": "eager", "decoder": "eager"}
OTHERWISE = {"sam": "eager", "clip": "sdpa", "decoder": "sdpa"}


def workloads(batch, views=VIEWS, **rest):
    return [of.Workload(*view, batch_size=batch, **{"prompt_tokens": 7, "output_tokens": 2} | rest) for view in views]


def request(tiny, points, attention="eager", **options):
    made = build_request(tiny, points, **{"device": "meta", "attention": attention if isinstance(attention, str) else "eager"} | options)
    return made if isinstance(attention, str) else Request(**{**vars(made), "attention": attention})


def wrong(spec, message):
    return verify.compare_numbers(spec, message).filter(pl.col("difference") != 0).to_dicts()


def compared(spec, message):
    """Numbers of modules that were compared, per column of the run's kind."""
    found = verify.compare_numbers(spec, message, levels=("module",), what=("flops", "operators", "traffic", "peak"))
    return found.height


@pytest.mark.parametrize(
    ("attention", "dtype", "views"),
    [
        ("eager", "bf16", VIEWS[::3]),
        pytest.param("eager", "fp16", VIEWS[1::3], marks=pytest.mark.verification),
        pytest.param("eager", "fp32", VIEWS[2::3], marks=pytest.mark.verification),
        pytest.param("sdpa", "fp16", VIEWS[::3], marks=pytest.mark.verification),
        pytest.param("sdpa", "fp32", VIEWS[1::3], marks=pytest.mark.verification),
        ("sdpa", "bf16", VIEWS[2::3]),
        (MIXED, "bf16", VIEWS[::5]),
        pytest.param(OTHERWISE, "bf16", VIEWS[1::5], marks=pytest.mark.verification),
    ],
)
def test_tiny_model_on_meta(tiny, serve, attention, dtype, views):
    """Counted and traced in one pass, all that is compared is equal; eager and sdpa see every view, in one precision each.

    What is alive where vision and prefill are one call is seen in bf16.
    """
    half = len(views) // 2
    stages = ("vision", "prefill", "decode", "call")[: 4 if dtype == "bf16" else 3]
    modules = 27 + 18 * (dtype == "bf16")  # of all stages; those of vision and prefill again in the call
    for batch, logits, some in ((1, "last", views[:half]), (3, "all", views[half:])):
        results = serve(request(tiny, workloads(batch, some), attention, kind="trace", dtype=dtype, prefill_logits=logits, stages=stages))
        assert len(results) == len(some)
        for result in results:
            assert wrong(tiny, result) == [], result.workload
            assert compared(tiny, result) == modules * 8  # columns
            assert tuple(result.stages) == stages and result.stages["decode"]["steps"] == 2


@pytest.mark.parametrize("attention", ["sdpa", pytest.param("eager", marks=pytest.mark.verification)])
def test_the_counter_alone_says_what_it_says_beside_a_trace(tiny, serve, attention):
    """As integers, by place: alone it counts batched experts by itself, in a trace grouped ones with its own formula."""
    points = workloads(2, VIEWS[2::5])
    counted, traced = (serve(request(tiny, points, attention, kind=kind, prefill_logits="all")) for kind in ("count", "trace"))
    for alone, beside in zip(counted, traced, strict=True):
        assert wrong(tiny, alone) == [] and compared(tiny, alone) == 27
        for stage, seen in alone.stages.items():
            for name in ("flops", "modules", "layers", "steps"):
                assert beside.stages[stage][name] == seen[name], (stage, name)


def test_views_of_one_patch(tiny, serve):
    """FLOPs are exact; traffic is not claimed: tensors with sides of one element need no copies that larger ones need."""
    for batch in (1, 2):
        for message in serve(request(tiny, [of.Workload(16, 16, 2, 2, batch_size=batch, output_tokens=1)])):
            assert wrong(tiny, message) == []


def test_a_prompt_of_nothing_and_long_contexts(tiny, serve):
    contexts = ((0, 1), (0, 2), (1, 2), (900, 2), (3000, 1))
    points = [of.Workload(64, prompt_tokens=tokens, output_tokens=2, batch_size=batch) for tokens, batch in contexts]
    for message in serve(request(tiny, points, kind="trace", stages=("prefill", "decode"))):
        assert wrong(tiny, message) == [], message.workload


@pytest.mark.parametrize("stages", [("vision",), ("prefill",), ("decode",), ("vision", "decode")])
def test_stages_alone(tiny, serve, stages):
    message = serve(request(tiny, workloads(1)[:1], stages=stages, kind="trace"))[0]
    assert tuple(message.stages) == stages
    assert wrong(tiny, message) == []


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page with something on it, wider than high."""
    from PIL import Image

    path = tmp_path_factory.mktemp("pages") / "page.png"
    Image.effect_noise((300, 200), 60).convert("RGB").save(path)
    return str(path)


@pytest.mark.parametrize(("attention", "dtype"), [("eager", "bf16"), ("sdpa", "fp32"), ("sdpa", "bf16")])
def test_tiny_model_on_cpu_with_a_real_image(tiny, serve, page, attention, dtype):
    """Real numbers flow: torch's counter sees CPU's attention through the math backend, experts run in a loop over those hit."""
    points = [of.Workload(256, 128, 2, 1, output_tokens=2), of.Workload(208, 224, 1, 2, output_tokens=2, batch_size=2)]
    for message in serve(request(tiny, points, attention, device="cpu", dtype=dtype, image=page)):
        assert message.ran["device"] == "cpu"
        assert message.ran["experts"] == "eager"
        assert wrong(tiny, message) == []


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_tiny_model_on_cpu_traced_with_its_routing(tiny, serve, page, dtype):
    """Grouped experts on data: the experts that the router picked are given to the analytic side; LayerNorm's statistics are CUDA's."""
    points = [of.Workload(256, 128, 2, 1, prompt_tokens=4, output_tokens=1), of.Workload(64, prompt_tokens=1, output_tokens=1)]
    decoder, hits = tiny.tower("decoder"), []
    for message in serve(request(tiny, points, device="cpu", kind="trace", dtype=dtype, image=page)):
        hit = {stage: message.stages[stage]["experts"]["hit"] for stage in ("prefill", "decode")}
        assert 2 * decoder.experts_per_token < hit["prefill"] <= 2 * decoder.experts
        assert hit["decode"] == 2 * decoder.experts_per_token
        assert dict(estimate_result(tiny, message).experts_hit) == hit
        assert wrong(tiny, message) == []
        hits.append(hit["prefill"])
    assert len(hits) == 2


def test_what_ran_is_told(tiny, serve):
    message = serve(request(tiny, workloads(1)[:1], MIXED, dtype="fp16", prefill_logits="all"))[0]
    ran = message.ran
    assert ran["label"] == "transformers, UnlimitedOcr class, random weights, sdpa/eager, meta"
    told = {"engine": "transformers", "dtype": "fp16", "prefill_logits": "all", "kind": "count", "attention": MIXED}
    assert told.items() <= ran.items()
    assert ran["parameters"] == sum(of.estimate(tiny, of.Workload(64)).config.parameters.values())
    assert message.workload == Point(256, 128, 1, 1, 7, 2, 1)


def test_stage_totals_are_the_sums_of_modules_and_of_operators(tiny, serve):
    for kind in ("count", "trace"):
        for stage in serve(request(tiny, workloads(2)[:2], kind=kind))[1].stages.values():
            assert stage["flops"] == sum(stage["modules"].values()) == sum(stage["operators"].values()) > 0


def test_a_trace_names_its_peak(tiny, serve):
    stages = serve(request(tiny, workloads(1)[:1], kind="trace"))[0].stages
    for stage in stages.values():
        peak = stage["peak"]
        assert stage["trace"][peak["module"]]["peak_activation_bytes"] == peak["bytes"]
        assert peak["bytes"] == max(row["peak_activation_bytes"] for row in stage["trace"].values())


def test_points_agree_with_workloads_on_tokens():
    """The worker does not import the package's tiling (it runs on a bare GPU box), so it counts tokens itself."""
    for views in VIEWS:
        workload = of.Workload(*views)
        point = Point(*views, 10, 1, 1)
        assert (point.tiles, point.image_tokens) == (workload.tiles, workload.image_tokens)


def test_flash_cannot_be_run(tiny, serve):
    with pytest.raises(ValueError, match="^attention.sam: 'flash' cannot be run by transformers' UnlimitedOcr class; choose eager"):
        serve(request(tiny, workloads(1)[:1], "flash"))


def test_cuda_without_cuda():
    import torch

    from ocr_flops.measure.worker.machine import resolve_device

    if torch.cuda.is_available():
        pytest.skip("there is one here")
    assert resolve_device("auto") == "meta"
    with pytest.raises(RuntimeError, match="^device: 'cuda' is not available here; choose meta"):
        resolve_device("cuda")
