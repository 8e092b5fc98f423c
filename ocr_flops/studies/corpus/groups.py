"""Pages of a table -> groups of pages that cost the same but for their lengths: one aggregation on whatever engine holds the table."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import narwhals as nw
import numpy as np
import polars as pl

from ocr_flops.errors import SpecError
from ocr_flops.spec.page_rules import PageRule
from ocr_flops.spec.specs import Mode
from ocr_flops.spec.tiling import MAX_SIDE_PX
from ocr_flops.spec.workload import LIMITS
from ocr_flops.studies.corpus.grids import aspect, grid_code
from ocr_flops.units import counted

SIDES = (("width_px", "height_px"), ("width", "height"))
LENGTHS = ("prompt_tokens", "output_tokens")
BUCKET_TOKENS = 64
MAX_PAGES = 1_000_000_000  # that a row stands for
RANGES = {name: LIMITS[name] for name in LENGTHS} | {"pages": (0, MAX_PAGES)}
REFUSED = "refused"  # the column of why a page is in no group: a place in `reasons`, counted from 1; 0 where it is in one


class Groups(NamedTuple):
    """The pages of a corpus as groups.

    Args:
        frame: a row per group, in order. Columns: `mode` where the table has one; for every tiled resolution mode asked for, a column of
            its name with the grid's code (see `grids.code`), or, by a page rule, `width_px` and `height_px` of one of its pages; `pages`;
            and for every length L that the table has (prompt_tokens,
            output_tokens) `L`, the least length in the group's bucket, and `L_over` and `L_over_squared`, sums over pages of what their
            lengths exceed it by and of the squares; with both lengths also `over_product`, of both excesses' products. All but the mode
            are whole numbers.
        refused: pages that are in no group, by the reason.
        ignored: columns of the table that mean nothing to the model.
    """

    frame: pl.DataFrame
    refused: dict[str, int]
    ignored: tuple[str, ...] = ()

    @property
    def left_out(self) -> list[str]:
        """What of the table is not taken, and why, in words."""
        found = [f"{counted(count, 'page')}, as {why}" for why, count in self.refused.items()]
        return [*found, *(f"the table's column {name}, as the model takes pages by a rule of its own" for name in self.ignored)]

    @property
    def pages(self) -> int:
        """How many pages are in a group."""
        return int(self.frame["pages"].sum())


def group_pages(table: Any, modes: Sequence[Mode], rule: PageRule | None = None) -> Groups:
    """Groups the pages of a table. The table stays where it is: what comes back has one row per group.

    Args:
        table: a frame that narwhals knows, lazy or not: of Polars, DuckDB, PySpark and others. Columns: width_px and height_px (or width
            and height), optionally prompt_tokens, output_tokens, pages (that a row stands for; 1 by default) and mode (a resolution
            mode's name). A page with a number that is missing, not whole or out of range is refused and counted, as are those that the
            rule refuses.
        modes: resolution modes; those with tiles get a column. Of a table with a column `mode` also the modes that may stand there.
        rule: of a model that takes pages by a rule of its own: pages of which it makes the same are a group, modes mean nothing, and there
            come back as many rows as pages have sizes.

    Raises:
        SpecError: no frame, a column that is missing or has another type.
    """
    modes = () if rule else modes
    frame = with_grids(table, modes, keep=rule is not None)
    names = frame.collect_schema().names()
    lengths = [name for name in LENGTHS if name in names]
    by_mode = [*(["mode"] if "mode" in names else []), *(mode.name for mode in modes if mode.tile_px)]
    query = _grouped(frame, [REFUSED, *(SIDES[0] if rule else by_mode), *lengths], lengths)
    options = {"engine": "streaming"} if query.implementation.is_polars() else {}
    found = query.collect(backend="polars", **options).to_native().with_columns(pl.exclude("mode").cast(pl.Int64))
    reasons = found.filter(pl.col(REFUSED) > 0).group_by(REFUSED).agg(pl.col("pages").sum()).sort(REFUSED)
    texts = list_reasons(modes)
    refused = {texts[place - 1]: count for place, count in reasons.iter_rows()}
    kept = found.filter((pl.col(REFUSED) == 0) & (pl.col("pages") > 0)).drop(REFUSED)
    if rule is not None:
        wrong = pl.Series(rule.refuses(*(kept[side].to_numpy() for side in SIDES[0])))
        refused |= {rule.refusal: int(kept.filter(wrong)["pages"].sum())} if wrong.any() else {}
        kept = _regrouped(kept.filter(~wrong), rule, lengths)
    return Groups(kept.sort(kept.columns[: kept.columns.index("pages")]), refused, ("mode",) if rule and "mode" in names else ())


def _regrouped(frame: pl.DataFrame, rule: PageRule, lengths: list[str]) -> pl.DataFrame:
    """Groups by size, those together of which a rule makes the same; their sides are those of the first."""
    sides = SIDES[0]
    sizes = rule.sizes(*(frame[side].to_numpy() for side in sides))
    same = [pl.Series(f"_{name}", np.broadcast_to(size, frame.height)) for name, size in sizes.items()]
    found = frame.with_columns(same).group_by(*(one.name for one in same), *lengths, maintain_order=True)
    return found.agg(pl.col(sides).first(), pl.exclude(*sides, *lengths).sum()).select(frame.columns)


def _grouped(frame: nw.LazyFrame, keys: list[str], lengths: list[str]) -> nw.LazyFrame:
    """The aggregation; excesses over a bucket's least length are small, so that no sum of squares leaves 64 bits."""
    weight = nw.col("pages") if "pages" in frame.collect_schema().names() else 1
    over = {f"{name}_over": nw.col(name) % BUCKET_TOKENS for name in lengths}
    if over:
        frame = frame.with_columns(**over, **{name: nw.col(name) // BUCKET_TOKENS * BUCKET_TOKENS for name in lengths})
    sums = {"pages": nw.len() if isinstance(weight, int) else weight.sum()}
    for name in over:
        sums |= {name: (nw.col(name) * weight).sum(), f"{name}_squared": (nw.col(name) * nw.col(name) * weight).sum()}
    if len(over) == 2:
        sums["over_product"] = (nw.col("prompt_tokens_over") * nw.col("output_tokens_over") * weight).sum()
    return frame.group_by(*keys).agg(**sums)


def with_grids(table: Any, modes: Sequence[Mode], keep: bool = False) -> nw.LazyFrame:
    """A table's pages with what decides their cost: the columns `refused`, `mode` and the table's other optional ones where it has them,
    and the grid's code of every tiled mode by its name.

    Args:
        table, modes: as of `group_pages`.
        keep: the table's other columns too, and the sides as width_px and height_px.
    """
    try:
        frame = nw.from_native(table).lazy()
    except TypeError:
        raise SpecError(f"pages: {type(table).__name__} is no frame; give one of Polars, DuckDB or PySpark, or a path") from None
    if frame.implementation.is_dask():
        raise SpecError("pages: a frame of Dask has no whole numbers beside missing ones; write it as Parquet and give the path of that")
    schema = frame.collect_schema()
    sides = next((pair for pair in SIDES if set(pair) <= set(schema)), None)
    if sides is None:
        raise SpecError(f"pages: no columns width_px and height_px, nor width and height, among {', '.join(schema)}")
    checked = {"width_px": (sides[0], 1, MAX_SIDE_PX), "height_px": (sides[1], 1, MAX_SIDE_PX)}
    checked |= {name: (name, *limits) for name, limits in RANGES.items() if name in schema}
    numbers = {name: _whole(schema, *arguments) for name, arguments in checked.items()}
    if "mode" in schema and modes:
        if schema["mode"] not in (nw.String, nw.Categorical, nw.Enum, nw.Unknown):
            raise SpecError(f"pages: the column mode is {schema['mode']}; names of resolution modes are needed")
        numbers["mode"] = nw.col("mode").cast(nw.String)
    frame = frame.with_columns(**numbers) if keep else frame.select(**numbers)
    width, height = nw.col("width_px"), nw.col("height_px")
    reason = nw.lit(0)
    for place, name in reversed(list(enumerate(("width_px", "height_px", *RANGES), 1))):
        if name in numbers:
            reason = nw.when(nw.col(name).is_null()).then(nw.lit(place)).otherwise(reason)
    if "mode" in numbers:
        known = nw.col("mode").is_in([mode.name for mode in modes]) | nw.col("mode").is_null()
        reason = nw.when(known).then(reason).otherwise(nw.lit(len(list_reasons(modes))))
    frame = frame.with_columns(**{REFUSED: reason, "ratio": aspect(width, height)})
    grids = {mode.name: grid_code(width, height, nw.col("ratio"), mode) for mode in modes if mode.tile_px}
    frame = frame.with_columns(**grids) if grids else frame
    return frame.drop("ratio", *([] if keep else ["width_px", "height_px"]))


def _whole(schema: nw.Schema, name: str, least: int, greatest: int) -> nw.Expr:
    """A column in int64, null where it is no whole number in the range."""
    value, kind = nw.col(name), schema[name]
    if not (kind.is_numeric() or kind == nw.Unknown):
        raise SpecError(f"pages: the column {name} is {kind}; whole numbers are needed")
    found = nw.when(value.is_between(least, greatest)).then(value).cast(nw.Int64)
    return found if kind.is_integer() else nw.when(found == value).then(found)  # rounded as the engine rounds, so kept only where equal


def list_reasons(modes: Sequence[Mode]) -> list[str]:
    """Why pages are refused, in the order of the column `refused`."""
    ranges = {"width_px": (1, MAX_SIDE_PX), "height_px": (1, MAX_SIDE_PX), **RANGES}
    numbers = [f"{name} is missing or no whole number from {least} to {most:,}" for name, (least, most) in ranges.items()]
    return [*numbers, f"mode is not one of {', '.join(mode.name for mode in modes)}"]
