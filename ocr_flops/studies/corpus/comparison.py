"""A corpus on several models side by side, in batches under transformers, for the same text on every page."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import narwhals as nw
import polars as pl

from ocr_flops.errors import SpecError
from ocr_flops.spec.catalog import load_mode, load_model
from ocr_flops.spec.run_spec import RunSpec
from ocr_flops.studies.corpus.groups import group_pages
from ocr_flops.studies.corpus.lengths import fixed
from ocr_flops.studies.corpus.planner import groupings, plan_run
from ocr_flops.studies.models import PageText
from ocr_flops.units import ENDS

WORK = ("pages", "image_tokens", "output_tokens", "total_flops")
FIGURES = {"pages_per_second": "expected_pages_per_second", "gpu_hours": "gpu_hours", "cost": "cost"}  # of a plan, and here
COLUMNS = ("model", "label", *WORK, *(f"{name}{case}" for name in FIGURES.values() for case in ENDS), "time_basis", "reason", "left_out")


def compare_corpus(run: RunSpec, models: Iterable[str], pages: Any, page: PageText, price_per_hour: float | None = None) -> pl.DataFrame:
    """What all pages of a corpus take on one device, a row a model, the one with fewest hours first.

    Args:
        run: everything but the model, with a device; DeepSeek-OCR takes pages in its workload's resolution mode.
        models: names of the group `model`.
        pages: as of `group_pages`, without a column of output lengths.
        page: characters of every page's text, and of the models' tokens.
        price_per_hour: of one device, in any currency.

    Returns:
        columns model, label, pages, image_tokens, output_tokens and total_flops (of all pages), expected_pages_per_second, gpu_hours and
        cost, each also as ..._low and ..._high, time_basis, reason: why there is no number, and left_out: what of the pages is not read.

    Raises:
        SpecError: the pages have output lengths of their own.
    """
    if "output_tokens" in nw.from_native(pages).collect_schema().names():
        raise SpecError("pages: the column output_tokens has no effect, as every model writes the same text; leave it out")
    mode, device, rows = load_mode(run.workload.mode or "gundam"), run.hardware, []
    prices = {} if price_per_hour is None else {device.name: price_per_hour}
    for name in models:
        model = load_model(name)
        row = dict.fromkeys(COLUMNS) | {"model": name, "label": model.label}
        try:
            if page.crops_of(model) > 1:
                raise SpecError(f"model: {name!r} reads layout blocks, not pages; `ocr-flops corpus` plans a table with a row a block")
            lengths = fixed(round(-(-page.characters // page.characters_per_token(model))))
            groups = group_pages(pages, groupings(mode), model.page_rule)
            row["left_out"] = "; ".join(groups.left_out) or None
            options = {"prices": prices, "currency": "", "gpus": 1, "mode": mode, "lengths": lengths}
            found = plan_run(replace(run, model=model, hardware=None), groups, [device], **options)
            planned = found.plans.row(0, named=True)
            row |= {column: found.totals[column] for column in WORK}
            for column, name in FIGURES.items():
                row |= {f"{name}{case}": planned[f"{column}{case}"] for case in ENDS}
            row |= {"time_basis": planned["time_basis"], "reason": planned["reason"]}
        except SpecError as problem:
            row["reason"] = str(problem)
        rows.append(row)
    return pl.from_dicts(rows, infer_schema_length=None).sort("gpu_hours", nulls_last=True)
