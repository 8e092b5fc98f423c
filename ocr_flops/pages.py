"""The size of a page from its image file: the header alone is read, no pixel is decoded."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from ocr_flops.specs import SpecError

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
MAX_PIXELS = 89_478_485  # Pillow's own limit, beyond which it takes a file for a decompression bomb
TOO_LARGE = f"more than {MAX_PIXELS / 1e6:.0f} megapixels; give a smaller scan, or set its size by hand"
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)


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
        raise SpecError(f"{name}: not an image that can be read; give one of {', '.join(SUFFIXES)}") from None
    if width * height > MAX_PIXELS:
        raise SpecError(f"{name}: {width} x {height} px, {TOO_LARGE}")
    if width < 1 or height < 1:
        raise SpecError(f"{name}: {width} x {height} px; an image has at least 1 x 1 px")
    return (height, width) if exif.get(ORIENTATION) in TURNED else (width, height)
