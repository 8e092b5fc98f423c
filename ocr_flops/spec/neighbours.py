"""Points around one point: other grids, growing contexts and output lengths, as columns."""

from __future__ import annotations

from dataclasses import replace
from math import isqrt

import numpy as np

from ocr_flops.spec.catalog import modes
from ocr_flops.spec.tiling import MAX_TILES, rule_grids
from ocr_flops.spec.workload import Workload

STEPS = 12  # from the largest grids of the tile rule to one beyond them


def neighbours(workload: Workload, itself: bool = False) -> Workload:
    """Columns of points around one: no tiles and the 22 grids of the tile rule, or the views of all modes without tiles; by size.

    Args:
        workload: one point.
        itself: whether it is among them where its grid or its view is none of these, with grids on the way to it: costs grow with the
            square of its tokens, and a straight line to it would hide that.
    """
    free = replace(workload, image_width_px=0, image_height_px=0)
    if not workload.tile_px:
        sides = {mode.global_px for mode in modes() if not mode.tile_px} | ({workload.global_px} if itself else set())
        return replace(free, global_px=np.array(sorted(sides)), mode="")
    grids = [(1, 1), *rule_grids()]
    if itself and (workload.columns, workload.rows) not in grids:
        grids += [*_between(workload.tiles), (workload.columns, workload.rows)]
    columns, rows = np.array(grids).T
    return replace(free, columns=columns, rows=rows)


def _between(tiles: int) -> list[tuple[int, int]]:
    """Nearly square grids (columns, rows) between those of the tile rule and a number of tiles, evenly spaced."""
    wanted = np.linspace(MAX_TILES, tiles, STEPS + 1)[1:-1].astype(int).tolist()
    found = dict.fromkeys((isqrt(count), count // isqrt(count)) for count in wanted)
    return [grid for grid in found if MAX_TILES < grid[0] * grid[1] < tiles]


def growing_contexts(workload: Workload) -> Workload:
    """Columns of a page at eight contexts, evenly spaced from the first multiple of 1024 tokens that holds its image: prompts that grow."""
    step = -(-workload.image_tokens // 1024) * 1024
    return replace(workload, prompt_tokens=step * np.arange(1, 9) - workload.image_tokens)


def growing_outputs(workload: Workload) -> Workload:
    """Columns of one page at growing output lengths, past its own."""
    most = max(2048, 2 * workload.output_tokens)
    return replace(workload, output_tokens=np.linspace(0, most, 17).astype(np.int64))
