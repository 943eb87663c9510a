"""Statistics per class, of one shard and summed over shards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from proxyclip.dataset.rows import CLASS_STATS, STATS

# Sums of confidence are integers, in units of 1 / _PARTS: so the order of adding does not change a sum.
_PARTS = 10**9


@dataclass(frozen=True)
class ClassStat:
    """A class over the whole run. share: of all labelled pixels. mean_confidence: over the pixels of the class."""

    index: int
    name: str
    images: int
    pixels: int
    share: float
    mean_confidence: float


@dataclass
class ClassSum:
    """A class over some shards. confidence: sum over the pixels of the class, in units of 1e-9."""

    name: str
    images: int
    pixels: int
    confidence: int


class ClassSums(dict[int, ClassSum]):
    """Sums by class index. They are exact, so what was added can be subtracted again."""

    def add_stats(self, stats: pa.Table, sign: int = 1) -> None:
        """Add the statistics of a shard, or with `sign=-1` subtract them."""
        for row in stats.to_pylist():
            confidence = round(row["pixels"] * row["mean_confidence"] * _PARTS)
            self._add(row["class"], row["name"], sign, row["images"], row["pixels"], confidence)

    def add(self, other: Mapping[int, ClassSum]) -> None:
        for index, each in other.items():
            self._add(index, each.name, 1, each.images, each.pixels, each.confidence)

    def _add(self, index: int, name: str, sign: int, images: int, pixels: int, confidence: int) -> None:
        entry = self.setdefault(index, ClassSum(name, 0, 0, 0))
        entry.images += sign * images
        entry.pixels += sign * pixels
        entry.confidence += sign * confidence

    def stats(self) -> list[ClassStat]:
        """The statistics of the classes that occur, in order of index."""
        total = sum(each.pixels for each in self.values())
        return [
            ClassStat(
                index, each.name, each.images, each.pixels, each.pixels / total, each.confidence / _PARTS / each.pixels
            )
            for index, each in sorted(self.items())
            if each.images
        ]


def shard_stats(shard: int, masks: pa.Table, class_names: Sequence[str] | Mapping[int, str]) -> pa.Table:
    """The statistics of a shard: one row for each class that occurs in `masks` (schema MASKS).

    Confidence is weighted by pixels, and summed in the order of the images.
    """
    sums: dict[int, list[Any]] = {}
    for image in masks.select(["classes", "pixels", "class_confidence"]).to_pylist():
        for index, pixels, confidence in zip(*image.values(), strict=True):
            row = sums.setdefault(index, [0, 0, 0.0])
            row[0] += 1
            row[1] += pixels
            row[2] += pixels * confidence
    rows = [
        dict(zip(STATS.names, (shard, index, class_names[index], count, pixels, total / pixels), strict=True))
        for index, (count, pixels, total) in sorted(sums.items())
    ]
    return pa.Table.from_pylist(rows, STATS)


def class_stats_table(stats: Iterable[ClassStat], basis: Mapping[str, str]) -> pa.Table:
    """Statistics as the rows of class_stats.parquet. basis: metadata that says what they were made from."""
    schema = CLASS_STATS.with_metadata({**CLASS_STATS.metadata, **basis})
    return pa.Table.from_pylist([{"class": stat.index, **vars(stat)} for stat in stats], schema)
