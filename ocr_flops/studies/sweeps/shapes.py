"""Canonical page shapes: for every number of tiles its most square grid, the image that fills it, and its tokens."""

import numpy as np
import polars as pl

from ocr_flops.errors import SpecError
from ocr_flops.spec import tiling
from ocr_flops.spec.catalog import load_mode
from ocr_flops.spec.specs import Mode
from ocr_flops.spec.tiling import square_grids
from ocr_flops.spec.workload import Workload
from ocr_flops.studies.sweeps.pages import check_tiles, is_published_grid


def shapes_frame(min_tiles: int = 1, max_tiles: int = 1000, mode: str | Mode = "gundam") -> pl.DataFrame:
    """One row per number of tiles.

    Columns: tiles (the number; 1 means an image that is not cut), columns, rows (the most square factor pair, columns <= rows),
    image_width_px, image_height_px (the image that fills the grid, each tile at its own resolution), global_px, tile_px, global_tokens,
    tile_tokens (newlines of the tile picture included), image_tokens (their sum), vendor_supported (the published code can choose that
    grid, and does for that image).

    Args:
        min_tiles, max_tiles: numbers of tiles, both included, 1 to 10 000.
        mode: a resolution with tiles.

    Raises:
        SpecError: no such numbers, or a resolution without tiles.
    """
    mode = load_mode(mode) if isinstance(mode, str) else mode
    if not mode.tile_px:
        raise SpecError(f"mode: {mode.name!r} has no tiles; choose gundam or gundam_m")
    check_tiles("", min_tiles, max_tiles, 1)
    columns, rows = np.array([(1, 1), *square_grids(max_tiles)][min_tiles - 1 : max_tiles], np.int64).T
    side = np.where(columns * rows > 1, mode.tile_px, min(mode.tile_px, mode.untiled_up_to_px))
    return pl.DataFrame(
        {
            "tiles": columns * rows,
            "columns": columns,
            "rows": rows,
            "image_width_px": columns * side,
            "image_height_px": rows * side,
            "global_px": np.full(len(columns), mode.global_px),
            "tile_px": np.full(len(columns), mode.tile_px),
            "global_tokens": np.full(len(columns), tiling.global_tokens(mode.global_px)),
            "tile_tokens": tiling.tile_tokens(mode.tile_px, columns, rows),
            "image_tokens": Workload.from_grid(columns, rows, mode).image_tokens,
            "vendor_supported": is_published_grid(columns, rows),
        }
    )
