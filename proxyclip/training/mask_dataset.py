"""MaskDataset: images and masks by index. ShardSampler: an order that reads each shard once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from torch.utils.data import Dataset, Sampler

from proxyclip.dataset.reading.labels import Labels
from proxyclip.dataset.rows import LabelledImage
from proxyclip.training.order import Order, Place
from proxyclip.training.samples import OfOutput, SampleError, Samples, Transform
from proxyclip.vocabulary.thresholds import Thresholds


class MaskDataset(OfOutput, Dataset[Any]):
    """The labelled images of an output as samples, by index in order of shard and uri.

    output: what `proxyclip label` wrote, or `relabel`. It need not be finished; what is committed later is not seen.
    images: where the images lie, by default where they were labelled. transform: takes a whole `Sample`.
    thresholds: per class, or the file of `proxyclip calibrate`; pixels below become ignore. ignore_below: one
    threshold for all classes. cache_mb: masks that each process keeps, as PNG files; at least one shard.

    Reading a sample reads the file of its shard, unless it is kept. Random indices therefore suit an output that fits
    into the cache. For larger ones use ShardSampler, or MaskStream.
    Raises SampleError for an image that is gone, or no longer has the size of its mask.
    """

    def __init__(
        self,
        output: str,
        images: str | None = None,
        *,
        transform: Transform | None = None,
        thresholds: Thresholds | str | None = None,
        ignore_below: float | None = None,
        cache_mb: float = 256,
    ) -> None:
        self._samples = Samples.open(output, images, thresholds, ignore_below, transform)
        shards, tables = [], []
        for table in self.labels.index(["uri"]):
            if table.num_rows:
                shards.append(table["shard"][0].as_py())
                tables.append(table["uri"].cast(pa.large_string()).combine_chunks())
        if not shards:
            raise ValueError(f"{output}: there are no labelled images yet; wait until the job commits its first shard.")
        self._shards = shards
        self._first = np.cumsum([0, *map(len, tables)])
        self._samples.check_images(shards[0])
        self._cache = ShardCache(self.labels, cache_mb * 1e6)
        self.uris: pa.LargeStringArray = pa.concat_arrays(tables)

    @property
    def shard_sizes(self) -> npt.NDArray[np.int64]:
        """The number of samples in each shard."""
        return np.diff(self._first)

    def shard_start(self, shard: int) -> int:
        """The index of the first sample of a shard; shards count from 0, as in `shard_sizes`."""
        return int(self._first[shard])

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """The samples of a batch. DataLoader calls this instead of `__getitem__`."""
        size = len(self)
        places = [index + size if index < 0 else index for index in indices]
        if wrong := [index for index, place in zip(indices, places, strict=True) if not 0 <= place < size]:
            raise IndexError(f"index {wrong[0]}: the data set has {size} samples.")
        rows = {place: self._row(place) for place in sorted(set(places))}  # a shard at a time
        samples = []
        for sample in self._samples.of(rows[place] for place in places):
            if isinstance(sample, SampleError):
                raise sample
            samples.append(sample)
        return samples

    def _row(self, index: int) -> LabelledImage:
        at = int(np.searchsorted(self._first, index, side="right")) - 1
        return self._cache.rows(self._shards[at])[index - int(self._first[at])]


class ShardCache:
    """The labelled images of the shards that were used last, as PNG files, up to a number of bytes.

    At least one shard is kept. A pickled cache is empty.
    """

    def __init__(self, labels: Labels, max_bytes: float) -> None:
        self._labels = labels
        self._max_bytes = max_bytes
        self._clear()

    def _clear(self) -> None:
        self._lock = Lock()
        self._kept: OrderedDict[int, list[LabelledImage]] = OrderedDict()
        self._bytes = 0

    def rows(self, shard: int) -> list[LabelledImage]:
        """The labelled images of a shard."""
        with self._lock:
            if shard not in self._kept:
                rows = self._labels.read(shard)
                self._kept[shard] = rows
                self._bytes += _num_bytes(rows)
                while self._bytes > self._max_bytes and len(self._kept) > 1:
                    self._bytes -= _num_bytes(self._kept.popitem(last=False)[1])
            self._kept.move_to_end(shard)
            return self._kept[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {"_labels": self._labels, "_max_bytes": self._max_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._clear()


def _num_bytes(rows: Sequence[LabelledImage]) -> int:
    return sum(len(row.mask) + len(row.confidence) + 1000 for row in rows)


class ShardSampler(Sampler[int]):
    """Indices of a MaskDataset that stay within few shards at a time, so that files are read once or a few times.

    Give it to DataLoader as `sampler`. It deals samples out to the ranks of a training like DistributedSampler:
    no two ranks get the same one; see MaskStream for `drop_last`, `rank` and `world_size`. Call `set_epoch` before
    each epoch. buffer: samples among which the order is random.
    """

    def __init__(
        self,
        dataset: MaskDataset,
        *,
        shuffle: bool = True,
        buffer: int = 1000,
        seed: int = 0,
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        self._dataset = dataset
        self._order = Order(dataset.shard_sizes, shuffle, buffer, seed, drop_last, Place.find(rank, world_size))
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._order.size()

    def __iter__(self) -> Iterator[int]:
        indices = (
            self._dataset.shard_start(piece.shard) + row
            for piece in self._order.pieces(self._epoch)
            for row in range(piece.start, piece.stop)
        )
        return self._order.mixed(indices, self._epoch)
