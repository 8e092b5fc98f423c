"""The size of a page from its file, an image or a PDF: headers alone are read, no pixel is decoded and no page is rendered."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from math import ceil, isfinite, sqrt
from pathlib import Path

from ocr_flops.errors import SpecError
from ocr_flops.spec import pdf

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
DOCUMENT_SUFFIXES = (*SUFFIXES, ".pdf")
MAX_PIXELS = 89_478_485  # Pillow's own limit, beyond which it takes a file for a decompression bomb
TOO_LARGE = f"more than {MAX_PIXELS / 1e6:.0f} megapixels; give a smaller scan, or set its size by hand"
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)
POINTS_PER_INCH = 72
MIN_DPI, MAX_DPI, DEFAULT_DPI = 36, 1200, 200
ROUNDING_PX = 0.001  # a renderer's edge may exceed a pixel by so much without making another


@dataclass(frozen=True)
class Document:
    """The pages of a file.

    Args:
        name: what errors call the file.
        unit: "px" for an image, "pt" (1/72 inch) for a PDF, whose size in pixels depends on the resolution it is rendered at.
        sizes: width and height of every page, as it is displayed.
    """

    name: str
    unit: str
    sizes: tuple[tuple[float, float], ...]

    def page_px(self, number: int = 1, dpi: float = DEFAULT_DPI) -> tuple[int, int]:
        """Width and height in pixels of a page.

        Args:
            number: of the page, from 1.
            dpi: at which a PDF is rendered, 36 to 1200; an image has its size already.

        Raises:
            SpecError: no such page, or as `pixels` does.
        """
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= len(self.sizes):
            raise SpecError(f"{self.name}: page {number!r} is not one of its pages, 1 to {len(self.sizes)}")
        width, height = self.sizes[number - 1]
        return (int(width), int(height)) if self.unit == "px" else pixels(width, height, dpi, f"{self.name}, page {number}")


def chosen(found: Document, number: int | None, dpi: float | None) -> tuple[tuple[int, int], str]:
    """Width and height in pixels of a page, and which page it is, in words; a field left empty stands for its default.

    Args:
        found: the file's pages.
        number: of the page, from 1.
        dpi: at which a PDF is rendered.

    Raises:
        SpecError: as `Document.page_px`.
    """
    number, dpi = 1 if number is None else number, DEFAULT_DPI if dpi is None else dpi
    size = found.page_px(number, dpi)
    where = f", page {number} of {len(found.sizes)} at {dpi:g} dpi" if found.unit == "pt" else ""
    return size, f"{found.name}{where}"


def document(content: bytes | Path, name: str | None = None) -> Document:
    """The pages of an image or a PDF; which of the two it is, its content tells and not its name.

    Args:
        content: the file's bytes, or its path.
        name: what errors call the file; the path's own name by default.

    Raises:
        SpecError: neither an image nor a PDF that can be read, or beyond a limit of `page_size` or `pdf.page_sizes`.
    """
    name = name or (content.name if isinstance(content, Path) else "file")
    head = _head(content, name)
    try:
        return Document(name, "px", (page_size(content, name),))
    except UnknownImage:
        if pdf.is_pdf(head):
            return Document(name, "pt", pdf.page_sizes(content, name))
        raise SpecError(f"{name}: neither an image nor a PDF that can be read; give one of {', '.join(DOCUMENT_SUFFIXES)}") from None


def pixels(width_points: float, height_points: float, dpi: float = DEFAULT_DPI, name: str = "page") -> tuple[int, int]:
    """Width and height in pixels of a page rendered at a resolution.

    Rounds up, as renderers do. MuPDF, with which the vendor's script renders PDFs (at 144 dpi), forgives a thousandth of a pixel
    (`fz_round_rect`), so that 612 points at 200 dpi are 1700 px whatever the arithmetic; so do we.

    Args:
        width_points, height_points: as displayed, in 1/72 inch.
        dpi: 36 to 1200.
        name: what the error calls the page.

    Raises:
        SpecError: dpi out of range, a page below one point, or one that would have more than 89 megapixels.
    """
    if isinstance(dpi, bool) or not isinstance(dpi, int | float) or not MIN_DPI <= dpi <= MAX_DPI:
        raise SpecError(f"dpi: {dpi!r} is not a number from {MIN_DPI} to {MAX_DPI}")
    if not all(isfinite(side) and side >= 1 for side in (width_points, height_points)):
        raise SpecError(f"{name}: {width_points:g} x {height_points:g} points; a page has at least 1 x 1")
    width, height = (ceil(side * dpi / POINTS_PER_INCH - ROUNDING_PX) for side in (width_points, height_points))
    if width * height > MAX_PIXELS:
        most = int(POINTS_PER_INCH * sqrt(MAX_PIXELS / (width_points * height_points)))
        advice = f"choose at most {most} dpi" if most >= MIN_DPI else "set its size by hand"
        raise SpecError(f"{name}: {width} x {height} px at {dpi:g} dpi, more than {MAX_PIXELS / 1e6:.0f} megapixels; {advice}")
    return width, height


class UnknownImage(SpecError):
    """No image of a known format."""


def page_size(content: bytes | Path, name: str = "image") -> tuple[int, int]:
    """Width and height in pixels of an image as it is shown: turned where its EXIF orientation says so, as the vendor's code does.

    Args:
        content: the file's bytes, or its path.
        name: what the error calls the file.

    Raises:
        SpecError: not an image of a known format, or larger than 89 megapixels.
    """
    from PIL import Image

    try:
        with Image.open(BytesIO(content) if isinstance(content, bytes) else content, formats=FORMATS) as image:
            width, height = image.size
            exif = Image.Exif()
            exif.load(image.info.get("exif") or b"")  # TIFF's size is turned already
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise SpecError(f"{name}: {TOO_LARGE}") from None
    except Exception:  # Pillow's parsers raise whatever a broken header leads them to
        raise UnknownImage(f"{name}: not an image that can be read; give one of {', '.join(SUFFIXES)}") from None
    if width * height > MAX_PIXELS:
        raise SpecError(f"{name}: {width} x {height} px, {TOO_LARGE}")
    if width < 1 or height < 1:
        raise SpecError(f"{name}: {width} x {height} px; an image has at least 1 x 1 px")
    return (height, width) if exif.get(ORIENTATION) in TURNED else (width, height)


def _head(content: bytes | Path, name: str) -> bytes:
    if isinstance(content, bytes):
        return content[: pdf.MARK_WITHIN]
    try:
        with content.open("rb") as file:
            return file.read(pdf.MARK_WITHIN)
    except OSError as problem:
        raise SpecError(f"{name}: cannot be read: {problem.strerror or problem}") from None
