"""Selection: which images are exported, and which of their pixels."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from proxyclip.dataset.masks import confidence_from_png, mask_from_png, mask_to_png
from proxyclip.dataset.rows import LabelledImage
from proxyclip.vocabulary.names import Vocabulary, ignore_label
from proxyclip.vocabulary.thresholds import Thresholds


@dataclass(frozen=True)
class Selection:
    """What of an output is exported.

    colours: those of all its classes. confidence_stride: pixels along a side of a block of the confidence maps.
    thresholds: for each class; None keeps every pixel. classes: indices of the exported ones; None means all.
    only: uris of the images that were asked for; None means all.
    """

    colours: tuple[tuple[int, int, int], ...]
    confidence_stride: int
    thresholds: Thresholds | None = None
    classes: tuple[int, ...] | None = None
    min_confidence_image: float = 0.0
    only: frozenset[str] | None = None

    @property
    def num_classes(self) -> int:
        return len(self.colours)

    @property
    def ignore(self) -> int:
        """The value of pixels that have no class."""
        return ignore_label(self.num_classes)

    def asked(self, uri: str) -> bool:
        """Whether an image was asked for."""
        return self.only is None or uri in self.only

    def has(self, row: LabelledImage) -> bool:
        """Whether an image that was asked for is exported."""
        return row.mean_confidence >= self.min_confidence_image

    def changes(self, row: LabelledImage) -> bool:
        """Whether the exported mask may differ from the stored one."""
        other_classes = self.classes is not None and not set(row.classes) <= set(self.classes)
        return self.thresholds is not None or other_classes

    def apply(self, mask: npt.NDArray[Any], confidence: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """The exported mask. mask: (H, W). confidence: (H, W), 255 times the probability."""
        if self.classes is not None:
            kept = np.isin(mask, np.asarray(self.classes, mask.dtype))
            mask = np.where(kept, mask, mask.dtype.type(self.ignore))
        return mask if self.thresholds is None else self.thresholds.apply(mask, confidence)


@dataclass(frozen=True)
class ExportImage:
    """A labelled image as it is exported.

    name: what its files are called, without suffix; see `names.NamesInUse`.
    """

    row: LabelledImage
    name: str
    selection: Selection

    @property
    def uri(self) -> str:
        return self.row.uri

    @cached_property
    def mask(self) -> npt.NDArray[Any]:
        """(H, W): uint8 up to 255 classes, else uint16."""
        mask = mask_from_png(self.row.mask)
        return self.selection.apply(mask, self.confidence) if self.selection.changes(self.row) else mask

    @cached_property
    def mask_png(self) -> bytes:
        """The mask as PNG with the classes' colours; the stored bytes if the mask is the stored one."""
        if not self.selection.changes(self.row):
            return self.row.mask
        return mask_to_png(self.mask, np.asarray(self.selection.colours, np.uint8))

    @cached_property
    def confidence(self) -> npt.NDArray[np.uint8]:
        """(H, W): 255 times the probability of the class, the mean of a block at each of its pixels."""
        stride = self.selection.confidence_stride
        blocks = confidence_from_png(self.row.confidence)
        return blocks.repeat(stride, 0)[: self.row.height].repeat(stride, 1)[:, : self.row.width]

    def regions(self) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
        """The classes that occur, by index, and where: (H, W)."""
        for index in np.unique(self.mask).tolist():
            if index != self.selection.ignore:
                yield index, self.mask == index

    def score(self, where: npt.NDArray[np.bool_], top: int = 0, left: int = 0) -> float:
        """The mean confidence of some pixels, 0 to 1, rounded to four digits.

        where: (h, w), the whole image or a box in it. top, left: the box's corner.
        """
        height, width = where.shape
        some = self.confidence[top : top + height, left : left + width][where]
        total = int(some.sum(dtype=np.int64))  # whole numbers: the same on every machine
        return round(total / (255 * max(some.size, 1)), 4)


def chosen_classes(names: Sequence[str], vocabulary: Vocabulary) -> tuple[int, ...] | None:
    """The indices of some classes, or None for no names. Raises ValueError for a name that is no class."""
    if not names:
        return None
    index = {name: number for number, name in enumerate(vocabulary.class_names)}
    unknown = [name for name in names if name not in index]
    if unknown:
        close = difflib.get_close_matches(unknown[0], index, n=3, cutoff=0.5)
        meant = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise ValueError(
            f"--classes: {', '.join(map(repr, unknown))} is no class of this output.{meant} Its vocabulary.json lists "
            f"all {vocabulary.num_classes}."
        )
    return tuple(sorted({index[name] for name in names}))
