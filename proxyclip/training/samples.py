"""One sample: an image with its mask and confidence, as tensors of the same height and width."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar

import numpy as np
import torch
from torchvision import tv_tensors

from proxyclip.dataset.masks import confidence_from_png, mask_from_png, spread_confidence
from proxyclip.dataset.reading.labels import Labels
from proxyclip.dataset.rows import LabelledImage
from proxyclip.images.errors import ImageError
from proxyclip.images.inputs.images import Images, fetch_image, open_images
from proxyclip.images.reading import read_pixels
from proxyclip.storage.store import Storage, public_uri
from proxyclip.vocabulary.thresholds import Thresholds

T = TypeVar("T")
R = TypeVar("R")

# Images that are fetched at once from an object store, by each worker.
FETCHED_AT_ONCE = 16

_PROBED = 16


class Sample(TypedDict):
    """What a loader gives.

    image: uint8 (3, H, W), RGB. mask: int64 (H, W), classes and `ignore`. confidence: float32 (H, W), the
    probability of the winning class, equal within each block of `--confidence-stride` pixels. uri: the image's key.
    The tensors are torchvision's tv_tensors, so transforms of torchvision.transforms.v2 apply to all of them alike.
    """

    image: tv_tensors.Image
    mask: tv_tensors.Mask
    confidence: tv_tensors.Mask
    uri: str


Transform = Callable[[Sample], Any]


class SampleError(ValueError):
    """An image that does not go with its mask: it is gone, cannot be read, or has another size."""


@dataclass(frozen=True)
class Samples:
    """Makes samples of labelled images. thresholds: pixels below that of their class become ignore."""

    labels: Labels
    images: Images
    thresholds: Thresholds | None
    transform: Transform | None

    @classmethod
    def open(
        cls,
        output: str,
        images: str | None,
        thresholds: Thresholds | str | None,
        ignore_below: float | None,
        transform: Transform | None,
    ) -> Samples:
        """Open an output for training. Raises ValueError or FileNotFoundError for what a person can do wrong."""
        labels = Labels.open(output)
        opened = open_images(labels.record.input if images is None else images)
        return cls(labels, opened, _thresholds(labels, thresholds, ignore_below), transform)

    def check_images(self, shard: int) -> None:
        """Raise FileNotFoundError if there are no images of a shard: then `images` is the wrong place."""
        rows = self.labels.read(shard)
        if rows and not any(self.images.exists(row.uri) for row in rows[:_PROBED]):
            raise FileNotFoundError(
                f"{public_uri(self.images.uri)}: there is no {rows[0].uri!r}, nor other images of "
                f"{public_uri(self.labels.storage.uri)}; give the place of the labelled images as images=..."
            )

    def of(self, rows: Iterable[LabelledImage]) -> Iterator[Sample | SampleError]:
        """The samples of labelled images, in order; a SampleError for those that have none.

        Images in an object store are fetched ahead.
        """
        for row, data in ahead(self._fetch, rows, 0 if self.images.local else FETCHED_AT_ONCE):
            try:
                pixels = self._pixels(row, data)
            except SampleError as error:
                yield error
            else:
                sample = self._sample(row, pixels)
                yield sample if self.transform is None else self.transform(sample)

    def _sample(self, row: LabelledImage, pixels: np.ndarray) -> Sample:
        mask = mask_from_png(row.mask)
        stride = self.labels.record.recipe["confidence_stride"]
        confidence = spread_confidence(confidence_from_png(row.confidence), mask.shape, stride)
        if self.thresholds is not None:
            mask = self.thresholds.apply(mask, confidence)
        return {
            "image": tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1).contiguous()),
            "mask": tv_tensors.Mask(torch.from_numpy(mask.astype(np.int64))),
            "confidence": tv_tensors.Mask(torch.from_numpy(confidence).to(torch.float32).div_(255)),
            "uri": row.uri,
        }

    def _fetch(self, row: LabelledImage) -> tuple[LabelledImage, bytes | ImageError]:
        try:
            return row, fetch_image(self.images, row.uri)
        except ImageError as error:
            return row, error

    def _pixels(self, row: LabelledImage, data: bytes | ImageError) -> np.ndarray:
        where = f"{public_uri(self.images.uri)}/{row.uri}"
        mend = "Run the labelling command again, which renews its labels"
        try:
            if isinstance(data, ImageError):
                raise data
            pixels = read_pixels(data)
        except ImageError as error:
            raise SampleError(f"{where}: {error.reason}. {mend}, or restore the image.") from error
        if pixels.shape[:2] != (row.height, row.width):
            raise SampleError(
                f"{where}: the image is {pixels.shape[1]} x {pixels.shape[0]} pixels, its mask is {row.width} x "
                f"{row.height}; it was changed after it was labelled. {mend}, or give the labelled images as images=..."
            )
        return pixels


class OfOutput:
    """What both loaders say about the output that they read."""

    _samples: Samples

    @property
    def labels(self) -> Labels:
        """The output."""
        return self._samples.labels

    @property
    def ignore(self) -> int:
        """The value of a mask's pixels that have no class."""
        return self.labels.ignore

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the values of a mask."""
        return tuple(self.labels.vocabulary.class_names)


def ahead(function: Callable[[T], R], items: Iterable[T], count: int) -> Iterator[R]:
    """The results of a function, in order, up to `count` of them computed ahead by as many threads."""
    if count == 0:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(count) as pool:
        running: deque[Future[R]] = deque()
        for item in items:
            running.append(pool.submit(function, item))
            if len(running) > count:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def _thresholds(labels: Labels, given: Thresholds | str | None, ignore_below: float | None) -> Thresholds | None:
    num_classes = labels.vocabulary.num_classes
    if given is not None and ignore_below is not None:
        raise ValueError("give thresholds, or ignore_below for all classes, not both.")
    if ignore_below is not None:
        if not 0 <= ignore_below <= 1:
            raise ValueError(f"ignore_below: {ignore_below} is no probability; give a number from 0 to 1.")
        return Thresholds.uniform(ignore_below, num_classes)
    if isinstance(given, str):
        folder, slash, name = given.rpartition("/")
        return Thresholds.from_json(Storage(folder or slash or ".").read(name), labels.vocabulary, given)
    if given is not None and len(given.values) != num_classes:
        raise ValueError(f"thresholds: {len(given.values)} values for the {num_classes} classes of the output.")
    return given
