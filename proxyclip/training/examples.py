"""Photographs with labels, of people or of an output, by index. Without torch until an output's masks are read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from proxyclip.dataset.layout import RUN
from proxyclip.dataset.reading.labels import Labels
from proxyclip.evaluation.labels.coding import LabelError
from proxyclip.evaluation.labels.files import LabelFiles
from proxyclip.images.errors import ImageError
from proxyclip.images.listing import fetch_image, input_storage, list_images
from proxyclip.images.reading import read_pixels
from proxyclip.storage.store import Storage, public_uri
from proxyclip.vocabulary.names import ignore_label

if TYPE_CHECKING:
    from proxyclip.training.mask_dataset import MaskDataset

# Label files that are looked at before a training starts.
LOOKED_AT = 2000

Example = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]


class Examples(Protocol):
    """Photographs with labels. digest: changes when they do."""

    digest: str

    def __len__(self) -> int: ...

    def read(self, index: int) -> Example:
        """RGB uint8 (H, W, 3), and a class or -1 for each pixel (H, W)."""

    def classes(self) -> set[int]:
        """The classes that have a pixel, of all labels or of the first ones."""


def is_output(labels: str) -> bool:
    """Whether this is what `proxyclip label` wrote."""
    return Storage(labels).exists(RUN)


def open_examples(images: str | None, labels: str, classes: Sequence[str]) -> Examples:
    """Label files of people, under the images' names, or the masks of an output.

    Raises ValueError or FileNotFoundError if there are none, or if they are of other classes.
    """
    if is_output(labels):
        return OfMasks(labels, images, tuple(classes))
    if images is None:
        raise ValueError(f"--labels {public_uri(labels)} is a folder of label files; give --images too.")
    return OfFiles.open(images, labels, len(classes))


@dataclass
class OfFiles:
    """Index PNGs, or other images of one channel, with 255 (65535 above 255 classes) for pixels without a label."""

    images: str
    labels: str
    num_classes: int
    uris: tuple[str, ...]
    digest: str

    @classmethod
    def open(cls, images: str, labels: str, num_classes: int) -> OfFiles:
        files = LabelFiles(labels)
        there = {entry.key for entry in Storage(labels).list()}
        refs = list_images(images)
        uris = tuple(sorted(ref.uri for ref in refs if files.key(ref.uri) in there))
        if not uris:
            raise FileNotFoundError(
                f"No image of {public_uri(images)} has a label in {public_uri(labels)}; a label has the name of its "
                "image, and ends in .png."
            )
        digest = hashlib.sha256(f"{files.digest()}\n{chr(10).join(uris)}".encode("utf-8", "surrogateescape"))
        return cls(images, labels, num_classes, uris, digest.hexdigest()[:16])

    def __len__(self) -> int:
        return len(self.uris)

    def read(self, index: int) -> Example:
        uri = self.uris[index]
        label = self.label(uri)
        try:
            pixels = read_pixels(fetch_image(input_storage(self.images), uri))
        except ImageError as error:
            raise ValueError(f"{public_uri(self.images)}/{uri}: {error.reason}.") from error
        if pixels.shape[:2] != label.shape:
            raise ValueError(
                f"{public_uri(self.images)}/{uri} is {pixels.shape[1]} x {pixels.shape[0]} pixels, its label "
                f"{label.shape[1]} x {label.shape[0]}; a label has the size of its image."
            )
        return pixels, label

    def label(self, uri: str) -> npt.NDArray[np.int32]:
        """The classes of a photograph."""
        files, ignore = LabelFiles(self.labels), ignore_label(self.num_classes)
        try:
            values = files.read(uri).astype(np.int32)
        except LabelError as error:
            raise ValueError(f"{public_uri(self.labels)}: {error.reason}.") from error
        wrong = values[(values != ignore) & ((values < 0) | (values >= self.num_classes))]
        if wrong.size:
            raise ValueError(
                f"{public_uri(self.labels)}/{files.key(uri)} holds the value {wrong[0]}; the vocabulary has the "
                f"classes 0 to {self.num_classes - 1}, and {ignore} is ignore. Is it a label of another vocabulary?"
            )
        return np.where(values == ignore, -1, values).astype(np.int32)

    def classes(self) -> set[int]:
        found: set[int] = set()
        for uri in self.uris[:LOOKED_AT]:
            found |= set(np.unique(self.label(uri)).tolist())
        return found - {-1}


@dataclass
class OfMasks:
    """The masks of an output, as of the moment it is opened."""

    output: str
    images: str | None
    names: tuple[str, ...]
    digest: str = field(init=False)
    _count: int = field(init=False)

    def __post_init__(self) -> None:
        labels = Labels.open(self.output)
        found = labels.vocabulary.class_names
        if found != self.names:
            other = next(
                (pair for pair in zip(found, self.names, strict=False) if pair[0] != pair[1]), (found[-1], "nothing")
            )
            raise ValueError(
                f"{public_uri(self.output)} has {len(found)} classes, the vocabulary {len(self.names)}, and "
                f"they differ: {other[0]!r} against {other[1]!r}. Use the vocabulary that the output was labelled with."
            )
        digest, self._count = hashlib.sha256(labels.record.fingerprint.encode()), 0
        for shard, count in labels.counts():
            digest.update(f"{shard} {count}\n".encode())
            self._count += count
        if not self._count:
            raise ValueError(f"{public_uri(self.output)}: there are no labelled images yet.")
        self.digest = digest.hexdigest()[:16]

    def __len__(self) -> int:
        return self._count

    @cached_property
    def _masks(self) -> MaskDataset:
        from proxyclip.training.mask_dataset import MaskDataset

        masks = MaskDataset(self.output, self.images)
        if len(masks) != self._count:
            raise ValueError(
                f"{public_uri(self.output)} has grown from {self._count} to {len(masks)} images while the training "
                "started; wait until its job ends."
            )
        return masks

    def read(self, index: int) -> Example:
        sample, ignore = self._masks[index], self._masks.ignore
        mask = sample["mask"].numpy()
        return sample["image"].permute(1, 2, 0).numpy(), np.where(mask == ignore, -1, mask).astype(np.int32)

    def classes(self) -> set[int]:
        found: set[int] = set()
        for table in Labels.open(self.output).index(["classes"]):
            found |= set(pc.unique(pc.list_flatten(table["classes"])).to_pylist())
        return found
