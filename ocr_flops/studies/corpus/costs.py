"""What each page costs, as columns that the engine which holds the pages computes and writes."""

from pathlib import Path
from typing import Any

import narwhals as nw

from ocr_flops.errors import SpecError
from ocr_flops.files import explain_os_errors
from ocr_flops.studies.corpus.grids import code
from ocr_flops.studies.corpus.groups import REFUSED, list_reasons, with_grids
from ocr_flops.studies.corpus.kinds import FIRST_OUTPUT, FIRST_PROMPT, cost_corners, newton_coefficients
from ocr_flops.studies.corpus.planner import groupings
from ocr_flops.studies.corpus.plans import Plan

COLUMNS = ("columns", "rows", "image_tokens", "total_flops", "gpu_seconds", REFUSED)


def with_costs(table: Any, plan: Plan) -> nw.LazyFrame:
    """A table of pages, the plan's own, with what each costs, not yet computed.

    Columns added: columns and rows of its grid, image_tokens, total_flops (of the page by itself; at the mean output length where the table
    has none), gpu_seconds (the mean of pages of its grid on the plan's best device; null where none runs it) and refused (why a page is not
    planned for; null where it is).
    """
    if plan.run.model.learned is not None:
        raise SpecError(f"pages: {plan.run.model.name!r} takes pages by a rule that is no expression of the engine that holds them")
    modes = groupings(plan.mode)
    frame = with_grids(table, modes, keep=True)
    names = frame.collect_schema().names()
    if taken := [name for name in COLUMNS if name in names and name != REFUSED]:
        raise SpecError(f"pages: the table has a column {taken[0]} already")
    prompt = (nw.col("prompt_tokens") if "prompt_tokens" in names else plan.run.workload.prompt_tokens) - FIRST_PROMPT
    output = (nw.col("output_tokens") if "output_tokens" in names else round(plan.kinds[0].lengths.mean)) - FIRST_OUTPUT
    factors = (None, prompt, prompt * (prompt - 1) // 2, output, output * (output - 1) // 2, prompt * output)
    seconds = plan.seconds_per_page
    empty = nw.lit(None, dtype=nw.Int64)
    found = {name: empty for name in COLUMNS[:4]} | {"gpu_seconds": nw.lit(None, dtype=nw.Float64)}
    for number, (kind, corners) in enumerate(zip(plan.kinds, cost_corners(plan.counted_run, plan.kinds), strict=True)):
        is_kind = nw.col(REFUSED) == 0
        if kind.mode.tile_px:
            is_kind &= nw.col(kind.mode.name) == code((kind.columns, kind.rows))
        if "mode" in names:
            own = nw.col("mode") == kind.mode.name
            is_kind &= own | nw.col("mode").is_null() if kind.mode.name == plan.mode.name else own
        flops = corners["total_flops"][0]
        for coefficient, factor in zip(newton_coefficients(corners["total_flops"])[1:], factors[1:], strict=True):
            flops = flops + coefficient * factor
        values = {
            "columns": nw.lit(kind.columns),
            "rows": nw.lit(kind.rows),
            "image_tokens": nw.lit(kind.image_tokens),
            "total_flops": nw.lit(flops) if isinstance(flops, int) else flops,
        }
        if seconds:
            values["gpu_seconds"] = nw.lit(seconds[number])
        found |= {name: nw.when(is_kind).then(value).otherwise(found[name]) for name, value in values.items()}
    reason = nw.lit(None, dtype=nw.String)
    for place, text in enumerate(list_reasons(modes), 1):
        reason = nw.when(nw.col(REFUSED) == place).then(nw.lit(text)).otherwise(reason)
    return frame.with_columns(**found).with_columns(**{REFUSED: reason}).drop(*(mode.name for mode in modes if mode.tile_px))


def write_pages(table: Any, plan: Plan, path: str | Path) -> str | Path:
    """Writes `with_costs` to Parquet, by the engine that holds the pages: a file, or a folder of parts where Spark does. Returns the path.

    Raises:
        SpecError: a file that cannot be written.
    """
    costs = with_costs(table, plan)
    with explain_os_errors(Path(path), "--pages"):
        if "://" not in str(path):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        costs.sink_parquet(str(path))
    return path
