"""The pages that a sweep runs over: tile grids by rule, or files of images and PDFs by the sizes in their headers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ocr_flops.errors import SpecError, one_of, whole_number
from ocr_flops.files import Progress, no_progress
from ocr_flops.spec import tiling
from ocr_flops.spec.documents import DEFAULT_DPI, DOCUMENT_SUFFIXES
from ocr_flops.spec.tiling import square_grids
from ocr_flops.spec.workload import MAX_TILES
from ocr_flops.studies.corpus.folder import File, read_files
from ocr_flops.studies.corpus.reader import TEXT_SUFFIXES
from ocr_flops.units import counted

OTHER_KIND = "no image or PDF by their names"
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
    whole_number(f"{prefix}min_tiles", min_tiles, least, MAX_TILES)
    whole_number(f"{prefix}max_tiles", max_tiles, min_tiles, MAX_TILES)


def image_pages(paths: str | Path | list[str | Path], dpi: float = DEFAULT_DPI, progress: Progress = no_progress) -> Pages:
    """The pages of image and PDF files with their sizes; a file or page that cannot be read is skipped and named.

    Args:
        paths: files and folders; of a folder all images and PDFs in it, by name.
        dpi: at which PDFs are rendered.
        progress: called with what goes on, how many files are read, and of how many.

    Raises:
        SpecError: a path that does not exist, or no page that can be read.
    """
    paths = [paths] if isinstance(paths, str | Path) else paths
    if not isinstance(paths, list) or not all(isinstance(path, str | Path) for path in paths):
        raise SpecError(f"sweep.images: {paths!r} is neither a path nor a list of paths")
    files, passed = _files(paths)
    found = read_files([File(str(path), 0, 0) for path in files], dpi, progress)
    skipped = (*passed, *found.refused)
    if not len(found.pages):
        why = f"; {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise SpecError(f"sweep.images: {paths} has no page that can be read ({', '.join(DOCUMENT_SUFFIXES)}){why}")
    fields = {f"image_{name}": found.pages[name].to_numpy() for name in ("width_px", "height_px")}
    return Pages(fields, tuple(found.pages.select("file", "page").iter_rows()), skipped)


def _files(paths: Sequence[str | Path]) -> tuple[list[Path], list[tuple[str, str]]]:
    """The files named, and those in the folders named, each once; and what of these folders is passed over, a line for folders, a line for
    files of each suffix."""
    found: dict[Path, None] = {}
    passed: dict[tuple[str, str], int] = {}
    for path in map(Path, paths):
        if path.is_dir():
            for inside in sorted(path.iterdir()):
                suffix = inside.suffix.lower()
                if suffix in DOCUMENT_SUFFIXES and inside.is_file():
                    found[inside] = None
                else:
                    folder = str(inside), "a folder in the folder; name it too"
                    what = folder if inside.is_dir() else (str(path / f"*{suffix}"), OTHER_KIND)
                    passed[what] = passed.get(what, 0) + 1
        elif path.suffix.lower() in TEXT_SUFFIXES and path.is_file():
            passed[str(path), OTHER_KIND] = 1
        elif path.is_file():
            found[path] = None
        else:
            raise SpecError(f"sweep.images: {path} does not exist; give files of images and PDFs, or folders of them")
    named = ((name, f"{counted(count, 'file')}: {why}" if why == OTHER_KIND else why) for (name, why), count in passed.items())
    return list(found), list(named)


def is_published_grid(columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Whether the published code can choose each grid: one of its 22, or no tiles (1 x 1)."""
    table = np.zeros((tiling.MAX_TILES + 1, tiling.MAX_TILES + 1), bool)
    table[tuple(np.array([(1, 1), *tiling.rule_grids()]).T)] = True
    inside = (columns <= tiling.MAX_TILES) & (rows <= tiling.MAX_TILES)
    return inside & table[np.where(inside, columns, 0), np.where(inside, rows, 0)]
