"""Two outputs of the same images: what changed from the first to the second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from proxyclip.dataset.reading.labels import Labels
from proxyclip.dataset.rows import LabelledImage


class Other:
    """The second output, asked for some images by their uri."""

    def __init__(self, labels: Labels, uris: Collection[str]) -> None:
        wanted = pa.array(sorted(uris), pa.string())
        self._shards: dict[str, int] = {}
        for table in labels.index(["uri"]):
            found = table.filter(pc.is_in(table["uri"], value_set=wanted))
            self._shards.update(zip(found["uri"].to_pylist(), found["shard"].to_pylist(), strict=True))

        @lru_cache(maxsize=4)  # both outputs mostly have their images in the same order
        def read(shard: int) -> dict[str, LabelledImage]:
            return {image.uri: image for image in labels.read(shard) if image.uri in self._shards}

        self._read = read

    def __len__(self) -> int:
        return len(self._shards)

    def get(self, uri: str) -> LabelledImage | None:
        """The image of the second output; None if it has none."""
        shard = self._shards.get(uri)
        return None if shard is None else self._read(shard).get(uri)


def transitions(before: npt.NDArray, after: npt.NDArray) -> Counter[tuple[int, int]]:
    """How many pixels have each pair of numbers in two masks (H, W) of one size."""
    pairs = before.astype(np.uint32) << 16 | after
    # A mask is mostly runs of equal pixels, so there are far fewer runs than pixels to sort.
    flat = pairs.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=flat[0] ^ 1))
    lengths = np.diff(starts, append=len(flat))
    found, inverse = np.unique(flat[starts], return_inverse=True)
    counts = np.bincount(inverse.ravel(), lengths)
    return Counter(
        {(int(pair) >> 16, int(pair) & 0xFFFF): int(count) for pair, count in zip(found, counts, strict=True)}
    )
