"""Commits: which shards are done.

A shard's commit is first a small file of its own, a loose commit. When all shards of a block of consecutive numbers
are committed, one segment takes over their commits, and the loose ones are deleted. If a shard has both, the segment
counts.
"""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from proxyclip.dataset.layout import COMMITS_FOLDER, commit_key, parse_commit_key, parse_segment_key, segment_key
from proxyclip.dataset.rows import ALL_KINDS
from proxyclip.dataset.validate import commit_fields
from proxyclip.storage.store import Storage

SHARDS_PER_SEGMENT = 10_000


@dataclass(frozen=True)
class DataFile:
    """A Parquet file of a shard."""

    key: str
    rows: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Commit:
    """What was written for a shard.

    files: one for each kind that has rows: of labels "masks", "stats" and "failures", of features "features" and
    "failures". labelled: images with a mask, or with features.
    """

    shard: int
    files: dict[str, DataFile]
    images: int
    labelled: int
    failed: int

    def to_json(self) -> bytes:
        return (json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, key: str) -> Commit:
        """The commit in the file `key`. Raises ValueError if it is damaged or was not written by proxyclip."""
        fields = commit_fields(data, key)
        fields["files"] = {kind: DataFile(**file) for kind, file in fields["files"].items()}
        return cls(**fields)


@dataclass(frozen=True)
class Done:
    """Which shards are committed.

    segments: blocks that have a segment, and so are committed as a whole. loose: shards with a loose commit.
    late: shards that have a loose commit beside that in their segment, which counts: their writer was slow.
    """

    segments: frozenset[int]
    loose: frozenset[int]
    late: frozenset[int]

    def __contains__(self, shard: int) -> bool:
        return shard in self.loose or block_of(shard) in self.segments

    def __len__(self) -> int:
        return len(self.segments) * SHARDS_PER_SEGMENT + len(self.loose)

    def __iter__(self) -> Iterator[int]:
        """The shards in order."""
        blocks = self.blocks()
        for block in sorted(self.segments | blocks.keys()):
            yield from block_shards(block) if block in self.segments else sorted(blocks[block])

    def blocks(self) -> dict[int, set[int]]:
        """The shards with a loose commit, by block."""
        blocks: dict[int, set[int]] = defaultdict(set)
        for shard in self.loose:
            blocks[block_of(shard)].add(shard)
        return blocks


def block_of(shard: int) -> int:
    """The block that a shard belongs to."""
    return shard // SHARDS_PER_SEGMENT


def block_shards(block: int) -> range:
    """The shards of a block."""
    return range(block * SHARDS_PER_SEGMENT, (block + 1) * SHARDS_PER_SEGMENT)


def committed(storage: Storage) -> Done:
    """Which shards are committed. Lists the commits and reads none."""
    # List loose commits first: if a compaction deletes one meanwhile, its segment is there for the second listing.
    loose = _listed(storage, parse_commit_key)
    segments = _listed(storage, parse_segment_key)
    late = frozenset(shard for shard in loose if block_of(shard) in segments)
    return Done(segments, loose - late, late)


def create_commit(storage: Storage, commit: Commit) -> Commit:
    """Commit a shard whose files are complete. Returns the commit that counts, which is the first one."""
    try:
        created = storage.create(commit_key(commit.shard), commit.to_json())
    except FileNotFoundError:  # over S3: the commit existed, and a compaction deleted it before it could be compared
        created = False
    # Look into the segment after creating the commit: a compaction writes it before it deletes loose commits.
    first = _in_segment(storage, commit.shard)
    if first is None:
        return commit if created else read_commit(storage, commit.shard)
    if created:
        storage.delete(commit_key(commit.shard))
    return first


def read_commit(storage: Storage, shard: int) -> Commit:
    """The commit of a shard. Raises FileNotFoundError if it has none."""
    return _in_segment(storage, shard) or _read_loose(storage, shard)


def read_commits(storage: Storage, done: Done, shards: Iterable[int] | None = None) -> Iterator[Commit]:
    """The commits of all shards that are done, or of some of them, in order. Memory: the commits of one block."""
    ordered = iter(done) if shards is None else (shard for shard in sorted(shards) if shard in done)
    with ThreadPoolExecutor(16) as pool:
        for block, some in groupby(ordered, key=block_of):
            if block in done.segments:
                found = read_segment(storage, block)
                yield from (found[shard] for shard in some)
            else:
                yield from pool.map(partial(_read_loose, storage), some)


def read_segment(storage: Storage, block: int) -> dict[int, Commit]:
    """The commits of a segment by shard. Raises FileNotFoundError if there is no such segment."""
    return parse_segment(storage.read(segment_key(block)))


def parse_segment(data: bytes) -> dict[int, Commit]:
    """The commits in the file of a segment, by shard."""
    return {row["shard"]: _from_row(row) for row in pq.read_table(pa.BufferReader(data)).to_pylist()}


def _listed(storage: Storage, parse: Callable[[str], int | None]) -> frozenset[int]:
    numbers = (parse(entry.key) for entry in storage.list(COMMITS_FOLDER))
    return frozenset(number for number in numbers if number is not None)


def _read_loose(storage: Storage, shard: int) -> Commit:
    try:
        commit = Commit.from_json(storage.read(commit_key(shard)), commit_key(shard))
    except FileNotFoundError:
        found = _in_segment(storage, shard)  # a compaction may have moved it since the listing
        if found is None:
            raise
        return found
    if commit.shard != shard:
        raise ValueError(
            f"{commit_key(shard)}: the file holds the commit of shard {commit.shard}; it was renamed: delete it."
        )
    return commit


def _in_segment(storage: Storage, shard: int) -> Commit | None:
    try:
        with storage.open(segment_key(block_of(shard))) as file:
            rows = pq.read_table(file, filters=[("shard", "=", shard)]).to_pylist()
    except FileNotFoundError:
        return None
    return _from_row(rows[0]) if rows else None


def _from_row(row: dict[str, Any]) -> Commit:
    files = {kind: DataFile(**row.pop(kind)) for kind in ALL_KINDS if row.get(kind) is not None}
    return Commit(row["shard"], files, row["images"], row["labelled"], row["failed"])
