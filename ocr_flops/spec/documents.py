"""The sizes of a file's pages, an image's, a TIFF's or a PDF's: headers alone are read, no pixel is decoded and no page is rendered."""

import json
import os
import sys
import threading
import warnings
from collections.abc import Callable
from io import BytesIO
from math import ceil, isfinite, sqrt
from typing import Any, NamedTuple

from ocr_flops.errors import SpecError
from ocr_flops.spec.headers import HEAD_BYTES, plain_size

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "AVIF")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".jp2", ".avif")
DOCUMENT_SUFFIXES = (*IMAGE_SUFFIXES, ".pdf")
MAX_PIXELS = 2 * 89_478_485  # Pillow's own limit: from there on it refuses a header; A0 at 300 dpi has 139 megapixels
MAX_MEGAPIXELS = f"{MAX_PIXELS / 1e6:.0f} megapixels"
TOO_LARGE = f"more than {MAX_MEGAPIXELS}; give a smaller scan, or set its size by hand"
EXIF_ORIENTATION, QUARTER_TURNS = 0x0112, (5, 6, 7, 8)
TIFF_KIND, TIFF_NO_PAGE = 254, 0b101  # NewSubfileType: a smaller copy of another picture, or a mask
POINTS_PER_INCH = 72
MIN_DPI, MAX_DPI, DEFAULT_DPI = 36, 1200, 200
ROUNDING_PX = 0.001  # a renderer's edge may exceed a pixel by so much without making another
_WARNINGS = threading.Lock()  # a process has one list of what it warns of, and the app's sessions are threads

PDF_MARK, PDF_MARK_WITHIN = b"%PDF-", 1024  # readers accept bytes before the mark, within the first 1024
PDF_READER = os.path.join(os.path.dirname(__file__), "pdf_reader.py")
MAX_PAGES = 10_000  # of a PDF or a TIFF
PDF_MAX_SECONDS = 10  # 10 000 pages take 0.4
PDF_MAX_BYTES = 2**30  # of memory
SAVE_ANEW = "save it anew with a PDF printer"
PDF_PROBLEMS = {  # as pdf_reader.py names them
    "encrypted": "encrypted; remove the password and try again",
    "no pages": "a PDF without pages",
    "too many pages": "a PDF of {pages} pages; at most {most} are read, so split it",
    "memory": f"reading it takes more than {PDF_MAX_BYTES >> 30} GiB of memory; {SAVE_ANEW}",
    "damaged": f"not a PDF that can be read; {SAVE_ANEW}",
}


Content = bytes | str | os.PathLike[str]  # what a file holds, or its path
PdfReader = Callable[[Content, str], tuple[tuple[float, float], ...]]


class UnknownImage(SpecError):
    """No image of a known format."""


class Document(NamedTuple):
    """The pages of a file."""

    name: str  # what errors call the file
    unit: str  # "px" for an image, "pt" (1/72 inch) for a PDF, whose size in pixels depends on the resolution it is rendered at
    sizes: tuple[tuple[float, float], ...]  # width and height of every page, as it is displayed

    def page_px(self, number: int | None = None, dpi: float | None = None) -> tuple[int, int]:
        """Width and height in pixels of a page, the first by default, of a PDF rendered at so many dpi, 200 by default.

        Raises:
            SpecError: no such page, or as `rendered_px` does.
        """
        number, dpi = 1 if number is None else number, DEFAULT_DPI if dpi is None else dpi
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= len(self.sizes):
            raise SpecError(f"{self.name}: page {number!r} is not one of its pages, 1 to {len(self.sizes)}")
        width, height = self.sizes[number - 1]
        return (int(width), int(height)) if self.unit == "px" else rendered_px(width, height, dpi, f"{self.name}, page {number}")

    def page_label(self, number: int | None = None, dpi: float | None = None) -> str:
        """A page in words: the file's name, of several pages which one, of a PDF at which resolution. Arguments as for `page_px`."""
        if self.unit == "px" and len(self.sizes) == 1:
            return self.name
        return f"{self.name}, page {number or 1} of {len(self.sizes)}{'' if self.unit == 'px' else f' at {dpi or DEFAULT_DPI:g} dpi'}"


def read_document(content: Content, name: str | None = None, pdf_sizes: PdfReader | None = None) -> Document:
    """The pages of an image or a PDF, given as bytes or a path; its content decides which of the two it is, not its name.

    Args:
        name: what errors call it.
        pdf_sizes: reads a PDF's page sizes; `pdf_page_sizes` by default.

    Raises:
        SpecError: neither an image nor a PDF that can be read, or beyond a limit of `image_sizes` or `pdf_page_sizes`.
    """
    name = name or ("file" if isinstance(content, bytes) else os.path.basename(content))
    try:
        return Document(name, "px", image_sizes(content, name))
    except UnknownImage:
        if PDF_MARK in _head(content, name):
            return Document(name, "pt", (pdf_sizes or pdf_page_sizes)(content, name))
        raise SpecError(f"{name}: neither an image nor a PDF that can be read; give one of {', '.join(DOCUMENT_SUFFIXES)}") from None


def rendered_px(width_points: float, height_points: float, dpi: float = DEFAULT_DPI, name: str = "page") -> tuple[int, int]:
    """Width and height in pixels of a page of so many points (1/72 inch), as displayed, rendered at 36 to 1200 dpi.

    Rounds up, as renderers do. MuPDF, with which the published script renders PDFs (at 144 dpi), forgives a thousandth of a pixel
    (`fz_round_rect`), so that 612 points at 200 dpi are 1700 px whatever the arithmetic; so does this.

    Raises:
        SpecError: dpi out of range, a page below one point, or one that would have more than 179 megapixels.
    """
    if isinstance(dpi, bool) or not isinstance(dpi, int | float) or not MIN_DPI <= dpi <= MAX_DPI:
        raise SpecError(f"dpi: {dpi!r} is not a number from {MIN_DPI} to {MAX_DPI}")
    if not all(isfinite(side) and side >= 1 for side in (width_points, height_points)):
        raise SpecError(f"{name}: {width_points:g} x {height_points:g} points; a page has at least 1 x 1")
    width, height = (ceil(side * dpi / POINTS_PER_INCH - ROUNDING_PX) for side in (width_points, height_points))
    if width * height > MAX_PIXELS:
        most = int(POINTS_PER_INCH * sqrt(MAX_PIXELS / (width_points * height_points)))
        advice = f"choose at most {most} dpi" if most >= MIN_DPI else "set its size by hand"
        raise SpecError(f"{name}: {width} x {height} px at {dpi:g} dpi, more than {MAX_MEGAPIXELS}; {advice}")
    return width, height


def image_sizes(content: Content, name: str = "image") -> tuple[tuple[int, int], ...]:
    """Width and height in pixels of an image as it is displayed: turned where its EXIF orientation says so, as the published code does.

    A TIFF has one for every page, smaller copies and masks left out; other formats have one.

    Raises:
        SpecError: not an image of a known format, more than 10 000 pages, or a page of more than 179 megapixels.
    """
    sizes = _plain_size(content) or _pillow_sizes(content, name)
    for width, height in sizes:
        if width * height > MAX_PIXELS:
            raise SpecError(f"{name}: {width} x {height} px, {TOO_LARGE}")
        if width < 1 or height < 1:
            raise SpecError(f"{name}: {width} x {height} px; an image has at least 1 x 1 px")
    return tuple(sizes)


def _plain_size(content: Content) -> list[tuple[int, int]]:
    """The size of a plain image; nothing where Pillow must say."""
    try:
        if not isinstance(content, bytes):
            with open(content, "rb", buffering=0) as file:
                content = file.read(HEAD_BYTES)
    except OSError:
        return []
    size = plain_size(content[:HEAD_BYTES])
    return [size] if size and 0 < size[0] * size[1] <= MAX_PIXELS else []


def _pillow_sizes(content: Content, name: str) -> list[tuple[int, int]]:
    """What Pillow says; errors as of `image_sizes`."""
    from PIL import Image

    try:
        with _WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # of half as many pixels
            image = Image.open(BytesIO(content) if isinstance(content, bytes) else content, formats=IMAGE_FORMATS)
        with image:
            return _tiff_sizes(image, name) if image.format == "TIFF" else [_displayed(image)]
    except SpecError:
        raise
    except Image.DecompressionBombError:
        raise SpecError(f"{name}: {TOO_LARGE}") from None
    except Exception:  # Pillow's parsers raise whatever a broken header leads them to
        raise UnknownImage(f"{name}: not an image that can be read; give one of {', '.join(IMAGE_SUFFIXES)}") from None


def _displayed(image: Any) -> tuple[int, int]:
    """The size of an open image, turned by its EXIF orientation."""
    from PIL.Image import Exif

    width, height = image.size
    if found := image.info.get("exif"):
        exif = Exif()
        exif.load(found)
        if exif.get(EXIF_ORIENTATION) in QUARTER_TURNS:
            return height, width
    return width, height


def _tiff_sizes(image: Any, name: str) -> list[tuple[int, int]]:
    """The sizes of a TIFF's pages, which Pillow has turned already."""
    sizes = []
    for number in range(MAX_PAGES + 1):
        try:
            image.seek(number)
        except EOFError:
            return sizes or [image.size]  # nothing but copies: the first one
        if not image.tag_v2.get(TIFF_KIND, 0) & TIFF_NO_PAGE:
            sizes.append(image.size)
    raise SpecError(f"{name}: a TIFF of more than {MAX_PAGES} pages; split it")


def pdf_page_sizes(content: Content, name: str = "PDF", seconds: float = PDF_MAX_SECONDS) -> tuple[tuple[float, float], ...]:
    """Width and height in points (1/72 inch) of every page of a PDF as it is displayed: crop box, rotation and UserUnit applied.

    They are read in a child process, for so many seconds at most: a hostile file ends that process alone.

    Raises:
        SpecError: not a PDF or a damaged one, encrypted with a password, no pages or more than 10 000, or the child process took too long,
            took too much memory or died.
    """
    import subprocess  # which takes as long to import as all that readers of a folder need

    command = [sys.executable, "-P", PDF_READER, str(PDF_MAX_BYTES), str(max(1, round(seconds))), str(MAX_PAGES)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "timeout": seconds}
    try:
        if isinstance(content, bytes):
            done = subprocess.run(command, input=content, **options)
        else:
            with open(content, "rb") as file:
                done = subprocess.run(command, stdin=file, **options)
    except subprocess.TimeoutExpired:
        raise SpecError(f"{name}: reading it took more than {seconds:g} seconds; {SAVE_ANEW}") from None
    except OSError as problem:
        raise SpecError(f"{name}: cannot be read: {problem.strerror or problem}") from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        died = f"the process that read it ended early (exit code {done.returncode})"
        raise SpecError(f"{name}: {died}; {PDF_PROBLEMS['damaged']}") from None
    return sizes_of_answer(answer, name)


def sizes_of_answer(answer: dict[str, Any], name: str) -> tuple[tuple[float, float], ...]:
    """The page sizes in an answer of `pdf_reader.read_sizes`; a SpecError in words where it names a problem."""
    if problem := answer.get("problem"):
        raise SpecError(f"{name}: {PDF_PROBLEMS[problem].format(pages=answer.get('pages'), most=MAX_PAGES)}")
    return tuple(map(tuple, answer["sizes"]))


def _head(content: Content, name: str) -> bytes:
    """The beginning of a file, in which a PDF has its mark."""
    if isinstance(content, bytes):
        return content[:PDF_MARK_WITHIN]
    try:
        with open(content, "rb") as file:
            return file.read(PDF_MARK_WITHIN)
    except OSError as problem:
        raise SpecError(f"{name}: cannot be read: {problem.strerror or problem}") from None
