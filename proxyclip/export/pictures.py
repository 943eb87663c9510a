"""Pictures: the images themselves, for formats that carry them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image

from proxyclip.dataset.rows import LabelledImage
from proxyclip.images.errors import ImageError
from proxyclip.images.inputs.images import Readable, fetch_image
from proxyclip.images.reading import read_pixels

_ORIENTATION_TAG = 0x0112
_SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "TIFF": "tif", "BMP": "bmp", "MPO": "jpg"}


@dataclass(frozen=True)
class Picture:
    """An encoded image whose pixels lie as those of its mask do. suffix: its format, without a dot."""

    data: bytes
    suffix: str


def fetch_pictures(images: Readable, rows: Sequence[LabelledImage]) -> list[Picture | ImageError]:
    """The images of some rows, as they are stored; or why an image cannot be used.

    An image that its EXIF orientation turns becomes an upright PNG, since not every reader turns it.
    """

    def fetch(row: LabelledImage) -> Picture | ImageError:
        try:
            return _picture(fetch_image(images, row.uri), row)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(fetch, rows))


def _picture(data: bytes, row: LabelledImage) -> Picture:
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION_TAG, 1) in range(2, 9)
            suffix = _SUFFIXES[image.format or ""]
    except Exception as error:  # on arbitrary bytes Pillow raises nearly anything
        raise ImageError("decode_failed", "it can no longer be read; it changed after it was labelled") from error
    if turned:
        pixels = read_pixels(data)
        height, width = pixels.shape[:2]
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        data, suffix = buffer.getvalue(), "png"
    if (height, width) != (row.height, row.width):
        raise ImageError(
            "decode_failed",
            f"it has {width} x {height} pixels, its mask {row.width} x {row.height}; it changed after it was labelled",
        )
    return Picture(data, suffix)
