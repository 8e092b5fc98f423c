"""Sizes from first bytes: what Pillow says, or nothing."""

import io

import pytest
from PIL import Image

from ocr_flops.spec.headers import HEAD_BYTES, plain_size
from tests.support.images import encoded, png_header


def saved(kind, mode="RGB", size=(301, 202), **options):
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind, **options)
    return file.getvalue()


def with_exif():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


PLAIN = {
    **{f"png {mode}": saved("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")},
    "png with an ICC profile": saved("PNG", icc_profile=b"x" * 2000),
    "jpeg": saved("JPEG"),
    "jpeg L": saved("JPEG", "L"),
    "jpeg progressive": saved("JPEG", progressive=True, quality=95, subsampling=0),
    "jpeg with a comment and a profile": saved("JPEG", comment=b"hello", icc_profile=b"x" * 2000),
    "png of nothing but a header": png_header(1654, 2339),
}
OTHER = {
    "png with EXIF": saved("PNG", exif=with_exif()),
    "jpeg with EXIF": saved("JPEG", exif=with_exif()),
    "jpeg CMYK": saved("JPEG", "CMYK"),
    "jpeg with a long profile": saved("JPEG", icc_profile=b"x" * 2 * HEAD_BYTES),
    "gif": encoded("GIF"),
    "text": b"just text",
    "nothing": b"",
    "png of another sum": png_header(30, 20).replace(b"\0\0\0\x1e", b"\0\0\0\x1f"),
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_header_has_the_size_that_pillow_reads(name):
    with Image.open(io.BytesIO(PLAIN[name])) as image:
        assert plain_size(PLAIN[name][:HEAD_BYTES]) == image.size


@pytest.mark.parametrize("name", OTHER)
def test_anything_else_is_left_to_pillow(name):
    assert plain_size(OTHER[name][:HEAD_BYTES]) is None


@pytest.mark.parametrize("name", PLAIN)
def test_a_header_that_ends_early_is_left_to_pillow(name):
    whole = PLAIN[name]
    ends = [end for end in range(min(len(whole), 700)) if plain_size(whole[:end]) not in (None, plain_size(whole[:HEAD_BYTES]))]
    assert ends == [] and plain_size(whole[:24]) is None
