"""Reads the page sizes of the PDF on stdin and writes them to stdout as one line of JSON.

Runs in a process of its own (`documents.py` starts it), under limits: a hostile file that hangs or crashes the parser, or makes it take all
memory, ends this process alone. It imports nothing of the package, so that it starts in 0.1 s.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
from io import BytesIO
from typing import Any, BinaryIO

LETTER = (0.0, 0.0, 612.0, 792.0)  # what renderers take where a page has no usable MediaBox
Box = tuple[float, float, float, float]


def main() -> None:
    """Arguments: limits on memory (bytes), CPU time (seconds) and pages."""
    memory_bytes, seconds, most_pages = map(int, sys.argv[1:])
    _limit(memory_bytes, seconds)
    print(json.dumps(_read(sys.stdin.buffer, most_pages), allow_nan=False))


def _limit(memory_bytes: int, seconds: int) -> None:
    try:
        import resource
    except ImportError:  # Windows; the parent's time-out still holds
        return
    for kind, limit in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # macOS refuses RLIMIT_AS
            resource.setrlimit(kind, (limit, limit))


def _read(file: BinaryIO, most_pages: int) -> dict[str, Any]:
    """The pages' sizes (points, width and height as displayed), or a word for what is wrong."""
    import pikepdf

    try:
        with pikepdf.open(file if file.seekable() else BytesIO(file.read())) as document:
            pages = len(document.pages)
            if not 1 <= pages <= most_pages:
                return {"problem": "too many pages" if pages else "no pages", "pages": pages}
            return {"sizes": [_displayed(page.obj) for page in document.pages]}
    except pikepdf.PasswordError:
        return {"problem": "encrypted"}
    except MemoryError:
        return {"problem": "memory"}
    except Exception:  # a damaged file may surface as almost anything
        return {"problem": "damaged"}


def _displayed(page: Any) -> tuple[float, float]:
    """A page's size by MuPDF's rules (`pdf_page_obj_transform_box`): CropBox within MediaBox, turned by Rotate, times UserUnit.

    What a page inherits from the page tree, qpdf has entered into the page itself.
    """
    media = _box(page.get("/MediaBox")) or LETTER
    crop = _box(page.get("/CropBox")) or media
    left, bottom = map(max, media[:2], crop[:2])
    right, top = map(min, media[2:], crop[2:])
    if left >= right or bottom >= top:  # they do not overlap
        left, bottom, right, top = LETTER
    width, height = right - left, top - bottom
    if (int(_number(page.get("/Rotate")) or 0) % 360 + 45) // 90 % 2:  # a quarter turn, or the nearest to it
        width, height = height, width
    unit = _number(page.get("/UserUnit"))
    unit = unit if unit and unit > 0 else 1.0
    return width * unit, height * unit


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _box(value: Any) -> Box | None:
    """Left, bottom, right and top of a rectangle, whose corners may come in any order; None where it is none or is empty."""
    try:
        numbers = [_number(one) for one in value]
    except TypeError:
        return None
    if len(numbers) != 4 or None in numbers:
        return None
    (left, right), (bottom, top) = sorted(numbers[::2]), sorted(numbers[1::2])
    return (left, bottom, right, top) if left < right and bottom < top else None


if __name__ == "__main__":
    main()
