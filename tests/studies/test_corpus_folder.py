"""A folder of images and PDFs: every page once, every file that cannot be read named, and nothing lost when it is stopped."""

import io
import os
import signal
import sqlite3
import subprocess
import sys
import time

import pikepdf
import pytest
from PIL import Image

from ocr_flops.errors import SpecError
from ocr_flops.studies.corpus import folder as folders
from ocr_flops.studies.corpus.folder import list_files, read_folder
from tests.support.images import encoded, png_header


def pdf(pages, **options):
    file = io.BytesIO()
    with pikepdf.new() as document:
        for _ in range(pages):
            document.add_blank_page(page_size=(595, 842))
        document.save(file, **options)
    return file.getvalue()


@pytest.fixture
def scans(tmp_path):
    """A folder such as people have, and where what is read of it is remembered."""
    content = {
        "a.png": encoded("PNG", (1654, 2339)),
        "b/turned.jpg": encoded("JPEG", (300, 200), exif=turned()),
        "b/c/deep.avif": encoded("AVIF", (640, 480)),
        "b/c/deep.txt": b"word " * 1000,
        "doc.pdf": pdf(3),
        "fax.tif": fax(),
        "secret.pdf": pdf(1, encryption=pikepdf.Encryption(owner="o", user="u")),
        "broken.png": b"\x89PNG\r\n\x1a\nno more",
        "bomb.png": png_header(100_000, 100_000),
        "notes.docx": b"",
        "alone.txt": b"beside no image",
        ".hidden.png": encoded("PNG"),
        ".git/x.png": encoded("PNG"),
        os.fsdecode(b"odd-\xff\n.png"): encoded("PNG", (7, 9)),
    }
    place = tmp_path / "scans"
    for name, what in content.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(what)
    os.mkfifo(place / "pipe.png")
    (place / "loop").symlink_to(place)
    return place, tmp_path / "sizes.sqlite"


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def fax():
    file = io.BytesIO()
    Image.new("1", (30, 20)).save(file, "TIFF", save_all=True, append_images=[Image.new("1", (40, 20))])
    return file.getvalue()


PAGES = [(200, 300), (640, 480), (7, 9), (30, 20), (40, 20), (1654, 2339), *[(1653, 2339)] * 3]


def sizes(found):
    return sorted(found.pages.select("width_px", "height_px").iter_rows())


def test_every_page_counts_once(scans):
    place, cache = scans
    found = read_folder(place, cache=cache)
    assert sizes(found) == sorted(PAGES)
    assert [page for name, page in found.pages.select("file", "page").iter_rows() if name.endswith("doc.pdf")] == [1, 2, 3]
    assert found.files == 6 and str(place / "odd-\\xff\n.png") in found.pages["file"]
    assert {path.rpartition("/")[2]: why.split(",")[0].split(";")[0] for path, why in found.refused} == {
        "secret.pdf": "encrypted",
        "broken.png": "neither an image nor a PDF that can be read",
        "bomb.png": "more than 179 megapixels",
    }
    assert sum(found.reasons.values()) == 3
    assert found.passed_over == {".docx": 1, ".txt": 1, "no file": 1, "loop": 1, "hidden": 1}
    assert (found.lengths.tokens.tolist(), "text beside 1 of 9 pages" in found.lengths.basis) == ([round(4999 / 5.04)], True)


def test_what_was_read_is_remembered_until_it_changes(scans):
    place, cache = scans
    first = read_folder(place, cache=cache)
    again = read_folder(place, cache=cache)
    assert (first.remembered, again.remembered) == (0, again.files)
    assert again._replace(remembered=0, pages=None, lengths=None) == first._replace(pages=None, lengths=None)
    assert again.pages.equals(first.pages)
    (place / "a.png").write_bytes(encoded("PNG", (100, 100)))
    changed = read_folder(place, cache=cache)
    assert changed.remembered == changed.files - 1
    assert (100, 100) in sizes(changed) and (1654, 2339) not in sizes(changed)


def test_another_dpi_needs_no_file_again(scans):
    place, cache = scans
    read_folder(place, cache=cache)
    finer = read_folder(place, dpi=400, cache=cache)
    assert finer.remembered == finer.files
    assert sizes(finer).count((3306, 4678)) == 3


def test_a_cache_that_cannot_be_written_stops_nothing(scans):
    place, cache = scans
    cache.write_bytes(b"no database" * 100)
    assert len(read_folder(place, cache=cache).pages) == len(PAGES)


def test_progress_is_told(scans):
    told = []
    read_folder(scans[0], cache=scans[1], progress=lambda *words: told.append(words))
    assert told[-1] == ("reading headers", 10, 10)


def test_a_file_that_ends_the_process_is_named_and_the_others_are_read(scans, monkeypatch):
    """A header that takes for ever, and one that takes all memory: stood in for by what the process does at their names."""
    place, cache = scans
    code = (
        "import os, time\nfrom ocr_flops.studies.corpus import reader\nreader.SECONDS, real = 1, reader.read_file\n"
        "def read(path):\n    if 'a.png' in path: time.sleep(60)\n    if 'fax' in path: os.abort()\n    return real(path)\n"
        "reader.read_file = read\nreader.main()"
    )
    real = subprocess.Popen
    monkeypatch.setattr(folders.subprocess, "Popen", lambda command, **options: real([sys.executable, "-c", code], **options))
    found = read_folder(place, cache=cache)
    assert len(found.pages) == len(PAGES) - 3
    ended = [path.rpartition("/")[2] for path, why in found.refused if "ended the process" in why]
    assert ended == ["a.png", "fax.tif"]
    monkeypatch.setattr(folders.subprocess, "Popen", real)
    assert sizes(read_folder(place, cache=cache)) == sorted(PAGES)  # that may have been a busy machine: tried again


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.verification)])
def test_killed_at_any_time_nothing_is_lost_or_counted_twice(tmp_path, kills):
    count = 250 * kills
    place, cache = tmp_path / "many", tmp_path / "sizes.sqlite"
    place.mkdir()
    for number in range(count):
        (place / f"{number}.png").write_bytes(png_header(100 + number, 50))
    code = f"from pathlib import Path; from ocr_flops.studies.corpus.folder import read_folder; print(len(read_folder({str(place)!r}, cache=Path({str(cache)!r})).pages))"
    rows = 0
    for _ in range(kills):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while process.poll() is None and remembered(cache) <= rows and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert remembered(cache) >= rows
        rows = remembered(cache)
    assert rows > 0
    found = read_folder(place, cache=cache)
    assert found.remembered >= rows
    assert sorted(found.pages["width_px"]) == list(range(100, 100 + count))


def remembered(cache):
    if not cache.exists():
        return 0
    with sqlite3.connect(f"file:{cache}?mode=ro", uri=True, timeout=10) as opened:
        try:
            return opened.execute("SELECT count(*) FROM files").fetchone()[0]
        except sqlite3.OperationalError:
            return 0


def test_what_is_no_folder_is_named(tmp_path):
    with pytest.raises(SpecError, match=r"pages: .*nothing is no folder"):
        list_files(tmp_path / "nothing")
    with pytest.raises(SpecError, match="dpi: 5 is not a number from 36"):
        read_folder(tmp_path, dpi=5)
