"""Reads the page sizes of the PDF on stdin and writes them to stdout as one line of JSON.

Runs in a process of its own (`documents.py` starts it), under limits: a hostile file that hangs or crashes the parser, or makes it take all
memory, ends this process alone. It imports nothing of the package, so that it starts in 0.1 s.
"""

import contextlib
import json
import math
import sys
from io import BytesIO
from typing import Any, BinaryIO

import pikepdf

LETTER = pikepdf.Rectangle(0, 0, 612, 792)  # what renderers take where a page has no usable MediaBox


def limit_process(memory_bytes: int, seconds: int) -> None:
    """Ends this process where it takes more memory or CPU time."""
    try:
        import resource
    except ImportError:  # Windows; the parent's time-out still holds
        return
    for kind, limit in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # macOS refuses RLIMIT_AS
            resource.setrlimit(kind, (limit, limit))


def read_sizes(file: BinaryIO, most_pages: int) -> dict[str, Any]:
    """The pages' sizes (points, width and height as displayed), or a word for what is wrong."""
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
    shown = _box(media & (_box(page.get("/CropBox")) or media)) or LETTER  # the two may not overlap
    size = shown.width, shown.height
    if (int(_number(page.get("/Rotate"))) % 360 + 45) // 90 % 2:  # a quarter turn, or the nearest to it
        size = size[::-1]
    unit = max(_number(page.get("/UserUnit")), 0.0) or 1.0
    return size[0] * unit, size[1] * unit


def _number(value: Any) -> float:
    """A number of the file; 0 where it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return number if math.isfinite(number) else 0.0


def _box(value: Any) -> pikepdf.Rectangle | None:
    """A rectangle, whose corners may come in any order; None where it is none or is empty."""
    try:
        box = pikepdf.Rectangle(value)
    except TypeError:
        return None
    return box if all(math.isfinite(side) and side > 0 for side in (box.width, box.height)) else None


if __name__ == "__main__":
    memory_limit, time_limit, page_limit = map(int, sys.argv[1:])
    limit_process(memory_limit, time_limit)
    print(json.dumps(read_sizes(sys.stdin.buffer, page_limit), allow_nan=False))
