"""The batches of a training: step n has the same images and the same chance whenever it is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import DataLoader, Dataset

from proxyclip.training.mask_dataset import MaskDataset
from proxyclip.training.order import Order, Place
from proxyclip.training.student.augment import Batch, augmented
from proxyclip.training.student.settings import TrainSettings

# Samples among which the order is random, beyond the random order of the shards.
_BUFFER = 1000


class RankOrder:
    """The endless sequence of (epoch, index) of one rank."""

    def __init__(self, dataset: MaskDataset, learn: Sequence[int], seed: int, place: Place) -> None:
        starts = np.array([dataset.shard_start(shard) for shard in range(len(dataset.shard_sizes))])
        shard_of = np.searchsorted(starts, np.asarray(learn), side="right") - 1
        self._rows = [np.asarray(learn)[shard_of == shard] for shard in range(len(starts))]
        counts = np.array([len(rows) for rows in self._rows], np.int64)
        self._order = Order(counts, True, _BUFFER, seed, True, place)
        if not self._order.size():
            raise ValueError(
                f"{len(learn)} images for {place.world_size} workers: each needs at least one; use fewer --workers."
            )

    def after(self, count: int) -> Iterator[tuple[int, int]]:
        """What comes after `count` samples."""
        size = self._order.size()
        epoch, skip = divmod(count, size)
        while True:
            rows = (
                int(self._rows[piece.shard][row])
                for piece in self._order.pieces(epoch)
                for row in range(piece.start, piece.stop)
            )
            for position, index in enumerate(self._order.mixed(rows, epoch)):
                if position >= skip:
                    yield epoch, index
            epoch, skip = epoch + 1, 0


class _Augmented(Dataset[Batch]):
    def __init__(self, dataset: MaskDataset, settings: TrainSettings) -> None:
        self._dataset, self._settings = dataset, settings

    def __getitems__(self, places: list[tuple[int, int]]) -> list[Batch]:
        samples = self._dataset.__getitems__([index for _, index in places])
        return [
            augmented(
                sample, self._settings, self._dataset.ignore, np.random.default_rng([self._settings.seed, *place])
            )
            for place, sample in zip(places, samples, strict=True)
        ]

    def __getitem__(self, place: tuple[int, int]) -> Batch:
        return self.__getitems__([place])[0]


def batches(
    dataset: MaskDataset, learn: Sequence[int], settings: TrainSettings, place: Place, done: int, loaders: int
) -> Iterator[Batch]:
    """The batches of a rank after `done` of them, without end. loaders: processes that make them; 0: this one."""
    order = RankOrder(dataset, learn, settings.seed, place).after(done * settings.batch_size)

    def groups() -> Iterator[list[tuple[int, int]]]:
        while True:
            yield [next(order) for _ in range(settings.batch_size)]

    loader: DataLoader[Batch] = DataLoader(
        _Augmented(dataset, settings),
        batch_sampler=_Endless(groups()),
        num_workers=loaders,
    )
    return iter(loader)


class _Endless:
    """A batch sampler from an iterator."""

    def __init__(self, groups: Iterator[list[tuple[int, int]]]) -> None:
        self._groups = groups

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self._groups
