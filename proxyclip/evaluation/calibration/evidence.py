"""Evidence: how often the predicted class was right, for each image, predicted class and stored confidence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from proxyclip.evaluation.labels.coding import IGNORED
from proxyclip.vocabulary.names import ignore_label

# Confidence is stored as a byte.
BINS = 256

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ImageCounts:
    """One image. classes: (C,) those predicted in it. right, pixels: (C, BINS), by confidence; only labelled pixels."""

    uri: str
    classes: Counts
    right: Counts
    pixels: Counts


def count_image(
    uri: str,
    label: npt.NDArray[np.integer] | None,
    mask: npt.NDArray[np.unsignedinteger],
    confidence: npt.NDArray[np.uint8],
    num_classes: int,
) -> ImageCounts:
    """Count the pixels of an image that have a predicted class and a label.

    label, mask, confidence: (H, W). In the label, IGNORED is not counted, and a mask is wrong where it is no class. A
    pixel of the mask may be ignore. Without a label, all pixels with a class are counted, and none is right.
    """
    counted = mask != ignore_label(num_classes)
    if label is not None:
        counted &= label != IGNORED
    classes, index = np.unique(mask[counted], return_inverse=True)
    bins = index.astype(np.int64) * BINS + confidence[counted]
    right = bins[:0] if label is None else bins[label[counted] == mask[counted]]
    sums = [np.bincount(each, minlength=len(classes) * BINS).reshape(-1, BINS) for each in (right, bins)]
    return ImageCounts(uri, classes.astype(np.int64), *sums)


@dataclass(frozen=True)
class Evidence:
    """The counts of N images, a row for each pair of an image and a class predicted in it.

    uris: (N,) sorted. image, predicted: (P,) index of the image and of the class. right, pixels: (P, BINS).
    """

    num_classes: int
    uris: Sequence[str]
    image: Counts
    predicted: Counts
    right: Counts
    pixels: Counts

    @classmethod
    def of(cls, num_classes: int, images: Iterable[ImageCounts]) -> Evidence:
        """The counts of images in any order."""
        ordered = sorted(images, key=lambda each: each.uri)
        empty = np.zeros((0, BINS), np.int64)
        return cls(
            num_classes,
            [each.uri for each in ordered],
            np.repeat(np.arange(len(ordered)), [len(each.classes) for each in ordered]),
            np.concatenate([np.zeros(0, np.int64), *(each.classes for each in ordered)]),
            np.concatenate([empty, *(each.right for each in ordered)]),
            np.concatenate([empty, *(each.pixels for each in ordered)]),
        )

    @property
    def num_images(self) -> int:
        """N."""
        return len(self.uris)

    def only(self, chosen: npt.NDArray[np.bool_]) -> Evidence:
        """The same images, with the counts of some of them. chosen: (N,)."""
        rows = chosen[self.image]
        parts = {name: getattr(self, name)[rows] for name in ("image", "predicted", "right", "pixels")}
        return replace(self, **parts)

    def of_class(self, index: int) -> tuple[Counts, Counts]:
        """Right and counted pixels of a class, (I, BINS) for the I images in which it was predicted."""
        rows = self.predicted == index
        return self.right[rows], self.pixels[rows]

    def pooled(self) -> tuple[Counts, Counts]:
        """Right and counted pixels of all classes together, (I, BINS) for the I images that have some."""
        found, index = np.unique(self.image, return_inverse=True)
        right, pixels = np.zeros((2, len(found), BINS), np.int64)
        np.add.at(right, index, self.right)
        np.add.at(pixels, index, self.pixels)
        return right, pixels

    def totals(self) -> tuple[Counts, Counts]:
        """Right and counted pixels over all images and classes, (BINS,)."""
        return self.right.sum(axis=0), self.pixels.sum(axis=0)


def from_above(counts: Counts) -> Counts:
    """For each confidence, the counts of this and all higher ones: (..., BINS + 1); the last is 0."""
    sums = counts[..., ::-1].cumsum(axis=-1)[..., ::-1]
    return np.concatenate([sums, np.zeros_like(sums[..., :1])], axis=-1)
