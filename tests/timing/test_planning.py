"""Inverse questions, each checked by asking forwards again."""

import polars as pl
import pytest

import ocr_flops as of
from ocr_flops.spec.catalog import load_host, names
from ocr_flops.spec.tiling import square_grids
from ocr_flops.timing import planning


@pytest.fixture(scope="module")
def page(model):
    return of.estimate(model, of.Workload.from_grid(2, 3, output_tokens=200, batch_size=4), "sdpa")


def total(model, **workload):
    return of.estimate(
        model, of.Workload.from_grid(**{"columns": 2, "rows": 3, "output_tokens": 200, "batch_size": 4} | workload), "sdpa"
    ).footprint.total_bytes


def test_largest_batch_fits_and_the_next_does_not(model, page):
    batch = planning.largest_batch(page, 40e9)
    assert total(model, batch_size=batch) <= 40e9 < total(model, batch_size=batch + 1)


def test_pages_that_fit_under_the_vendors_generate(model):
    """The clone of all logits counts: 32 pages, where a plain `forward` of the stages one by one would seem to fit 42."""
    page = of.estimate(model, of.Workload.from_grid(2, 3, output_tokens=256), engine="remote_code")
    assert planning.largest_batch(page, of.load_hardware("a100_40gb").memory_bytes) == 32


def test_largest_context_fits_and_the_next_does_not(model, page):
    context = planning.largest_context(page, 40e9)
    prompt = context - page.workload.image_tokens
    assert total(model, prompt_tokens=prompt) <= 40e9 < total(model, prompt_tokens=prompt + 1)


def test_largest_grid_fits_and_larger_squares_do_not(model, page):
    columns, rows = planning.largest_grid(page, 40e9)
    assert total(model, columns=columns, rows=rows) <= 40e9
    larger = [grid for grid in square_grids(400) if grid[0] * grid[1] > columns * rows]
    assert all(total(model, columns=wide, rows=high) > 40e9 for wide, high in larger)


def test_nothing_fits(page):
    assert planning.largest_batch(page, 1e9) == 0
    assert planning.largest_context(page, 1e9) == 0
    assert planning.largest_grid(page, 1e9) is None


def test_required_rates_are_work_over_target(page):
    ttft, tpot = planning.required_rates(page, ttft_seconds=0.1, tpot_seconds=0.02)
    numbers = page.stage_numbers
    assert ttft.matrix_flops_per_second == (numbers["vision"]["tensor_flops"] + numbers["prefill"]["tensor_flops"]) / 0.1
    assert ttft.bytes_per_second == (numbers["vision"]["io_bytes"] + numbers["prefill"]["io_bytes"]) / 0.1
    assert tpot.bytes_per_second == pytest.approx(numbers["decode"]["io_bytes"] / 200 / 0.02)
    assert tpot.matrix_flops_per_second == pytest.approx(numbers["decode"]["tensor_flops"] / 200 / 0.02)


@pytest.mark.parametrize("targets", [{"ttft_seconds": 0}, {"tpot_seconds": -1.0}, {"ttft_seconds": float("nan")}, {"ttft_seconds": True}])
def test_a_target_must_be_positive(page, targets):
    with pytest.raises(of.SpecError, match="is not a number from"):
        planning.required_rates(page, **targets)


def test_a_tpot_target_needs_output(model):
    with pytest.raises(of.SpecError, match="output_tokens"):
        planning.required_rates(of.estimate(model, of.Workload.from_grid(1, 1, output_tokens=0)), tpot_seconds=0.1)


def test_square_grids():
    grids = square_grids(1000)
    assert [columns * rows for columns, rows in grids] == list(range(2, 1001))
    assert grids[:5] == [(1, 2), (1, 3), (2, 2), (1, 5), (2, 3)]
    assert dict((columns * rows, (columns, rows)) for columns, rows in grids)[36] == (6, 6)


def test_devices_meet_targets_or_say_that_they_do_not(page):
    devices = [of.load_hardware(name) for name in ("h200", "l4", "t4")]
    within = page.on(devices[0]).expected_ttft.value
    table = planning.compare_devices(page, devices, ttft_seconds=within, tpot_seconds=0.05, price_per_hour=2.0)
    rows = {row["hardware"]: row for row in table.iter_rows(named=True)}
    assert table["hardware"][0] == "h200" and rows["h200"]["meets_target"]
    assert not rows["l4"]["meets_target"] and rows["l4"]["expected_ttft_seconds"] > within
    assert rows["t4"]["expected_ttft_seconds"] is None and not rows["t4"]["meets_target"]  # no bf16 matrix units
    assert rows["h200"]["cost_per_1000_pages"] == pytest.approx(2.0 * 1000 / rows["h200"]["expected_pages_per_second"] / 3600)
    slow = planning.compare_devices(page, devices, ttft_seconds=within, host=load_host("eager").with_figures(operator_us=1000))
    assert not slow["meets_target"].any()


def test_what_does_not_fit_has_no_pages_and_no_cost(model):
    page = of.estimate(model, of.Workload.from_grid(2, 3, batch_size=40))
    small, large = (
        planning.compare_devices(page, ["h200"], memory_bytes=size, price_per_hour=2.0).row(0, named=True) for size in (40e9, 80e9)
    )
    assert small["fits"] is False and small["headroom_bytes"] == 40e9 - page.footprint.total_bytes < 0 < large["headroom_bytes"]
    assert small["expected_ttft_seconds"] == large["expected_ttft_seconds"] and small["reason"].startswith("does not fit: needs 44.8 GB")
    none = [name for name, value in small.items() if value is None and name not in ("meets_target", "target_outlook")]
    assert all(f"{name}{end}" in none for name in ("gpu_hours_per_1000_pages", "cost_per_1000_pages") for end in ("", "_low", "_high"))
    assert "expected_pages_per_second" in none and "pages_per_second" in none
    assert small["largest_batch"] == planning.largest_batch(page, 40e9) < 40 <= large["largest_batch"]


def test_the_best_batch_has_most_pages_a_second_within_memory_and_targets(model, page):
    [row] = planning.compare_devices(page, ["a100_40gb"], best_batch=True, ttft_seconds=0.5).iter_rows(named=True)
    one = page.with_workload(batch_size=row["batch_size"]).on("a100_40gb")
    assert one.expected_ttft.value == row["expected_ttft_seconds"] <= 0.5 and row["meets_target"]
    more = page.with_workload(batch_size=2 * row["batch_size"]).on("a100_40gb")
    assert more.expected_ttft.value > 0.5 or not more.fits
    free = planning.compare_devices(page, ["a100_40gb"], best_batch=True).row(0, named=True)
    assert free["batch_size"] == free["largest_batch"] and free["expected_pages_per_second"] > row["expected_pages_per_second"]
    missed = planning.compare_devices(page, ["l4"], best_batch=True, ttft_seconds=1e-6).row(0, named=True)
    assert not missed["meets_target"] and missed["expected_pages_per_second"] > 0


def test_hours_and_cost_have_the_range_of_the_pages_a_second(page):
    prices = {"l4": 0.8}
    table = planning.compare_devices(page, ["l4", "h200"], price_per_hour=prices, pages=1e6, gpus=8)
    l4, h200 = (table.row(by_predicate=pl.col("hardware") == name, named=True) for name in ("l4", "h200"))
    for end, rate in (("", ""), ("_low", "_high"), ("_high", "_low")):
        assert l4[f"hours{end}"] == pytest.approx(1e6 / l4[f"expected_pages_per_second{rate}"] / 8 / 3600)
        assert l4[f"cost{end}"] == pytest.approx(l4[f"hours{end}"] * 8 * 0.8) == pytest.approx(l4[f"cost_per_1000_pages{end}"] * 1000)
    assert h200["hours"] < l4["hours"] and h200["cost"] is None  # without a price
    one, eleven = (planning.compare_devices(page, ["l4"], pages=pages, gpus=gpus)["hours"][0] for pages, gpus in ((1, 8), (11, 2)))
    assert one == pytest.approx(page.workload.batch_size / l4["expected_pages_per_second"] / 3600) and eleven == pytest.approx(2 * one)
    assert planning.compare_devices(page).height == len(names("hardware"))
    with pytest.raises(of.SpecError, match="^price_per_hour.l4: -1 is not a number from"):
        planning.compare_devices(page, ["l4"], price_per_hour={"l4": -1})


def test_pages_of_one_request_are_paid_together():
    request = of.estimate("unlimited_ocr", of.Workload.from_image(1654, 2339, pages=5))
    assert planning.largest_grid(request, 24e9) is None  # its grids are a rule's
    row = planning.compare_devices(request, ["l4"], pages=3).row(0, named=True)
    assert row["hours"] * 3600 == pytest.approx(5 / row["expected_pages_per_second"])


def test_a_range_may_meet_a_target_in_part(page):
    low, value, high = (getattr(page.on("h200").expected_ttft, end) for end in ("low", "value", "high"))
    words = {high: "yes", value: "likely", low: "unlikely", low / 2: "no"}
    for target, word in words.items():
        row = planning.compare_devices(page, ["h200"], ttft_seconds=target).row(0, named=True)
        assert (row["target_outlook"], row["meets_target"]) == (word, word in ("yes", "likely"))


def test_a_device_too_small_is_not_recommended(model):
    estimate = of.estimate(model, of.Workload.from_grid(3, 3, batch_size=16), "eager")
    table = planning.compare_devices(estimate, map(of.load_hardware, ("l4", "t4", "gaudi3")), ttft_seconds=1e9)
    assert table["hardware"].to_list() == ["gaudi3", "l4", "t4"] and table["meets_target"].to_list() == [True, False, False]
    reasons = table["reason"].to_list()
    assert reasons[0] is None and reasons[1].startswith("does not fit: needs ") and reasons[2] == "no bf16: use dtype=fp16 or fp32"


def test_without_a_target_none_is_met(page):
    assert planning.compare_devices(page, [of.load_hardware("h200")])["meets_target"].to_list() == [None]


def test_flash_is_refused_where_there_is_no_kernel(model):
    estimate = of.estimate(model, of.Workload.from_grid(2, 3), of.AttentionSpec("mixed", {"decoder": "flash"}), dtype="fp16")
    said = "no flash kernel: use attention=eager or sdpa"
    with pytest.raises(of.SpecError, match=rf"^attention: NVIDIA T4 \(16 GB\) has {said}$"):
        estimate.on(of.load_hardware("t4"))
    table = planning.compare_devices(estimate, map(of.load_hardware, ("v100_pcie", "l4", "mi100")))
    assert dict(table.select("hardware", "reason").iter_rows()) == {"l4": None, "v100_pcie": said, "mi100": said}
    assert table["hardware"][0] == "l4" and table["ttft_seconds"].null_count() == 2


def test_a_target_needs_its_stages(model):
    decode = of.estimate(model, of.Workload.from_grid(1, 1), stages=["decode"])
    with pytest.raises(of.SpecError, match="needs the stage vision"):
        planning.required_rates(decode, ttft_seconds=1.0)
    row = planning.compare_devices(decode, [of.load_hardware("h200")], tpot_seconds=1.0).row(0, named=True)
    assert row["meets_target"] and row["ttft_seconds"] is None


def test_what_is_no_point_or_no_device_is_named(page):
    many = of.estimate("tiny_test", of.Workload.from_image([100, 200], [100, 200], "tiny"))
    for given, options, said in (
        ("deepseek_ocr", {}, "estimate: 'deepseek_ocr' is no Estimate"),
        (many, {}, "estimate: Estimate"),
        (page, {"price_per_hour": {"l5": 3}}, "price_per_hour: 'l5' is not one of (?!.* a10, .* a10, )"),
        (page, {"gpus": 0}, "gpus: 0 is not a number from 1 "),
    ):
        with pytest.raises(of.SpecError, match=said):
            of.plan(given, **options)
    assert of.plan(page, "l4")["hardware"].to_list() == ["l4"]
