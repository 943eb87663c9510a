"""Dense features of an image, and the segmentation that they decode to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from proxyclip.models.windows import WindowPlan
from proxyclip.vocabulary.names import Vocabulary, ignore_label
from proxyclip.vocabulary.palette import overlay

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class DenseFeatures:
    """An encoded image. Decoding it for a vocabulary needs nothing else.

    features: (rows, columns, grid_h, grid_w, E) float32, unit length, one patch grid per window.
    resized: (3, h, w) uint8, the image that the windows were cut from; PAMR follows its edges.
    """

    features: Tensor
    plan: WindowPlan
    resized: Tensor

    @property
    def image_hw(self) -> tuple[int, int]:
        """Size of the labels in pixels: that of the original image."""
        return self.plan.y.original, self.plan.x.original

    def at_size(self, image_hw: tuple[int, int]) -> DenseFeatures:
        """The same features, for labels of another size."""
        y, x = (
            dataclasses.replace(axis, original=side)
            for axis, side in zip((self.plan.y, self.plan.x), image_hw, strict=True)
        )
        return DenseFeatures(self.features, dataclasses.replace(self.plan, y=y, x=x), self.resized)


@dataclass(frozen=True)
class Segmentation:
    """Labels of one image.

    mask: (H, W) uint8, or uint16 beyond 255 classes; 255 (65535) = ignore.
    confidence: (H, W) float32, the probability of the winning class, before any threshold.
    margin: (H, W) float32, the confidence minus the probability of the second class.
    """

    mask: np.ndarray
    confidence: np.ndarray
    margin: np.ndarray
    vocabulary: Vocabulary
    image: np.ndarray | None = None

    def overlay(self, alpha: float = 0.5) -> Image.Image:
        """The image with its labels in colour on top."""
        if self.image is None:
            raise ValueError("This Segmentation has no image; use Segmenter.predict, or decode(..., image=image).")
        ignore = ignore_label(self.vocabulary.num_classes)
        return overlay(self.image, self.mask, self.vocabulary.colours, alpha=alpha, ignore=ignore)
