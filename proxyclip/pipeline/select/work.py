"""What a selection does with a shard: a small record of each of its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from proxyclip.dataset.reading.labels import Labels
from proxyclip.pipeline.adapt.work import shard_features
from proxyclip.pipeline.select.records import to_bytes
from proxyclip.storage.store import Storage

if TYPE_CHECKING:
    from proxyclip.models.adaptation.doubt import ImageDoubt

_COLUMNS = ("uri", "height", "width", "classes", "pixels", "mean_confidence")


@dataclass(frozen=True)
class LookShard:
    """A `ShardWork` whose receipt holds records.

    labels: URI of the output. features: URI of the output that keeps its features, or None. scale: factor on the
    cosines.
    """

    labels: str
    features: str | None
    scale: float

    def __call__(self, shard: int, before: Sequence[bytes]) -> bytes:
        rows = [self._record(each) for each in self._labels.read_index(shard, _COLUMNS).to_pylist()]
        if self.features is not None:
            from proxyclip.pipeline.features import features_from

            by_uri = {row["uri"]: row for row in rows}
            for stored in shard_features(Storage(self.features), shard):
                if (row := by_uri.get(stored.uri)) is not None:
                    row["doubt"] = self._doubt.of(features_from(stored))
            if missing := next((row["uri"] for row in rows if row["doubt"] is None), None):
                raise ValueError(f"{missing} is labelled, but has no features.")
        return to_bytes(rows)

    @cached_property
    def _labels(self) -> Labels:
        return Labels.open(self.labels)

    @cached_property
    def _doubt(self) -> ImageDoubt:
        import torch

        from proxyclip.dataset.run_record import read_vocabulary
        from proxyclip.models.adaptation.doubt import ImageDoubt

        torch.set_num_threads(1)  # so that sums are rounded the same way on machines with more cores
        return ImageDoubt(read_vocabulary(Storage(self.labels)), self.scale)

    def _record(self, row: dict[str, Any]) -> dict[str, Any]:
        pixels = row["height"] * row["width"]
        return {
            "uri": row["uri"],
            "doubt": 1 - row["mean_confidence"] if self.features is None else None,
            "classes": row["classes"],
            "shares": [each / pixels for each in row["pixels"]],
        }
