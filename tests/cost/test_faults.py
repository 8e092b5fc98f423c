"""The faults of the system that this project replaces (PARITY.md), each by its number: putting one back makes its test fail."""

from collections import Counter

import numpy as np
import polars as pl
import pytest

import ocr_flops as of
from ocr_flops.cost import ops
from ocr_flops.cost.polynomial import terms_of
from ocr_flops.cost.run_config import stage_program
from ocr_flops.evidence import verify
from ocr_flops.measure.plan import build_request
from ocr_flops.spec.catalog import names
from ocr_flops.timing import planning

ENGINES = ("transformers", "remote_code")
REFERENCE_GRIDS = [(columns, rows) for rows in range(1, 30) for columns in range(1, rows + 1) if 2 <= columns * rows <= 29]


@pytest.fixture(scope="module")
def page(model):
    return of.estimate(model, of.Workload.from_grid(2, 1, output_tokens=100), "eager")


@pytest.mark.parametrize("engine", ENGINES)
def test_fault_01_vision_flops_drift_with_tiles(model, engine):
    """Projector tokens were multiplied by tiles twice, a term in tiles²: any such term bends this straight line."""

    def tensor_flops(tiles, module):
        return of.estimate(model, of.Workload.from_grid(1, tiles), engine=engine).module_numbers["vision", module]["tensor_flops"]

    for tiles in (2, 9, 100, 390):
        assert tensor_flops(tiles, "projector") == 2 * 2048 * 1280 * (256 + 100 * tiles)
        for module in ("sam.attention_windowed", "sam.attention_global", "sam.mlp", "sam.neck", "clip.attention", "clip.mlp"):
            base, tile = tensor_flops(2, module), tensor_flops(3, module) - tensor_flops(2, module)
            assert tensor_flops(tiles, module) == base + (tiles - 2) * tile


@pytest.mark.parametrize("engine", ENGINES)
def test_fault_02_projector_has_one_linear_layer(model, engine):
    """A second layer would add 1280² + 1280 parameters and a matrix product."""
    result = of.estimate(model, of.Workload.from_grid(), engine=engine)
    assert result.config.parameters["projector"] == 2048 * 1280 + 1280
    products = [
        operation
        for group in result.stage_groups()
        for operation in group.program.operations
        if operation.module == "projector" and operation.costs["tensor_flops"]
    ]
    assert [operation.name for operation in products] == ["addmm"]


def test_fault_03_decoder_layer_0_is_dense(model, page):
    """With experts in layer 0 there are 12 instead of 11 layers of them, and no dense MLP."""
    parameters, modules = page.config.parameters, page.module_numbers
    assert parameters["decoder.dense_mlp"] == 3 * 1280 * 6848
    assert parameters["decoder.routed_experts"] == 11 * 64 * 3 * 1280 * 896
    assert modules["prefill", "decoder.dense_mlp"]["tensor_flops"] == 493 * 2 * 3 * 1280 * 6848
    assert modules["prefill", "decoder.routed_experts"]["tensor_flops"] == 493 * 11 * 6 * 2 * 3 * 1280 * 896
    assert modules["prefill", "decoder.router"]["tensor_flops"] == 493 * 11 * 2 * 1280 * 64


@pytest.mark.parametrize(("engine", "weight_bytes"), [("remote_code", 6_672_212_480), ("transformers", 6_671_008_256)])
def test_fault_04_weights_count_once_and_all_experts_are_resident(model, engine, weight_bytes):
    """Weights per vision branch would grow with tiles; one expert of 64 would leave 2.2 GiB."""
    for grid in ((1, 1), (2, 1), (9, 1), (10, 10)):
        result = of.estimate(model, of.Workload.from_grid(*grid), engine=engine)
        assert result.footprint.weight_bytes == weight_bytes
        assert result.stage_numbers["vision"]["weight_bytes"] + result.stage_numbers["prefill"]["weight_bytes"] == weight_bytes
    assert weight_bytes > 6.2 * 2**30
    config = of.estimate(model, of.Workload.from_grid(), engine=engine).config
    assert stage_program(config, "vision", True, (1024, 640)).parameters == stage_program(config, "vision", True, (1024, 0)).parameters


def test_fault_05_flash_costs_no_more_than_eager(model):
    """It did in the reference on 147 of these points; swapping the modes, or a flash that writes its scores, fails here."""
    assert len(REFERENCE_GRIDS) == 53
    columns, rows = np.array(REFERENCE_GRIDS).T
    workload = of.Workload.from_grid(columns=columns, rows=rows)
    eager, flash = (of.estimate(model, workload, mode).stage_numbers for mode in ("eager", "flash"))
    for stage in eager:
        assert (flash[stage]["io_bytes"] < eager[stage]["io_bytes"]).all()
        assert (flash[stage]["peak_activation_bytes"] <= eager[stage]["peak_activation_bytes"]).all()
        assert (flash[stage]["tensor_flops"] == eager[stage]["tensor_flops"]).all()
    assert (2 * flash["vision"]["peak_activation_bytes"] < eager["vision"]["peak_activation_bytes"]).all()


def test_fault_06_kv_cache_is_not_prefill_plus_decode(model, page):
    """Decode's cache holds the context already: adding prefill's makes it 1086 tokens instead of 593."""
    assert page.stage_numbers["decode"]["kv_cache_bytes"] == 593 * 61_440
    assert page.footprint.kv_cache_bytes == 593 * 61_440


@pytest.mark.parametrize("engine", ENGINES)
def test_fault_07_step_i_attends_to_context_plus_i_keys(model, engine):
    """With context + i - 1 keys the first step's scores would be 493 wide, not 494."""

    def attention_flops(output_tokens):
        result = of.estimate(model, of.Workload.from_grid(2, 1, output_tokens=output_tokens), "eager", engine=engine)
        return result.module_numbers["decode", "decoder.attention"]["tensor_flops"]

    one = of.estimate(model, of.Workload.from_grid(2, 1, output_tokens=1), "eager", engine=engine)
    later = of.estimate(model, of.Workload.from_grid(2, 1, prompt_tokens=0, output_tokens=11), "eager", engine=engine)
    assert (
        one.stage_groups()[2].values["context"] == later.stage_groups()[2].values["context"] == 494
    )  # the last step's keys, which the peak takes
    projections = 12 * (4 * 2 * 1280 * 1280 + (128 if engine == "remote_code" else 0))
    assert attention_flops(1) == projections + 12 * 4 * 1280 * 494
    assert attention_flops(100) - attention_flops(99) == projections + 12 * 4 * 1280 * 593


def test_fault_08_decode_moves_weights_and_cache(model, page):
    """Without them intensity is hundreds of FLOPs per byte; with them a step reads at least the active weights and the cache."""
    decode = page.stage_numbers["decode"]
    parameters = page.config.parameters
    active = sum(parameters[name] for name in ("decoder.attention", "decoder.dense_mlp", "decoder.shared_experts", "lm_head"))
    active += parameters["decoder.routed_experts"] * 6 // 64
    assert decode["weight_io_bytes"] >= 100 * 2 * active
    assert decode["kv_io_bytes"] >= sum((493 + step) * 61_440 for step in range(1, 101))
    assert 0.5 < decode["total_flops"] / decode["io_bytes"] < 2


@pytest.mark.parametrize(("attention", "traced_bytes"), [("eager", 2_454_000_000), ("sdpa", 843_000_000)])
def test_fault_09_peak_activations_are_no_sum_over_the_pass(model, attention, traced_bytes):
    """A sum over operators is many times the live peak traced at 1024 px; one over layers or steps grows with them."""
    base = of.estimate(model, of.Workload(1024), attention).stage_numbers["vision"]
    assert base["peak_activation_bytes"] == pytest.approx(traced_bytes, rel=0.02)
    workload = of.Workload.from_grid(2, 1, output_tokens=5)
    deeper = of.load_model("deepseek_ocr", ["model.towers.clip.layers=48", "model.towers.decoder.layers=24"])
    for stage in ("vision", "prefill", "decode"):
        peaks = [of.estimate(spec, workload, attention).stage_numbers[stage]["peak_activation_bytes"] for spec in (model, deeper)]
        assert peaks[0] == peaks[1] > 0


@pytest.mark.parametrize("attention", ["eager", "sdpa", "flash"])
def test_fault_10_softmax_is_vector_work(model, attention):
    """Five FLOPs a score, in fused kernels too: without softmax a key costs a decode step 2 vector FLOPs a head, not 7."""
    config = of.estimate(model, of.Workload.from_grid(), attention).config
    core = ("_softmax", "_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention")
    found = Counter()
    for operation in stage_program(config, "vision", True, (1024, 0)).operations:
        if operation.name in core:
            found[operation.module] += terms_of(operation.costs["vector_flops"])["batch",]
    scores = {"sam.attention_global": 4 * 12 * 4096**2, "sam.attention_windowed": 8 * 25 * 12 * 196**2, "clip.attention": 24 * 16 * 257**2}
    in_sam, in_clip = {"eager": (5, 5), "sdpa": (7, 6), "flash": (8, 6)}[attention]  # fused: with scaling and bias
    per_score = dict.fromkeys(scores, in_sam) | {"clip.attention": in_clip}
    assert found == {module: per_score[module] * count for module, count in scores.items()}
    step = sum(
        terms_of(operation.costs["vector_flops"]).get(("batch", "context"), 0)
        for operation in stage_program(config, "decode", True).operations
        if operation.module == "decoder.attention"
    )
    assert step >= 12 * 10 * (5 + 1)


def test_fault_11_units_are_bytes_flops_and_seconds(model):
    """Every figure's name ends in its unit (counts in what they count); intensity is FLOPs per byte, not per bit."""
    timing = of.estimate(model, of.Workload.from_grid(2, 3)).on(of.load_hardware("h200"))
    numeric = [name for name, dtype in timing.modules.schema.items() if dtype.is_numeric()]
    counts = {"columns", "rows", "tiles", "operators", "batch_size", "pages", "arithmetic_intensity", "ceiling_margin", "device_busy_share"}
    units = ("_flops", "_bytes", "_seconds", "_tokens", "_px")
    assert [name for name in numeric if not name.endswith(units) and name not in counts] == []
    for row in timing.modules.iter_rows(named=True):
        assert row["arithmetic_intensity"] == row["total_flops"] / row["io_bytes"]
        assert all(isinstance(row[name], int) for name in numeric if name.endswith(("_flops", "_bytes", "_tokens", "_px")))


def test_fault_12_required_throughput_has_a_bandwidth(model, page):
    """From FLOPs alone a token in 2 ms takes 0.6 TFLOP/s, which any device has; the bytes that it must read are what binds."""
    (required,) = planning.required_rates(page, tpot_seconds=0.002)
    assert required.bytes_per_second == page.stage_numbers["decode"]["io_bytes"] / 100 / 0.002
    assert required.matrix_flops_per_second < 0.6e12 < required.bytes_per_second
    devices = [of.load_hardware(name) for name in ("h200", "l4")]
    table = planning.compare_devices(page, devices, tpot_seconds=0.002, host="graphs")
    enough = {gpu.name: gpu.matrix_peak("bf16") > required.matrix_flops_per_second for gpu in devices}
    assert enough == {"h200": True, "l4": True}
    assert dict(table.select("hardware", "meets_target").iter_rows()) == {"h200": True, "l4": False}


DENSE = {  # bf16 or fp16 FLOP/s without sparsity, as the vendors print them beside or below a figure twice as large
    "a100_80gb_sxm": 312e12,
    "h100_sxm": 989.4e12,
    "h200": 989.4e12,
    "l4": 121e12,
    "mi300x": 1307.4e12,
}


@pytest.mark.parametrize("name", DENSE)
def test_fault_13_peaks_are_dense(name):
    """test_hardware.py holds every device's figures against its units, clocks and sources."""
    gpu = of.load_hardware(name)
    assert gpu.matrix_peak("fp16") == pytest.approx(DENSE[name], rel=0.01)


@pytest.mark.parametrize("name", ["rtx_9999", "", "cpu"])
def test_fault_13_an_unknown_device_is_an_error(name):
    """It silently got 100 TFLOP/s."""
    with pytest.raises(of.SpecError, match=f"^hardware: {name!r} is not one of ") as error:
        of.load_hardware(name)
    assert all(known in str(error.value) for known in ([] if name == "rtx_9999" else names("hardware")))
    assert "rtx_4090" in str(error.value)


@pytest.mark.parametrize("size", [(640, 640), (1, 1), (640, 100), (100, 640)])
def test_fault_14_small_images_are_not_tiled(model, size):
    """The 640 px rule: these pages cost what the global view alone costs."""
    small, view = of.Workload.from_image(*size), of.Workload.from_grid(1, 1)
    assert (small.tiles, small.image_tokens) == (0, 273)
    assert of.estimate(model, small).stage_numbers == of.estimate(model, view).stage_numbers
    assert of.Workload.from_image(641, 640).tiles >= 2


def measured(serve, spec, kind="count"):
    return serve(build_request(spec, [of.Workload(256, 128, 2, 1, output_tokens=1)], device="meta", kind=kind))[0]


@pytest.mark.parametrize("kind", ["count", "trace"])
def test_fault_15_a_broken_formula_is_reported(tiny, serve, monkeypatch, kind):
    """A matrix product at half its cost must show in every module that has one."""
    message = measured(serve, tiny, kind)
    assert verify.compare_numbers(tiny, message).filter(pl.col("difference") != 0).is_empty()
    right = ops.linear

    def halved(*arguments):
        operator = right(*arguments)
        operator.tensor_flops = operator.tensor_flops // 2
        return operator

    monkeypatch.setattr(ops, "linear", halved)
    stage_program.cache_clear()
    try:
        wrong = verify.compare_numbers(tiny, message).filter(pl.col("difference") != 0)
    finally:
        monkeypatch.undo()
        stage_program.cache_clear()
    assert {"sam.mlp", "clip.mlp", "projector", "decoder.dense_mlp", "lm_head"} <= set(wrong["module"])
    assert (wrong["difference"] > 0).all()


@pytest.mark.parametrize(
    "change", ["clip.mlp_width=97", "decoder.shared_experts=1", "decoder.dense_layers=0", "sam.window=4", "sam.neck_width=23"]
)
def test_fault_15_a_wrong_dimension_is_reported(tiny, serve, change):
    """The real model keeps its dimensions; an analytic side with others must differ."""
    message = measured(serve, tiny)
    wrong = of.load_model("tiny_test", [f"model.towers.{change}"])
    found = verify.compare_numbers(wrong, message).filter(pl.col("difference") != 0)
    assert "torch_flops" in found["column"].to_list()


def test_fault_15_nothing_counted_is_an_error():
    """The reference compared 0 with 5.24 MFLOPs and printed ok."""
    from ocr_flops.measure.worker.counting import check_seen

    good = {"vision": {"sam.attention_global": 1, "clip.attention": 1}, "prefill": {"decoder.attention": 1, "decoder.routed_experts": 1}}
    for stage, modules in good.items():
        check_seen(stage, Counter(modules))
        for unseen in modules:
            with pytest.raises(RuntimeError, match=f"^torch counted no FLOPs in {unseen}"):
                check_seen(stage, Counter(modules | {unseen: 0}))


def test_fault_15_a_module_that_only_one_side_has_differs(tiny, serve):
    message = measured(serve, tiny)
    message.stages["vision"]["modules"]["surprise"] = 5
    del message.stages["vision"]["modules"]["projector"]
    found = verify.compare_flops(tiny, message).filter(pl.col("difference") != 0)
    assert dict(zip(found["module"], found["difference"], strict=True)) == {
        "surprise": 5,
        "projector": -of.estimate(tiny, of.Workload(256, 128, 2, 1)).module_numbers["vision", "projector"]["torch_flops"],
    }
