"""What an adaptation does with a shard: the sums over its images, from their stored features."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from proxyclip.dataset.commits import read_commit
from proxyclip.dataset.features.record import features_of
from proxyclip.dataset.features.shards import read_features
from proxyclip.dataset.plan import Plan
from proxyclip.dataset.rows import ImageFeatures
from proxyclip.dataset.run_record import read_vocabulary
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
    def _sums(self) -> ImageSums:
        import torch

        from proxyclip.models.adaptation.image_sums import ImageSums
        from proxyclip.pipeline.heads import load_head

        torch.set_num_threads(1)  # so that sums are rounded the same way on machines with more cores
        head = None if self.head is None else load_head(self.head)
        return ImageSums(read_vocabulary(Storage(self.labels)), self.scale, head)

    @cached_property
    def _dead(self) -> dict[int, Collection[str]]:
        return dict(Plan(Storage(self.labels)).dead())

    def __call__(self, shard: int, before: Sequence[bytes]) -> bytes:
        from proxyclip.models.adaptation.statistics import Statistics
        from proxyclip.pipeline.features import features_from

        gone = self._dead.get(shard, ())
        total: Statistics | None = None
        for row in shard_features(Storage(self.source), shard):
            if row.uri not in gone:
                found = self._sums.of(row.uri, features_from(row))
                if total is None:
                    total = found
                else:
                    total.add(found)
        return b"" if total is None else total.to_bytes()


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
