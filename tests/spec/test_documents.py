
import pytest
from PIL import Image

from ocr_flops.errors import SpecError
from ocr_flops.spec.documents import MAX_PIXELS, page_size
from tests.support.images import encoded, png_header


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
def test_size_of_every_format(kind, tmp_path):
    content = encoded(kind)
    (tmp_path / "page").write_bytes(content)
    assert page_size(content) == page_size(tmp_path / "page") == (30, 20)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize(("orientation", "size"), [(1, (30, 20)), (3, (30, 20)), (6, (20, 30)), (8, (20, 30))])
def test_a_turned_page_is_measured_as_it_is_shown(kind, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert page_size(encoded(kind, exif=exif)) == size


def test_only_the_header_is_read():
    assert page_size(png_header(1654, 2339)) == (1654, 2339)


@pytest.mark.parametrize("size", [(10_000, 10_000), (100_000, 100_000), (1, MAX_PIXELS + 1)])
def test_a_decompression_bomb_is_refused(size):
    with pytest.raises(SpecError, match=r"^bomb\.png: .*more than 89 megapixels; give a smaller scan"):
        page_size(png_header(*size), "bomb.png")


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
        page_size(content, "notes.png")
