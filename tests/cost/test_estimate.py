"""Published check values, exact parameters and cache, what is refused, and how stages, modules and footprint hang together."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import ocr_flops as of
from ocr_flops.cost.engines.remote_code import RemoteCode
from ocr_flops.cost.estimate import LIMIT
from ocr_flops.cost.stage_groups import COLUMNS

STAGES = ("vision", "prefill", "decode")
ENGINES = ("transformers", "remote_code")
PARAMETERS = {  # worked out from the table in DESIGN, transformers
    "sam.patch": 768 * 3 * 16 * 16 + 768 + 64 * 64 * 768,
    "sam.attention_windowed": 8 * (2 * 768 + 768 * 2304 + 2304 + 768 * 768 + 768 + 2 * 27 * 64),
    "sam.attention_global": 4 * (2 * 768 + 768 * 2304 + 2304 + 768 * 768 + 768 + 2 * 127 * 64),
    "sam.mlp": 12 * (2 * 768 + 2 * 768 * 3072 + 3072 + 768),
    "sam.neck": 768 * 256 + 9 * 256 * 256 + 4 * 256 + 9 * 256 * 512 + 9 * 512 * 1024,
    "clip.embed": 1024 + 257 * 1024 + 2 * 1024,
    "clip.attention": 24 * (2 * 1024 + 4 * (1024 * 1024 + 1024)),
    "clip.mlp": 24 * (2 * 1024 + 2 * 1024 * 4096 + 4096 + 1024),
    "projector": 2048 * 1280 + 1280,
    "merge": 2 * 1280,
    "decoder.embed": 129_280 * 1280,
    "decoder.attention": 12 * 4 * 1280 * 1280,
    "decoder.norm_residual": 25 * 1280,
    "decoder.dense_mlp": 3 * 1280 * 6848,
    "decoder.router": 11 * 64 * 1280,
    "decoder.routed_experts": 11 * 64 * 3 * 1280 * 896,
    "decoder.shared_experts": 11 * 3 * 1280 * 1792,
    "lm_head": 129_280 * 1280,
}


@pytest.fixture(scope="module")
def page():
    """Gundam with 2 x 1 tiles: 493 tokens of context, 100 of output."""
    return of.Workload.from_grid(2, 1, output_tokens=100)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("attention", ["vendor", "eager", "sdpa"])
def test_published_vision(model, page, engine, attention):
    vision = of.estimate(model, page, attention, engine=engine).stage_numbers["vision"]
    assert vision["torch_flops"] == vision["tensor_flops"] == 1_916_266_708_992


def test_published_prefill(model, page):
    assert page.context_tokens == 493
    prefill = of.estimate(model, page, "eager", prefill_logits="all").stage_numbers["prefill"]
    assert prefill["torch_flops"] == 580_990_955_520


def test_published_vision_and_prefill_of_the_vendors_code(model, page):
    numbers = of.estimate(model, page, "vendor", engine="remote_code").stage_numbers
    assert numbers["vision"]["torch_flops"] + numbers["prefill"]["torch_flops"] == 2_497_258_421_760


@pytest.mark.parametrize(("engine", "flops"), [("remote_code", 118_158_489_600), ("transformers", 118_158_336_000)])
def test_published_decode(model, page, engine, flops):
    assert of.estimate(model, page, "eager", engine=engine).stage_numbers["decode"]["torch_flops"] == flops


@pytest.mark.parametrize(("engine", "parameters"), [("remote_code", 3_336_106_240), ("transformers", 3_335_504_128)])
@pytest.mark.parametrize("attention", ["eager", "sdpa", "flash"])
def test_published_parameters(model, page, engine, parameters, attention):
    result = of.estimate(model, page, attention, engine=engine)
    assert sum(result.config.parameters.values()) == parameters
    assert result.footprint.weight_bytes == 2 * parameters


def test_parameters_of_every_module(model, page):
    ours = of.estimate(model, page).config.parameters
    assert ours == PARAMETERS
    vendor = of.estimate(model, page, engine="remote_code").config.parameters
    assert vendor == PARAMETERS | {"clip.embed": PARAMETERS["clip.embed"] + 1024 * 3 * 14 * 14}


def test_weight_bytes_of_stages_and_modules(model, page):
    result = of.estimate(model, page, dtype="fp32")
    modules = {(stage, module): row["weight_bytes"] for (stage, module), row in result.module_numbers.items()}
    assert modules["vision", "sam.neck"] == 4 * PARAMETERS["sam.neck"]
    assert modules["prefill", "lm_head"] == modules["decode", "lm_head"] == 4 * PARAMETERS["lm_head"]
    assert modules["prefill", "merge"] == 0  # newline and separator are vision's
    vision = sum(count for module, count in PARAMETERS.items() if not module.startswith(("decoder", "lm_head")))
    assert result.stage_numbers["vision"]["weight_bytes"] == 4 * vision
    assert result.stage_numbers["decode"]["weight_bytes"] == 4 * (sum(PARAMETERS.values()) - vision)


@pytest.mark.parametrize(("dtype", "per_token"), [("bf16", 61_440), ("fp16", 61_440), ("fp32", 122_880)])
@pytest.mark.parametrize("batch", [1, 5])
def test_kv_cache(model, dtype, per_token, batch):
    result = of.estimate(model, of.Workload.from_grid(2, 1, output_tokens=100, batch_size=batch), dtype=dtype)
    cached = {stage: row["kv_cache_bytes"] for stage, row in result.stage_numbers.items()}
    assert cached == {"vision": 0, "prefill": batch * 493 * per_token, "decode": batch * 593 * per_token}
    assert result.footprint.kv_cache_bytes == cached["decode"]


def test_prefill_logits_last_spares_all_other_rows(model, page):
    last, every = (of.estimate(model, page, prefill_logits=logits).module_numbers["prefill", "lm_head"] for logits in ("last", "all"))
    assert last["tensor_flops"] == 2 * 1280 * 129_280
    assert every["tensor_flops"] == 493 * last["tensor_flops"]


def test_logits_are_what_the_engines_generate_computes(model, page):
    assert of.estimate(model, page, engine="transformers").config.prefill_logits == "last"
    assert of.estimate(model, page, engine="remote_code").config.prefill_logits == "all"


def test_rope_of_the_vendors_engine_is_a_matmul_for_every_row_of_positions(model):
    """128 FLOPs a token, layer and sequence of the batch: `generate` passes position_ids of the whole batch."""
    for batch in (1, 4):
        workload = of.Workload.from_grid(2, 1, output_tokens=100, batch_size=batch)
        ours, vendor = (of.estimate(model, workload, "eager", engine=engine, prefill_logits="all").stage_numbers for engine in ENGINES)
        assert vendor["prefill"]["tensor_flops"] - ours["prefill"]["tensor_flops"] == 128 * 12 * 493 * batch
        assert vendor["decode"]["tensor_flops"] - ours["decode"]["tensor_flops"] == 128 * 12 * 100 * batch


@pytest.mark.parametrize("engine", ENGINES)
def test_torch_does_not_see_the_flash_attn_package(model, page, engine):
    flash = of.estimate(model, page, "flash", engine=engine).module_numbers
    core = 4 * 64 * 16 * (257**2 + 2 * 101**2) * 24
    unseen = {key: row["tensor_flops"] - row["torch_flops"] for key, row in flash.items() if key[1].endswith(".attention")}
    steps = sum(493 + step for step in range(1, 101))
    assert unseen == {
        ("vision", "clip.attention"): core,
        ("prefill", "decoder.attention"): 4 * 1280 * 12 * 493**2,
        ("decode", "decoder.attention"): 4 * 1280 * 12 * steps,
    }


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("attention", ["eager", "sdpa", "flash"])
@pytest.mark.parametrize("name", ["model", "tiny"])
def test_stages_are_the_sums_of_their_modules(request, name, attention, engine):
    workload = of.Workload.from_grid(3, 2, batch_size=2, output_tokens=5)
    result = of.estimate(request.getfixturevalue(name), workload, attention, engine=engine)
    for stage, row in result.stage_numbers.items():
        modules = [other for (of_stage, _), other in result.module_numbers.items() if of_stage == stage]
        for column in COLUMNS:
            combine = max if column == "peak_activation_bytes" else sum
            assert combine(module[column] for module in modules) == row[column], (stage, column)
            assert type(row[column]) is int
        assert row["total_flops"] == row["tensor_flops"] + row["vector_flops"]
        assert row["io_bytes"] == row["weight_io_bytes"] + row["activation_io_bytes"] + row["kv_io_bytes"]
        assert all(row[column] > 0 for column in COLUMNS if not column.startswith("kv_")), stage


@pytest.mark.parametrize("engine", ENGINES)
def test_footprint_is_that_of_one_call_or_of_the_largest_stage(model, page, engine):
    result = of.estimate(model, page, "eager", engine=engine)
    peaks = {stage: row["peak_activation_bytes"] for stage, row in result.stage_numbers.items()}
    weight, kv, peak, total = result.footprint
    assert max(peaks.values()) < peak < sum(peaks.values())
    assert total == weight + kv + peak
    assert peak == result.together.peaks["call"].live_bytes
    for stages in (["vision"], ["prefill", "decode"], ["vision", "decode"]):
        alone = of.estimate(model, page, "eager", engine=engine, stages=stages).footprint
        assert alone.peak_activation_bytes == max(peaks[stage] for stage in stages)


def test_what_lives_in_one_call_beside_what_a_stage_needs_alone(model):
    """Beside vision: token embeddings and ids. Beside the layers of prefill: pixels, and both encoders' outputs that the class returns.
    Beside the logits: pixels, but not the features, which remote_code names in a function that has returned by then."""
    pixels = 2 * 3 * (1024**2 + 2 * 640**2)
    page = of.Workload.from_grid(2, 1)
    ours = of.estimate(model, page)
    assert ours.footprint.peak_activation_bytes - ours.stage_numbers["vision"]["peak_activation_bytes"] == 493 * (2 * 1280 + 8)
    long = of.Workload.from_grid(2, 1, prompt_tokens=3000)
    ours = of.estimate(model, long, of.AttentionSpec("mixed", {"sam": "flash", "clip": "flash", "decoder": "eager"}))
    encoded = 2 * 2048 * (256 + 2 * 100)
    assert ours.footprint.peak_activation_bytes - ours.stage_numbers["prefill"]["peak_activation_bytes"] == pixels + encoded
    vendor = of.estimate(model, long, engine="remote_code")
    grown = vendor.footprint.peak_activation_bytes - vendor.stage_numbers["prefill"]["peak_activation_bytes"]
    assert grown == pixels - 2 * 1280 * 483


def test_pixels_are_held_through_decode(model):
    """Long outputs of a small page: the last step's cache beside what `generate` was handed."""
    page = of.Workload.from_grid(1, 1, "tiny", output_tokens=200_000)
    result = of.estimate(model, page, "flash")
    assert result.footprint.peak_activation_bytes == result.stage_numbers["decode"]["peak_activation_bytes"] + 2 * 3 * 512**2


class Forward(RemoteCode, name="forward"):
    """The published code's plain `forward`, without what `generate` does with its logits."""

    clones_logits = False


@pytest.fixture
def forward():
    return replace(of.load_engine("remote_code"), name="forward")


def test_generate_clones_the_logits_of_the_vendors_engine(model, page, forward):
    """transformers 4.46.3: logits in fp32 twice, 1 034 240 bytes a token; a plain forward has them in bf16 and fp32, 775 680."""
    plain, generate = (of.estimate(model, page, engine=engine).stage_numbers for engine in (forward, "remote_code"))
    inputs = 493 * (8 + 8 + 8 + 1) + 483 * 1280 * 2  # ids, positions, padding mask, places; image features
    assert plain["prefill"]["peak_activation_bytes"] == 493 * 775_680 + 493 * 1280 * 2 + inputs
    assert generate["prefill"]["peak_activation_bytes"] == 493 * 1_034_240 + inputs
    assert generate["prefill"]["io_bytes"] - plain["prefill"]["io_bytes"] == 2 * 493 * 517_120
    assert generate["decode"]["io_bytes"] - plain["decode"]["io_bytes"] == 2 * 100 * 517_120
    assert generate["prefill"]["torch_flops"] == plain["prefill"]["torch_flops"]


def test_the_clone_lives_through_the_first_decode_step(model, page, forward):
    for batch in (1, 3):
        point = replace(page, batch_size=batch)
        first = of.estimate(model, replace(point, output_tokens=1), engine=forward).stage_numbers["decode"]["peak_activation_bytes"]
        for tokens in (1, 2, 100):
            decode = of.estimate(model, replace(point, output_tokens=tokens), engine="remote_code").stage_numbers["decode"]
            assert decode["peak_activation_bytes"] == first + batch * 493 * 517_120
        last = of.estimate(model, replace(point, output_tokens=1_000_000), engine=forward).stage_numbers["decode"]
        long = of.estimate(model, replace(point, output_tokens=1_000_000), engine="remote_code").stage_numbers["decode"]
        assert long["peak_activation_bytes"] == last["peak_activation_bytes"] + batch * 517_120


@pytest.mark.parametrize("attention", ["eager", "sdpa", "flash"])
def test_peaks_name_the_operator(model, page, attention):
    result = of.estimate(model, page, attention)
    for stage, peak in result.peaks.items():
        assert peak.live_bytes == result.stage_numbers[stage]["peak_activation_bytes"]
        assert result.module_numbers[stage, peak.module]["peak_activation_bytes"] == peak.live_bytes
    if attention != "flash":  # scores or biases of 4096 x 4096 patches
        assert result.peaks["vision"].module == "sam.attention_global"


def test_a_mode_per_tower(model, page):
    eager, flash, mixed = (
        of.estimate(model, page, attention).module_numbers
        for attention in ("eager", "flash", of.AttentionSpec("mixed", {"sam": "eager", "clip": "flash", "decoder": "eager"}))
    )
    for key, source in (
        (("vision", "sam.attention_global"), eager),
        (("vision", "clip.attention"), flash),
        (("prefill", "decoder.attention"), eager),
    ):
        columns = [column for column in COLUMNS if column != "peak_activation_bytes"]  # the tower's input may be alive elsewhere
        assert {column: mixed[key][column] for column in columns} == {column: source[key][column] for column in columns}


def test_vendor_is_what_the_engine_does(model, page):
    def numbers(*arguments):
        return of.estimate(model, page, *arguments, engine="remote_code").stage_numbers

    assert numbers("vendor") == numbers(of.AttentionSpec("mixed", {"sam": "sdpa", "clip": "sdpa", "decoder": "eager"}))
    assert of.estimate(model, page, "vendor").stage_numbers == of.estimate(model, page, "sdpa").stage_numbers


def test_no_output_tokens_is_no_decode(model):
    decode = of.estimate(model, of.Workload.from_grid(2, 1, output_tokens=0)).stage_numbers["decode"]
    assert decode.pop("weight_bytes") > 0
    assert decode.pop("kv_cache_bytes") == 493 * 61_440
    assert set(decode.values()) == {0}


def test_decode_of_many_steps_is_the_sum_of_single_steps(model):
    whole = of.estimate(model, of.Workload.from_grid(2, 1, output_tokens=7, batch_size=3), "eager").module_numbers
    steps = [
        of.estimate(model, of.Workload.from_grid(2, 1, prompt_tokens=10 + step, output_tokens=1, batch_size=3), "eager").module_numbers
        for step in range(7)
    ]
    for key, row in whole.items():
        if key[0] == "decode":
            for column in COLUMNS[:-3]:
                assert row[column] == sum(step[key][column] for step in steps), (key, column)
            assert row["peak_activation_bytes"] == max(step[key]["peak_activation_bytes"] for step in steps)


def test_experts_that_were_hit_are_charged(model, page):
    expert = 2 * 3 * 1280 * 896
    for hit in (66, 500, 704):
        result = of.estimate(model, page, stages=["prefill"], experts_hit={"prefill": hit})
        assert result.module_numbers["prefill", "decoder.routed_experts"]["weight_io_bytes"] == hit * expert


def test_expected_experts(model):
    """64·(1 − (1 − 6/64)^tokens) a layer, rounded once a layer and third of an expert."""
    for batch in (1, 2, 16):
        decode = of.estimate(model, of.Workload.from_grid(1, 1, output_tokens=1, batch_size=batch), stages=["decode"])
        third = round(64 * (1 - (1 - 6 / 64) ** batch) * 2 * 1280 * 896)
        assert decode.module_numbers["decode", "decoder.routed_experts"]["weight_io_bytes"] == 3 * 11 * third


def test_experts_hit_speak_of_one_decode_step(model):
    with pytest.raises(of.SpecError, match="^experts_hit: decode takes one step"):
        of.estimate(model, of.Workload.from_grid(output_tokens=2), experts_hit={"decode": 66}).stage_numbers  # noqa: B018


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "sparkle"}, "^attention: 'sparkle' is not one of eager, flash, sdpa, vendor$"),
        ({"engine": "vlm"}, "^engine: 'vlm' is not one of remote_code, sglang, transformers, vllm$"),
        ({"dtype": "int8"}, "^dtype: 'int8' is not one of bf16, fp16, fp32$"),
        ({"cache": "paged"}, "^cache: 'paged' is not one of dynamic, static$"),
        ({"prefill_logits": "some"}, "^prefill_logits: 'some' is not one of all, last$"),
        ({"stages": ["vision", "training"]}, "^stages: 'training' is not one of vision, prefill, decode$"),
        ({"stages": []}, "^stages: empty; choose from vision, prefill, decode$"),
        ({"attention": "flash", "dtype": "fp32"}, "^attention: flash kernels take bf16 or fp16, not dtype = fp32; use eager or sdpa$"),
        ({"attention": of.AttentionSpec("mixed", {"clip": "flash"}), "dtype": "fp32"}, "^attention: flash kernels take bf16 or fp16"),
    ],
)
def test_what_is_refused(model, page, options, message):
    with pytest.raises(of.SpecError, match=message):
        of.estimate(model, page, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": "operator"}, "^level: 'operator' is not one of stage, module$"),
        ({"columns": ["flops"]}, "^columns: 'flops' is not one of "),
    ],
)
def test_what_sweep_refuses(model, page, options, message):
    with pytest.raises(of.SpecError, match=message):
        of.sweep(model, [page], **options)


HUGE = {"global_px": 16_384, "batch_size": 65_536}


def test_a_point_beyond_the_limit_is_refused(model):
    with pytest.raises(of.SpecError, match=r"^(total|tensor)_flops of vision exceeds 2\^62; lower the grid, the tokens or the batch size$"):
        of.estimate(model, of.Workload(**HUGE), "eager").stage_numbers  # noqa: B018


@pytest.mark.parametrize("batch", [[65_536], [1, 65_536], [65_536, 1, 1]])
def test_one_row_beyond_the_limit_is_refused(model, batch):
    with pytest.raises(of.SpecError, match=r"_flops of vision exceeds 2\^62"):
        of.sweep(model, of.Workload(16_384, batch_size=np.array(batch)), "eager")


def test_traffic_beyond_the_limit_is_refused(model):
    """A context of 2^21 tokens in a batch of 2^13 moves more than it may in prefill."""
    with pytest.raises(of.SpecError, match=r"of prefill exceeds 2\^62"):
        of.estimate(model, of.Workload.from_grid(prompt_tokens=1_000_000, batch_size=65_536), "eager").stage_numbers  # noqa: B018


def test_rows_within_the_limit_pass_although_their_corner_does_not(model):
    """Large views alone and a large batch alone both fit; each row must then be exact."""
    many = of.Workload(np.array([16_384, 64]), batch_size=np.array([1, 65_536]), output_tokens=1)
    with pytest.raises(of.SpecError):
        of.estimate(model, many.upper_bound(), "eager").stage_numbers  # noqa: B018
    numbers = of.estimate(model, many, "eager").stage_numbers
    for row, single in enumerate((of.Workload(16_384, output_tokens=1), of.Workload(64, batch_size=65_536, output_tokens=1))):
        for stage, values in of.estimate(model, single, "eager").stage_numbers.items():
            assert {column: int(numbers[stage][column][row]) for column in COLUMNS} == values


def test_the_limit_is_sharp(model):
    """The largest batch that fits and the next one, found by Python ints, are accepted and refused as columns too."""

    def total_flops(batch):
        result = of.estimate(model, of.Workload(16_384, batch_size=batch), "eager", stages=["vision"])
        return result.stage_numbers["vision"]["total_flops"]

    two, three = total_flops(2), total_flops(3)
    fits = 2 + (LIMIT - two) // (three - two)
    assert total_flops(fits) == total_flops(np.array([fits]))[0] <= LIMIT
    for batch in (fits + 1, np.array([fits + 1]), np.array([1, fits + 1, 2])):
        with pytest.raises(of.SpecError, match=r"total_flops of vision exceeds 2\^62"):
            total_flops(batch)


def test_import_loads_nothing_heavy():
    heavy = ("torch", "transformers", "altair", "marimo", "polars", "hydra", "omegaconf")
    code = f"import sys, ocr_flops; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_estimate_loads_no_torch():
    code = (
        "import sys, ocr_flops as of; of.estimate(of.load_model('deepseek_ocr'), of.Workload.from_grid(2, 3)).modules; "
        "print([name for name in ('torch', 'transformers', 'altair', 'marimo') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names():
    assert {"estimate", "sweep", "Workload", "load_model", "load_hardware"} <= set(of.__all__)
    assert all(getattr(of, name) is not None for name in of.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        of.nothing  # noqa: B018
