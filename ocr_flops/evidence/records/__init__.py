"""Records of measured runs: one self-describing JSON file a run, written whole, never changed, and read as one frame."""

from ocr_flops.evidence.records.frame import COLUMNS, frame, rows_of
from ocr_flops.evidence.records.record import DONE, FAILED, SCHEMA, make, point_key
from ocr_flops.evidence.records.store import SHIPPED, USER, Problem, Unwritten, check, folder, read, read_all, shipped_folder, write

__all__ = [
    "COLUMNS",
    "DONE",
    "FAILED",
    "SCHEMA",
    "SHIPPED",
    "USER",
    "Problem",
    "Unwritten",
    "check",
    "folder",
    "frame",
    "make",
    "point_key",
    "read",
    "read_all",
    "rows_of",
    "shipped_folder",
    "write",
]
