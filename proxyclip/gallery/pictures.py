"""One image of a gallery: its thumbnail, and its mask and confidence as small PNG files."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

from proxyclip.images.errors import ImageError
from proxyclip.images.inputs.images import Readable, fetch_image
from proxyclip.images.reading import read_thumbnail

JPEG_QUALITY = 75
CONFIDENCE_SIDE = 160

# What gives the margin of an image by its uri, as uint8 like a stored confidence map; None where it is not known.
Margins = Callable[[str], npt.NDArray[np.uint8] | None]


def fitted(hw: tuple[int, int], longest: int) -> tuple[int, int]:
    """Height and width of an image whose sides are at most `longest`. A smaller image keeps its size."""
    scale = min(1.0, longest / max(hw))
    return max(1, round(hw[0] * scale)), max(1, round(hw[1] * scale))


def thumbnail(images: Readable, uri: str, hw: tuple[int, int], longest: int) -> bytes | str:
    """The JPEG of an image; or, in words, why there is none.

    hw: the size of its mask. Raises StorageError if the storage does not work.
    """
    try:
        found = read_thumbnail(fetch_image(images, uri), lambda original: fitted(original, longest))
    except ImageError as error:
        return error.reason
    if tuple(found.original_hw) != tuple(hw):
        return "the image was changed after it was labelled: its size is another one"
    buffer = io.BytesIO()
    Image.fromarray(found.pixels).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def nearest(mask: npt.NDArray, hw: tuple[int, int]) -> npt.NDArray:
    """A mask (H, W) at another size: each pixel is the one of the mask at its centre."""
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for new, old in zip(hw, mask.shape, strict=True))
    return mask[rows[:, None], columns]


def positions_png(positions: npt.NDArray, wide: bool) -> bytes:
    """Numbers (H, W) as an opaque PNG, which no browser changes: gray, or if `wide` red x 256 + green."""
    if not wide:
        return _png(Image.fromarray(positions.astype(np.uint8)), compress_type=zlib.Z_RLE)
    channels = [positions >> 8, positions & 255, np.zeros_like(positions)]
    return _png(Image.fromarray(np.stack(channels, -1).astype(np.uint8)), compress_level=6)


def small_confidence_png(confidence: npt.NDArray[np.uint8]) -> bytes:
    """A confidence map as PNG, with sides of at most CONFIDENCE_SIDE."""
    image = Image.fromarray(confidence)
    height, width = fitted(confidence.shape, CONFIDENCE_SIDE)
    if (height, width) != confidence.shape:
        image = image.resize((width, height), Image.Resampling.BOX)
    return _png(image, compress_level=6)


def _png(image: Image.Image, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()
