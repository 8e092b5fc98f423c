"""The result of a verification: summed up, printed, and kept as the evidence that a version ships with."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocr_flops import __version__
from ocr_flops.evidence.records.store import check_not_installed
from ocr_flops.evidence.verify.compare import FLOPS
from ocr_flops.files import write_whole
from ocr_flops.measure.events import Result
from ocr_flops.measure.plan import POINT_FIELDS

if TYPE_CHECKING:
    import polars as pl

POINT = ("kind", "attention", "prefill_logits", "dtype", *POINT_FIELDS)
SHIPPED = Path(__file__).parent / "data" / "verification.json"


def add_point(numbers: pl.DataFrame, result: Result) -> pl.DataFrame:
    """Put how a result was run, and its point, before its rows; what a trace counted in the same pass is of kind "count".

    Args:
        numbers: of `compare_numbers`.
        result: what they were compared with.
    """
    import polars as pl

    kernels = set(result.ran["attention"].values())
    values = result.ran | asdict(result.workload) | {"attention": kernels.pop() if len(kernels) == 1 else "mixed"}
    kind = pl.when(pl.col("column") == FLOPS).then(pl.lit("count")).otherwise(pl.lit(values["kind"]))
    return numbers.select(kind.alias("kind"), *(pl.lit(values[name]).alias(name) for name in POINT[1:]), pl.all())


def summarise(frame: pl.DataFrame) -> pl.DataFrame:
    """Return, per kind, attention mode, level, stage, module and column: numbers compared, both totals, and the largest difference of any.

    The layers of a stage are one row together.

    Args:
        frame: of `add_point`, of all results.
    """
    import polars as pl

    together = pl.when(pl.col("level") == "layer").then(pl.lit("every layer")).otherwise("module").alias("module")
    return (
        frame.with_columns(together)
        .group_by("kind", "attention", "level", "stage", "module", "column", maintain_order=True)
        .agg(
            pl.len().alias("points"),
            pl.col("measured", "analytic").sum(),
            pl.col("difference").abs().max().alias("largest_difference"),
        )
    )


def format_report(frame: pl.DataFrame) -> str:
    """Format a table of what was compared, a line per difference that says where, and the verdict (argument as in `summarise`)."""
    import polars as pl

    wrong = frame.filter(pl.col("difference") != 0)
    points = frame.select(POINT[1:]).unique().height  # however often each ran
    shown = summarise(frame).rename({"points": "numbers"})
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
    lines += [_describe_difference(row) for row in wrong.iter_rows(named=True)]
    verdict = "all equal, as integers" if not wrong.height else f"{wrong.height} differ"
    return "\n".join([*lines, f"{frame.height} numbers at {points} point{'s' * (points != 1)}: {verdict}"])


def _describe_difference(row: dict[str, Any]) -> str:
    """Say in a line where a number differs: stage, module and layer, column, both values, the difference, and the point."""
    layer = "" if row["layer"] is None else f" layer {row['layer']}"
    return (
        f"differs: {row['stage']} {row['module']}{layer} {row['column']}: measured {row['measured']}, analytic {row['analytic']}, "
        f"difference {row['difference']:+} ({row['kind']} {row['attention']} {row['prefill_logits']} logits {row['dtype']}, "
        f"{row['global_px']} px view, {row['columns']} x {row['rows']} grid of {row['tile_px']} px, {row['prompt_tokens']} prompt + "
        f"{row['output_tokens']} output tokens, batch {row['batch_size']})"
    )


def write_verification(frame: pl.DataFrame, ran: dict[str, Any], path: Path = SHIPPED) -> None:
    """Write the summary of a verification, with the versions that ran, as the evidence that the package ships.

    Args:
        frame: as in `summarise`.
        ran: of any result: versions and device.
        path: where to; written whole or not at all.
    """
    versions = {name: ran[name] for name in ("torch", "transformers", "device", "weights")} | {"ocr_flops": __version__}
    head = {"versions": versions, "date": date.today().isoformat(), "numbers": frame.height}
    write_evidence(path, head, "rows", summarise(frame).to_dicts())


def read_verification(path: Path = SHIPPED) -> dict[str, Any]:
    """Return the verification that this version was released with: versions, date, how many numbers, and the rows of `summarise`."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_evidence(path: Path, head: dict[str, Any], name: str, rows: list[dict[str, Any]]) -> None:
    """Write evidence as JSON, a row a line.

    Args:
        path: where to; written whole or not at all.
        head: what stands before the rows.
        name: of the list of rows.
        rows: the list.

    Raises:
        SpecError: the file cannot be written, or is in an installed package.
    """
    check_not_installed(path, "--record")
    lines = ",\n".join(json.dumps(row) for row in rows)
    write_whole(path, f'{json.dumps(head).removesuffix("}")}, "{name}": [\n{lines}\n]}}\n', "--record")
