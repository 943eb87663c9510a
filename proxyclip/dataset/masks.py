"""Masks and confidence maps as PNG files, without loss."""

from __future__ import annotations

import io
import zlib

import numpy as np
from PIL import Image

from proxyclip.vocabulary.names import ignore_label
from proxyclip.vocabulary.palette import IGNORE_COLOUR


def mask_to_png(mask: np.ndarray, palette: np.ndarray) -> bytes:
    """A mask of class indices (H, W) as PNG. palette: (K, 3) uint8, one colour per class.

    Up to 255 classes: 8 bits per pixel and the palette, so that any viewer shows the colours. More classes: 16-bit
    gray. Raises ValueError for another shape, and for a label that is neither a class nor ignore.
    """
    if not 1 <= len(palette) <= 65535:
        raise ValueError(f"mask: the palette has {len(palette)} classes; a mask holds 1 to 65535.")
    ignore = ignore_label(len(palette))
    if mask.ndim != 2 or mask.size == 0 or mask.dtype.kind not in "ui":
        raise ValueError(
            f"mask: the array has shape {mask.shape} and type {mask.dtype}; give integers (height, width)."
        )
    wrong = (mask >= len(palette)) & (mask != ignore)
    if mask.dtype.kind == "i":
        wrong |= mask < 0
    if wrong.any():
        raise ValueError(
            f"mask: label {mask[wrong][0]} is neither a class (0 to {len(palette) - 1}) nor ignore ({ignore}); "
            "give the palette of the mask's vocabulary."
        )
    if ignore == 65535:
        return _png(Image.fromarray(mask.astype(np.uint16)), compress_type=zlib.Z_RLE)
    # All 256 entries: with fewer, Pillow would store fewer bits per pixel and lose the ignore label.
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = palette
    colours[255] = IGNORE_COLOUR
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette(colours.tobytes())
    # For masks, run lengths are smaller than zlib's level 6 and as fast as level 1.
    return _png(image, compress_type=zlib.Z_RLE)


def mask_from_png(data: bytes) -> np.ndarray:
    """The labels (H, W) of a mask's PNG: uint8 up to 255 classes, else uint16. Raises ValueError."""
    labels = _pixels(data, "mask", ("P", "L", "I;16", "I;16B", "I"))
    return labels if labels.dtype == np.uint8 else labels.astype(np.uint16)


def confidence_to_png(confidence: np.ndarray) -> bytes:
    """Confidence (H, W) uint8, 0 to 255 for probabilities from 0 to 1, as 8-bit gray PNG."""
    if confidence.ndim != 2 or confidence.size == 0 or confidence.dtype != np.uint8:
        raise ValueError(
            f"confidence: the array has shape {confidence.shape} and type {confidence.dtype}; "
            "give uint8 (height, width): 255 times the probability, rounded."
        )
    return _png(Image.fromarray(confidence), compress_level=3)


def confidence_from_png(data: bytes) -> np.ndarray:
    """The confidence (H, W) uint8 of its PNG. Raises ValueError."""
    return _pixels(data, "confidence", ("L",))


def spread_confidence(confidence: np.ndarray, image_hw: tuple[int, ...], stride: int) -> np.ndarray:
    """The confidence of each pixel (H, W): that of its block of stride x stride pixels in the stored map."""
    height, width = image_hw
    return confidence.repeat(stride, axis=0)[:height].repeat(stride, axis=1)[:, :width]


def _png(image: Image.Image, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def _pixels(data: bytes, what: str, modes: tuple[str, ...]) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.mode in modes:
                return np.array(image)
            mode = image.mode
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{what}: the {len(data)} bytes are not a complete PNG file.") from error
    raise ValueError(f"{what}: the PNG has mode {mode}; files of proxyclip have {' or '.join(modes)}.")
