"""MaskStream: images and masks one after the other, shared out among ranks and workers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from proxyclip.dataset.rows import LabelledImage
from proxyclip.training.order import Order, Piece, Place, running
from proxyclip.training.samples import OfOutput, SampleError, Samples, Transform, ahead
from proxyclip.vocabulary.thresholds import Thresholds

_LOG = logging.getLogger(__name__)

_COUNTERS = 256


class MaskStream(OfOutput, IterableDataset[Any]):
    """The labelled images of an output as a stream of samples, for corpora of any size.

    Workers read whole files; where the parts of two workers meet, both read that file. In an epoch, each sample comes
    exactly once over all ranks and their DataLoader workers. The parts of ranks differ by at most one sample;
    with `drop_last` they are equal, and up to `world_size - 1` samples are left out, others in each epoch.

    output, images, transform, thresholds, ignore_below: as for MaskDataset.
    shuffle: take the shards in another order in each epoch, and draw samples from the next `buffer` of them; what is
    buffered are masks as PNG files, not images. Same `seed`, epoch, ranks and workers: same order. Call `set_epoch`
    before each epoch.
    rank, world_size: by default those of torch.distributed, or RANK and WORLD_SIZE. Make the stream after
    init_process_group.
    on_error: "raise" SampleError for an image that is gone, cannot be read or has another size than its mask; or
    "skip" it: log a warning, and count it in `skipped`. Then ranks may have different numbers of samples.
    """

    def __init__(
        self,
        output: str,
        images: str | None = None,
        *,
        transform: Transform | None = None,
        thresholds: Thresholds | str | None = None,
        ignore_below: float | None = None,
        shuffle: bool = True,
        buffer: int = 1000,
        seed: int = 0,
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f'on_error: {on_error!r}; give "raise" or "skip".')
        self._samples = Samples.open(output, images, thresholds, ignore_below, transform)
        counts = [(shard, count) for shard, count in self.labels.counts() if count]
        if not counts:
            raise ValueError(f"{output}: there are no labelled images yet; wait until the job commits its first shard.")
        self._shards = np.array([shard for shard, _ in counts], np.int64)
        sizes = np.array([count for _, count in counts], np.int64)
        self._samples.check_images(int(self._shards[0]))
        self._order = Order(sizes, shuffle, buffer, seed, drop_last, Place.find(rank, world_size))
        self._place_given = rank is not None
        self._skip = on_error == "skip"
        # In shared memory, so that workers that live on see the next epoch, and this process what they skip.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._skipped = torch.zeros(_COUNTERS, dtype=torch.int64).share_memory_()

    @property
    def skipped(self) -> int:
        """How many images this rank has skipped since the stream was made, in all epochs and workers."""
        return int(self._skipped.sum())

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next epoch, also in workers that are running."""
        self._epoch[0] = epoch

    def __len__(self) -> int:
        """The samples of this rank in an epoch, if none is skipped."""
        return self._order.size()

    def __iter__(self) -> Iterator[Any]:
        self._check_place()
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        epoch = int(self._epoch[0])
        for sample in self._samples.of(self._rows(epoch, workers, worker)):
            if not isinstance(sample, SampleError):
                yield sample
            elif not self._skip:
                raise sample
            else:
                self._skipped[worker % _COUNTERS] += 1
                _LOG.warning("skipped: %s", sample)

    def _rows(self, epoch: int, workers: int, worker: int) -> Iterator[LabelledImage]:
        # The next shard is read while the images of this one are.
        shards = ahead(self._read, self._order.pieces(epoch, workers, worker), 1)
        rows = (row for some in shards for row in some)
        return self._order.mixed(rows, epoch, worker)

    def _read(self, piece: Piece) -> list[LabelledImage]:
        return self.labels.read(int(self._shards[piece.shard]))[piece.start : piece.stop]

    def _check_place(self) -> None:
        now = running()
        if not self._place_given and now is not None and now != self._order.place:
            raise RuntimeError(
                f"this stream is that of rank {self._order.place.rank} of {self._order.place.world_size}, but the "
                f"process is rank {now.rank} of {now.world_size}; make the stream after init_process_group."
            )
