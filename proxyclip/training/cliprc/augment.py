"""From a photograph and its label to a window of training, in the order of the release."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from proxyclip.training.cliprc.losses import IGNORE

Pixels = npt.NDArray[np.uint8]
Label = npt.NDArray[np.int32]

# A crop is drawn again, this often, until it has two classes of which none covers this share.
_CROPS, _LARGEST = 10, 0.75
# The longest side before the scale is drawn, in windows.
_LONGEST = 4


def augmented(image: Pixels, label: Label, side: int, rng: np.random.Generator) -> tuple[Pixels, Label, int, int]:
    """Scale, crop, flip, colours, then padding to a square.

    image: RGB (H, W, 3). label: (H, W), IGNORE where there is none. Returns (side, side, 3), (side, side), and the
    height and width of what is not padding.
    """
    ratio = rng.uniform(0.5, 2)
    height, width = label.shape
    factor = min(
        int(_LONGEST * side * ratio) / max(height, width),
        int(side * ratio) / min(height, width),
    )
    size = max(int(width * factor + 0.5), 1), max(int(height * factor + 0.5), 1)
    image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST).astype(np.int32)
    where = _crop(label, side, rng)
    image, label = image[where], label[where]
    if rng.random() < 0.5:
        image, label = image[:, ::-1], label[:, ::-1]
    image = _coloured(np.ascontiguousarray(image), rng)
    height, width = label.shape
    pixels, padded = np.zeros((side, side, 3), np.uint8), np.full((side, side), IGNORE, np.int32)
    pixels[:height, :width], padded[:height, :width] = image, label
    return pixels, padded, height, width


def _crop(label: Label, side: int, rng: np.random.Generator) -> tuple[slice, slice]:
    height, width = label.shape
    for _ in range(_CROPS):
        top, left = (int(rng.integers(0, max(length - side, 0) + 1)) for length in (height, width))
        where = slice(top, top + side), slice(left, left + side)
        inside = label[where]
        counts = np.unique(inside[inside != IGNORE], return_counts=True)[1]
        if len(counts) > 1 and counts.max() / counts.sum() < _LARGEST:
            break
    return where


def _coloured(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Brightness, contrast, saturation and hue, each with chance 0.5."""
    if rng.random() < 0.5:
        image = _scaled(image, 1, rng.uniform(-32, 32))
    early = rng.random() < 0.5
    if early and rng.random() < 0.5:
        image = _scaled(image, rng.uniform(0.5, 1.5), 0)
    if rng.random() < 0.5:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 1] = _scaled(hsv[..., 1], rng.uniform(0.5, 1.5), 0)
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).astype(np.uint8)
    if rng.random() < 0.5:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + int(rng.integers(-18, 18))) % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).astype(np.uint8)
    if not early and rng.random() < 0.5:
        image = _scaled(image, rng.uniform(0.5, 1.5), 0)
    return image


def _scaled(values: npt.NDArray[Any], factor: float, shift: float) -> Pixels:
    return np.clip(values.astype(np.float32) * factor + shift, 0, 255).astype(np.uint8)
