"""The sizes of a PDF's pages, read in a child process: no content of a page is interpreted, nothing is rendered."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from ocr_flops.errors import SpecError

MARK, MARK_WITHIN = b"%PDF-", 1024  # readers accept bytes before the mark, within the first 1024
MAX_PAGES = 10_000
SECONDS = 10  # 10 000 pages take 0.4
MEMORY_BYTES = 2**30
READER = Path(__file__).with_name("pdf_reader.py")
PROBLEMS = {
    "encrypted": "encrypted; remove the password and try again",
    "no pages": "a PDF without pages",
    "too many pages": "a PDF of {pages} pages; at most {most} are read, so split it",
    "memory": f"reading it takes more than {MEMORY_BYTES >> 30} GiB of memory; save it anew with a PDF printer",
    "damaged": "not a PDF that can be read; save it anew with a PDF printer",
}
Points = tuple[float, float]


def is_pdf(head: bytes) -> bool:
    """Whether a file that begins with these bytes calls itself a PDF."""
    return MARK in head[:MARK_WITHIN]


def page_sizes(content: bytes | Path, name: str = "PDF", seconds: float = SECONDS) -> tuple[Points, ...]:
    """Width and height in points (1/72 inch) of every page of a PDF as it is displayed: crop box, rotation and UserUnit applied.

    Args:
        content: the file's bytes, or its path.
        name: what the error calls the file.
        seconds: after which the child process is ended.

    Raises:
        SpecError: not a PDF or a damaged one, encrypted with a password, no pages or more than 10 000, or the child process took too long,
            took too much memory or died.
    """
    command = [sys.executable, "-P", str(READER), str(MEMORY_BYTES), str(max(1, round(seconds))), str(MAX_PAGES)]
    try:
        if isinstance(content, bytes):
            done = subprocess.run(command, input=content, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=seconds)
        else:
            with content.open("rb") as file:
                done = subprocess.run(command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise SpecError(f"{name}: reading it took more than {seconds:g} seconds; save it anew with a PDF printer") from None
    except OSError as problem:
        raise SpecError(f"{name}: cannot be read: {problem.strerror or problem}") from None
    return _sizes(done, name)


def _sizes(done: subprocess.CompletedProcess[bytes], name: str) -> tuple[Points, ...]:
    """What the child said, if it lived to say anything."""
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise SpecError(f"{name}: the process that read it ended early (exit code {done.returncode}); {PROBLEMS['damaged']}") from None
    if problem := answer.get("problem"):
        raise SpecError(f"{name}: {PROBLEMS[problem].format(pages=answer.get('pages'), most=MAX_PAGES)}")
    return tuple((width, height) for width, height in answer["sizes"])
