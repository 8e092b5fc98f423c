"""Costs page by page, computed where the pages are: equal integers from Polars, DuckDB and Spark, and from estimates."""

import polars as pl
import pytest

import ocr_flops as of
from ocr_flops.errors import SpecError
from ocr_flops.studies.corpus.costs import with_costs, write_pages
from tests.support.corpus import PAGES, check_costs


@pytest.fixture(scope="module")
def plan(model):
    return of.corpus.plan(PAGES, model, "l4")


def test_polars_writes_every_pages_cost(plan, model, tmp_path):
    check_costs(pl.read_parquet(write_pages(PAGES.lazy(), plan, tmp_path / "new" / "out.parquet")), model)


def test_duckdb_writes_the_same(plan, model, tmp_path):
    duckdb = pytest.importorskip("duckdb")
    check_costs(pl.read_parquet(write_pages(duckdb.sql("select * from PAGES order by name"), plan, tmp_path / "out.parquet")), model)


def test_sums_are_the_plans(plan):
    frame = with_costs(PAGES, plan).collect().to_native()
    assert frame["total_flops"].sum() == plan.totals["total_flops"]
    assert frame["gpu_seconds"].sum() == pytest.approx(3600 * plan.best["gpu_hours"])


def test_a_law_of_lengths_is_taken_at_its_mean(model):
    pages = PAGES.select("width_px", "height_px")[:1]
    plan = of.corpus.plan(pages, model, "l4", output_tokens=of.corpus.quantiles({0: 100, 1: 300}))
    cost = with_costs(pages, plan).collect().to_native()["total_flops"][0]
    stages = of.estimate(model, of.Workload.from_image(1654, 2339, output_tokens=200)).stage_numbers.values()
    assert cost == sum(stage["total_flops"] for stage in stages)


def test_a_column_is_not_overwritten(plan):
    with pytest.raises(SpecError, match="pages: the table has a column rows already"):
        with_costs(PAGES.with_columns(rows=1), plan)
