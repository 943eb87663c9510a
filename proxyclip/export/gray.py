"""Gray: a mask's PNG without its palette.

Many loaders turn a PNG with a palette into the palette's colours, and the index of the class is lost.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GRAY, _PALETTE = 0, 3
_COLOUR_TYPE = 9  # its place in the header chunk


def gray_png(data: bytes) -> bytes:
    """The same values as one gray channel. The pixels are not touched: 8-bit indices and 8-bit gray lie the same way.

    data: a PNG of `mask_to_png`. One with 16-bit gray is returned as it is.
    """
    chunks = list(_chunks(data))
    header = chunks[0][1]
    if header[_COLOUR_TYPE] != _PALETTE:
        return data
    gray = header[:_COLOUR_TYPE] + bytes([_GRAY]) + header[_COLOUR_TYPE + 1 :]
    kept = [(b"IHDR", gray), *((name, body) for name, body in chunks[1:] if name not in (b"PLTE", b"tRNS"))]
    return _SIGNATURE + b"".join(_chunk(name, body) for name, body in kept)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of each chunk."""
    at = len(_SIGNATURE)
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
