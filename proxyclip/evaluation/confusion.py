"""Confusion matrix, and the figures that mmsegmentation computes from it: mIoU, aAcc, mAcc."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from proxyclip.vocabulary.names import ignore_label


def confusion_matrix(
    label: npt.NDArray[np.integer],
    prediction: npt.NDArray[np.integer],
    num_classes: int,
    ignore: int | None = None,
) -> npt.NDArray[np.int64]:
    """Count pixels by true and predicted class.

    label, prediction: integer arrays of the same shape with values 0..K-1.
    ignore: the value in `label` of pixels that are not counted; None: as in masks (`ignore_label`).
    A pixel of `prediction` may have the ignore value of masks: it is unlabelled, so it misses its true class and
    counts as a false alarm for no class.
    Returns (K, K+1) int64: row = true class, column = predicted class, last column = unlabelled.
    Raises ValueError for other shapes, types and values.
    """
    unlabelled = ignore_label(num_classes)
    ignore = unlabelled if ignore is None else ignore
    label, prediction = np.asarray(label), np.asarray(prediction)
    if label.shape != prediction.shape:
        raise ValueError(
            f"label has shape {label.shape}, prediction {prediction.shape}; resize the prediction to the label's shape."
        )
    for name, values in (("label", label), ("prediction", prediction)):
        if values.dtype.kind not in "iu":
            raise ValueError(f"{name} has type {values.dtype}; give integers, one class index per pixel.")
    counted = label != ignore
    truth, guess = label[counted].astype(np.int64), prediction[counted].astype(np.int64)
    for name, classes, empty in (("label", truth, ignore), ("prediction", guess[guess != unlabelled], unlabelled)):
        outside = classes[(classes < 0) | (classes >= num_classes)]
        if outside.size:
            raise ValueError(
                f"{name} holds the value {outside[0]}; classes are 0..{num_classes - 1}, and {empty} is ignore. "
                "Are label and prediction of the same vocabulary?"
            )
    guess[guess == unlabelled] = num_classes
    counts = np.bincount(truth * (num_classes + 1) + guess, minlength=num_classes * (num_classes + 1))
    return counts.reshape(num_classes, num_classes + 1).astype(np.int64, copy=False)


def reduce_zero_label(label: npt.NDArray[np.integer], ignore: int = 255) -> npt.NDArray[np.integer]:
    """Labels in which 0 means "none of the classes": 0 becomes ignore, 1..K become 0..K-1, ignore stays.

    ADE20K and Pascal Context 59 store their labels like this. Shape and type do not change.
    Raises ValueError if the type is not an integer type that can hold `ignore`.
    """
    label = np.asarray(label)
    if label.dtype.kind not in "iu" or not np.iinfo(label.dtype).min <= ignore <= np.iinfo(label.dtype).max:
        raise ValueError(
            f"label has type {label.dtype}, which cannot hold the ignore value {ignore}; convert it first."
        )
    empty = (label == 0) | (label == ignore)
    return np.where(empty, ignore, label.astype(np.int64) - 1).astype(label.dtype)


class ConfusionMatrix:
    """Counts over many images, and figures in percent; NaN where nothing was counted.

    num_classes, ignore: as for `confusion_matrix`. reduce_zero_label: apply `reduce_zero_label` to every label.
    counts: (K, K+1) int64, 8 * K * (K+1) bytes. stray: (K,) predictions at pixels that are not ignored and yet have no
    true class; `add` finds none, since it refuses such labels (see `evaluation.counts`).
    """

    def __init__(self, num_classes: int, ignore: int | None = None, *, reduce_zero_label: bool = False) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}; give 1 or more.")
        self.num_classes = num_classes
        self.ignore = ignore_label(num_classes) if ignore is None else ignore
        self.reduce_zero_label = reduce_zero_label
        self.counts: npt.NDArray[np.int64] = np.zeros((num_classes, num_classes + 1), dtype=np.int64)
        self.stray: npt.NDArray[np.int64] = np.zeros(num_classes, dtype=np.int64)

    def add(self, label: npt.NDArray[np.integer], prediction: npt.NDArray[np.integer]) -> None:
        """Count one image, as `confusion_matrix` does."""
        if self.reduce_zero_label:
            label = reduce_zero_label(label, self.ignore)
        self.counts += confusion_matrix(label, prediction, self.num_classes, self.ignore)

    def merge(self, other: ConfusionMatrix) -> None:
        """Add the counts of other images."""
        if other.counts.shape != self.counts.shape:
            raise ValueError(f"{other.num_classes} classes cannot be added to {self.num_classes}; use one vocabulary.")
        self.counts += other.counts
        self.stray += other.stray

    def iou(self) -> npt.NDArray[np.float64]:
        """(K,) intersection over union of each class; NaN for a class in neither labels nor predictions."""
        hits = np.diagonal(self.counts)
        predicted = self.counts[:, :-1].sum(axis=0) + self.stray
        return percent(hits, self.counts.sum(axis=1) + predicted - hits)

    def accuracy(self) -> npt.NDArray[np.float64]:
        """(K,) recall of each class: the share of its pixels that are predicted as it; NaN if the labels lack it."""
        return percent(np.diagonal(self.counts), self.counts.sum(axis=1))

    @property
    def mean_iou(self) -> float:
        """mIoU: the mean over the classes that occur in labels or predictions."""
        return nan_mean(self.iou())

    @property
    def mean_accuracy(self) -> float:
        """mAcc: the mean over the classes that occur in labels."""
        return nan_mean(self.accuracy())

    @property
    def pixel_accuracy(self) -> float:
        """aAcc: the share of all counted pixels that are predicted as their class."""
        return float(percent(np.diagonal(self.counts).sum(keepdims=True), self.counts.sum(keepdims=True).ravel())[0])


def percent(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """100 * part / whole; NaN where `whole` is 0."""
    return np.divide(100 * part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def nan_mean(values: npt.NDArray[np.float64]) -> float:
    """The mean of what is not NaN; NaN if there is nothing."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")
