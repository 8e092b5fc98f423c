"""Frames as files: CSV, Parquet and JSON, with exact integers and text that any reader takes."""

from __future__ import annotations

from io import BytesIO

import polars as pl

from ocr_flops.errors import one_of

FORMATS = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet", "json": "application/json"}  # and their media types


def table_bytes(frame: pl.DataFrame, format: str) -> bytes:
    """A frame as the content of a file.

    Args:
        frame: any frame of the package.
        format: "csv", "parquet", or "json" (a list of rows).

    Raises:
        SpecError: another format.
    """
    one_of("format", format, FORMATS)
    coded = [name for name, kind in frame.schema.items() if isinstance(kind, pl.Categorical | pl.Enum)]
    plain = frame.with_columns(pl.col(coded).cast(pl.String))  # codes are polars' own business
    if format == "csv":
        return plain.write_csv().encode()
    if format == "json":
        return plain.write_json().encode()
    file = BytesIO()
    plain.write_parquet(file)
    return file.getvalue()
