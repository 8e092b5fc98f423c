"""A folder of images and PDFs -> the sizes of its pages: read by several processes, remembered, and never stopped by one file."""

import contextlib
import json
import os
import re
import sqlite3
import stat
import subprocess
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple, Self

import numpy as np
import polars as pl

from ocr_flops.errors import SpecError
from ocr_flops.files import user_cache_dir
from ocr_flops.spec.catalog import load_model
from ocr_flops.spec.documents import DEFAULT_DPI, DOCUMENT_SUFFIXES, rendered_px
from ocr_flops.studies.corpus.lengths import Lengths, from_sample
from ocr_flops.studies.corpus.reader import SECONDS, TEXT_SUFFIXES

TOKENS_PER_WIDE_LETTER = 0.6  # of Chinese: "Token & Token Usage" in DeepSeek's API documentation
CHUNK = 256  # files that a process is given at once, and that are remembered together
CACHE_FILE = "page_sizes.sqlite"
PASSING = ("cannot be read", "reading it")  # problems that may be of the moment: not remembered

Progress = Callable[[str, int, int], None]


class File(NamedTuple):
    """A file as the file system describes it."""

    path: str
    size: int
    mtime_ns: int


class Folder(NamedTuple):
    """What a folder holds.

    Args:
        files: how many have pages.
        pages: a row per page: file, page (its number in it), width_px, height_px.
        refused: files and pages left out, with the reason.
        passed_over: files that are neither images nor PDFs, by suffix.
        lengths: of outputs, from texts that lie beside the images under the same name; None where there is none.
        remembered: how many of these were not read again.
    """

    files: int
    pages: pl.DataFrame
    refused: list[tuple[str, str]]
    passed_over: dict[str, int]
    lengths: Lengths | None
    remembered: int

    @property
    def reasons(self) -> dict[str, int]:
        """How many files and pages are left out, by the kind of reason."""
        return dict(Counter(re.sub(r"^\d+ x \d+ px.*?, (?=more)", "", why).split(";")[0] for _, why in self.refused).most_common())


def read_folder(path: str | Path, dpi: float = DEFAULT_DPI, progress: Progress | None = None, cache: Path | None = None) -> Folder:
    """The pages of all images and PDFs in a folder and the folders in it, by what their headers say.

    What was read is remembered by path, size and time of change, so that a run that was stopped, however, goes on where it was.

    Args:
        path: the folder.
        dpi: at which PDFs are rendered.
        progress: called with what goes on, how many files are done, and of how many.
        cache: the file of what is remembered; by default one in the user's cache folder.

    Raises:
        SpecError: no such folder, or dpi out of range.
    """
    files, passed_over = list_files(path)
    return read_files(files, dpi, progress, cache or user_cache_dir() / CACHE_FILE)._replace(passed_over=passed_over)


def read_files(files: Sequence[File], dpi: float = DEFAULT_DPI, progress: Progress | None = None, cache: Path | None = None) -> Folder:
    """The pages of files, in their order; arguments and errors as of `read_folder`. Without a cache nothing is remembered."""
    rendered_px(612, 792, dpi)  # its check of the dpi
    with _Memory(cache) as memory:
        found = memory.recall(files)
        remembered = set(found)
        for chunk, answers in _read_all([file for file in files if file.path not in found]):
            memory.keep(chunk, answers)
            found |= zip((file.path for file in chunk), answers, strict=True)
            if progress:
                progress("reading headers", len(found), len(files))
    return _folder([file.path for file in files], found, dpi, remembered)


def list_files(path: str | Path) -> tuple[list[File], dict[str, int]]:
    """The images and PDFs below a folder, by name, and the texts beside them; then how many others there are by suffix.

    Hidden files and folders are passed over, and links to folders, which may lead in circles. Raises SpecError where there is no such
    folder.
    """
    if not os.path.isdir(path):
        raise SpecError(f"pages: {path} is no folder")
    files: list[File] = []
    others: Counter[str] = Counter()
    folders = [os.path.abspath(path)]
    while folders:
        try:
            entries = sorted(os.scandir(folders.pop()), key=lambda entry: entry.name)
        except OSError:
            others["folders that cannot be opened"] += 1
            continue
        below, texts, stems = [], [], set()
        for entry in entries:
            stem, suffix = os.path.splitext(entry.name)
            suffix = suffix.lower()
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith("."):
                    below.append(entry.path)
            elif suffix in TEXT_SUFFIXES:
                texts.append((stem, entry))
            elif suffix not in DOCUMENT_SUFFIXES:
                others[suffix or entry.name] += 1
            elif (file := _file_at(entry)) and not entry.name.startswith("."):
                files.append(file)
                stems.add(stem)
            else:
                others["hidden" if file else "no file"] += 1
        for stem, entry in texts:
            if stem in stems and (file := _file_at(entry)):
                files.append(file)
            else:
                others[os.path.splitext(entry.name)[1]] += 1
        folders += reversed(below)
    return files, dict(others)


def _file_at(entry: os.DirEntry) -> File | None:
    """A file; None where an entry is none, or is gone meanwhile."""
    try:
        status = entry.stat()
    except OSError:
        return None
    return File(entry.path, status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def _folder(paths: list[str], found: dict[str, dict[str, Any]], dpi: float, remembered: set[str]) -> Folder:
    """What was found in files as pages."""
    per_token = load_model().characters_per_token
    kept, refused, tokens, texts, earlier = [], [], [], {}, 0
    files, numbers, widths, heights = array("q"), array("q"), array("q"), array("q")
    for path in paths:
        if "letters" in found[path]:
            narrow, wide = found[path]["letters"]
            texts[os.path.splitext(path)[0]] = narrow / per_token + wide * TOKENS_PER_WIDE_LETTER
    for path in paths:
        answer = found[path]
        if "problem" in answer:
            refused.append((path, answer["problem"]))
        elif "sizes" in answer:
            pages = 0
            for page, size in enumerate(answer["sizes"], 1):
                try:
                    width, height = size if answer["unit"] == "px" else rendered_px(*size, dpi, "")
                except SpecError as problem:
                    refused.append((f"{path}, page {page}", str(problem).lstrip(": ")))
                    continue
                pages += 1
                files.append(len(kept))
                numbers.append(page)
                widths.append(width)
                heights.append(height)
            earlier += path in remembered
            kept.append(os.fsencode(path).decode(errors="backslashreplace"))
            if texts and pages and (text := texts.get(os.path.splitext(path)[0])) is not None:
                tokens += [text / pages] * pages
    columns = {"page": numbers, "width_px": widths, "height_px": heights}
    pages = pl.DataFrame({name: np.array(values, np.int64) for name, values in columns.items()})
    pages = pages.insert_column(0, pl.Series("file", kept, pl.String).gather(np.array(files, np.int64)))
    basis = (
        f"text beside {len(tokens):,} of {len(pages):,} pages, {per_token} characters a token as in English prose, 0.6 tokens a Chinese one"
    )
    return Folder(len(kept), pages, refused, {}, from_sample(tokens, basis), earlier)


def _read_all(files: list[File]) -> Iterator[tuple[tuple[File, ...], list[dict[str, Any]]]]:
    """Chunks of files with what they hold, as processes, one for every core, come to them."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    readers = [_Reader() for _ in range(min(count, len(files)))]
    idle = SimpleQueue()
    for reader in readers:
        idle.put(reader)

    def read(chunk: tuple[File, ...]) -> tuple[tuple[File, ...], list[dict[str, Any]]]:
        reader = idle.get()
        try:
            return chunk, reader.read([file.path for file in chunk])
        finally:
            idle.put(reader)

    left, pending = iter(files), set()
    chunks = iter(lambda: tuple(islice(left, CHUNK)), ())
    try:
        with ThreadPoolExecutor(max(1, len(readers))) as threads:
            while True:
                pending |= {threads.submit(read, chunk) for chunk in islice(chunks, 3 * len(readers) - len(pending))}
                if not pending:
                    return
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (one.result() for one in done)
    finally:
        for reader in readers:
            reader.end()


class _Reader:
    """A process of `reader.py`, started anew after a file that ended it."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from ocr_flops.studies.corpus.reader import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def read(self, paths: list[str]) -> list[dict[str, Any]]:
        """What files hold. Where the process ended, each is read by itself, so that it shows at which."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(paths).encode() + b"\n")
            self._process.stdin.flush()
        if (line := self._process.stdout.readline()).endswith(b"\n"):
            return json.loads(line)
        self.end()
        self.__init__()
        if len(paths) == 1:
            return [{"problem": f"reading it took more than {SECONDS} seconds, or ended the process that read it"}]
        return [answer for path in paths for answer in self.read([path])]

    def end(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()


class _Memory:
    """What files hold, by path, size and time of change, in an SQLite file; in memory alone where that cannot be written."""

    def __init__(self, path: Path | None):
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._opened = self._open(str(path or ":memory:"))
        except (OSError, sqlite3.Error):
            self._opened = self._open(":memory:")

    @staticmethod
    def _open(path: str) -> sqlite3.Connection:
        opened = sqlite3.connect(path, timeout=60)
        opened.execute("PRAGMA journal_mode=WAL")
        opened.execute("PRAGMA synchronous=NORMAL")
        opened.execute("CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, found TEXT) WITHOUT ROWID")
        return opened

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def recall(self, files: Sequence[File]) -> dict[str, dict[str, Any]]:
        """What those files hold that have not changed since they were read."""
        known = {os.fsencode(file.path): file for file in files}
        ends = min(known, default=b""), max(known, default=b"")
        rows = self._opened.execute("SELECT path, size, mtime_ns, found FROM files WHERE path BETWEEN ? AND ?", ends)
        return {
            known[key].path: json.loads(found) for key, size, mtime_ns, found in rows if key in known and (size, mtime_ns) == known[key][1:]
        }

    def keep(self, files: tuple[File, ...], answers: list[dict[str, Any]]) -> None:
        """Remembers what files hold, all of them or, where this process ends now, none."""
        rows = [
            (os.fsencode(file.path), file.size, file.mtime_ns, json.dumps(answer))
            for file, answer in zip(files, answers, strict=True)
            if not answer.get("problem", "").startswith(PASSING)
        ]
        with self._opened:
            self._opened.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", rows)
