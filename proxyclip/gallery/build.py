"""Build a gallery: choose images, draw them small, and write the pages."""

from __future__ import annotations

import base64
import os
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from proxyclip.dataset.layout import VOCABULARY
from proxyclip.dataset.masks import confidence_from_png, mask_from_png
from proxyclip.dataset.reading.labels import Labels
from proxyclip.dataset.reading.lists import read_uris, refuse_strangers
from proxyclip.dataset.rows import LabelledImage
from proxyclip.dataset.run_record import require_run
from proxyclip.gallery.classes import Classes
from proxyclip.gallery.comparing import Other, transitions
from proxyclip.gallery.destination import (
    INDEX,
    assets,
    data_key,
    mask_key,
    open_destination,
    remove_others,
    script,
    thumbnail_key,
)
from proxyclip.gallery.options import GalleryOptions
from proxyclip.gallery.pictures import Margins, fitted, nearest, positions_png, small_confidence_png, thumbnail
from proxyclip.gallery.sampling import Survey, survey
from proxyclip.gallery.scores import read_scores
from proxyclip.images.inputs.address import searched_folder
from proxyclip.images.inputs.images import Images, open_images
from proxyclip.storage.store import Storage

SHOWN_FAILURES = 1000
_SHOWN_TRANSITIONS = 200
_TRANSITIONS_PER_IMAGE = 12


@dataclass(frozen=True)
class Built:
    """index: URI of the page to open. shown, num_images: images in the gallery, and in the output. gone: without a
    thumbnail. compared: in both outputs.
    """

    index: str
    shown: int
    num_images: int
    gone: int
    compared: int


def gallery(options: GalleryOptions, margins: Margins | None = None) -> Built:
    """Write a gallery. Raises ValueError or FileNotFoundError, before anything is written, if it cannot.

    margins: gives the margins of images, if options.margin asks for them; `pipeline.relabel.margins` makes it.
    """
    assert options.margin == (margins is not None), "options.margin and margins go together"
    scores = None if options.evaluation is None else read_scores(options.evaluation)
    always = () if scores is None else [each["uri"] for each in scores["worst"]][: options.limit // 4]
    labels = _open(options.output)
    only = None if options.only is None else read_uris(options.only)
    if only is not None:
        refuse_strangers(labels, only, str(options.only))
    outputs = [(labels, survey(labels, options.limit, options.seed, always, only))]
    if options.compare is not None:
        other = _open(options.compare)
        if other.storage.uri == labels.storage.uri:
            raise ValueError(f"--compare {options.compare} is the same output; give another one.")
        outputs.append((other, survey(other, 0, options.seed)))
    failures = _failures(labels)
    if not outputs[0][1].num_images and not failures["count"]:
        raise ValueError(f"{options.output} has no masks yet; wait until the labelling job has committed a shard.")
    images = open_images(labels.record.input)
    destination = open_destination(labels.storage, searched_folder(labels.record.input), options.to)
    pictures = _Pictures(outputs, images, destination, options.size, margins)
    rows = pictures.write()
    data = {
        "gallery": script("Gallery.load", _about(options, outputs, pictures), pictures.classes.columns(), rows),
        "failures": script("Gallery.loadFailures", failures),
    }
    if options.compare is not None:
        data["changes"] = script("Gallery.loadChanges", pictures.changes())
    if scores is not None:
        data["evaluation"] = script("Gallery.loadEvaluation", scores)
    for name, content in data.items():
        destination.write(data_key(name), content)
    for key, content in assets():
        destination.write(key, content)
    remove_others(destination, {*pictures.written, *map(data_key, data)})
    return Built(
        index=f"{destination.uri}/{INDEX}",
        shown=len(rows["uri"]),
        num_images=outputs[0][1].num_images,
        gone=sum(reason is not None for reason in rows["gone"]),
        compared=sum(share is not None for share in rows["changed"]),
    )


def _open(output: str) -> Labels:
    storage = Storage(output)
    require_run(storage)
    if not storage.exists(VOCABULARY):
        raise ValueError(f"{output} has no masks: it only keeps features. Label it, or relabel from it, first.")
    return Labels.open(storage)


def _about(options: GalleryOptions, outputs: list[tuple[Labels, Survey]], pictures: _Pictures) -> dict[str, Any]:
    """What the pages say of the gallery as a whole."""
    names = [labels.storage.uri.rstrip("/").rpartition("/")[2] for labels, _ in outputs]
    return {
        "title": options.title or names[0],
        "limit": options.limit,
        "seed": options.seed,
        "wide": pictures.classes.wide,
        "evaluation": options.evaluation is not None,
        "outputs": [
            {
                "name": name,
                "vocabulary": labels.vocabulary.name,
                "num_classes": labels.vocabulary.num_classes,
                "num_images": found.num_images,
                "histogram": found.histogram,
                "unlabelled": round(found.unlabelled, 6),
                "finished": labels.finished,
                "shards": [labels.totals.committed, labels.totals.shards],
                "failed": labels.totals.failed,
            }
            for name, (labels, found) in zip(names, outputs, strict=True)
        ],
    }


def _failures(labels: Labels) -> dict[str, Any]:
    """How many images failed, by status, and the first of them."""
    statuses: Counter[str] = Counter()
    found = labels.failures()
    first = list(islice(found, SHOWN_FAILURES))
    statuses.update(each.status for each in first)
    statuses.update(each.status for each in found)
    return {
        "count": sum(statuses.values()),
        "statuses": statuses.most_common(),
        "rows": [[each.uri, each.stage, each.status, each.reason] for each in first],
    }


class _Pictures:
    """The images of a gallery, written one after the other."""

    def __init__(
        self,
        outputs: list[tuple[Labels, Survey]],
        images: Images,
        destination: Storage,
        longest: int,
        margins: Margins | None,
    ) -> None:
        self.classes = Classes.of(outputs)
        self.written: set[str] = set()
        self._labels, self._chosen = outputs[0][0], outputs[0][1].chosen
        self._numbers = [self.classes.numbers(output, labels) for output, (labels, _) in enumerate(outputs)]
        uris = {uri for uris in self._chosen.values() for uri in uris}
        self._other = Other(outputs[1][0], uris) if len(outputs) > 1 else None
        self._images, self._destination, self._longest = images, destination, longest
        self._margins = margins
        self._transitions: Counter[tuple[int, int]] = Counter()

    def write(self) -> dict[str, list[Any]]:
        """Write thumbnails and masks. Returns what the pages know of each image, by column."""
        names = ("uri", "size", "small", "gone", "confidence", "ignored", "classes", "changed", "transitions")
        columns: dict[str, list[Any]] = {name: [] for name in names}
        for row, pairs in self._rows():
            self._transitions.update(pairs)
            for name in names:
                columns[name].append(row[name])
        return columns

    def changes(self) -> dict[str, Any]:
        """Which class became which, in pixels of the compared images."""
        differing = [(*pair, count) for pair, count in self._transitions.most_common() if pair[0] != pair[1]]
        return {
            "pixels": sum(self._transitions.values()),
            "changed": sum(count for _, _, count in differing),
            "pairs": len(differing),
            "rows": differing[:_SHOWN_TRANSITIONS],
        }

    def _rows(self) -> Iterator[tuple[dict[str, Any], Counter[tuple[int, int]]]]:
        """The rows in order of shard and uri. Pillow and zlib let other threads work meanwhile."""
        size = 2 * (os.cpu_count() or 1) + 2
        waiting: deque[Future[tuple[dict[str, Any], Counter[tuple[int, int]]]]] = deque()
        with ThreadPoolExecutor(size) as pool:
            for number, (image, other) in enumerate(self._chosen_images()):
                self.written |= {mask_key(number), thumbnail_key(number)}
                margin = self._margins(image.uri) if self._margins else None  # one after the other, as they lie
                waiting.append(pool.submit(self._write, number, image, other, margin))
                if len(waiting) > 4 * size:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _chosen_images(self) -> Iterator[tuple[LabelledImage, LabelledImage | None]]:
        for shard, uris in self._chosen.items():
            wanted = set(uris)
            for image in self._labels.read(shard):
                if image.uri in wanted:
                    yield image, self._other.get(image.uri) if self._other else None

    def _write(
        self,
        number: int,
        image: LabelledImage,
        other: LabelledImage | None,
        margin: npt.NDArray[np.uint8] | None,
    ) -> tuple[dict[str, Any], Counter[tuple[int, int]]]:
        hw = image.height, image.width
        small_hw = fitted(hw, self._longest)
        jpeg = thumbnail(self._images, image.uri, hw, self._longest)
        if isinstance(jpeg, bytes):
            self._destination.write(thumbnail_key(number), jpeg)
        before = self._numbers[0][mask_from_png(image.mask)]
        pngs = [self._png(before, small_hw), small_confidence_png(confidence_from_png(image.confidence))]
        pairs: Counter[tuple[int, int]] = Counter()
        changed = None
        if other is not None and (other.height, other.width) == hw:
            after = self._numbers[1][mask_from_png(other.mask)]
            pngs += [self._png(after, small_hw), small_confidence_png(confidence_from_png(other.confidence))]
            pairs = transitions(before, after)
            changed = sum(count for pair, count in pairs.items() if pair[0] != pair[1]) / before.size
        known = [] if margin is None else [_base64(small_confidence_png(margin))]
        masks = script("Gallery.loadMasks", number, [_base64(png) for png in pngs], *known)
        self._destination.write(mask_key(number), masks)
        area = image.height * image.width
        differing = [(*pair, round(count / area, 5)) for pair, count in pairs.most_common() if pair[0] != pair[1]]
        row = {
            "uri": image.uri,
            "size": [image.width, image.height],
            "small": [small_hw[1], small_hw[0]],
            "gone": None if isinstance(jpeg, bytes) else jpeg,
            "confidence": round(image.mean_confidence, 4),
            "ignored": round(image.ignored / area, 5),
            "classes": self._contents(image, area),
            "changed": None if changed is None else round(changed, 5),
            "transitions": differing[:_TRANSITIONS_PER_IMAGE],
        }
        return row, pairs

    def _contents(self, image: LabelledImage, area: int) -> list[tuple[int, float, float]]:
        """Number, share of the image and mean confidence of its classes, largest first."""
        numbers = self._numbers[0][np.asarray(image.classes, np.int64)].tolist()
        found = zip(numbers, image.pixels, image.class_confidence, strict=True)
        rows = [(number, round(pixels / area, 5), round(confidence, 4)) for number, pixels, confidence in found]
        return sorted(rows, key=lambda row: (-row[1], row[0]))

    def _png(self, numbers: npt.NDArray[np.uint16], hw: tuple[int, int]) -> bytes:
        return positions_png(nearest(numbers, hw), self.classes.wide)


def _base64(png: bytes) -> str:
    return base64.b64encode(png).decode()
