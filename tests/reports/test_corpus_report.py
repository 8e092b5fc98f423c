"""The page of a corpus: it says what the plan says, and needs no network."""

import pytest

import ocr_flops as of
from ocr_flops.charts.corpus import corpus_charts
from ocr_flops.reports.corpus import describe_best, describe_plan, describe_range, describe_threads, groups_table, plans_table
from ocr_flops.reports.corpus_report import corpus_page
from ocr_flops.studies.corpus.sources import mix_table

MIX = "a4@200:9000,slide:1000"


@pytest.fixture(scope="module")
def plan(model):
    return of.corpus.plan(mix_table(MIX), model, ["l4", "h100_sxm", "t4"], prices={"l4": 0.8}, gpus=3, output_tokens=500)


def test_the_page_has_the_answer_and_loads_nothing(plan):
    said = describe_best(plan)
    page = corpus_page(plan, said, ["ocr-flops", "corpus", "<b>"], in_child=False)
    assert "What 10,000 pages take" in page and "The one GPU with a price: NVIDIA L4 (24 GB) at 0.8 USD an hour" in page.replace(
        "\N{NO-BREAK SPACE}", " "
    )
    assert "no bf16" in page and "Board power of NVIDIA L4 (24 GB): 72 W" in page.replace("\N{NO-BREAK SPACE}", " ")
    assert "<b>" not in page.partition("</h1>")[2]
    assert "http" not in page.partition("<body")[2].partition("<script")[0]


def test_charts_show_what_the_tables_say(plan):
    charts = corpus_charts(plan)
    grids = [row for row in charts["pages_by_grid"].datasets["bars"] if row["kind"] == "pages"]
    assert {row["row"]: row["value"] for row in grids} == {"2 × 3": "9,000", "4 × 2": "1,000"}
    costs = charts["costs_by_gpu"].datasets["bars"]
    assert [row["row"] for row in costs] == ["NVIDIA L4 (24 GB)"]
    assert costs[0]["end"] == plan.best["cost"] and costs[0]["low"] < costs[0]["end"] < costs[0]["high"]
    assert len(charts["hours_by_choice"].datasets["bars"]) == len(plan.alternatives)


def test_tables_for_people(plan):
    plans, groups = plans_table(plan), groups_table(plan)
    assert plans["GPU"].to_list() == plan.plans["label"].to_list() and plans["why not"].to_list()[-1].startswith("no bf16")
    assert groups["pages"].to_list() == ["9,000", "1,000"] and groups["of pages"].to_list() == ["90 %", "10 %"]


def test_a_plan_that_no_device_runs_is_still_one(model):
    none = of.corpus.plan(mix_table(MIX), model, "t4")
    assert describe_best(none) == ["None of these GPUs runs it: NVIDIA T4 (16 GB): no bf16: use dtype=fp16 or fp32."]
    assert describe_plan(none)["plans"][0]["gpu_hours"] is None
    assert "None of these GPUs runs it" in corpus_page(none, describe_best(none), in_child=False)


def test_where_cutting_pages_limits_enough_threads_are_said(model):
    plan = of.corpus.plan(mix_table("a4@200:5000"), model, ["l4", "h100_sxm"], engine="vllm")
    (said,) = describe_threads(plan)
    limit, _, enough = said.partition("for each to cut pages. With ")
    assert (
        limit == "The CPU limits NVIDIA H100 SXM (80 GB), with 1 thread " and "threads, fastest first: NVIDIA H100 SXM (80 GB) " in enough
    )
    threads = int(enough.split()[0])
    enough = of.corpus.plan(plan.corpus, model, ["l4", "h100_sxm"], engine="vllm", preprocess_workers=threads)
    assert "preprocessing" in plan.plans["limited_by"] and "preprocessing" not in enough.plans["limited_by"]
    assert describe_threads(enough) == []


def test_which_batches_are_tried_is_said_where_none_is_given(model):
    for size, is_said in ((None, True), (4, False)):
        found = describe_range(of.corpus.plan(mix_table("a4@200:50"), model, "l4", batch_size=size))
        assert ("of the power of two up to 256 (or" in found) == is_said
