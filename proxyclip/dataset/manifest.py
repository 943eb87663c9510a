"""The manifest: what a run has planned, what is done, what is left, and the sums over it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from proxyclip.dataset.commits import Commit, Done, committed, read_commits
from proxyclip.dataset.layout import CLASS_STATS, plan_key
from proxyclip.dataset.plan import MAX_SHARD_BYTES, Plan, PlanSummary, ShardRange
from proxyclip.dataset.rows import parquet_bytes
from proxyclip.dataset.segments import SegmentSums, compact, read_sums, sum_classes
from proxyclip.dataset.shards import read_columns, read_table
from proxyclip.dataset.statistics import ClassStat, ClassSums, class_stats_table, shard_stats
from proxyclip.images.inputs.sorting import Listing
from proxyclip.images.ref import ImageRef
from proxyclip.storage.store import Storage, public_uri

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Totals:
    """How far a run is. planned: images of the input. shards: planned ones. Dead rows do not count as images."""

    planned: int
    labelled: int
    failed: int
    shards: int
    committed: int


class Manifest:
    """Plan, commits and statistics of an output.

    commits: where the commits are, if not in the output itself: those of its features are not.
    """

    def __init__(self, storage: Storage, commits: Storage | None = None) -> None:
        self.storage = storage
        self.plan = Plan(storage)
        self.commits = commits or storage

    def extend_plan(
        self, listing: Listing | Sequence[ImageRef], shard_size: int = 256, max_shard_bytes: int = MAX_SHARD_BYTES
    ) -> PlanSummary:
        """Plan the images of a listing that are new, changed or removed, in new shards: see `Plan.extend`."""
        return self.plan.extend(listing, shard_size, max_shard_bytes)

    def follow(self, source: Manifest) -> None:
        """Take over the plan of another output, as far as it goes today.

        Raises ValueError if there is a plan already that is not the beginning of that one.
        """
        own = self.plan.parts()
        for part in source.plan.parts():
            key = plan_key(part.part)
            if part.part >= len(own):
                data = source.storage.read(key)
                if not self.storage.create(key, data) and self.storage.read(key) != data:
                    own = self.plan.parts()  # somebody was quicker, and with something else
            if part.part < len(own) and own[part.part] != part:
                raise ValueError(
                    f"{key} of {public_uri(self.storage.uri)} is not that of {public_uri(source.storage.uri)}: it was "
                    "made from another corpus. Give another --output."
                )

    def read_range(self, shards: ShardRange) -> Iterator[tuple[int, list[ImageRef]]]:
        """The shards of a range, each with its images."""
        yield from self.plan.images(shards.part, shards.shards).items()

    def committed(self) -> Done:
        """The shards that are done."""
        return committed(self.commits)

    def pending(self, besides: Collection[int] = ()) -> list[ShardRange]:
        """The planned shards that are not done and not in `besides`, one range per part of the plan.

        It lists the commits and reads the footers of the plan's parts; it reads neither commits nor rows of the plan.
        """
        done = self.committed()
        ranges = []
        for part in self.plan.parts():
            left = tuple(shard for shard in part.shards if shard not in done and shard not in besides)
            if left:
                ranges.append(ShardRange(part.part, left))
        return ranges

    def compact(self) -> None:
        """Make segments of the commits of full blocks."""
        compact(self.commits)

    def totals(self) -> Totals:
        """How far the run is. Reads the footers of segments and the loose commits."""
        parts, done = self.plan.parts(), self.committed()
        sums: list[SegmentSums | Commit] = [*self._segments(done), *read_commits(self.commits, done, done.loose)]
        labelled, failed = sum(each.labelled for each in sums), sum(each.failed for each in sums)
        for commit, uris in self._dead_commits(done):
            gone = 0
            if commit.failed:
                without_mask = read_columns(self.commits, commit, "failures", ["uri"])["uri"].to_pylist()
                gone = len(uris.intersection(without_mask))
            failed, labelled = failed - gone, labelled - (len(uris) - gone)
        return Totals(
            planned=sum(part.num_images - part.num_superseded for part in parts),
            labelled=labelled,
            failed=failed,
            shards=sum(part.num_shards for part in parts),
            committed=len(done),
        )

    def class_sums(self) -> ClassSums:
        """The statistics of all committed shards, summed without dead rows."""
        done = self.committed()
        sums = sum_classes(self.storage, list(read_commits(self.storage, done, done.loose)))
        for segment in self._segments(done):
            sums.add(segment.classes)
        with ThreadPoolExecutor(16) as pool:
            for every, live in _in_order(pool, self._stats_of_dead, self._dead_commits(done)):
                sums.add_stats(every, -1)
                sums.add_stats(live)
        return sums

    def write_class_stats(self) -> list[ClassStat]:
        """Write the statistics of the run to class_stats.parquet, one row for each class that occurs.

        Counts are exact, and confidence is weighted by pixels. The same commits give the same bytes.
        """
        stats = self.class_sums().stats()
        self.storage.write(CLASS_STATS, parquet_bytes(class_stats_table(stats, self._basis())))
        return stats

    def has_class_stats(self) -> bool:
        """Whether class_stats.parquet exists and covers the whole plan of today."""
        try:
            with self.storage.open(CLASS_STATS) as file:
                found = pq.read_metadata(file).metadata
        except FileNotFoundError:
            return False
        return all(found.get(name.encode()) == value.encode() for name, value in self._basis().items())

    def _basis(self) -> dict[str, str]:
        """Counts of the plan that change whenever it is extended."""
        parts = self.plan.parts()
        counted = {name: sum(getattr(part, name) for part in parts) for name in ("num_shards", "num_superseded")}
        return {name: str(count) for name, count in counted.items()}

    def _segments(self, done: Done) -> list[SegmentSums]:
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(partial(read_sums, self.commits), sorted(done.segments)))

    def _dead_commits(self, done: Done) -> Iterator[tuple[Commit, set[str]]]:
        """The commits of shards with dead rows, each with the uris of those rows."""
        dead = self.plan.dead()
        for commit in read_commits(self.commits, done, dead):
            yield commit, dead[commit.shard]

    def _stats_of_dead(self, found: tuple[Commit, set[str]]) -> tuple[pa.Table, pa.Table]:
        """The statistics of a shard with dead rows: of all its rows, and without the dead ones."""
        commit, uris = found
        stats = read_table(self.storage, commit, "stats")
        masks = read_columns(self.storage, commit, "masks", ["uri", "classes", "pixels", "class_confidence"])
        live = masks.filter(pc.invert(pc.is_in(masks["uri"], value_set=pa.array(uris, pa.string()))))
        names = dict(zip(stats["class"].to_pylist(), stats["name"].to_pylist(), strict=True))
        return stats, shard_stats(commit.shard, live, names)


def _in_order(pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`pool.map` in batches, so that few items and results are held at once."""
    items = iter(items)
    while some := list(islice(items, 1000)):
        yield from pool.map(work, some)
