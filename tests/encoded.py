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
