"""A verification's result: summed up, printed, and kept as the evidence that a version ships with."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocr_flops import __version__

if TYPE_CHECKING:
    import polars as pl

RECORD = Path(__file__).parent / "verification.json"


def summary(frame: pl.DataFrame) -> pl.DataFrame:
    """Per kind, attention mode, stage, module and column: points compared, both totals, and the largest difference at any point.

    Args:
        frame: rows of `differences` with the conditions of each point before them.
    """
    import polars as pl

    keys = ("kind", "attention", "stage", "module", "column")
    return frame.group_by(keys, maintain_order=True).agg(
        pl.len().alias("points"),
        pl.col("measured").sum(),
        pl.col("analytic").sum(),
        pl.col("difference").abs().max().alias("largest_difference"),
    )


def report(frame: pl.DataFrame) -> str:
    """A table of what was compared, one line per difference that says where, and the verdict (argument as in `summary`)."""
    import polars as pl

    wrong = frame.filter(pl.col("difference") != 0)
    conditions = ("kind", "attention", "prefill_logits", "dtype", "global_px", "tile_px", "columns", "rows", "batch_size")
    with pl.Config(
        tbl_rows=-1,
        tbl_cols=-1,
        tbl_width_chars=400,
        tbl_hide_column_data_types=True,
        tbl_hide_dataframe_shape=True,
        fmt_str_lengths=40,
        tbl_formatting="UTF8_FULL_CONDENSED",
    ):
        lines = [str(summary(frame))]
    for row in wrong.iter_rows(named=True):
        point = ", ".join(f"{name} {row[name]}" for name in conditions)
        lines.append(
            f"differs: {row['stage']} {row['module']} {row['column']}: measured {row['measured']}, analytic {row['analytic']} ({point})"
        )
    verdict = "all equal, as integers" if not wrong.height else f"{wrong.height} differ"
    return "\n".join([*lines, f"{frame.height} numbers at {frame.select(conditions).unique().height} points: {verdict}"])


def record(frame: pl.DataFrame, ran: dict[str, Any], path: Path = RECORD) -> None:
    """Writes a verification's summary, with the versions that ran, as the evidence that the package ships.

    Args:
        frame: as in `summary`.
        ran: of any result: versions and device.
        path: where to; written whole or not at all.
    """
    versions = {name: ran[name] for name in ("torch", "transformers", "device", "weights")} | {"ocr_flops": __version__}
    data = {"versions": versions, "date": date.today().isoformat(), "numbers": frame.height, "rows": summary(frame).to_dicts()}
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(data, indent=0) + "\n", encoding="utf-8")
    partial.replace(path)


def recorded(path: Path = RECORD) -> dict[str, Any]:
    """The verification this version was released with: versions, date, how many numbers were compared, and the rows of `summary`."""
    return json.loads(path.read_text(encoding="utf-8"))
