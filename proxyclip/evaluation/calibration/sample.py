"""The sample: the images of an output that have a label file, and only the shards that hold them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from proxyclip.dataset.masks import confidence_from_png, mask_from_png, spread_confidence
from proxyclip.dataset.plan import Plan
from proxyclip.dataset.reading.labels import Labels
from proxyclip.dataset.rows import LabelledImage
from proxyclip.evaluation.calibration.evidence import Evidence, ImageCounts, count_image
from proxyclip.evaluation.labels.coding import Coding, LabelError
from proxyclip.evaluation.labels.files import LabelFiles
from proxyclip.storage.store import Storage, public_uri

_SHARDS_AT_ONCE = 4


class Sample:
    """Images of an output that have a label. waiting: those that have no mask yet, or failed."""

    def __init__(self, labels: Labels, files: LabelFiles) -> None:
        """Raises FileNotFoundError or ValueError, with what to do, if there are none."""
        self._labels, self._files = labels, files
        keys = {entry.key for entry in Storage(files.uri).list() if entry.key.endswith(files.suffix)}
        where = f"--labels {public_uri(files.uri)}"
        if not keys:
            raise FileNotFoundError(f"{where}: no file there ends in {files.suffix!r}; check it and --label-suffix.")
        planned = dict(_planned(labels, files, keys))
        if not planned:
            example = min(keys)
            raise ValueError(
                f"{where}: none of the {len(keys)} label files ({example}, ...) has the name of an image of "
                f"{public_uri(labels.storage.uri)}. A label has the path of its image, with {files.suffix} for the "
                "extension."
            )
        self._shards: dict[int, set[str]] = defaultdict(set)
        for uri, shard in planned.items():
            if shard in labels.done:
                self._shards[shard].add(uri)
        self.waiting = len(planned) - sum(map(len, self._shards.values()))

    @property
    def shards(self) -> Mapping[int, set[str]]:
        """The committed shards that hold the images, and their uris."""
        return self._shards

    def evidence(self, coding: Coding) -> Evidence:
        """Count the images. Raises ValueError for a label of another size, or with values that are no class."""

        def count(image: LabelledImage) -> ImageCounts:
            try:
                label = coding.decode(self._files.read(image.uri))
            except LabelError as error:
                raise ValueError(f"{image.uri}: {error}") from error
            if label.shape != (image.height, image.width):
                raise ValueError(
                    f"{image.uri}: its label has {label.shape[1]} x {label.shape[0]} pixels, the image has "
                    f"{image.width} x {image.height}; give labels of the size of their images."
                )
            return counts_of(self._labels, image, label)

        found = list(_each(self._labels, self._shards, count))
        self.waiting += sum(map(len, self._shards.values())) - len(found)
        return Evidence.of(self._labels.vocabulary.num_classes, found)


def unlabelled_evidence(labels: Labels, num_images: int) -> Evidence:
    """Count about so many images from all over an output, without labels."""
    commits = [commit for commit in labels.commits() if commit.labelled]
    if not commits:
        raise ValueError(f"{public_uri(labels.storage.uri)} has no masks yet; wait until a shard is committed.")
    of_shard = sum(commit.labelled for commit in commits) / len(commits)
    num_shards = min(len(commits), max(round(num_images / of_shard), 8))
    spaced = np.linspace(0, len(commits) - 1, num_shards).astype(int)
    shards = {commits[index].shard: None for index in spaced}
    each = -(-num_images // len(shards))
    return Evidence.of(
        labels.vocabulary.num_classes,
        _each(labels, shards, lambda image: counts_of(labels, image, None), each),
    )


def counts_of(labels: Labels, image: LabelledImage, label: npt.NDArray[np.integer] | None) -> ImageCounts:
    """The counts of an image of an output."""
    mask = mask_from_png(image.mask)
    confidence = spread_confidence(confidence_from_png(image.confidence), mask.shape, labels.confidence_stride)
    return count_image(image.uri, label, mask, confidence, labels.vocabulary.num_classes)


def _planned(labels: Labels, files: LabelFiles, keys: set[str]) -> Iterator[tuple[str, int]]:
    """The planned images that have a label, with their shards. Reads only parts of the plan that may hold some."""
    stems = sorted(key.removesuffix(files.suffix) for key in keys)
    plan = Plan(labels.storage)
    parts = [part for part in plan.parts() if stems[0] <= part.last_uri and part.first_uri <= stems[-1] + "\U0010ffff"]
    for *_, row in plan.histories(parts):
        if row.shard is not None and files.key(row.uri) in keys:
            yield row.uri, row.shard


def _each(
    labels: Labels,
    shards: Mapping[int, set[str] | None],
    count: Callable[[LabelledImage], ImageCounts],
    at_most: int | None = None,
) -> Iterator[ImageCounts]:
    """The counts of some images of some shards; of all, if a shard names none. at_most: images of a shard."""

    def read(shard: int) -> list[ImageCounts]:
        wanted = shards[shard]
        images = [image for image in labels.read(shard) if wanted is None or image.uri in wanted]
        step = 1 if at_most is None else max(len(images) // at_most, 1)
        return [count(image) for image in images[::step][:at_most]]

    with ThreadPoolExecutor(_SHARDS_AT_ONCE) as pool:
        for counted in pool.map(read, sorted(shards)):
            yield from counted
