"""The talk's lines: what attention costs as the context, or the page, grows."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from ocr_flops.charts.chart import NO_TITLE, Chart, Row
from ocr_flops.charts.mode_lines import mode_lines
from ocr_flops.charts.slides.base import enlarged

HEADROOM = 1.08  # of the highest point, for the words beside it
AXES = ("tokens of the context", "moved by decoder attention")


def attention_traffic(sweep: pl.DataFrame, context_tokens: int) -> Chart:
    """Bytes that decoder attention moves in prefill against the tokens of the context, a line a mode.

    Args:
        sweep: `of.sweep(level="module")` over ascending contexts in several attention modes.
        context_tokens: the current context, marked.
    """
    mark = {"x": context_tokens, "text": f"the page: {context_tokens:,}"}
    return _roomier(mode_lines(_attention_rows(sweep), NO_TITLE, AXES, mark, lambda end: end["size"]))


def doubling(sweep: pl.DataFrame) -> dict[str, float]:
    """How many times the bytes of decoder attention the longest context takes against one of half its tokens, by mode.

    Raises:
        KeyError: no context of half the tokens is in the sweep.
    """
    rows: dict[str, dict[int, int]] = {}
    for row in _attention_rows(sweep):
        rows.setdefault(row["mode"], {})[row["x"]] = row["value"]
    return {mode: by_tokens[most := max(by_tokens)] / by_tokens[most // 2] for mode, by_tokens in rows.items()}


def _attention_rows(sweep: pl.DataFrame) -> list[Row]:
    return [
        {"mode": row["attention"], "x": row["context_tokens"], "value": row["io_bytes"]}
        for row in sweep.to_dicts()
        if (row["stage"], row["module"]) == ("prefill", "decoder.attention")
    ]


def savings_by_tiles(chart: Chart) -> Chart:
    """`charts.savings_by_tiles` for a slide: the words at the lines' ends give savings in percent alone, for which there is room.

    Args:
        chart: of the app.
    """
    ends = [{**end, "text": f"{', '.join(end['modes'])}: {end['size']}{_percent(end['saved'])}"} for end in chart.datasets["ends"]]
    return _roomier(replace(chart, datasets={**chart.datasets, "ends": ends}))


def _percent(saved: str) -> str:
    """The last part of `savings.saved`: ", −61 %"."""
    return f", {saved.rpartition(', ')[2]}" if "%" in saved else ""


def _roomier(chart: Chart) -> Chart:
    return enlarged(replace(chart, params={**chart.params, "highest": HEADROOM * chart.params["highest"]}))
