"""What `ocr-flops verify --audit` does."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from ocr_flops.cli.console import write
from ocr_flops.errors import SpecError

if TYPE_CHECKING:
    import polars as pl

    from ocr_flops.spec import RunSpec

NOT_OF_AN_AUDIT = ("quick", "kind", "level", "what", "stage", "module")


def audit_model(options: argparse.Namespace, run: RunSpec) -> int:
    """Runs the demonstrations here and weighs them by the workload chosen; 1 where one failed to run, 0 otherwise."""
    from ocr_flops.evidence.verify import counter_audit

    for name in NOT_OF_AN_AUDIT:
        if getattr(options, name):
            raise SpecError(f"--{name}: has no part in an audit; leave it out")
    message = counter_audit.run()
    if options.record:
        counter_audit.record(message)
    estimated = counter_audit.modelled(run.model, run.workload, run.stages, dtype=run.dtype, prefill_logits=run.prefill_logits)
    frame, hidden = counter_audit.frame(message, estimated), counter_audit.hidden(message, estimated)
    if options.format == "json":
        head: dict[str, Any] = {"ran": message["ran"], "date": message["date"]}
        text = json.dumps({**head, "cases": frame.to_dicts(), "hidden": hidden.to_dicts()})
    else:
        text = (
            frame.write_csv()
            if options.format == "csv"
            else "\n".join([counter_audit.words(message, estimated), table(frame), _why(frame)])
        )
    write(text, options, "audit")
    return 1 if counter_audit.failures(message) else 0


def table(frame: pl.DataFrame) -> str:
    """The demonstrations for a terminal: FLOPs as integers, shares in percent."""
    import polars as pl

    shares = [name for name in frame.columns if name.endswith("share")]
    percent = [(100 * pl.col(name)).round(2).alias(name.removesuffix("_share") + " %") for name in shares]
    shown = frame.select("call", "device", "tensor_flops", "vector_flops", "counted_flops", "verdict", *percent).rename(
        {"share %": "all %"}
    )
    with pl.Config(
        tbl_rows=-1,
        tbl_cols=-1,
        tbl_width_chars=400,
        tbl_hide_column_data_types=True,
        tbl_hide_dataframe_shape=True,
        fmt_str_lengths=60,
        tbl_formatting="UTF8_FULL_CONDENSED",
    ):
        return str(shown)


def _why(frame: pl.DataFrame) -> str:
    """Why each is not counted whole, and what makes it visible."""
    rows = frame.filter(frame["verdict"].is_in(["partly", "missed", "not here"])).iter_rows(named=True)
    return "\n".join(
        f"{row['verdict']}: {row['call']} ({row['device']}): {row['why']}" + (f". To see it: {row['remedy']}" if row["remedy"] else "")
        for row in rows
    )
