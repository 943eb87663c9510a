"""Segments: one file holds the commits of a whole block of shards, with their sums in its footer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from proxyclip.dataset.commits import (
    Commit,
    Done,
    block_of,
    block_shards,
    committed,
    read_commits,
)
from proxyclip.dataset.layout import commit_key, segment_key
from proxyclip.dataset.rows import ALL_KINDS, SEGMENT, parquet_bytes
from proxyclip.dataset.shards import read_table
from proxyclip.dataset.statistics import ClassSum, ClassSums
from proxyclip.storage.store import Storage


@dataclass(frozen=True)
class SegmentSums:
    """The sums over the shards of a segment: images, labelled and failed, and the statistics per class."""

    images: int
    labelled: int
    failed: int
    classes: ClassSums


class Compaction:
    """Makes segments of full blocks in the background, while shards are being committed."""

    def __init__(self, storage: Storage, done: Done) -> None:
        self._storage = storage
        self._blocks = done.blocks()
        self._pool = ThreadPoolExecutor(1, "compaction")
        for block in list(self._blocks):
            self._compact_if_full(block)

    def add(self, shard: int) -> None:
        """Note that a shard was committed."""
        self._blocks[block_of(shard)].add(shard)
        self._compact_if_full(block_of(shard))

    def close(self) -> None:
        """Wait until running compactions end. Errors are not raised: `compact` tries again and raises them."""
        self._pool.shutdown()

    def _compact_if_full(self, block: int) -> None:
        if len(self._blocks[block]) == len(block_shards(block)):
            del self._blocks[block]
            self._pool.submit(_compact_block, self._storage, block)


def compact(storage: Storage) -> None:
    """Make segments of all full blocks. Deletes the loose commits that segments replace."""
    done = committed(storage)
    for block, shards in done.blocks().items():
        if len(shards) == len(block_shards(block)):
            _compact_block(storage, block)
    _delete(storage, sorted(done.late))


def dissolve(storage: Storage, block: int, keep: Sequence[Commit]) -> None:
    """Delete a segment. Commits in `keep` become loose again; the other shards are then not committed.

    Do not call it while a job runs on this output. If it is killed halfway, the segment still counts.
    """
    kept = {commit.shard for commit in keep}
    _delete(storage, [shard for shard in block_shards(block) if shard not in kept])
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda commit: storage.write(commit_key(commit.shard), commit.to_json()), keep))
    storage.delete(segment_key(block))


def read_sums(storage: Storage, block: int) -> SegmentSums:
    """The sums in the footer of a segment."""
    with storage.open(segment_key(block)) as file:
        head = pq.read_metadata(file).metadata
    images, labelled, failed = (int(head[name]) for name in (b"images", b"labelled", b"failed"))
    classes = {int(index): ClassSum(*values) for index, values in json.loads(head[b"classes"]).items()}
    return SegmentSums(images, labelled, failed, ClassSums(classes))


def segment_bytes(commits: Sequence[Commit], classes: ClassSums) -> bytes:
    """The bytes of a segment's file."""
    sums = {name: sum(getattr(commit, name) for commit in commits) for name in ("images", "labelled", "failed")}
    values = {index: astuple(each) for index, each in sorted(classes.items())}
    head = {**{name: str(count) for name, count in sums.items()}, "classes": json.dumps(values, ensure_ascii=False)}
    rows = [
        {
            **{name: getattr(commit, name) for name in ("shard", *sums)},
            **{kind: vars(commit.files[kind]) if kind in commit.files else None for kind in ALL_KINDS},
        }
        for commit in commits
    ]
    return parquet_bytes(pa.Table.from_pylist(rows, SEGMENT.with_metadata({**SEGMENT.metadata, **head})))


def sum_classes(storage: Storage, commits: Sequence[Commit]) -> ClassSums:
    """The statistics per class, summed over some shards, from their files."""
    sums = ClassSums()
    with ThreadPoolExecutor(16) as pool:
        for stats in pool.map(partial(read_table, storage, kind="stats"), commits):
            sums.add_stats(stats)
    return sums


def _compact_block(storage: Storage, block: int) -> None:
    """Write the segment of a full block unless it exists, and delete the block's loose commits."""
    shards = block_shards(block)
    if not storage.exists(segment_key(block)):
        loose = Done(frozenset(), frozenset(shards), frozenset())
        commits = list(read_commits(storage, loose))
        storage.create(segment_key(block), segment_bytes(commits, sum_classes(storage, commits)))
    _delete(storage, shards)


def _delete(storage: Storage, shards: Sequence[int]) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda shard: storage.delete(commit_key(shard)), shards))
