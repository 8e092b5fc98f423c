"""Plans: totals as integers page by page, times as those of estimates, and money and days that follow from them."""

from dataclasses import replace
from math import ceil

import numpy as np
import polars as pl
import pytest

import ocr_flops as of
from ocr_flops.errors import SpecError
from ocr_flops.spec.catalog import modes
from ocr_flops.studies.corpus import lengths as laws

PRICES = {"l4": 0.8, "h100_sxm": 3.0}


def pages_of(count, seed=0):
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "width_px": rng.integers(200, 4000, count),
            "height_px": rng.integers(200, 4000, count),
            "prompt_tokens": rng.integers(0, 400, count),
            "output_tokens": rng.integers(0, 3000, count),
            "mode": rng.choice([mode.name for mode in modes()], count),
        }
    )


def page_by_page(model, pages, **options):
    """Tokens and FLOPs of a table, every page by itself."""
    found = dict.fromkeys(("image_tokens", "prompt_tokens", "output_tokens", "tensor_flops", "total_flops"), 0)
    for (mode,), rows in pages.group_by("mode"):
        sizes = (rows[name].to_numpy() for name in ("width_px", "height_px"))
        workload = of.Workload.from_image(*sizes, mode, **{name: rows[name].to_numpy() for name in ("prompt_tokens", "output_tokens")})
        for name in ("prompt_tokens", "output_tokens"):
            found[name] += int(rows[name].sum())
        found["image_tokens"] += int(np.broadcast_to(workload.image_tokens, len(rows)).sum())
        for costs in of.estimate(model, workload, **options).stage_numbers.values():
            for name in ("tensor_flops", "total_flops"):
                found[name] += sum(costs[name].tolist())
    return found


@pytest.mark.parametrize("options", [{}, {"engine": "remote_code", "attention": "eager"}])
def test_totals_are_those_of_every_page_by_itself(model, options):
    pages = pages_of(2000)
    plan = of.corpus.plan(of.corpus.group_pages(pages, modes()), model, "l4", **options)
    expected = page_by_page(model, pages, **options)
    assert {name: plan.totals[name] for name in expected} == expected
    assert plan.totals["pages"] == plan.pages == 2000
    assert plan.groups["pages"].sum() == 2000


def test_a_plan_is_shown_in_a_line():
    plan = of.corpus.plan(pages_of(20), "deepseek_ocr", ["l4", "h100_sxm"], prices=PRICES)
    assert repr(plan) == "Plan(DeepSeek-OCR, transformers, 19 pages on l4, h100_sxm; cheapest l4)"
    assert "l4" in plan._repr_html_() and len(repr(replace(plan, prices={}))) < 100


def test_a_row_may_stand_for_pages(model):
    pages = pages_of(200).with_columns(pages=3)
    tripled = of.corpus.plan(of.corpus.group_pages(pages, modes()), model, "l4").totals
    once = of.corpus.plan(of.corpus.group_pages(pages.drop("pages"), modes()), model, "l4").totals
    assert tripled == {name: 3 * value for name, value in once.items()}


A4 = pl.DataFrame({"width": [1654], "height": [2339], "pages": [1000]})


def expected_seconds(model, batch, output, gpu="l4"):
    """Low, expected and high seconds of one batch of A4 pages."""
    page = of.Workload.from_image(1654, 2339, output_tokens=output, batch_size=batch)
    pages = of.estimate(model, page).on(gpu).expected_pages_per_second
    return {"_low": batch / pages.high, "": batch / pages.value, "_high": batch / pages.low}


def test_hours_are_those_of_the_batches(model):
    row = of.corpus.plan(A4, model, "l4", output_tokens=300, batch_size=4).best
    for case, seconds in expected_seconds(model, 4, 300).items():
        assert row[f"gpu_hours{case}"] * 3600 == pytest.approx(seconds * 250)


def test_the_fastest_batch_that_fits_is_chosen(model):
    chosen = of.corpus.plan(A4, model, "l4", output_tokens=300)
    others = [of.corpus.plan(A4, model, "l4", output_tokens=300, batch_size=size).best for size in (1, 2, 4, 8, 16, 32)]
    assert chosen.best["gpu_hours"] == pytest.approx(min(row["gpu_hours"] for row in others if row))
    with pytest.raises(SpecError, match="does not fit"):
        of.corpus.plan(A4, model, "l4", output_tokens=300, batch_size=64).pages_within(1)


def test_a_batch_runs_until_its_longest_page_ends(model):
    """Of two pages of 100 or of 500 tokens, three batches of four take 500 steps; with lengths known, every second one takes 100."""
    halves = laws.fixed(100).with_loops(0.5, 500)
    row = of.corpus.plan(A4, model, "l4", output_tokens=halves, batch_size=2).best
    short, long = (expected_seconds(model, 2, output) for output in (100, 500))
    assert row["gpu_hours"] * 3600 == pytest.approx(500 * (short[""] / 4 + long[""] * 3 / 4), rel=1e-3)
    assert row["gpu_hours_low"] * 3600 == pytest.approx(500 * (short["_low"] + long["_low"]) / 2, rel=1e-3)
    assert row["gpu_hours_high"] * 3600 == pytest.approx(500 * (short["_high"] / 4 + long["_high"] * 3 / 4), rel=1e-3)


def test_lengths_between_the_nodes_are_times_of_estimates(model):
    wide = laws.quantiles({0: 100, 1: 3000})
    row = of.corpus.plan(A4, model, "l4", output_tokens=wide, batch_size=1).best
    times = [expected_seconds(model, 1, int(tokens))[""] for tokens in wide.tokens]
    assert row["gpu_hours"] * 3600 / 1000 == pytest.approx(np.average(times, weights=wide.shares), rel=1e-4)


def test_money_days_and_energy_follow(model):
    plan = of.corpus.plan(A4, model, ["h100_sxm", "l4"], prices=PRICES, gpus=8, output_tokens=800)
    assert plan.plans["cost"].to_list() == sorted(plan.plans["cost"])
    for row in plan.plans.iter_rows(named=True):
        for case, opposite in (("", ""), ("_low", "_high"), ("_high", "_low")):
            assert row[f"cost{case}"] == pytest.approx(row[f"gpu_hours{case}"] * PRICES[row["hardware"]])
            assert row[f"hours{case}"] == pytest.approx(
                row[f"gpu_hours{case}"] * ceil(ceil(1000 / row["batch_size"]) / 8) / ceil(1000 / row["batch_size"])
            )
            assert row[f"pages_per_second{opposite}"] == pytest.approx(1000 / 3600 / row[f"gpu_hours{case}"])
        watts = of.load_hardware(row["hardware"]).board_watts
        assert row["energy_kwh"] == (None if watts is None else pytest.approx(row["gpu_hours"] * watts / 1000))
    assert plan.best["hardware"] == plan.plans["hardware"][0]
    assert plan.fastest["gpu_hours"] == plan.plans["gpu_hours"].min()


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_many_gpus_take_no_less_than_one_page(model, engine):
    def row(pages, gpus):
        return of.corpus.plan(A4.head(1).with_columns(pages=pl.lit(pages)), model, "l4", engine=engine, gpus=gpus)

    one, many = row(1, 1), row(11, 8)
    for case in ("", "_low", "_high"):
        assert one.best[f"hours{case}"] <= many.best[f"hours{case}"] * (1 + 1e-6) <= row(11, 1).best[f"hours{case}"] * (1 + 2e-6)
    assert one.best["hours"] * 3600 > 1
    assert many.gpus_within(one.best["hours"] / 2)[0] is None


def test_questions_asked_backwards(model):
    plan = of.corpus.plan(A4, model, "l4", prices={"l4": 0.8}, gpus=8, output_tokens=800)
    hours = plan.best["gpu_hours"]
    assert plan.pages_within(plan.best["hours"] * 1.001).value >= 1000 > plan.pages_within(hours / 8).value
    assert plan.pages_within(1000 * hours).value == pytest.approx(8 * 1000 * 1000, rel=1e-3)
    assert plan.gpus_within(hours / 2.5)[0] == 3
    pieces = -(-1000 // plan.best["batch_size"])
    turns = [plan.pages_within(turns * hours / pieces).value for turns in (0.9, 1.1, 2.9)]
    assert turns == pytest.approx([0, 8000 / pieces, 16_000 / pieces])
    assert plan.pages_for(plan.best["cost"]).value == pytest.approx(1000)
    with pytest.raises(SpecError, match="needs a price"):
        replace(plan, prices={}).pages_for(1)


def test_other_modes_are_weighed(model):
    plan = of.corpus.plan(A4, model, "l4", output_tokens=300, batch_size=1)
    rows = {row["name"]: row for row in plan.alternatives.iter_rows(named=True)}
    base = of.corpus.plan(A4, model, "l4", output_tokens=300, batch_size=1, mode="base").best["gpu_hours"]
    assert rows["base"]["gpu_hours"] == pytest.approx(base)
    assert rows["base"]["saving"] == pytest.approx(1 - base / plan.best["gpu_hours"])
    assert [row["name"] for row in rows.values() if row["is_plan"]] == ["gundam", "transformers", "sdpa"]
    served = of.corpus.plan(A4, model, "l4", output_tokens=300, engine="vllm").best["gpu_hours"]
    assert rows["vllm"]["gpu_hours"] == pytest.approx(served)


def test_shares_of_grids(model):
    plan = of.corpus.plan(pages_of(500).drop("mode"), model, ["l4", "h100_sxm"])
    shares = plan.parts.group_by("hardware").agg(pl.col("hours_share").sum(), pl.col("pages").sum(), pl.col("gpu_hours").sum())
    assert shares["hours_share"].to_list() == pytest.approx([1, 1])
    assert shares["pages"].to_list() == [500, 500]
    assert dict(shares.select("hardware", "gpu_hours").iter_rows()) == pytest.approx(
        dict(plan.plans.select("hardware", "gpu_hours").iter_rows())
    )


def test_a_device_that_cannot_is_named_and_does_not_end_the_plan(model):
    plan = of.corpus.plan(A4, model, ["t4", "l4"])
    assert plan.plans["reason"].to_list()[0] is None
    assert "no bf16" in plan.plans["reason"].to_list()[1]
    with pytest.raises(SpecError, match="none of these runs it; no bf16"):
        of.corpus.plan(A4, model, "t4").pages_within(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hardware": []}, "hardware: none given"),
        ({"prices": {"h200": 3}}, "prices: 'h200' is not one of l4"),
        ({"prices": {"l4": -1}}, "prices.l4: -1 is not a number above 0"),
        ({"gpus": 0}, "gpus: 0 is not a whole number from 1 up"),
        ({"pages": A4.with_columns(width=pl.lit(0))}, "pages: none that could be planned for; 1,000: width_px is missing"),
        ({"pages": A4.with_columns(output_tokens=pl.lit(5)), "output_tokens": 7}, "output_tokens: the table has a column"),
    ],
)
def test_wrong_values_are_named(model, options, message):
    given = {"pages": A4, "hardware": "l4", **options}
    with pytest.raises(SpecError) as problem:
        of.corpus.plan(given.pop("pages"), model, given.pop("hardware"), **given).groups  # noqa: B018
    assert message in str(problem.value)


@pytest.mark.parametrize("name", ["glm_ocr", "qianfan_ocr"])
def test_learned_models_take_pages_by_their_own_rule(name):
    """Totals are those of every page by itself, in fewer groups than there are pages of other sizes."""
    pages = pages_of(300).drop("mode").with_columns(pl.col("width_px", "height_px") // 8 * 8 + 7)
    found = of.corpus.plan(pages, name, "h200")
    rest = {each: pages[each].to_numpy() for each in ("prompt_tokens", "output_tokens")}
    each = of.Workload.from_image(pages["width_px"].to_numpy(), pages["height_px"].to_numpy(), **rest)
    costs = of.estimate(name, each)
    assert found.totals["total_flops"] == sum(sum(row["total_flops"].tolist()) for row in costs.stage_numbers.values())
    assert found.totals["image_tokens"] == int(costs.workload.image_tokens.sum())
    assert len(found.groups) < 300 and found.best["gpu_hours"] > 0
    assert {"tiles", "patches"} >= set(found.groups["mode"])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("glm_ocr", {"engine": "vllm"}, "choose.*transformers"),
        ("unlimited_ocr", {}, "attends to a window of its output"),
    ],
)
def test_learned_models_that_cannot_be_planned_for(name, options, message):
    with pytest.raises(SpecError, match=message):
        of.corpus.plan(A4, name, "l4", **options)


def test_groups_are_of_one_kind_of_model():
    with pytest.raises(SpecError, match="group them again"):
        of.corpus.plan(of.corpus.group_pages(A4, modes()), "glm_ocr", "l4").groups  # noqa: B018
