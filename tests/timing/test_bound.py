"""The bound: one number for all settings, below all of them, and equal to the tape's work where nothing can be avoided."""

from itertools import product

import numpy as np
import pytest

import ocr_flops as of
from ocr_flops.cost.polynomial import evaluate
from ocr_flops.spec.catalog import modes, names
from ocr_flops.timing.bound import bound_seconds
from ocr_flops.timing.roofline import seconds_by_ceiling

MODES = [mode.name for mode in modes()]
SETTINGS = [  # what a bound must not depend on
    {"engine": engine, "attention": attention, "prefill_logits": logits, "cache": cache}
    for engine, attention, logits, cache in product(
        ("transformers", "remote_code"), ("eager", "sdpa", "flash"), ("all", "last"), ("dynamic", "static")
    )
]
SETTINGS += [{"engine": "vllm", "attention": attention} for attention in ("vendor", "eager")] + [
    {"engine": "sglang", "prefill_logits": "all"}
]


def random_pages(mode, count, seed):
    """Columns of pages in a resolution mode, of sizes that small and large ones are equally likely to have."""
    generator = np.random.default_rng(seed)

    def sizes(most):
        return np.exp(generator.uniform(0, np.log(most), count)).astype(np.int64)

    grid = {"columns": sizes(30), "rows": sizes(30)} if mode.startswith("gundam") else {}
    return of.Workload.from_grid(**grid, mode=mode, prompt_tokens=sizes(20_000), output_tokens=sizes(3_000) - 1, batch_size=sizes(1_000))


def check_settings(model, pages, devices, settings):
    """The bounds of pages are the same in all settings, and at most their roofline, wherever the setting runs; returns how many."""
    devices, bounds, compared = [of.load_hardware(name) for name in devices], {}, 0
    for setting in settings:
        groups = {dtype: of.estimate(model, pages, dtype=dtype, **setting) for dtype in ("bf16", "fp16")}
        groups = {dtype: (estimate.config, estimate.stage_groups()) for dtype, estimate in groups.items()}
        for device in devices:
            config, stages = groups["bf16" if "bf16" in device.dtypes else "fp16"]
            if config.obstacle(device):
                continue
            for number, group in enumerate(stages):
                bound = bound_seconds(group, config, device)[0]
                assert (bound <= seconds_by_ceiling(group, config, device, by_module=False).sum(axis=(0, 1))).all(), (device.name, setting)
                assert np.array_equal(bounds.setdefault((device.name, number), bound), bound), (device.name, setting)
                compared += len(bound)
    return compared


@pytest.mark.parametrize("mode", MODES)
def test_one_bound_for_all_settings_below_them_all(model, mode):
    """Five settings have every value of every setting among them; the test of all of them follows."""
    assert check_settings(model, random_pages(mode, 100, 1), ("h20", "t4", "gaudi3"), SETTINGS[::5])


def test_modules_and_expected_times_keep_the_bound(model):
    pages = random_pages("gundam", 50, 2)
    modules = of.sweep(model, pages, "sdpa", hardware=of.load_hardware("mi300x"), level="module")
    assert (modules["bound_seconds"] <= modules["roofline_seconds"]).all()
    stages = of.sweep(model, pages, "eager", hardware=of.load_hardware("h200"))
    assert (stages["bound_seconds"] <= stages["expected_low_seconds"]).all()


@pytest.mark.verification
@pytest.mark.parametrize("mode", MODES)
def test_one_bound_on_all_devices_at_ten_thousand_pages(model, mode):
    assert check_settings(model, random_pages(mode, 10_000 // len(MODES) + 1, 3), names("hardware"), SETTINGS) > 4_000_000


@pytest.mark.parametrize("experts_hit", [66, 200, 500])
def test_experts_hit_do_not_move_the_bound(model, experts_hit):
    """At batch 16 a step may hit no more than six experts a layer; the bound is below that too."""
    page, h200 = of.Workload.from_image(1654, 2339, batch_size=16, output_tokens=1), of.load_hardware("h200")
    known = of.estimate(model, page, stages=["decode"], experts_hit={"decode": experts_hit}).on(h200).stages.row(0, named=True)
    expected = of.estimate(model, page, stages=["decode"]).on(h200).stages.row(0, named=True)
    assert known["bound_seconds"] == expected["bound_seconds"] <= known["roofline_seconds"] <= expected["roofline_seconds"]


@pytest.mark.parametrize("page", [{}, {"mode": "base", "prompt_tokens": 4000}], ids=["gundam", "long prompt"])
def test_a_setting_that_does_more_has_no_higher_bound(model, page):
    """On the H20 the published code computes all logits and dense scores; its bound was once above another setting's roofline."""
    h20, page = of.load_hardware("h20"), of.Workload.from_image(1654, 2339, **page)
    costly, lean = (of.estimate(model, page, engine=engine).on(h20) for engine in ("remote_code", "transformers"))
    assert costly.bound_ttft_seconds == lean.bound_ttft_seconds < lean.ttft_seconds < costly.ttft_seconds


def test_matrix_work_is_the_tapes_less_what_can_be_avoided(model):
    """As integers: at 448 px no window is padded, so vision avoids only products with padding and CLIP's last class token."""
    decoder, clip, sam = (model.tower(name) for name in ("decoder", "clip", "sam"))
    estimate = of.estimate(model, of.Workload(448, prompt_tokens=90, output_tokens=7, batch_size=3))
    for group in estimate.stage_groups():
        work = estimate.config.pipeline.least_work(model, group.stage, group.sizes)
        least = sum(evaluate(one.matrix_flops, group.last) for one in work.values())
        counted = evaluate(group.program.costs()["tensor_flops"], group.last)
        tokens, batch, width = group.workload.context_tokens, 3, decoder.width
        if group.stage == "vision":
            rows = 7**2 + 1
            class_token = 4 * clip.width**2 + 4 * clip.width * rows + 4 * clip.width * clip.mlp_width
            outside = [(28, 82, 256, 256), (14, 41, 256, 512), (7, 20, 512, 1024)]  # places and inputs read along an axis, channels
            padding = sum(2 * ((3 * places) ** 2 - read**2) * narrow * wide for places, read, narrow, wide in outside)
            assert counted - least == batch * (class_token + padding) and 2 * sam.window == 448 // sam.patch_px
        elif group.stage == "prefill":
            above = decoder.layers * tokens * (tokens - 1) // 2 + tokens * (tokens - 1) // 2  # and of the last layer all rows but one
            row = 4 * width**2 + 2 * width * decoder.experts
            row += 6 * width * decoder.expert_width * (decoder.experts_per_token + decoder.shared_experts)
            assert counted - least == batch * (4 * width * above + (tokens - 1) * row)
        else:
            assert counted == least


def test_the_bound_takes_the_higher_of_figures_that_sources_dispute(model):
    t4 = of.load_hardware("t4")
    estimate = of.estimate(model, of.Workload.from_grid(2, 3), dtype="fp16", stages=["decode"])
    (group,) = estimate.stage_groups()
    assert t4.memory_bandwidth_bytes_per_second == 300e9
    at_320, at_250 = (
        bound_seconds(group, estimate.config, t4.edited("fp16", memory_bandwidth_bytes_per_second=rate)) for rate in (320e9, 250e9)
    )
    assert bound_seconds(group, estimate.config, t4) == at_320 == pytest.approx(at_250 * 250 / 320)
