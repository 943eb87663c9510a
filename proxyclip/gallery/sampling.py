"""One pass over the index of an output: what is in all of its images, and which of them a gallery shows."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from proxyclip.dataset.reading.labels import Labels

BINS = 20
COLUMNS = ("uri", "classes", "pixels", "class_confidence", "mean_confidence", "ignored")

# Images of a stratum are those with a class. Two more: every image, and those that must be shown.
_EVERY, _ALWAYS = -1, -2
_AT_MOST_EACH = 20
_PRUNE_ABOVE = 200_000


@dataclass(frozen=True)
class ClassSummary:
    """A class over all images, as in class_stats.parquet.

    histogram: its images by the mean confidence of the class in them, in BINS equal bins from 0 to 1.
    """

    index: int
    images: int
    pixels: int
    share: float
    mean_confidence: float
    histogram: list[int]


@dataclass(frozen=True)
class Survey:
    """num_images: all that have a mask. histogram: these by their mean confidence, in BINS equal bins from 0 to 1.

    classes: those that occur. unlabelled: share of the pixels without a class. chosen: for each shard the uris to show.
    """

    num_images: int
    histogram: list[int]
    classes: list[ClassSummary]
    unlabelled: float
    chosen: Mapping[int, Collection[str]]


def survey(
    labels: Labels, limit: int, seed: int, always: Collection[str] = (), only: Collection[str] | None = None
) -> Survey:
    """Read the index of an output and choose at most `limit` images.

    Every image gets a random number from the seed and its uri. Images of `always` come first. Then, until half of the
    limit is reached, one more image of each class in turn, rarest class first, and at most 20 of a class. The others
    are those with the smallest numbers of all. The choice depends on nothing else. only: choose among these images.
    """
    counts = _Counts(labels.vocabulary.num_classes)
    draw = _Draw(limit, seed, labels.vocabulary.num_classes, always)
    asked = None if only is None else pa.array(sorted(only), pa.string())
    for table in labels.index(COLUMNS):
        counts.add(table, pc.list_flatten(table["classes"]).to_numpy())
        some = table if asked is None else table.filter(pc.is_in(table["uri"], value_set=asked))
        lengths = pc.list_value_length(some["classes"]).to_numpy()
        rows = np.repeat(np.arange(some.num_rows), lengths)
        draw.add(some, rows, pc.list_flatten(some["classes"]).to_numpy())
    return counts.survey(draw.chosen(counts.images))


class _Counts:
    def __init__(self, num_classes: int) -> None:
        self.num_images = 0
        self.images = np.zeros(num_classes, np.int64)
        self._pixels = np.zeros(num_classes, np.int64)
        self._confidence = np.zeros(num_classes)
        self._histograms = np.zeros((num_classes, BINS), np.int64)
        self._histogram = np.zeros(BINS, np.int64)
        self._ignored = 0

    def add(self, table: pa.Table, classes: npt.NDArray[np.int32]) -> None:
        pixels = pc.list_flatten(table["pixels"]).to_numpy()
        confidence = pc.list_flatten(table["class_confidence"]).to_numpy().astype(np.float64)
        self.num_images += table.num_rows
        np.add.at(self.images, classes, 1)
        np.add.at(self._pixels, classes, pixels)
        np.add.at(self._confidence, classes, pixels * confidence)
        np.add.at(self._histograms, (classes, _bins(confidence)), 1)
        np.add.at(self._histogram, _bins(table["mean_confidence"].to_numpy()), 1)
        self._ignored += pc.sum(table["ignored"]).as_py() or 0

    def survey(self, chosen: Mapping[int, Collection[str]]) -> Survey:
        labelled = int(self._pixels.sum())
        classes = [
            ClassSummary(
                index=int(index),
                images=int(self.images[index]),
                pixels=int(self._pixels[index]),
                share=float(self._pixels[index] / labelled),
                mean_confidence=float(self._confidence[index] / self._pixels[index]),
                histogram=self._histograms[index].tolist(),
            )
            for index in np.flatnonzero(self.images)
        ]
        unlabelled = self._ignored / max(1, labelled + self._ignored)
        return Survey(self.num_images, self._histogram.tolist(), classes, unlabelled, chosen)


class _Draw:
    """For each stratum, the images with the smallest random numbers so far."""

    def __init__(self, limit: int, seed: int, num_classes: int, always: Collection[str]) -> None:
        self._limit, self._seed = limit, seed
        self._each = max(1, min(_AT_MOST_EACH, 4 * limit // num_classes))
        self._always = pa.array(sorted(always), pa.string())
        self._parts: list[tuple[npt.NDArray, ...]] = []  # stratum, random number, shard, uri
        self._size = 0

    def add(self, table: pa.Table, rows: npt.NDArray[np.int64], classes: npt.NDArray[np.int32]) -> None:
        if not table.num_rows:
            return
        uris = np.array(table["uri"].to_pylist(), object)
        numbers = np.array([self._number(uri) for uri in uris], np.uint64)
        asked = np.flatnonzero(pc.is_in(table["uri"], value_set=self._always).to_numpy())
        every = np.arange(len(uris))
        strata = np.concatenate([classes, np.full(len(every), _EVERY), np.full(len(asked), _ALWAYS)])
        members = np.concatenate([rows, every, asked])
        part = (strata, numbers[members], table["shard"].to_numpy()[members], uris[members])
        self._parts.append(self._first(part))
        self._size += len(self._parts[-1][0])
        if self._size > max(_PRUNE_ABOVE, 8 * self._limit):
            self._parts = [self._all()]
            self._size = len(self._parts[0][0])

    def chosen(self, class_images: npt.NDArray[np.int64]) -> dict[int, list[str]]:
        members: dict[int, list[tuple[int, str]]] = {}
        if self._parts:
            strata, _, shards, uris = self._all()
            for stratum, shard, uri in zip(strata.tolist(), shards.tolist(), uris, strict=True):
                members.setdefault(stratum, []).append((shard, uri))
        found = dict.fromkeys(members.get(_ALWAYS, ())[: self._limit])
        rarest_first = sorted(
            (index for index in members if index >= 0), key=lambda index: (class_images[index], index)
        )
        for turn in range(self._each):
            for index in rarest_first:
                if len(found) < self._limit // 2 and turn < len(members[index]):
                    found.setdefault(members[index][turn])
        for place in members.get(_EVERY, ()):
            if len(found) < self._limit:
                found.setdefault(place)
        by_shard: dict[int, list[str]] = {}
        for shard, uri in sorted(found):
            by_shard.setdefault(shard, []).append(uri)
        return by_shard

    def _number(self, uri: str) -> int:
        return int.from_bytes(hashlib.blake2b(f"{self._seed}\0{uri}".encode(), digest_size=8).digest(), "big")

    def _all(self) -> tuple[npt.NDArray, ...]:
        return self._first(tuple(np.concatenate(column) for column in zip(*self._parts, strict=True)))

    def _first(self, part: tuple[npt.NDArray, ...]) -> tuple[npt.NDArray, ...]:
        """The first of each stratum, in order of their numbers."""
        strata, numbers = part[0], part[1]
        order = np.lexsort((numbers, strata))
        strata = strata[order]
        starts = np.flatnonzero(np.diff(strata, prepend=strata[0] - 1))
        rank = np.arange(len(strata)) - np.repeat(starts, np.diff(starts, append=len(strata)))
        kept = order[rank < np.where(strata < 0, self._limit, self._each)]
        return tuple(column[kept] for column in part)


def _bins(confidence: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    return np.clip((confidence * BINS).astype(np.int64), 0, BINS - 1)
