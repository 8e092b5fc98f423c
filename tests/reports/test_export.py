"""Tables as files, and an estimate as one object: the same numbers, as any reader takes them."""

import json
from io import BytesIO

import polars as pl
import pytest

import ocr_flops as of
from ocr_flops.reports.export import describe_estimate, table_bytes

READERS = {
    "csv": pl.read_csv,
    "parquet": pl.read_parquet,
    "json": lambda file: pl.DataFrame(json.loads(file.read()), infer_schema_length=None),
}


@pytest.fixture(scope="module")
def timing(model):
    return of.estimate(model, of.Workload.from_image(1654, 2339)).on(of.load_hardware("l4"))


@pytest.mark.parametrize("format", READERS)
def test_tables_come_back_as_they_were(timing, format):
    frame = timing.modules.with_columns(big=pl.lit(2**62 - 1), kind=pl.lit("a").cast(pl.Enum(["a"])))
    again = READERS[format](BytesIO(table_bytes(frame, format)))
    assert again.columns == frame.columns and again.rows() == frame.rows()
    assert again["stage"].dtype == again["kind"].dtype == pl.String and again["big"].dtype.is_integer()


def test_another_format_is_refused():
    with pytest.raises(of.SpecError, match="format: 'xlsx' is not one of csv, parquet, json"):
        table_bytes(pl.DataFrame(), "xlsx")


def test_an_estimate_is_one_object_of_plain_data(timing):
    estimate = timing.estimate
    found = json.loads(json.dumps(describe_estimate(estimate, timing)))
    assert found["modules"] == timing.modules.to_dicts() and found["stages"] == timing.stages.to_dicts()
    assert found["footprint"]["total_bytes"] == estimate.footprint.total_bytes and found["workload"]["columns"] == 2
    assert found["ttft_seconds"] == timing.ttft_seconds and found["hardware"] == "l4" and found["fits"] is True
    assert not {"hardware", "ttft_seconds"} & set(describe_estimate(estimate))
