"""A verification's result: summed up, printed, and kept as the evidence that a version ships with."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocr_flops import __version__
from ocr_flops.files import write_whole
from ocr_flops.measure.events import Result
from ocr_flops.measure.plan import POINT_FIELDS

if TYPE_CHECKING:
    import polars as pl

POINT = ("kind", "attention", "prefill_logits", "dtype", *POINT_FIELDS)
EVERY_LAYER = "every layer"
RECORD = Path(__file__).parent / "data" / "verification.json"


def conditions(result: Result) -> dict[str, str | int]:
    """What a result's rows have in common: how it was run, and the point."""
    ran = result.ran
    modes = set(ran["attention"].values())
    run = {name: ran[name] for name in ("kind", "prefill_logits", "dtype")} | {"attention": modes.pop() if len(modes) == 1 else "mixed"}
    return {name: (run | asdict(result.workload))[name] for name in POINT}


def summary(frame: pl.DataFrame) -> pl.DataFrame:
    """Per kind, attention mode, level, stage, module and column: numbers compared, both totals, and the largest difference of any.

    The layers of a stage are one row together.

    Args:
        frame: rows of `differences` with the conditions of each point before them.
    """
    import polars as pl

    keys = ("kind", "attention", "level", "stage", "module", "column")
    together = pl.when(pl.col("level") == "layer").then(pl.lit(EVERY_LAYER)).otherwise("module").alias("module")
    return (
        frame.with_columns(together)
        .group_by(keys, maintain_order=True)
        .agg(
            pl.len().alias("points"),
            pl.col("measured").sum(),
            pl.col("analytic").sum(),
            pl.col("difference").abs().max().alias("largest_difference"),
        )
    )


def report(frame: pl.DataFrame) -> str:
    """A table of what was compared, one line per difference that says where, and the verdict (argument as in `summary`)."""
    import polars as pl

    wrong = frame.filter(pl.col("difference") != 0)
    points = frame.select(POINT[1:]).unique().height  # however often each ran
    shown = summary(frame).rename({"points": "numbers"})
    if points == 1 and set(frame["level"]) == {"layer"}:
        shown = frame.select("kind", "attention", "stage", "module", "layer", "column", "measured", "analytic", "difference")
    elif points == 1:  # measured and analytic beside each other; sums over many points tell less
        shown = shown.drop("numbers")
    else:
        shown = shown.group_by("kind", "attention", "level", "stage", "column", maintain_order=True).agg(
            pl.col("numbers").sum(), pl.col("largest_difference").max()
        )
    with pl.Config(
        tbl_rows=-1,
        tbl_cols=-1,
        tbl_width_chars=400,
        tbl_hide_column_data_types=True,
        tbl_hide_dataframe_shape=True,
        fmt_str_lengths=40,
        tbl_formatting="UTF8_FULL_CONDENSED",
    ):
        lines = [str(shown)]
    lines += [difference_words(row) for row in wrong.iter_rows(named=True)]
    verdict = "all equal, as integers" if not wrong.height else f"{wrong.height} differ"
    return "\n".join([*lines, f"{frame.height} numbers at {points} point{'s' * (points != 1)}: {verdict}"])


def difference_words(row: dict[str, Any]) -> str:
    """Where a number differs, in a line: point, stage, module and layer, column, both values and the difference."""
    point = (
        f"{row['kind']} {row['attention']} {row['prefill_logits']} logits {row['dtype']}, {row['global_px']} px view, "
        f"{row['columns']} x {row['rows']} grid of {row['tile_px']} px, {row['prompt_tokens']} prompt + {row['output_tokens']} output "
        f"tokens, batch {row['batch_size']}"
    )
    layer = "" if row["layer"] is None else f" layer {row['layer']}"
    return (
        f"differs: {row['stage']} {row['module']}{layer} {row['column']}: measured {row['measured']}, analytic {row['analytic']}, "
        f"difference {row['difference']:+} ({point})"
    )


def record(frame: pl.DataFrame, ran: dict[str, Any], path: Path = RECORD) -> None:
    """Writes a verification's summary, with the versions that ran, as the evidence that the package ships.

    Args:
        frame: as in `summary`.
        ran: of any result: versions and device.
        path: where to; written whole or not at all.
    """
    versions = {name: ran[name] for name in ("torch", "transformers", "device", "weights")} | {"ocr_flops": __version__}
    data = {"versions": versions, "date": date.today().isoformat(), "numbers": frame.height}
    write_record(path, data, summary(frame).to_dicts())


def write_record(path: Path, head: dict[str, Any], rows: list[dict[str, Any]], name: str = "rows") -> None:
    """Writes a record as JSON, a row a line.

    Args:
        path: where to; written whole or not at all.
        head: what stands before the rows.
        rows: its list.
        name: of that list.

    Raises:
        SpecError: the file cannot be written.
    """
    lines = ",\n".join(json.dumps(row) for row in rows)
    write_whole(path, f'{json.dumps(head).removesuffix("}")}, "{name}": [\n{lines}\n]}}\n', "--record")


def recorded(path: Path = RECORD) -> dict[str, Any]:
    """The verification this version was released with: versions, date, how many numbers were compared, and the rows of `summary`."""
    return json.loads(path.read_text(encoding="utf-8"))
