"""The tile rule as expressions that an engine runs (Polars, DuckDB, Spark, and what else narwhals knows), in whole numbers alone.

`choose_grid` compares float64 differences |W/H - columns/rows|. Between neighbouring ratios of grids the nearer one changes at their
midpoint p/q, whose q is at most 144. A ratio W/H that is not p/q is at least 1/(144·10^6) away from it, 10^7 times what rounding can move,
so there W·q against p·H decides; where W/H = p/q, the comparison of the floats at that one value does, which is a constant. All midpoints
are whole in 5040ths: one division, ⌊5040·W/H⌋ with its ceiling, decides all 18 comparisons.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from itertools import pairwise
from math import lcm

import narwhals as nw

from ocr_flops.spec.specs import Mode
from ocr_flops.spec.tiling import rule_grids

Grid = tuple[int, int]
UNTILED: Grid = (1, 1)


def code(grid: Grid) -> int:
    """A grid as one small number, columns in tens and rows in ones: 23 is 2 columns x 3 rows."""
    return 10 * grid[0] + grid[1]


def grid_of(number: int) -> Grid:
    """The grid of a code."""
    return divmod(number, 10)


@cache
def ratio_steps() -> tuple[int, tuple[tuple[int, tuple[Grid, ...]], ...]]:
    """Which grids are nearest, by aspect ratio.

    Returns:
        the unit u in which all midpoints between ratios of grids are whole (5040), and in growing order pairs of a bound and grids: a page
        whose ⌊u·W/H⌋ + ⌈u·W/H⌉ is at least the bound, and below the next one, has these nearest grids, in the order of the rule.
    """
    ratios = sorted({Fraction(*grid) for grid in rule_grids()})
    grids = {ratio: [grid for grid in rule_grids() if Fraction(*grid) == ratio] for ratio in ratios}
    middles = [(low + high) / 2 for low, high in pairwise(ratios)]
    unit = lcm(*(middle.denominator for middle in middles))
    steps = [(0, tuple(grids[ratios[0]]))]
    for (low, high), middle in zip(pairwise(ratios), middles, strict=True):
        whole = int(middle * unit)
        below, above = (abs(float(middle) - float(ratio)) for ratio in (low, high))
        if below == above:  # a tie of the floats
            steps.append((2 * whole, tuple(sorted(grids[low] + grids[high], key=rule_grids().index))))
        steps.append((2 * whole + (below <= above), tuple(grids[high])))
    return unit, tuple(steps)


def aspect(width: nw.Expr, height: nw.Expr) -> nw.Expr:
    """⌊u·W/H⌋ + ⌈u·W/H⌉ of whole sides from 1 to 10^6 in int64, with the unit u of `ratio_steps`."""
    scaled = width * ratio_steps()[0]
    floor = scaled // height  # exact on engines that divide floats: a quotient that is not whole is at least 10^-6 from a whole number
    return 2 * floor + nw.when(scaled > floor * height).then(nw.lit(1)).otherwise(nw.lit(0))


def grid_code(width: nw.Expr, height: nw.Expr, ratio: nw.Expr, mode: Mode) -> nw.Expr:
    """The code of the grid that `choose_grid` chooses in a mode.

    Args:
        width, height: whole sides from 1 to 10^6 in int64.
        ratio: their `aspect`.
        mode: a resolution mode; without tiles every page is one view.
    """
    if not mode.tile_px:
        return nw.lit(code(UNTILED))
    area = width * height * 2

    def nearest(grids: Sequence[Grid]) -> nw.Expr:
        """The first of the grids, unless a later one is less than twice the page's area."""
        found = nw.lit(code(grids[0]))
        for grid in grids[1:]:
            found = nw.when(area > mode.tile_px**2 * grid[0] * grid[1]).then(nw.lit(code(grid))).otherwise(found)
        return found

    def choose(steps: Sequence[tuple[int, tuple[Grid, ...]]]) -> nw.Expr:
        """By halves, so that an engine that looks only where it must compares five times."""
        if len(steps) == 1:
            return nearest(steps[0][1])
        half = len(steps) // 2
        return nw.when(ratio < steps[half][0]).then(choose(steps[:half])).otherwise(choose(steps[half:]))

    untiled = (width <= mode.untiled_up_to_px) & (height <= mode.untiled_up_to_px)
    return nw.when(untiled).then(nw.lit(code(UNTILED))).otherwise(choose(ratio_steps()[1]))
