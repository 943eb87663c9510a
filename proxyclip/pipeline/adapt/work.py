"""What an adaptation does with a shard: the sums over its images, from their stored features."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from proxyclip.dataset.commits import read_commit
from proxyclip.dataset.features.record import features_of
from proxyclip.dataset.features.shards import read_features
from proxyclip.dataset.plan import Plan
from proxyclip.dataset.rows import ImageFeatures
from proxyclip.dataset.run_record import read_vocabulary
from proxyclip.evaluation.labels.coding import Coding, LabelError
from proxyclip.evaluation.labels.files import LabelFiles
from proxyclip.storage.store import Storage

if TYPE_CHECKING:
    from proxyclip.models.adaptation.image_sums import ImageSums


@dataclass(frozen=True)
class SumShard:
    """A `ShardWork` whose receipt holds `Statistics`.

    labels, source: URIs of the output and of its features. scale: factor on the cosines. head: URI of the head that
    gives the probabilities; None: the text does.
    """

    labels: str
    source: str
    scale: float
    head: str | None = None

    @cached_property
    def sums(self) -> ImageSums:
        import torch

        from proxyclip.models.adaptation.image_sums import ImageSums
        from proxyclip.pipeline.heads import load_head

        torch.set_num_threads(1)  # so that sums are rounded the same way on machines with more cores
        head = None if self.head is None else load_head(self.head)
        return ImageSums(read_vocabulary(Storage(self.labels)), self.scale, head)

    @cached_property
    def dead(self) -> dict[int, Collection[str]]:
        return dict(Plan(Storage(self.labels)).dead())

    def __call__(self, shard: int, before: Sequence[bytes]) -> bytes:
        from proxyclip.models.adaptation.statistics import Statistics
        from proxyclip.pipeline.features import features_from

        gone = self.dead.get(shard, ())
        total: Statistics | None = None
        for row in shard_features(Storage(self.source), shard):
            if row.uri not in gone:
                found = self.sums.of(row.uri, features_from(row))
                if total is None:
                    total = found
                else:
                    total.add(found)
        return b"" if total is None else total.to_bytes()


@dataclass(frozen=True)
class MarkShard:
    """A `ShardWork` for images that people labelled: what `SumShard` says of them, and what their labels say.

    uris: all these images.
    """

    sums: SumShard
    files: LabelFiles
    coding: Coding
    uris: frozenset[str]

    def __call__(self, shard: int, before: Sequence[bytes]) -> bytes:
        from proxyclip.models.adaptation.marked import marked_sums
        from proxyclip.models.adaptation.statistics import Statistics
        from proxyclip.pipeline.features import features_from

        totals: tuple[Statistics, Statistics] | None = None
        for row in shard_features(Storage(self.sums.source), shard):
            if row.uri not in self.uris or row.uri in self.sums.dead.get(shard, ()):
                continue
            features, label = features_from(row), self._label(row)
            said = self.sums.sums.of(row.uri, features)
            marked = marked_sums(row.uri, features, label, said.num_classes)
            if totals is None:
                totals = said, marked
            else:
                totals[0].add(said)
                totals[1].add(marked)
        return b"" if totals is None else to_pair(*(each.to_bytes() for each in totals))

    def _label(self, row: ImageFeatures) -> npt.NDArray[np.int32]:
        try:
            label = self.coding.decode(self.files.read(row.uri))
        except LabelError as error:
            raise ValueError(f"{row.uri}: {error}") from error
        if label.shape != (row.height, row.width):
            raise ValueError(
                f"{row.uri}: its label has {label.shape[1]} x {label.shape[0]} pixels, the image has {row.width} x "
                f"{row.height}; give labels of the size of their images."
            )
        return label


def to_pair(first: bytes, second: bytes) -> bytes:
    """Two results in one receipt."""
    return len(first).to_bytes(8, "little") + first + second


def from_pair(data: bytes) -> tuple[bytes, bytes]:
    """The inverse of `to_pair`; two empty results of no result."""
    end = 8 + int.from_bytes(data[:8], "little")
    return data[8:end], data[end:]


def shard_features(source: Storage, shard: int) -> list[ImageFeatures]:
    """The stored features of a shard, also of dead rows. Raises FileNotFoundError, with what to do, without any."""
    try:
        commit = read_commit(features_of(source), shard)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"shard {shard} has no features yet; run its labelling command again with --add-features"
        ) from error
    rows, _ = read_features(source, commit)
    return rows
