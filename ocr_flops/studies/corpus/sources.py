"""A path -> pages: a table in a file or in several, a folder of images and PDFs, or a mix of paper formats."""

import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from ocr_flops.errors import SpecError
from ocr_flops.spec.documents import DEFAULT_DPI, MAX_DPI, MIN_DPI
from ocr_flops.studies.corpus.folder import Folder, Progress, read_folder

TABLES: dict[str, Callable[..., pl.LazyFrame]] = {  # by suffix
    ".parquet": pl.scan_parquet,
    ".csv": pl.scan_csv,
    ".tsv": lambda source: pl.scan_csv(source, separator="\t"),
    ".arrow": pl.scan_ipc,
    ".ipc": pl.scan_ipc,
    ".feather": pl.scan_ipc,
}
DELTA_LOG = "_delta_log"  # the folder that makes another one a Delta table
MM_PER_INCH = 25.4


class Format(NamedTuple):
    """A paper format or a screen: its size in inches, or in pixels where `is_px`."""

    label: str
    width: float
    height: float
    is_px: bool = False

    def px(self, dpi: float) -> tuple[int, int]:
        """Width and height in pixels when scanned at so many dpi."""
        return (int(self.width), int(self.height)) if self.is_px else (round(self.width * dpi), round(self.height * dpi))


FORMATS = {
    "a3": Format("A3", 297 / MM_PER_INCH, 420 / MM_PER_INCH),
    "a4": Format("A4", 210 / MM_PER_INCH, 297 / MM_PER_INCH),
    "a5": Format("A5", 148 / MM_PER_INCH, 210 / MM_PER_INCH),
    "letter": Format("US Letter", 8.5, 11),
    "legal": Format("US Legal", 8.5, 14),
    "tabloid": Format("US Tabloid", 11, 17),
    "receipt": Format("receipt, 80 x 250 mm", 80 / MM_PER_INCH, 250 / MM_PER_INCH),
    "card": Format("identity card", 85.6 / MM_PER_INCH, 53.98 / MM_PER_INCH),
    "slide": Format("slide, 1920 x 1080 px", 1920, 1080, True),
    "screen": Format("screenshot, 2560 x 1440 px", 2560, 1440, True),
}
MIX = re.compile(r"(?:(\d+)x(\d+)|([a-z0-9]+)(?:@(\d+))?):(\d+)")  # 1654x2339:900000 or a4@200:900000
DEMO = {  # pages by format and dpi
    ("a4", 200): 55_000,
    ("a4", 300): 15_000,
    ("letter", 200): 10_000,
    ("receipt", 300): 8_000,
    ("slide", 0): 7_000,
    ("a3", 300): 3_000,
    ("card", 300): 2_000,
}
MIX_EXAMPLE = "a4@200:900000,receipt@300:100000"


def mix_table(text: str) -> pl.DataFrame:
    """Pages by paper format, dpi and number, or by size and number, "a4@200:900000,1080x1920:100000", as a table; a SpecError for an
    unknown format, or another form."""
    rows = []
    for part in text.split(","):
        found = MIX.fullmatch(part.strip())
        if not found or (found[3] and found[3] not in FORMATS):
            raise SpecError(f"pages: {part!r} is not FORMAT@DPI:PAGES or WxH:PAGES; formats are {', '.join(FORMATS)}, as in {MIX_EXAMPLE}")
        width, height, name, dpi, pages = found.groups()
        dpi = int(dpi or DEFAULT_DPI)
        if not MIN_DPI <= dpi <= MAX_DPI:
            raise SpecError(f"pages: {part!r}: {dpi} dpi is not from {MIN_DPI} to {MAX_DPI}")
        rows.append((*(FORMATS[name].px(dpi) if name else (int(width), int(height))), int(pages)))
    return pl.DataFrame(rows, schema={name: pl.Int64 for name in ("width_px", "height_px", "pages")}, orient="row")


def is_mix(text: str) -> bool:
    """Whether a text has the form of a mix of paper formats."""
    return all(MIX.fullmatch(part.strip()) for part in text.split(","))


def demo_table() -> pl.DataFrame:
    """A corpus to try things with: 100 000 pages, scans whose edges vary a little, receipts of any length, slides; the same every time."""
    rng = np.random.default_rng(0)
    parts = []
    for (name, dpi), count in DEMO.items():
        width, height = FORMATS[name].px(dpi)
        edges = np.ones((count, 2)) if FORMATS[name].is_px else rng.normal(1, 0.02, (count, 2))
        edges[:, 1] *= rng.uniform(0.5, 2.5, count) if name == "receipt" else 1
        sizes = np.rint(edges * (width, height)).astype(np.int64)
        turned = rng.random(count) < 0.04  # laid on the scanner sideways
        parts.append(np.where(turned[:, None], sizes[:, ::-1], sizes))
    return pl.DataFrame(np.concatenate(parts), schema=["width_px", "height_px"], orient="row")


def read_upload(content: bytes, name: str) -> pl.LazyFrame:
    """A table that was sent, by the suffix of its name; errors as of `scan_table`."""
    suffix = Path(name).suffix.lower()
    if suffix not in TABLES:
        raise SpecError(f"pages: {name!r} is no table ({', '.join(TABLES)})")
    return _opened(TABLES[suffix], BytesIO(content), name)


def scan_table(path: str | Path) -> pl.LazyFrame:
    """A table of pages in a file, in a Delta folder, or in the files of a glob, not yet read; a SpecError for a suffix of no table, or no
    such file."""
    text = str(path)
    if (Path(path) / DELTA_LOG).is_dir():
        return _opened(pl.scan_delta, text, text)
    suffix = Path(text).suffix.lower()
    if suffix not in TABLES:
        raise SpecError(f"pages: {text!r} is no folder and no table ({', '.join(TABLES)}, or a Delta folder)")
    if not any(mark in text for mark in "*?[") and not Path(text).is_file():
        raise SpecError(f"pages: {text} does not exist")
    return _opened(TABLES[suffix], text, text)


def _opened(scan: Callable[..., pl.LazyFrame], source: Any, path: str) -> pl.LazyFrame:
    try:
        frame = scan(source)
        frame.collect_schema()
    except ImportError:
        raise SpecError(f"pages: {path} is a Delta table, which needs the package deltalake: pip install deltalake") from None
    except (pl.exceptions.PolarsError, OSError) as problem:
        raise SpecError(f"pages: {path} cannot be read: {str(problem).splitlines()[0]}") from None
    return frame


class Opened(NamedTuple):
    """Pages at a path: a table of them, and of a folder what else was found there."""

    table: pl.LazyFrame
    folder: Folder | None = None


def open_pages(path: str | Path, dpi: float = DEFAULT_DPI, progress: Progress | None = None) -> Opened:
    """The pages at a path: a folder of images and PDFs, a table or a glob of tables, or a mix of paper formats.

    Args:
        path: "scans", "pages.parquet", "2024-*.csv", or "a4@200:900000,receipt@300:100000".
        dpi: at which the PDFs of a folder are rendered.
        progress: as of `read_folder`.

    Raises:
        SpecError: nothing of the kind is there.
    """
    text = str(path)
    if Path(text).is_dir() and not (Path(text) / DELTA_LOG).is_dir():
        folder = read_folder(text, dpi, progress)
        return Opened(folder.pages.lazy(), folder)
    return Opened(mix_table(text).lazy() if is_mix(text) else scan_table(text))
