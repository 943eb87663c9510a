"""Commits: what is done. A shard without one did not happen.

Each shard is committed by a small file of its own. Once all shards of a block of consecutive numbers are, their
commits are put together in one segment, and the loose ones deleted. For a shard in both, the segment counts.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from proxyclip.dataset.validate import commit_fields
from proxyclip.storage.store import Storage

SHARDS_PER_SEGMENT = 10_000


@dataclass(frozen=True)
class DataFile:
    key: str
    rows: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Commit:
    """What a shard has left: a file for each kind ("masks", "stats", "failures") that has rows."""

    shard: int
    files: dict[str, DataFile]
    images: int
    labelled: int
    failed: int

    def to_json(self) -> bytes:
        return (json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Commit:
        """Raises ValueError for what no commit of ours can say."""
        fields = commit_fields(data)
        fields["files"] = {kind: DataFile(**file) for kind, file in fields["files"].items()}
        return cls(**fields)


@dataclass(frozen=True)
class Done:
    """Which shards are committed: all of a block that is a segment, and those whose commits are loose.

    late: loose commits of shards that are in a segment; they do not count.
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
        """The shards whose commits are loose, by block."""
        blocks: dict[int, set[int]] = defaultdict(set)
        for shard in self.loose:
            blocks[block_of(shard)].add(shard)
        return blocks


def block_of(shard: int) -> int:
    """The number of the segment that a shard comes to lie in."""
    return shard // SHARDS_PER_SEGMENT


def block_shards(block: int) -> range:
    """The shards of a segment."""
    return range(block * SHARDS_PER_SEGMENT, (block + 1) * SHARDS_PER_SEGMENT)


def committed(storage: Storage) -> Done:
    """Which shards are committed: a listing, however many images there are."""
    # Loose commits are listed before segments: one that a compaction has just deleted is in a segment by then.
    loose = frozenset(_numbers(storage, r"commits/(\d{6,})\.json"))
    segments = frozenset(_numbers(storage, r"commits/segment-(\d{5,})\.parquet"))
    late = frozenset(shard for shard in loose if block_of(shard) in segments)
    return Done(segments, loose - late, late)


def create_commit(storage: Storage, commit: Commit) -> Commit:
    """Commit a shard whose files are complete. Returns the commit that counts: the first one."""
    created = storage.create(commit_key(commit.shard), commit.to_json())
    # A segment is there before its loose commits are deleted, so a writer that comes after that finds it.
    first = _in_segment(storage, commit.shard)
    if first is None:
        return commit if created else read_commit(storage, commit.shard)
    if created:
        storage.delete(commit_key(commit.shard))
    return first


def read_commit(storage: Storage, shard: int) -> Commit:
    """The commit of a shard. Raises FileNotFoundError where it has none."""
    return _in_segment(storage, shard) or _read_loose(storage, shard)


def read_commits(storage: Storage, done: Done, shards: Iterable[int] | None = None) -> Iterator[Commit]:
    """The commits of all shards that are done, or of some of them, in order. Holds those of one block."""
    ordered = iter(done) if shards is None else (shard for shard in sorted(shards) if shard in done)
    with ThreadPoolExecutor(16) as pool:
        for block, some in groupby(ordered, key=block_of):
            if block in done.segments:
                found = read_segment(storage, block)
                yield from (found[shard] for shard in some)
            else:
                yield from pool.map(partial(_read_loose, storage), some)


def read_segment(storage: Storage, block: int) -> dict[int, Commit]:
    """The commits of a segment by shard. Raises FileNotFoundError where there is none."""
    return parse_segment(storage.read(segment_key(block)))


def parse_segment(data: bytes) -> dict[int, Commit]:
    """The commits in the file of a segment, by shard."""
    return {row["shard"]: _from_row(row) for row in pq.read_table(pa.BufferReader(data)).to_pylist()}


def commit_key(shard: int) -> str:
    """The name of a shard's loose commit."""
    return f"commits/{shard:06d}.json"


def segment_key(block: int) -> str:
    """The name of the segment of a block."""
    return f"commits/segment-{block:05d}.parquet"


def _numbers(storage: Storage, pattern: str) -> list[int]:
    names = (re.fullmatch(pattern, entry.key) for entry in storage.list("commits"))
    return [int(name[1]) for name in names if name]


def _read_loose(storage: Storage, shard: int) -> Commit:
    try:
        commit = Commit.from_json(storage.read(commit_key(shard)))
    except FileNotFoundError:
        found = _in_segment(storage, shard)  # compacted since it was listed
        if found is None:
            raise
        return found
    if commit.shard != shard:
        raise ValueError(
            f"{commit_key(shard)}: the commit of shard {commit.shard} found; the file was renamed: delete it."
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
    files = {kind: DataFile(**row.pop(kind)) for kind in ("masks", "stats", "failures") if row[kind] is not None}
    return Commit(row["shard"], files, row["images"], row["labelled"], row["failed"])
