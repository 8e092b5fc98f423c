"""The pages that a sweep runs over: tile grids by rule, or files of images and PDFs by the sizes in their headers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ocr_flops.errors import SpecError, one_of
from ocr_flops.spec import tiling
from ocr_flops.spec.documents import DEFAULT_DPI, DOCUMENT_SUFFIXES, read_document
from ocr_flops.spec.tiling import square_grids
from ocr_flops.spec.workload import MAX_TILES

GRIDS = ("vendor", "wide", "square")


class Pages(NamedTuple):
    """Pages, one after the other.

    Args:
        fields: fields of the workload that they set: columns and rows, or image_width_px and image_height_px; int64 arrays of one length.
        images: the file of every page, and the page's number in it; empty for grids.
        skipped: files or pages that could not be read, with why.
    """

    fields: dict[str, np.ndarray]
    images: tuple[tuple[str, int], ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.fields.values())))


def grid_pages(rule: str, min_tiles: int, max_tiles: int) -> Pages:
    """Tile grids.

    Args:
        rule: "vendor" (every grid of the tile rule), "wide" (grids with rows <= columns) or "square" (the most square one of every number
            of tiles).
        min_tiles, max_tiles: numbers of tiles, both included.

    Raises:
        SpecError: an unknown rule, or no such numbers.
    """
    one_of("sweep.grids", rule, GRIDS)
    check_tiles("sweep.", min_tiles, max_tiles, 2)
    if rule == "square":
        found = square_grids(max_tiles)[min_tiles - 2 :]
    else:
        if rule == "vendor" and max_tiles > tiling.MAX_TILES:
            raise SpecError(f"sweep.max_tiles: {max_tiles} is more than the {tiling.MAX_TILES} tiles of the tile rule's largest grid")
        found = [grid for grid in tiling.rule_grids(min_tiles, max_tiles) if rule == "vendor" or grid[1] <= grid[0]]
    columns, rows = np.array(found, np.int64).T
    return Pages({"columns": columns, "rows": rows})


def check_tiles(prefix: str, min_tiles: Any, max_tiles: Any, least: int) -> None:
    """Raises SpecError, naming the key behind a prefix, where these are no numbers of tiles from `least` up, the larger one last."""
    for name, value, lowest in (("min_tiles", min_tiles, least), ("max_tiles", max_tiles, min_tiles)):
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= MAX_TILES:
            raise SpecError(f"{prefix}{name}: {value!r} is not a whole number from {lowest} to {MAX_TILES}")


def image_pages(paths: str | Path | list[str | Path], dpi: float = DEFAULT_DPI) -> Pages:
    """The pages of image and PDF files with their sizes; a file or page that cannot be read is skipped and named.

    Args:
        paths: files and folders; of a folder all images and PDFs in it, by name.
        dpi: at which PDFs are rendered.

    Raises:
        SpecError: a path that does not exist, or no page that can be read.
    """
    paths = [paths] if isinstance(paths, str | Path) else paths
    if not isinstance(paths, list) or not all(isinstance(path, str | Path) for path in paths):
        raise SpecError(f"sweep.images: {paths!r} is neither a path nor a list of paths")
    sizes, names, skipped = [], [], []
    for path in _files(paths):
        try:
            whole = read_document(path, str(path))
        except SpecError as problem:
            skipped.append((str(path), _reason(problem, path)))
            continue
        for number in range(1, len(whole.sizes) + 1):
            try:
                sizes.append(whole.page_px(number, dpi))
                names.append((str(path), number))
            except SpecError as problem:
                skipped.append((f"{path}, page {number}", _reason(problem, path)))
    if not sizes:
        why = f"; {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise SpecError(f"sweep.images: {paths} has no page that can be read ({', '.join(DOCUMENT_SUFFIXES)}){why}")
    width, height = np.array(sizes, np.int64).T
    return Pages({"image_width_px": width, "image_height_px": height}, tuple(names), tuple(skipped))


def _reason(problem: SpecError, path: Path) -> str:
    return str(problem).removeprefix(str(path)).lstrip(":, ")


def _files(paths: Sequence[str | Path]) -> list[Path]:
    """The files named, and those in the folders named, each once."""
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            inside = (file for file in path.iterdir() if file.suffix.lower() in DOCUMENT_SUFFIXES and file.is_file())
            found |= dict.fromkeys(sorted(inside))
        elif path.is_file():
            found[path] = None
        else:
            raise SpecError(f"sweep.images: {path} does not exist; give files of images and PDFs, or folders of them")
    return list(found)


def is_published_grid(columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Whether the published code can choose each grid: one of its 22, or no tiles (1 x 1)."""
    table = np.zeros((tiling.MAX_TILES + 1, tiling.MAX_TILES + 1), bool)
    table[tuple(np.array([(1, 1), *tiling.rule_grids()]).T)] = True
    inside = (columns <= tiling.MAX_TILES) & (rows <= tiling.MAX_TILES)
    return inside & table[np.where(inside, columns, 0), np.where(inside, rows, 0)]
