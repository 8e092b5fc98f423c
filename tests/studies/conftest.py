"""A Spark of this machine's own, started once."""

import shutil

import pytest


@pytest.fixture(scope="session")
def spark():
    """A local session as a user would have one; its start takes some ten seconds."""
    if not shutil.which("java"):
        pytest.skip("Spark needs Java, and no java is on the path; .ci/run installs Debian's default-jre-headless")
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
