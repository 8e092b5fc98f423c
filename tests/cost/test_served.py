"""Engines that serve: kernels against a count by hand, work against transformers', precisions, blocks, and the passes of a scheduler."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ocr_flops as of
from ocr_flops.cost.blocks.experts import expected_padded_rows
from ocr_flops.cost.run_config import RunConfig, stage_program
from ocr_flops.cost.served_passes import chunk_group, profiling_peak_bytes, step_group
from ocr_flops.spec.catalog import load_efficiency, load_host
from ocr_flops.spec.workload import Workload
from ocr_flops.timing.expected import expected_seconds

SERVED = ("vllm", "sglang")
ATTENTION = ["fused_add_rms_norm", "mm", "rotary_embedding", "reshape_and_cache", "_scaled_dot_product_flash_attention", "combine", "mm"]
EXPERTS = ["moe_align_block_size", "fused_moe_kernel", "silu_and_mul", "fused_moe_kernel", "moe_sum"]
MLP = ["mm", "silu_and_mul", "mm"]
ROUTER = {
    "vllm": ["mm", "_softmax", "topk", "zeros_like", "scatter_", "masked_fill", "topk", "_to_copy", "_to_copy"],
    "sglang": ["mm", "topk_softmax"],
}
LAYER = {engine: [*ATTENTION, "fused_add_rms_norm", *ROUTER[engine], *EXPERTS, *MLP, "add"] for engine in SERVED}
HEAD = ["index", "mm", "_to_copy", "argmax"]
PAGE = Workload.from_grid(2, 3, "gundam", output_tokens=256)


@pytest.fixture(scope="module")
def model():
    return of.load_model("deepseek_ocr")


def config(model, engine="vllm", **options):
    return RunConfig.resolve(model, "vendor", replace(of.load_engine(engine), **options), "bf16", "dynamic", None)


@pytest.mark.parametrize("engine", SERVED)
def test_kernels_of_a_decode_step_are_those_listed(model, engine):
    program = stage_program(config(model, engine), "decode", True)
    names = [one.name for one in program.operations if 5 in one.runs_in]
    assert names == LAYER[engine]
    first = [one.name for one in program.operations if 0 in one.runs_in]
    assert first == ["rms_norm", *ATTENTION[1:], "fused_add_rms_norm", *MLP]
    embedding = ["embedding", "copy_"] if engine == "vllm" else ["embedding"]
    outside = [one.name for one in program.operations if not one.runs_in]
    assert outside == [*embedding, "fused_add_rms_norm", *HEAD]
    by_hand = len(outside) + len(first) + 11 * len(names)
    assert by_hand == {"vllm": 304, "sglang": 226}[engine]
    assert of.estimate(model, replace(PAGE, output_tokens=1), engine=engine).stage_numbers["decode"]["operators"] == by_hand


@pytest.mark.parametrize("engine", SERVED)
@pytest.mark.parametrize("batch", [1, 3])
def test_matrix_work_is_that_of_transformers_but_for_padded_rows(model, engine, batch):
    page = replace(PAGE, batch_size=batch)
    ours, plain = (of.estimate(model, page, engine=one, prefill_logits="last").module_numbers for one in (engine, "transformers"))
    for key, row in plain.items():
        if key[1] != "decoder.routed_experts":
            assert ours[key]["tensor_flops"] == row["tensor_flops"], key
    tokens = batch * page.context_tokens
    padded = expected_padded_rows(model.language_model, tokens, 64)
    assert ours["prefill", "decoder.routed_experts"]["tensor_flops"] == 11 * 6 * 1280 * 896 * padded
    assert plain["prefill", "decoder.routed_experts"]["tensor_flops"] == 11 * 6 * 1280 * 896 * 6 * tokens


@pytest.mark.parametrize("engine", SERVED)
def test_weights_read_are_of_the_experts_hit(model, engine):
    read = [
        of.estimate(model, replace(PAGE, batch_size=batch, output_tokens=1), engine=engine).module_numbers[
            "decode", "decoder.routed_experts"
        ]
        for batch in (1, 2, 512)
    ]
    expert = 3 * 1280 * 896 * 2
    moved = [row["weight_io_bytes"] for row in read]
    assert moved[0] == 11 * 6 * expert
    assert 11 * 11 * expert < moved[1] < 11 * 12 * expert
    assert moved[2] == 11 * 64 * expert == read[2]["weight_bytes"]


def test_padded_rows_against_a_draw(model):
    spec, rng = model.language_model, np.random.default_rng(1)
    for tokens, block in ((1, 16), (40, 16), (65, 64), (2000, 64), (40_000, 64)):
        rows = rng.binomial(tokens, 6 / 64, size=(20_000, 64))
        drawn = (-(-rows // block) * block).sum(axis=1).mean()
        assert expected_padded_rows(spec, tokens, block) == pytest.approx(drawn, rel=0.01)
    assert expected_padded_rows(spec, 0, 16) == 0


@settings(max_examples=30, deadline=None)
@given(tokens=st.integers(1, 20_000), more=st.integers(1, 5_000))
def test_padded_rows_grow_with_tokens_and_are_at_least_the_rows(tokens, more):
    spec = of.load_model("deepseek_ocr").language_model
    engine = config(of.load_model("deepseek_ocr")).engine_code
    few, many = (engine.dimensions(spec, count)["padded_rows"] for count in (tokens, tokens + more))
    assert 6 * tokens - 1 <= few <= many <= 6 * (tokens + more) + 64 * 64


@pytest.mark.parametrize("engine", SERVED)
@pytest.mark.parametrize("attention", ["vendor", "eager", "sdpa", "flash"])
def test_stages_are_the_sums_of_their_modules_and_points_those_of_columns(model, engine, attention):
    batches = np.array([1, 2, 7])
    frame = of.sweep(model, [replace(PAGE, batch_size=batch) for batch in batches.tolist()], attention=attention, engine=engine)
    one = of.estimate(model, replace(PAGE, batch_size=2), attention, engine=engine)
    for stage, row in one.stage_numbers.items():
        modules = [numbers for (name, _), numbers in one.module_numbers.items() if name == stage]
        for column in ("total_flops", "io_bytes", "operators", "weight_bytes"):
            assert row[column] == sum(numbers[column] for numbers in modules)
        assert frame.filter(batch_size=2, stage=stage)["io_bytes"].item() == row["io_bytes"]
    assert set(one.stages["evidence"]) == {"modelled"} and set(one.stages["cache"]) == {"paged"}


def test_cache_is_in_whole_blocks(model):
    point = replace(PAGE, prompt_tokens=3, output_tokens=5, batch_size=2)  # 911 tokens
    for block, tokens in ((16, 912), (128, 1024), (1, 911)):
        cost = of.estimate(model, point, engine=replace(of.load_engine("vllm"), block_tokens=block))
        assert cost.footprint.kv_cache_bytes == 2 * tokens * 61_440


def test_fp8_halves_what_it_is_of_and_takes_the_peak_of_fp8(model):
    plain, narrow = (of.estimate(model, PAGE, engine=replace(of.load_engine("vllm"), weights=one)) for one in (None, "fp8"))
    saved = plain.footprint.weight_bytes - narrow.footprint.weight_bytes
    decoder = 12 * 4 * 1280**2 + 3 * 1280 * 6848 + 11 * 66 * 3 * 1280 * 896  # attention, dense MLP, experts
    clip = 24 * 12 * 1024**2
    matrices = 12 * 2 + 2 + 11 * (2 * 64 + 2) + 24 * 4
    assert saved == decoder + clip - 4 * matrices
    cached = of.estimate(model, PAGE, engine=replace(of.load_engine("vllm"), cache="fp8"))
    assert 2 * cached.footprint.kv_cache_bytes == plain.footprint.kv_cache_bytes
    assert 2 * cached.stage_numbers["decode"]["kv_io_bytes"] == plain.stage_numbers["decode"]["kv_io_bytes"]
    assert narrow.config.engine.title == "vllm weights=fp8" and set(narrow.stages["engine"]) == {"vllm weights=fp8"}
    gpu = of.load_hardware("l4")  # of little bandwidth; on faster ones a kernel more for every product outweighs the bytes
    first, narrow_first = (one.on(gpu) for one in (plain, narrow))
    assert narrow_first.expected_tpot.value < first.expected_tpot.value
    assert narrow_first.ttft_seconds < first.ttft_seconds
    for one in (narrow_first, cached.on(gpu)):
        table = one.stages
        assert (table["bound_seconds"] <= table["roofline_seconds"]).all()


def test_fp8_is_refused_by_name_where_it_is_not(model):
    narrow = replace(of.load_engine("vllm"), weights="fp8")
    with pytest.raises(of.SpecError, match="A100.*no fp8 figure, and products of fp8 weights in another precision are not modelled"):
        of.estimate(model, PAGE, engine=narrow).on(of.load_hardware("a100_80gb_sxm")).expected_tpot  # noqa: B018
    with pytest.raises(of.SpecError, match="^engine.weights: fp8 is an option of engines with a paged cache, not of transformers"):
        replace(of.load_engine("transformers"), weights="fp8")
    with pytest.raises(of.SpecError, match="^engine.cache: 'fp4' is not one of None, fp8$"):
        replace(of.load_engine("sglang"), cache="fp4")


def test_passes_of_a_scheduler_are_the_stages_of_one_page(model):
    served = config(model)
    numbers = of.estimate(model, replace(PAGE, output_tokens=1), engine="vllm").stage_numbers
    context = PAGE.context_tokens
    for group, stage in ((chunk_group(served, context, 0, PAGE.image_tokens), "prefill"), (step_group(served, 1, context + 1), "decode")):
        row = group.row(served)
        assert {name: row[name] for name in row if name != "kv_cache_bytes"} == {
            name: value for name, value in numbers[stage].items() if name != "kv_cache_bytes"
        }


def test_chunks_do_the_work_of_the_prompt_less_its_upper_triangle(model):
    served = config(model)
    whole = chunk_group(served, 1000).row(served)
    parts = [chunk_group(served, 500, cached).row(served) for cached in (0, 500)]
    scores = 12 * 4 * 1280 * 500 * 500  # rows of the first chunk that do not see the second's keys
    head = 2 * 1280 * 129_280
    experts = [11 * 6 * 1280 * 896 * expected_padded_rows(model.language_model, tokens, 64) for tokens in (1000, 500)]
    assert sum(row["tensor_flops"] for row in parts) - 2 * experts[1] == whole["tensor_flops"] - experts[0] - scores + head


def test_what_a_profiling_run_needs(model):
    served = config(model)
    few, many = (profiling_peak_bytes(served, PAGE, 2048, sequences) for sequences in (1, 1024))
    vision = of.estimate(model, PAGE, engine="vllm", stages=["vision"]).footprint.peak_activation_bytes
    assert few == vision < many
    assert many >= 1024 * 129_280 * 6
    with pytest.raises(of.SpecError, match="^engine: 'transformers' does not serve"):
        step_group(config(model, "transformers"), 1, 100)


def test_packed_images_are_one_pass_of_their_views_and_graphs(model):
    """Weights of vision are read once for a batch, and with graphs the host has nothing to issue."""
    points = replace(PAGE, batch_size=4)
    alone, packed = (of.estimate(model, points, engine=replace(of.load_engine("vllm"), packs_images=one)) for one in (False, True))
    numbers, together = alone.stage_numbers["vision"], packed.stage_numbers["vision"]
    assert numbers["tensor_flops"] == together["tensor_flops"]
    assert together["operators"] < numbers["operators"] / 3
    assert 3.9 < numbers["weight_io_bytes"] / together["weight_io_bytes"] < 4.1
    assert together["peak_activation_bytes"] > numbers["peak_activation_bytes"]
    table = [one.on("h200").stages.filter(stage="vision") for one in (alone, packed)]
    assert table[1]["expected_seconds"].item() < table[0]["expected_seconds"].item()
    assert table[1]["device_busy_share"].item() > 0.99
    with pytest.raises(of.SpecError, match="^engine.packs_images: transformers has no such option"):
        replace(of.load_engine("transformers"), packs_images=True)


@settings(max_examples=15, deadline=None)
@given(batch=st.integers(1, 300), tokens=st.integers(1, 4000), more=st.integers(1, 300))
def test_more_work_never_takes_less_time(batch, tokens, more):
    """A step of more sequences, a longer chunk, a larger context: no fewer bytes, no fewer seconds."""
    served = config(of.load_model("deepseek_ocr"), "sglang")
    lanes = (of.load_hardware("l4"), load_host("graphs"), load_efficiency())
    for group, larger in (
        (step_group(served, 1 + batch, tokens), step_group(served, 1 + batch + more, tokens)),
        (step_group(served, batch, tokens), step_group(served, batch, tokens + more)),
        (chunk_group(served, tokens, more), chunk_group(served, tokens + more, more)),
    ):
        few, many = (one.row(served) for one in (group, larger))
        assert all(few[name] <= many[name] for name in ("total_flops", "io_bytes", "peak_activation_bytes"))
        fast, slow = (expected_seconds(one, served, *lanes).seconds for one in (group, larger))
        assert (fast <= slow * (1 + 1e-12)).all()
