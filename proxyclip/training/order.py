"""In which order samples are read, and which process reads which of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch.distributed

T = TypeVar("T")


class Piece(NamedTuple):
    """Consecutive samples of a shard. shard: its position in the list of shards. start, stop: its rows."""

    shard: int
    start: int
    stop: int


class Place(NamedTuple):
    """Which of the processes that train together this is."""

    rank: int
    world_size: int

    @classmethod
    def find(cls, rank: int | None, world_size: int | None) -> Place:
        """What is given; else what torch.distributed says if it is initialised; else RANK and WORLD_SIZE; else alone.

        Raises ValueError if only one of both is given, or if they contradict each other.
        """
        if (rank is None) != (world_size is None):
            raise ValueError("give both rank and world_size, or neither of them.")
        if rank is None or world_size is None:
            found = running()
            rank, world_size = found or (int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} of world_size {world_size}: a rank lies from 0 to world_size - 1.")
        return cls(rank, world_size)


def running() -> Place | None:
    """What torch.distributed says in this process; None if it is not initialised."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return None
    return Place(torch.distributed.get_rank(), torch.distributed.get_world_size())


@dataclass(frozen=True)
class Order:
    """The order of all samples, cut into one stretch for each process.

    counts: the samples of each shard. shuffle: order the shards anew in every epoch, and draw each sample from the next
    `buffer` ones. The order of the shards depends on nothing else, so processes agree on it without talking to each
    other. drop_last: leave out the last `total % world_size` samples of the order, so that all ranks have the same
    number. Otherwise some ranks have one more.
    """

    counts: npt.NDArray[np.int64]
    shuffle: bool
    buffer: int
    seed: int
    drop_last: bool
    place: Place

    def __post_init__(self) -> None:
        if self.buffer < 1:
            raise ValueError(f"buffer: {self.buffer} samples; give at least 1.")

    def size(self) -> int:
        """The samples of this rank."""
        start, stop = self._stretch(1, 0)
        return stop - start

    def pieces(self, epoch: int, workers: int = 1, worker: int = 0) -> Iterator[Piece]:
        """The samples of one worker of this rank."""
        shards = np.arange(len(self.counts))
        if self.shuffle:
            np.random.default_rng([self.seed, epoch]).shuffle(shards)
        ends = np.cumsum(self.counts[shards])
        start, stop = self._stretch(workers, worker)
        for at in range(int(np.searchsorted(ends, start, side="right")), len(shards)):
            count = int(self.counts[shards[at]])
            before = int(ends[at]) - count
            if before >= stop:
                break
            if count:
                yield Piece(int(shards[at]), max(start - before, 0), min(stop - before, count))

    def mixed(self, samples: Iterable[T], epoch: int, worker: int = 0) -> Iterator[T]:
        """The samples of one worker in the order in which it gives them."""
        if not self.shuffle:
            return iter(samples)
        return mixed(samples, self.buffer, np.random.default_rng([self.seed, epoch, self.place.rank, worker]))

    def _stretch(self, workers: int, worker: int) -> tuple[int, int]:
        total = int(self.counts.sum())
        if self.drop_last:
            total -= total % self.place.world_size
        start, stop = _share(0, total, self.place.world_size, self.place.rank)
        return _share(start, stop, workers, worker)


def _share(start: int, stop: int, parts: int, part: int) -> tuple[int, int]:
    """One of several parts of a range, whose sizes differ by at most one."""
    size = stop - start
    return start + size * part // parts, start + size * (part + 1) // parts


def mixed(items: Iterable[T], buffer: int, rng: np.random.Generator) -> Iterator[T]:
    """The items in random order: each is drawn from the next `buffer` that are left."""
    held: list[T] = []
    for item in items:
        if len(held) < buffer:
            held.append(item)
            continue
        at = int(rng.integers(len(held)))
        yield held[at]
        held[at] = item
    rng.shuffle(held)
    yield from held
