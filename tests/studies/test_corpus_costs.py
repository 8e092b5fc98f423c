"""Costs page by page, computed where the pages are: equal integers from Polars, DuckDB and Spark, and from estimates."""

import polars as pl
import pytest

import ocr_flops as of
from ocr_flops.errors import SpecError
from ocr_flops.studies.corpus.costs import with_costs, write_pages

PAGES = pl.DataFrame(
    {
        "name": list("abcdef"),
        "width_px": [1654, 900, 640, 0, 4000, 700],
        "height_px": [2339, 1200, 500, 9, 500, 5000],
        "prompt_tokens": [10, 0, 20, 1, 300, 15],
        "output_tokens": [800, 0, 17, 1, 2000, 16],
        "mode": ["gundam", "base", None, "gundam", "tiny", "gundam"],
    }
)


@pytest.fixture(scope="module")
def plan(model):
    return of.corpus.plan(PAGES, model, "l4")


def check(frame, model):
    assert frame["name"].to_list() == PAGES["name"].to_list()
    for row in frame.iter_rows(named=True):
        if row["width_px"] is None:
            assert row["refused"].startswith("width_px is missing") and row["total_flops"] is None is row["gpu_seconds"]
            continue
        lengths = {name: row[name] for name in ("prompt_tokens", "output_tokens")}
        page = of.Workload.from_image(row["width_px"], row["height_px"], row["mode"] or "gundam", **lengths)
        stages = of.estimate(model, page).stage_numbers.values()
        assert row["refused"] is None and row["gpu_seconds"] > 0
        assert (row["columns"], row["rows"], row["image_tokens"]) == (page.columns, page.rows, page.image_tokens)
        assert row["total_flops"] == sum(stage["total_flops"] for stage in stages)


def test_polars_writes_every_pages_cost(plan, model, tmp_path):
    check(pl.read_parquet(write_pages(PAGES.lazy(), plan, tmp_path / "new" / "out.parquet")), model)


def test_duckdb_writes_the_same(plan, model, tmp_path):
    duckdb = pytest.importorskip("duckdb")
    check(pl.read_parquet(write_pages(duckdb.sql("select * from PAGES order by name"), plan, tmp_path / "out.parquet")), model)


def test_spark_writes_the_same_in_parts(spark, plan, model, tmp_path):
    PAGES.write_parquet(tmp_path / "pages.parquet")
    write_pages(spark.read.parquet(str(tmp_path / "pages.parquet")), plan, tmp_path / "out")
    assert (tmp_path / "out").is_dir()
    check(pl.read_parquet(tmp_path / "out" / "*.parquet").sort("name"), model)


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
