"""Records of measured runs: one self-describing JSON file a run, written whole, never changed, and read as one frame."""

import polars as pl

from ocr_flops.evidence.records.frame import COLUMNS, record_frame, records_frame
from ocr_flops.evidence.records.record import make_record, point_key
from ocr_flops.evidence.records.schema import DONE, FAILED, SCHEMA
from ocr_flops.evidence.records.store import (
    USER,
    Problem,
    Unwritten,
    check_folder,
    read_records,
    records_folder,
    shipped_folder,
    write_record,
)


def frame(level: str = "stage") -> pl.DataFrame:
    """The user's records and the shipped ones as one frame (see `records_frame`), without those that cannot be read."""
    return records_frame(level=level)[0]
