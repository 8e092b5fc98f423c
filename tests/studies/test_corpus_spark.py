"""A real Spark of this machine's own: the same groups and costs as from Polars, in one test, since its start takes some ten seconds."""

import shutil
import sys

import polars as pl
import pytest

import ocr_flops as of
from ocr_flops.studies.corpus.costs import write_pages
from tests.support.corpus import PAGES, check_costs, check_groups, pages_table


@pytest.fixture(scope="module")
def spark():
    """A local session as a user would have one; its start takes some ten seconds."""
    if not shutil.which("java"):
        pytest.skip("Spark needs Java, and no java is on the path; .ci/run installs Debian's default-jre-headless")
    sys.modules["__main__"].__file__ = __file__  # a worker of pytest-xdist has none, by which pyspark takes it for its doctests and ends it
    sql = pytest.importorskip("pyspark.sql")
    options = {
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "1",
        "spark.driver.memory": "1g",
        "spark.driver.host": "127.0.0.1",
    }
    builder = sql.SparkSession.builder.master("local[1]").appName("ocr-flops tests")
    for name, value in options.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    yield session
    session.stop()


@pytest.mark.verification
def test_spark_gives_the_same_groups_and_costs(spark, model, tmp_path):
    table = pages_table()
    table.write_parquet(tmp_path / "table.parquet")
    check_groups(spark.read.parquet(str(tmp_path / "table.parquet")), table)
    PAGES.write_parquet(tmp_path / "pages.parquet")
    write_pages(spark.read.parquet(str(tmp_path / "pages.parquet")), of.corpus.plan(PAGES, model, "l4"), tmp_path / "out")
    assert (tmp_path / "out").is_dir(), "parts"
    check_costs(pl.read_parquet(tmp_path / "out" / "*.parquet").sort("name"), model)
