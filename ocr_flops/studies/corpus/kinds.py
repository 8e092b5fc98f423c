"""Groups -> kinds of pages, a resolution mode and a grid each, with exact totals: costs of a page are quadratic in its two lengths, so that
the sums of lengths, of their squares and of their products are all that totals need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from ocr_flops.errors import SpecError
from ocr_flops.spec.catalog import modes
from ocr_flops.spec.page_rules import PageRule
from ocr_flops.spec.run_spec import RunSpec
from ocr_flops.spec.specs import Mode
from ocr_flops.spec.workload import Workload
from ocr_flops.studies.corpus.grids import UNTILED, code, grid_of
from ocr_flops.studies.corpus.groups import Groups
from ocr_flops.studies.corpus.lengths import DEFAULT_LIMIT, Lengths
from ocr_flops.timing.estimate import estimate_run

TILES, PATCHES = (Mode(kind, f"their own {kind}", 0, 0) for kind in ("tiles", "patches"))  # of what a model's page rule makes of pages
VIEWS = ("global_px", "tile_px", "columns", "rows", "image_width_px", "image_height_px")  # of a page
TOTALS = ("tensor_flops", "total_flops")
FIRST_PROMPT, FIRST_OUTPUT = 16, 16
CORNERS = ((0, 0), (1, 0), (2, 0), (0, 1), (0, 2), (1, 1))  # prompt and output beyond the first ones: a quadratic's six coefficients
MOMENTS = ("pages", "prompt", "prompt_squares", "output", "output_squares", "products")


class Moments(NamedTuple):
    """Sums over pages: how many there are, of their prompt and output tokens, of the squares of these, and of their products."""

    pages: int
    prompt: int
    prompt_squares: int
    output: int
    output_squares: int
    products: int


@dataclass(frozen=True, eq=False)
class Kind:
    """Pages of one resolution mode and one grid, or of which a model's page rule makes the same.

    Args:
        mode: the resolution mode, or `TILES` or `PATCHES`.
        page: one of them.
        moments: of their lengths.
        lengths: of their outputs.
    """

    mode: Mode
    page: Workload
    moments: Moments
    lengths: Lengths

    @cached_property
    def columns(self) -> int:
        """Of the grid of tiles (1 x 1 for none) or patches."""
        return self._side("columns")

    @cached_property
    def rows(self) -> int:
        """The same."""
        return self._side("rows")

    def _side(self, side: str) -> int:
        if self.page.page_rule is None:
            return getattr(self.page, side)
        return next(size for name, size in self.page.page_sizes.items() if name.endswith(side))

    @property
    def pages(self) -> int:
        """How many pages these are."""
        return self.moments.pages

    @property
    def prompt_tokens(self) -> int:
        """Mean text tokens of a prompt, rounded."""
        return round(self.moments.prompt / self.pages)

    @property
    def image_tokens(self) -> int:
        """Tokens that stand for a page."""
        return self.page.image_tokens


def list_kinds(
    groups: Groups,
    mode: Mode,
    lengths: Lengths | None,
    prompt_tokens: int,
    override: bool = False,
    loops: float = 0.0,
    limit: int = DEFAULT_LIMIT,
    rule: PageRule | None = None,
) -> list[Kind]:
    """The kinds of pages in a corpus, those with most tiles last.

    Args:
        groups: of `group_pages`.
        mode: of pages whose own mode is not given.
        lengths: of outputs, of a table without a column of them.
        prompt_tokens: of a table without a column of them.
        override: every page runs in the mode, whatever its own.
        loops, limit: as of `Lengths.with_loops`.
        rule: by which the pages were grouped.

    Raises:
        SpecError: a mode with tiles or a rule for which the pages were not grouped, or lengths given twice.
    """
    frame = groups.frame
    if (rule is None) == ("width_px" in frame.columns):
        raise SpecError("pages: grouped for a model of another kind; group them again, with the page rule of this one")
    if (lengths is None) != ("output_tokens" in frame.columns):
        raise SpecError("output_tokens: the table has a column of them; leave out the lengths, or drop the column")
    known = {one.name: one for one in modes()} | {mode.name: mode}
    keys = ["mode", "grid"] if rule is None else ["width_px", "height_px"]
    if rule is None:
        frame = _with_grid(frame, mode, known, override)
    frame, found = _with_moments(frame, prompt_tokens), []
    tables = frame.partition_by(keys, as_dict=True) if lengths is None else {}
    for first, second, *sums in frame.group_by(keys).agg(pl.col(MOMENTS).sum()).sort(keys).iter_rows():
        own = (_own_lengths(tables[first, second]) if lengths is None else lengths).with_loops(loops, limit)
        if lengths is not None or loops:  # a law: what is expected
            mean, squares = (float(own.tokens.astype(float) ** power @ own.shares) for power in (1, 2))
            sums[3:] = round(mean * sums[0]), round(squares * sums[0]), round(mean * sums[1])
        if rule is None:
            kind, page = known[first], _page(known[first], second)
        else:
            page = Workload(0, image_width_px=first, image_height_px=second, page_rule=rule)
            kind = TILES if "tiles" in page.page_sizes else PATCHES
        found.append(Kind(kind, page, Moments(*sums), own))
    return sorted(found, key=lambda kind: (kind.columns * kind.rows, kind.columns, kind.mode))


@lru_cache(maxsize=256)
def _page(mode: Mode, grid: int) -> Workload:
    """A page of a resolution mode and the grid of a code."""
    return Workload.from_grid(*grid_of(grid), mode)


def _with_grid(frame: pl.DataFrame, mode: Mode, known: Mapping[str, Mode], override: bool) -> pl.DataFrame:
    """The resolution mode of every group, and the code of its grid; arguments and errors as of `list_kinds`."""
    own = pl.col("mode").fill_null(mode.name) if "mode" in frame.columns and not override else pl.lit(mode.name)
    frame, grid = frame.with_columns(mode=own), pl.lit(code(UNTILED), pl.Int64)
    for name in frame["mode"].unique():
        if known[name].tile_px:
            if name not in frame.columns:
                raise SpecError(f"mode: the pages were not grouped for {name!r}, which has tiles")
            grid = pl.when(pl.col("mode") == name).then(pl.col(name)).otherwise(grid)
    return frame.with_columns(grid=grid)


def _with_moments(frame: pl.DataFrame, prompt_tokens: int) -> pl.DataFrame:
    """The sums of `Moments` of every group, in 128 bits; those of outputs are 0 where the table has none."""
    wide = pl.Int128

    def sums(name: str, constant: int) -> list[pl.Expr]:
        if name not in frame.columns:
            return [pl.lit(value, wide) for value in (constant, 0, 0)]
        return [pl.col(one).cast(wide) for one in (name, f"{name}_over", f"{name}_over_squared")]

    pages = pl.col("pages").cast(wide)
    prompt, prompt_over, prompt_squared = sums("prompt_tokens", prompt_tokens)
    output, output_over, output_squared = sums("output_tokens", 0)
    product = pl.col("over_product").cast(wide) if "over_product" in frame.columns else pl.lit(0, wide)
    return frame.with_columns(
        pages=pages,
        prompt=prompt * pages + prompt_over,
        prompt_squares=prompt * prompt * pages + 2 * prompt * prompt_over + prompt_squared,
        output=output * pages + output_over,
        output_squares=output * output * pages + 2 * output * output_over + output_squared,
        products=prompt * output * pages + prompt * output_over + output * prompt_over + product,
    )


def _own_lengths(rows: pl.DataFrame) -> Lengths:
    """Lengths as a table has them, the pages of a bucket at their mean."""
    mean = pl.col("output").cast(pl.Float64) / pl.col("pages").cast(pl.Float64)
    each = rows.group_by(mean.round().cast(pl.Int64).alias("tokens")).agg(pl.col("pages").sum().cast(pl.Float64)).sort("tokens")
    pages = each["pages"].to_numpy()
    return Lengths(each["tokens"].to_numpy(), pages / pages.sum(), "the table's column output_tokens")


def total_costs(run: RunSpec, kinds: Sequence[Kind]) -> list[dict[str, int]]:
    """What all pages of every kind cost together, of each of `TOTALS`, exactly: every page by itself, without padding.

    Of lengths that follow a law, the expected cost.
    """
    return [
        {name: _sum_quadratic(values, kind.moments) for name, values in corners.items()}
        for kind, corners in zip(kinds, cost_corners(run, kinds), strict=True)
    ]


def pages_of(kinds: Sequence[Kind], **rest: Any) -> Workload:
    """A page of each of several kinds, a point each; rest: other columns of the workload."""
    views = {name: np.array([getattr(kind.page, name) for kind in kinds], np.int64) for name in VIEWS}
    return Workload(**views, **rest, page_rule=kinds[0].page.page_rule)


def cost_corners(run: RunSpec, kinds: Sequence[Kind]) -> list[dict[str, list[int]]]:
    """What one page of every kind costs at each of `CORNERS`, of each of `TOTALS`."""
    prompts, outputs = (np.array(one) for one in zip(*CORNERS, strict=True))
    lengths = {"prompt_tokens": FIRST_PROMPT + prompts, "output_tokens": FIRST_OUTPUT + outputs}
    each = [kind for kind in kinds for _ in CORNERS]
    points = pages_of(each, **{name: np.tile(column, len(kinds)) for name, column in lengths.items()})
    stages = estimate_run(run, points).stage_numbers.values()
    sums = {name: sum(row[name] for row in stages).reshape(len(kinds), len(CORNERS)).tolist() for name in TOTALS}
    return [{name: values[number] for name, values in sums.items()} for number in range(len(kinds))]


def newton_coefficients(corners: Sequence[int]) -> tuple[int, ...]:
    """The quadratic in x prompt and y output tokens beyond the first ones that has these values at `CORNERS`: its coefficients of 1, x,
    x (x - 1) / 2, y, y (y - 1) / 2 and x y."""
    base, prompt, prompts, output, outputs, both = corners
    return base, prompt - base, prompts - 2 * prompt + base, output - base, outputs - 2 * output + base, both - prompt - output + base


def _sum_quadratic(corners: Sequence[int], moments: Moments) -> int:
    """The sum over pages of the quadratic that has these values at `CORNERS`."""
    pages, prompts, outputs = moments.pages, moments.prompt - FIRST_PROMPT * moments.pages, moments.output - FIRST_OUTPUT * moments.pages
    prompt_squares = moments.prompt_squares - 2 * FIRST_PROMPT * moments.prompt + FIRST_PROMPT**2 * pages
    output_squares = moments.output_squares - 2 * FIRST_OUTPUT * moments.output + FIRST_OUTPUT**2 * pages
    products = moments.products - FIRST_PROMPT * moments.output - FIRST_OUTPUT * moments.prompt + FIRST_PROMPT * FIRST_OUTPUT * pages
    sums = pages, prompts, (prompt_squares - prompts) // 2, outputs, (output_squares - outputs) // 2, products
    return sum(coefficient * total for coefficient, total in zip(newton_coefficients(corners), sums, strict=True))
