"""Mask and confidence to PNG and back, lossless."""

from __future__ import annotations

import io
import zlib

import numpy as np
from PIL import Image

from proxyclip.vocabulary.names import ignore_label
from proxyclip.vocabulary.palette import IGNORE_COLOUR


def encode_mask(mask: np.ndarray, palette: np.ndarray) -> bytes:
    """A mask of class indices (H, W) as PNG; `palette` (K, 3) uint8 has one colour a class.

    Up to 255 classes: 8 bits a pixel with the palette inside, so that any viewer shows the colours. Beyond:
    16-bit gray. Raises ValueError for a mask of another shape or a label that is no class and not ignore.
    """
    if not 1 <= len(palette) <= 65535:
        raise ValueError(f"masks: {len(palette)} classes found, 1 to 65535 wanted; split the vocabulary.")
    ignore = ignore_label(len(palette))
    if mask.ndim != 2 or mask.size == 0 or mask.dtype.kind not in "ui":
        raise ValueError(f"masks: shape {mask.shape} of {mask.dtype} found, class indices (height, width) wanted.")
    wrong = (mask >= len(palette)) & (mask != ignore)
    if mask.dtype.kind == "i":
        wrong |= mask < 0
    if wrong.any():
        raise ValueError(
            f"masks: label {mask[wrong][0]} found, 0 to {len(palette) - 1} or {ignore} (ignore) wanted; "
            "mask and palette belong to different vocabularies."
        )
    if ignore == 65535:
        return _png(Image.fromarray(mask.astype(np.uint16)), compress_type=zlib.Z_RLE)
    # All 256 entries: with fewer, Pillow would store fewer bits a pixel and lose the ignore label.
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = palette
    colours[255] = IGNORE_COLOUR
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette(colours.tobytes())
    return _png(image, compress_type=zlib.Z_RLE)


def decode_mask(data: bytes) -> np.ndarray:
    """The labels of an encoded mask, (H, W): uint8 up to 255 classes, uint16 beyond. Raises ValueError."""
    labels = _pixels(data, "mask", ("P", "L", "I;16", "I;16B", "I"))
    return labels if labels.dtype == np.uint8 else labels.astype(np.uint16)


def encode_confidence(confidence: np.ndarray) -> bytes:
    """Confidence (H, W) uint8, 0 to 255 for a probability of 0 to 1, as 8-bit gray PNG."""
    if confidence.ndim != 2 or confidence.size == 0 or confidence.dtype != np.uint8:
        raise ValueError(
            f"confidence: shape {confidence.shape} of {confidence.dtype} found, uint8 (height, width) wanted; "
            "round 255 times the probability."
        )
    return _png(Image.fromarray(confidence), compress_level=3)


def decode_confidence(data: bytes) -> np.ndarray:
    """The confidence (H, W) uint8 of an encoded one. Raises ValueError."""
    return _pixels(data, "confidence", ("L",))


def _png(image: Image.Image, **options: int) -> bytes:
    """Run lengths (Z_RLE) fit masks: smaller than zlib's level 6 at the time of level 1."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def _pixels(data: bytes, what: str, modes: tuple[str, ...]) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.mode in modes:
                return np.array(image)
            found = f"a PNG of mode {image.mode}"
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{what}: {len(data)} bytes found that are no whole PNG, one written by us wanted.") from error
    raise ValueError(f"{what}: {found} found, one of {', '.join(modes)} wanted.")
