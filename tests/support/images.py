"""Images of the tests' own making, whole or only a header."""

import io
import struct
import zlib

from PIL import Image


def encoded(kind, size=(30, 20), **options):
    file = io.BytesIO()
    Image.new("RGB", size, "white").save(file, kind, **options)
    return file.getvalue()


def png_header(width, height):
    """A PNG that is nothing but a header: no pixel of it can be decoded."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + chunk(b"IDAT", b"")
