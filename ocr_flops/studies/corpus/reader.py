"""A process that reads files: a JSON list of paths a line on stdin, a JSON list of what each holds a line on stdout.

It ends where a file makes it take more time or memory than an honest one needs; `folder.py`, which starts it, finds out which. PDFs are
read in it, not in a process each, as `documents.py` does.
"""

import contextlib
import json
import signal
import sys
from typing import Any

from ocr_flops.errors import SpecError
from ocr_flops.spec.documents import MAX_PAGES, PDF_MAX_SECONDS, read_document, sizes_of_answer

MEMORY_BYTES = 2**31
SECONDS = PDF_MAX_SECONDS
TEXT_SUFFIXES = (".txt", ".md", ".mmd")
TEXT_BYTES = 2**22  # of a text that are read
WIDE_FROM = 0x2E80  # CJK and what follows


def read_file(path: str) -> dict[str, Any]:
    """What a file holds: {"unit": "px" or "pt", "sizes": [[1654, 2339]]}, of a text {"letters": [4000, 0]}, or {"problem": "encrypted"}."""
    try:
        if path.lower().endswith(TEXT_SUFFIXES):
            return {"letters": count_letters(path)}
        found = read_document(path, path, _pdf_sizes)
    except SpecError as problem:
        return {"problem": str(problem).removeprefix(path).lstrip(":, ")}
    except OSError as problem:
        return {"problem": f"cannot be read: {problem.strerror}"}
    except MemoryError:
        return {"problem": f"reading it takes more than {MEMORY_BYTES >> 30} GiB of memory"}
    return {"unit": found.unit, "sizes": found.sizes}


def count_letters(path: str) -> tuple[int, int]:
    """Characters of a text, spaces folded: those of alphabets, and those from CJK on."""
    with open(path, "rb") as file:
        text = " ".join(file.read(TEXT_BYTES).decode("utf-8", errors="ignore").split())
    wide = sum(ord(letter) >= WIDE_FROM for letter in text)
    return len(text) - wide, wide


def _pdf_sizes(path: str, name: str) -> tuple[tuple[float, float], ...]:
    from ocr_flops.spec.pdf_reader import read_sizes

    with open(path, "rb") as file:
        return sizes_of_answer(read_sizes(file, MAX_PAGES), name)


def main() -> None:
    """Answers until stdin ends."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows has no such limits, and macOS refuses this one
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    for line in sys.stdin:
        answers = []
        for path in json.loads(line):
            signal.setitimer(signal.ITIMER_REAL, SECONDS)  # its signal ends this process
            answers.append(read_file(path))
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(answers), flush=True)
