"""The size at which an image is labelled, and resizing to it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from proxyclip.config import WindowConfig

# A whole image is not padded, so it must hold at least one patch of every network.
MIN_WHOLE_SIDE = 32


@dataclass(frozen=True)
class ResizedImage:
    """An image at the size from which windows are cut.

    pixels: RGB uint8 (h, w, 3), of size `resized_hw(original_hw, windows)`. original_hw: the size of its mask.
    regions: (H, W) int32 of that size, regions that get one class each (`images.regions`); None: there are none.
    """

    pixels: np.ndarray
    original_hw: tuple[int, int]
    regions: np.ndarray | None = None


def resized_hw(image_hw: tuple[int, int], windows: WindowConfig) -> tuple[int, int]:
    """The size at which the short side is `short_side`, or the long side `long_side` if that is smaller.

    mmcv's rule: each side is int(side * factor + 0.5). The minimum is 1 pixel, or `MIN_WHOLE_SIDE` if the whole
    image is one window.
    """
    factor = min(windows.long_side / max(image_hw), windows.short_side / min(image_hw))
    minimum = 1 if windows.crop else MIN_WHOLE_SIDE
    height, width = (max(int(side * factor + 0.5), minimum) for side in image_hw)
    return height, width


def resize_image(image: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Resize bilinearly without antialiasing. OpenCV, as in the papers' pipelines: exact to one grey level.

    image: uint8 (H, W, C). Returns uint8 (height, width, C), or the image itself if it has this size already.
    """
    height, width = size_hw
    if height < 1 or width < 1:
        raise ValueError(f"resize_image: size_hw is {size_hw}; height and width must be at least 1 pixel.")
    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width, -1)
