"""Commits: what is done. A shard without one did not happen."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice

from proxyclip.dataset.store import Storage


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
        fields = json.loads(data)
        fields["files"] = {kind: DataFile(**file) for kind, file in fields["files"].items()}
        return cls(**fields)


def create_commit(storage: Storage, commit: Commit) -> Commit:
    """Commit a shard whose files are complete. Returns the commit that counts: the first one."""
    if storage.create(commit_key(commit.shard), commit.to_json()):
        return commit
    return read_commit(storage, commit.shard)


def read_commit(storage: Storage, shard: int) -> Commit:
    """The commit of a shard. Raises FileNotFoundError where it has none."""
    return Commit.from_json(storage.read(commit_key(shard)))


def read_commits(storage: Storage, shards: Iterable[int]) -> Iterator[Commit]:
    """The commits of some shards, in their order, many read at once."""
    shards = iter(shards)
    with ThreadPoolExecutor(16) as pool:
        while some := list(islice(shards, 1000)):  # bounds what waits in memory
            yield from pool.map(partial(read_commit, storage), some)


def committed_shards(storage: Storage) -> list[int]:
    """The numbers of all committed shards, in order: one listing, however many images there are."""
    names = (re.fullmatch(r"commits/(\d{6,})\.json", entry.key) for entry in storage.list("commits"))
    return sorted(int(name[1]) for name in names if name)


def commit_key(shard: int) -> str:
    """The name of a shard's commit."""
    return f"commits/{shard:06d}.json"
