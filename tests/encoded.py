"""Encoded images that are broken, or that break the process that reads them."""

from __future__ import annotations

import io
import os
import struct
import textwrap
import zlib
from pathlib import Path

from PIL import Image
from tiny import random_image

# Python loads it at its start. Then an image whose comment names a fault has this fault when Pillow reads it.
FAULTY_PILLOW = """
    import ctypes, os, time
    from PIL import JpegImagePlugin
    load = JpegImagePlugin.JpegImageFile.load

    def faulty(self):
        fault = self.info.get("comment", b"").decode()
        if fault == "segfault":
            ctypes.string_at(0)
        elif fault == "abort":
            os.abort()
        elif fault == "exit":
            os._exit(0)
        elif fault == "sleep":
            time.sleep(1000)
        elif fault.startswith("spin"):
            if fault[5:]:
                open(fault[5:], "w").close()
            while True:
                pass
        elif fault == "memory":
            bytearray(2**40)
        elif fault == "noise":
            os.write(1, b"this does not belong here" * 100)
        elif fault.startswith("once:") and not os.path.exists(fault[5:]):
            open(fault[5:], "w").close()
            ctypes.string_at(0)
        return load(self)

    JpegImagePlugin.JpegImageFile.load = faulty
"""


def faulty_environment(folder: Path) -> dict[str, str]:
    """An environment in which images made by `jpeg` have their fault."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(textwrap.dedent(FAULTY_PILLOW))
    root = str(Path(__file__).resolve().parents[1])
    return {"PYTHONPATH": os.pathsep.join([str(folder), root])}


def jpeg(fault: str = "", seed: int = 0) -> bytes:
    """A JPEG with a fault of FAULTY_PILLOW. "spin:PATH" and "once:PATH" create a file when the fault happens."""
    buffer = io.BytesIO()
    Image.fromarray(random_image(60, 90, seed)).save(buffer, "JPEG", comment=fault.encode())
    return buffer.getvalue()


def png_header(width, height):
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + ihdr + struct.pack(">I", zlib.crc32(ihdr))


def encoded(fmt: str, size: tuple[int, int] = (40, 30), **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(random_image(size[1], size[0])).save(buffer, fmt, **options)
    return buffer.getvalue()


def png(width: int, height: int, pixels: bytes) -> bytes:
    """A PNG of gray pixels, whole whatever its size; `pixels` are compressed already."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def tiff(width: int, height: int) -> bytes:
    entries = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: width * height}
    packed = b"".join(struct.pack("<HHII", tag, 4, 1, value & 0xFFFFFFFF) for tag, value in entries.items())
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + packed + bytes(4)


def with_size(data: bytes, offset: int, layout: str, *size: int) -> bytes:
    """The same file, claiming another size."""
    return data[:offset] + struct.pack(layout, *size) + data[offset + struct.calcsize(layout) :]


def jpeg_of_size(width: int, height: int) -> bytes:
    data = encoded("JPEG")
    return with_size(data, data.index(b"\xff\xc0") + 5, ">HH", height, width)


def webp_lossless(width: int, height: int) -> bytes:
    data = encoded("WEBP", lossless=True)
    return with_size(data, data.index(b"VP8L") + 9, "<I", (width - 1) | (height - 1) << 14)
