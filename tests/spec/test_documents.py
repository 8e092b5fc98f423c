"""The sizes of pages as they are displayed, of PDFs in pixels as a renderer makes them; and nothing that a file does harms this process."""

import io
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pikepdf
import pytest
from PIL import Image

from ocr_flops.errors import SpecError
from ocr_flops.spec import documents
from ocr_flops.spec.documents import MAX_PIXELS, image_sizes, pdf_page_sizes, read_document, rendered_px
from tests.support.images import encoded, png_header

A4 = "/MediaBox [0 0 595 842]"


def written(*entries, tree=""):
    """A PDF by hand: a page for each text of entries of its dictionary, under one node of the page tree with entries of its own."""
    kids = " ".join(f"{number} 0 R" for number in range(3, 3 + len(entries)))
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Count {len(entries)} /Kids [{kids}] {tree} >>"]
    objects += [f"<< /Type /Page /Parent 2 0 R {one} >>" for one in entries]
    content, offsets = b"%PDF-1.7\n", []
    for number, text in enumerate(objects, 1):
        offsets.append(len(content))
        content += f"{number} 0 obj\n{text}\nendobj\n".encode()
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    end = f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer << /Size {size} /Root 1 0 R >>\nstartxref\n{len(content)}\n%%EOF\n"
    return content + end.encode()


def encrypted(password):
    out = io.BytesIO()
    with pikepdf.open(io.BytesIO(written(A4))) as plain:
        plain.save(out, encryption=pikepdf.Encryption(owner="owner", user=password))
    return out.getvalue()


DISPLAYED = {  # entries of a page, and its size by MuPDF
    A4: (595, 842),
    "/MediaBox [595 842 0 0]": (595, 842),
    "/MediaBox [10 20 605 862]": (595, 842),
    f"{A4} /Rotate 90": (842, 595),
    f"{A4} /Rotate -90": (842, 595),
    f"{A4} /Rotate 180": (595, 842),
    f"{A4} /Rotate 450": (842, 595),
    f"{A4} /Rotate (x)": (595, 842),
    f"{A4} /CropBox [10 10 310 410]": (300, 400),
    f"{A4} /CropBox [-100 -100 300 9999]": (300, 842),
    f"{A4} /CropBox [1000 1000 2000 2000]": (612, 792),
    f"{A4} /CropBox [10 10 310 410] /Rotate 270 /UserUnit 2": (800, 600),
    f"{A4} /UserUnit 1.5": (892.5, 1263),
    f"{A4} /UserUnit -1": (595, 842),
    "": (612, 792),
    "/MediaBox [0 0 0 0]": (612, 792),
    "/MediaBox (x)": (612, 792),
}


def test_pages_are_measured_as_they_are_displayed():
    assert pdf_page_sizes(written(*DISPLAYED)) == tuple(DISPLAYED.values())


def test_pages_inherit_boxes_and_rotation_but_no_user_unit():
    tree = f"{A4} /CropBox [0 0 300 400] /Rotate 90 /UserUnit 2"
    assert pdf_page_sizes(written("", "/Rotate 0", "/CropBox [0 0 100 100]", tree=tree)) == ((400, 300), (300, 400), (100, 100))


def test_bytes_and_path_are_the_same(tmp_path):
    content = written(A4, f"{A4} /Rotate 90")
    path = tmp_path / "no suffix"
    path.write_bytes(content)
    assert pdf_page_sizes(path) == pdf_page_sizes(content) == pdf_page_sizes(b"mail header\n" + content) == ((595, 842), (842, 595))


def test_a_password_that_only_restricts_is_no_obstacle():
    assert pdf_page_sizes(encrypted("")) == ((595, 842),)
    with pytest.raises(SpecError, match=r"^secret\.pdf: encrypted; remove the password"):
        pdf_page_sizes(encrypted("secret"), "secret.pdf")


def test_a_truncated_file_gives_what_is_left_or_one_error():
    content = written(A4)
    assert pdf_page_sizes(content[: content.index(b"startxref")]) == ((595, 842),)  # the table of objects is rebuilt
    with pytest.raises(SpecError, match=r"^cut\.pdf: not a PDF that can be read"):
        pdf_page_sizes(content[:60], "cut.pdf")


HOSTILE = {
    "empty": b"",
    "mark alone": b"%PDF-1.7",
    "garbage": b"%PDF-1.7\n" + bytes(range(256)) * 100,
    "deep array": written("/MediaBox " + "[" * 100_000),
    "deep dictionaries": b"%PDF-1.4\n1 0 obj\n" + b"[<<" * 300_000 + b"\ntrailer << /Root 1 0 R >>",
    "tree that contains itself": b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Kids[2 0 R 2 0 R]/Count 3>>endobj\ntrailer<</Root 1 0 R>>",
    "no pages": written(),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_cannot_be_read_is_one_error(kind):
    with pytest.raises(SpecError, match=r"^bad\.pdf: (not a PDF that can be read|a PDF without pages)[^\n]*$"):
        pdf_page_sizes(HOSTILE[kind], "bad.pdf")


def test_a_page_above_itself_does_not_hang():
    assert pdf_page_sizes(written("", tree="/Parent 2 0 R")) == ((612, 792),)


def test_too_many_pages_are_refused(monkeypatch):
    assert len(pdf_page_sizes(written(*[A4] * 12))) == 12
    monkeypatch.setattr(documents, "MAX_PAGES", 11)
    with pytest.raises(SpecError, match=r"^book\.pdf: a PDF of 12 pages; at most 11 are read, so split it$"):
        pdf_page_sizes(written(*[A4] * 12), "book.pdf")


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import time; time.sleep(60)", "reading it took more than 0.5 seconds"),
        ("import os; os.kill(os.getpid(), 11)", r"the process that read it ended early \(exit code -11\)"),
        ("import sys; sys.exit(3)", r"the process that read it ended early \(exit code 3\)"),
        ("print('{\"sizes\": [[1')", "the process that read it ended early"),
        ("while True: pass", "reading it took more than"),
    ],
)
def test_a_child_that_hangs_or_dies_is_one_error(monkeypatch, tmp_path, program, message):
    (tmp_path / "child.py").write_text(program)
    monkeypatch.setattr(documents, "PDF_READER", tmp_path / "child.py")
    began = time.monotonic()
    with pytest.raises(SpecError, match=rf"^bad\.pdf: {message}[^\n]*$"):
        pdf_page_sizes(written(A4), "bad.pdf", seconds=0.5)
    assert time.monotonic() - began < 5


@pytest.mark.skipif(sys.platform != "linux", reason="limits on memory differ")
def test_the_child_has_a_limit_on_memory(monkeypatch):
    monkeypatch.setattr(documents, "PDF_MAX_BYTES", 2**28)
    assert pdf_page_sizes(written(A4)) == ((595, 842),)
    with pytest.raises(SpecError, match=r"^big\.pdf: (reading it takes more than|the process that read it ended early)"):
        pdf_page_sizes(written(A4) + bytes(2**28), "big.pdf")


def test_this_process_never_loads_the_parser():
    code = f"import sys; from ocr_flops.spec.documents import read_document; read_document({written(A4)!r}); assert 'pikepdf' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("points", "dpi", "size"),
    [
        ((595.276, 841.89), 200, (1654, 2339)),  # A4
        ((595.276, 841.89), 144, (1191, 1684)),  # the vendor's resolution
        ((612, 792), 200, (1700, 2200)),  # Letter, where products in floating point exceed 1700
        ((612, 792), 72, (612, 792)),
        ((100.0004, 100.002), 72, (100, 101)),
        ((1, 1), 36, (1, 1)),
    ],
)
def test_pixels_are_those_of_a_renderer(points, dpi, size):
    assert rendered_px(*points, dpi) == size


@pytest.mark.parametrize("dpi", [35, 1201, 0, -200, float("nan"), float("inf"), True, "200", None])
def test_a_resolution_out_of_range_is_refused(dpi):
    with pytest.raises(SpecError, match=r"^dpi: .* is not a number from 36 to 1200$"):
        rendered_px(595, 842, dpi)


@pytest.mark.parametrize("points", [(0.5, 100), (0, 0), (float("inf"), 1), (float("nan"), 1)])
def test_an_absurd_page_is_refused(points):
    with pytest.raises(SpecError, match=r"^page: .* points; a page has at least 1 x 1$"):
        rendered_px(*points)


def test_a_page_of_too_many_pixels_says_which_resolution_fits():
    with pytest.raises(SpecError, match=r"^page: 19834 x 28067 px at 1200 dpi, more than 179 megapixels; choose at most 680 dpi$"):
        rendered_px(1190, 1684, 1200)
    assert rendered_px(1190, 1684, 680)
    with pytest.raises(SpecError, match=r"; set its size by hand$"):
        rendered_px(1e6, 1e6)


def test_a_document_is_told_by_its_content(tmp_path):
    (tmp_path / "scan.pdf").write_bytes(encoded("PNG"))
    found = read_document(tmp_path / "scan.pdf")
    assert (found.unit, found.sizes, found.page_px(dpi=300), found.page_label()) == ("px", ((30, 20),), (30, 20), "scan.pdf")
    found = read_document(written(A4, f"{A4} /Rotate 90"), "paper.png")
    assert (found.unit, found.sizes) == ("pt", ((595, 842), (842, 595)))
    assert (found.page_px(), found.page_px(2, 72)) == ((1653, 2339), (842, 595))
    assert (found.page_label(), found.page_label(2, 72)) == ("paper.png, page 1 of 2 at 200 dpi", "paper.png, page 2 of 2 at 72 dpi")


@pytest.mark.parametrize("number", [0, 3, -1, 1.0, True, "1"])
def test_a_page_that_is_not_there_is_refused(number):
    with pytest.raises(SpecError, match=r"^two\.pdf: page .* is not one of its pages, 1 to 2$"):
        read_document(written(A4, A4), "two.pdf").page_px(number)


def test_the_error_names_the_page():
    with pytest.raises(SpecError, match=r"^two\.pdf, page 2: .* megapixels"):
        read_document(written(A4, "/MediaBox [0 0 90000 90000]"), "two.pdf").page_px(2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"neither an image nor a PDF that can be read; give one of .*\.avif, \.pdf$"),
        (b"just text", "neither an image nor a PDF"),
        (b"%PDF-1.7 and no more", "not a PDF that can be read"),
    ],
)
def test_what_is_no_document_is_refused(content, message):
    with pytest.raises(SpecError, match=rf"^notes\.pdf: {message}"):
        read_document(content, "notes.pdf")


def test_a_file_that_is_not_there_is_one_error(tmp_path):
    for path, read in ((tmp_path / "none.pdf", read_document), (tmp_path, read_document), (tmp_path / "none.pdf", pdf_page_sizes)):
        with pytest.raises(SpecError, match=r": cannot be read: (No such file or directory|Is a directory)$"):
            read(path)


def test_an_image_that_is_too_large_stays_one(monkeypatch):
    monkeypatch.setattr(documents, "MAX_PIXELS", 100)
    with pytest.raises(SpecError, match="30 x 20 px, more than"):
        read_document(encoded("PNG") + b"%PDF-1.7", "both")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "AVIF"])
def test_size_of_every_format(kind, tmp_path):
    content = encoded(kind)
    (tmp_path / "page").write_bytes(content)
    assert image_sizes(content) == image_sizes(tmp_path / "page") == ((30, 20),)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize(("orientation", "size"), [(1, (30, 20)), (3, (30, 20)), (6, (20, 30)), (8, (20, 30))])
def test_a_turned_page_is_measured_as_it_is_shown(kind, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert image_sizes(encoded(kind, exif=exif)) == (size,)


def pages_tiff(*kinds):
    """A TIFF of pictures that grow by 10 px, each with its NewSubfileType."""
    pages = [Image.new("RGB", (30 + 10 * number, 20)) for number in range(len(kinds))]
    for page, kind in zip(pages, kinds, strict=True):
        page.encoderinfo = {"tiffinfo": {254: kind}}
    file = io.BytesIO()
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:], tiffinfo={254: kinds[0]})
    return file.getvalue()


def test_every_page_of_a_tiff_counts_and_no_copy_of_one():
    found = read_document(pages_tiff(2, 1, 2, 4, 2), "fax.tif")
    assert found.sizes == ((30, 20), (50, 20), (70, 20))
    assert (found.page_px(3), found.page_label(3)) == ((70, 20), "fax.tif, page 3 of 3")
    assert image_sizes(pages_tiff(1)) == ((30, 20),)


def test_too_many_pages_of_a_tiff(monkeypatch):
    monkeypatch.setattr(documents, "MAX_PAGES", 2)
    with pytest.raises(SpecError, match="a TIFF of more than 2 pages; split it"):
        image_sizes(pages_tiff(0, 0, 0))


def test_only_the_header_is_read():
    assert image_sizes(png_header(1654, 2339)) == ((1654, 2339),)
    assert image_sizes(png_header(9933, 14043)) == ((9933, 14043),)  # A0 at 300 dpi


@pytest.mark.parametrize("size", [(20_000, 10_000), (100_000, 100_000), (1, MAX_PIXELS + 1)])
def test_a_decompression_bomb_is_refused(size):
    with pytest.raises(SpecError, match=r"^bomb\.png: .*more than 179 megapixels; give a smaller scan"):
        image_sizes(png_header(*size), "bomb.png")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"just text",
        b"\x89PNG\r\n\x1a\n",
        png_header(0, 10),
        encoded("PNG")[:20],
        encoded("TIFF")[:9],
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    ],
)
def test_what_is_no_image_is_refused(content):
    with pytest.raises(SpecError, match=r"^notes\.png: (not an image that can be read|0 x 10 px)"):
        image_sizes(content, "notes.png")


def test_threads_that_read_large_images_leave_what_the_process_warns_of(monkeypatch, recwarn):
    """One that began before another ended left its list of warnings behind, and the other warned in the server's terminal."""

    def open_slowly(*arguments, **options):
        time.sleep(0.01)
        return opened(*arguments, **options)

    before, large, opened = list(warnings.filters), io.BytesIO(), Image.open
    Image.new("1", (10_000, 9_500)).save(large, "TIFF", compression="group4")
    monkeypatch.setattr(Image, "open", open_slowly)
    with ThreadPoolExecutor(4) as threads:
        assert {*threads.map(image_sizes, [large.getvalue()] * 12)} == {((10_000, 9_500),)}
    assert (warnings.filters, len(recwarn)) == (before, 0)
