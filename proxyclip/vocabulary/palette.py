"""Palette: a colour for each class, and masks drawn in these colours."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

# Easy to tell apart, also on a photograph.
_FIRST_COLOURS = (
    "4e79d8 f28e2b 3fae5a d64550 8f63c9 f2c230 2bb3b1 f07fb0 96603a a2c838 5b5fc7 e0602f 1f8a70 b03a8f 7f8c9a c9a26b"
)
IGNORE_COLOUR = (224, 224, 216)


def default_palette(num_classes: int) -> np.ndarray:
    """One colour for each class, uint8 (K, 3). A class keeps its colour when more classes are added after it."""
    colours = [tuple(bytes.fromhex(text)) for text in _FIRST_COLOURS.split()]
    for index in range(len(colours), num_classes):
        hue = index * 0.6180339887 % 1  # steps of the golden ratio spread any number of hues evenly
        saturation, value = 0.5 + 0.45 * (index * 0.7548776662 % 1), 0.55 + 0.43 * (index * 0.5698402910 % 1)
        colours.append(tuple(round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, saturation, value)))
    return np.array(colours[:num_classes], np.uint8).reshape(num_classes, 3)


def colourise(mask: np.ndarray, palette: np.ndarray, ignore: int) -> np.ndarray:
    """Draw a mask (H, W) in the colours of `palette` (K, 3): RGB uint8 (H, W, 3).

    Raises ValueError if the mask has a value that is neither a class of the palette nor `ignore`.
    """
    check_mask(mask, len(palette), ignore)
    colours = np.vstack([palette, [IGNORE_COLOUR]]).astype(np.uint8)
    return colours[np.minimum(mask, len(palette))]


def overlay(
    image: np.ndarray, mask: np.ndarray, palette: np.ndarray, *, alpha: float = 0.5, ignore: int = 255
) -> Image.Image:
    """Draw a mask (H, W) over its image, RGB uint8 (H, W, 3). Ignored pixels show the image alone.

    alpha: the share of the colour, 0 to 1. Borders between classes are drawn in the full colour.
    """
    if image.shape[:2] != mask.shape:
        raise ValueError(f"The mask has shape {mask.shape} and its image {image.shape[:2]}; resize one to the other.")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; give a share from 0 to 1.")
    from PIL import Image

    colours = colourise(mask, palette, ignore)
    weight = np.where(_edges(mask), 1.0, alpha)
    weight = np.where(mask == ignore, 0.0, weight).astype(np.float32)[:, :, None]
    return Image.fromarray(np.rint(image * (1 - weight) + colours * weight).astype(np.uint8))


def _edges(mask: np.ndarray) -> np.ndarray:
    """Pixels whose right or lower neighbour has another class, bool (H, W)."""
    edges = np.zeros(mask.shape, bool)
    edges[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edges[:-1] |= mask[:-1] != mask[1:]
    return edges


def check_mask(mask: np.ndarray, num_classes: int, ignore: int) -> None:
    """Raise ValueError if a mask has a value that is neither one of the classes nor `ignore`."""
    wrong = (mask >= num_classes) & (mask != ignore)
    if wrong.any():
        raise ValueError(
            f"The mask has the value {int(mask[wrong][0])}, but there are {num_classes} classes "
            f"(0 to {num_classes - 1}) and {ignore} (ignore); use the vocabulary that the mask was made with."
        )
