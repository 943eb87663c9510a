"""Counts of pixels: of one image, and summed over images. What a shard's receipt says is such a sum."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import astuple, dataclass

import numpy as np
import numpy.typing as npt

from proxyclip.evaluation.boundary import boundary_distance, near_contour
from proxyclip.evaluation.confusion import ConfusionMatrix, nan_mean, percent
from proxyclip.evaluation.labels.coding import IGNORED, LabelError
from proxyclip.vocabulary.names import ignore_label


@dataclass(frozen=True)
class ImageCounts:
    """One image. classes: (k,) the classes in its label or mask, ascending; the other arrays are about these.

    confusion: (k, k+1), as `confusion_matrix`. stray: (k,) predictions at pixels without a true class that are not
    ignored. boundary: (k, 2) intersection and union of pixels near contours.
    """

    classes: npt.NDArray[np.int64]
    confusion: npt.NDArray[np.int64]
    stray: npt.NDArray[np.int64]
    boundary: npt.NDArray[np.int64]


def count_image(label: npt.NDArray[np.int32], mask: npt.NDArray[np.unsignedinteger], num_classes: int) -> ImageCounts:
    """Compare a mask with its decoded label (`Coding.decode`). Raises LabelError if the sizes differ."""
    if label.shape != mask.shape:
        here, there = (f"{shape[0]} x {shape[1]}" for shape in (label.shape, mask.shape))
        raise LabelError(
            "other_size", f"the label is {here} pixels (height x width), the image {there}; labels are never resized"
        )
    guess = mask.astype(np.int32)
    guess[mask == ignore_label(num_classes)] = num_classes
    if guess.max() > num_classes:
        raise ValueError(f"the mask has class {guess.max()}, but there are {num_classes}; run `proxyclip verify`.")
    # The classes of the image get ranks 0..k-1; rank k: no class; rank k+1: ignored. Negative values in `label` count
    # from the end of a table.
    occurs = np.zeros(num_classes + 3, bool)
    occurs[label] = True
    occurs[guess] = True
    classes = np.flatnonzero(occurs[:num_classes])
    k = len(classes)
    kind = np.uint8 if k < 253 else np.uint16
    rank = np.full(num_classes + 3, k, kind)
    rank[classes] = np.arange(k)
    rank[IGNORED] = k + 1
    truth, prediction = rank[label], rank[guess]
    distance = boundary_distance(*mask.shape)
    near_label = near_contour(np.where(truth < k, truth + kind(1), kind(0)), distance)
    near_mask = near_contour(prediction + kind(1), distance)
    # One count of everything: [true, predicted, near a contour of the label, of the mask].
    code = truth.astype(np.intp) * (k + 1) + prediction
    code = code * 4 + near_label * 2 + near_mask
    table = np.bincount(code.ravel(), minlength=(k + 2) * (k + 1) * 4).reshape(k + 2, k + 1, 2, 2)
    confusion = table.sum(axis=(2, 3))
    both = np.diagonal(table[:k, :k, 1, 1])
    either = table[:k, :, 1].sum(axis=(1, 2)) + table[:k, :k, :, 1].sum(axis=(0, 2)) - both
    return ImageCounts(classes, confusion[:k], confusion[k, :k], np.stack([both, either], axis=1))


@dataclass(frozen=True)
class ImageScore:
    """One scored image: its mIoU and pixel accuracy in percent; None if none of its pixels count."""

    uri: str
    miou: float | None
    accuracy: float | None
    pixels: int


@dataclass(frozen=True)
class Unscored:
    """One image with a mask that could not be scored: the kind of problem, and the reason in words."""

    uri: str
    status: str
    reason: str


class Tally:
    """Sums over images. matrix: pixels by true and predicted class. boundary: (K, 2) intersection and union."""

    def __init__(self, num_classes: int) -> None:
        self.matrix = ConfusionMatrix(num_classes)
        self.boundary: npt.NDArray[np.int64] = np.zeros((num_classes, 2), np.int64)
        self.images: list[ImageScore] = []
        self.unscored: list[Unscored] = []

    def add(self, uri: str, image: ImageCounts, scored: Collection[int]) -> None:
        """Add an image. scored: the classes whose mean is its mIoU."""
        classes = image.classes
        self.matrix.counts[np.ix_(classes, np.append(classes, -1))] += image.confusion
        self.matrix.stray[classes] += image.stray
        self.boundary[classes] += image.boundary
        hits, pixels = np.diagonal(image.confusion), int(image.confusion.sum())
        union = image.confusion.sum(axis=1) + image.confusion[:, :-1].sum(axis=0) + image.stray - hits
        counts = np.fromiter((index in scored for index in classes), bool, len(classes))
        miou = nan_mean(percent(hits, union)[counts])
        self.images.append(ImageScore(uri, number(miou), 100 * int(hits.sum()) / pixels if pixels else None, pixels))

    def to_json(self) -> bytes:
        """The sums, without zeros."""
        counts, boundary = self.matrix.counts, self.boundary
        rows, columns = np.nonzero(counts)
        (strays,) = np.nonzero(self.matrix.stray)
        (near,) = np.nonzero(boundary[:, 1])
        return json.dumps(
            {
                "confusion": np.stack([rows, columns, counts[rows, columns]], axis=1).tolist(),
                "stray": np.stack([strays, self.matrix.stray[strays]], axis=1).tolist(),
                "boundary": np.column_stack([near, boundary[near]]).tolist(),
                "images": [astuple(image) for image in self.images],
                "unscored": [astuple(image) for image in self.unscored],
            },
            separators=(",", ":"),
        ).encode()

    def add_json(self, data: bytes) -> None:
        """Add what `to_json` gave."""
        fields = json.loads(data)
        for true, predicted, pixels in fields["confusion"]:
            self.matrix.counts[true, predicted] += pixels
        for predicted, pixels in fields["stray"]:
            self.matrix.stray[predicted] += pixels
        for index, *pixels in fields["boundary"]:
            self.boundary[index] += pixels
        self.images += [ImageScore(*image) for image in fields["images"]]
        self.unscored += [Unscored(*image) for image in fields["unscored"]]


def number(value: float) -> float | None:
    """A figure for JSON: None for NaN."""
    return None if np.isnan(value) else float(value)
