"""The plan: which images make up which shard. It only grows; what changed is planned again behind it."""

from __future__ import annotations

import heapq
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from proxyclip.dataset.rows import PLAN, parquet_bytes
from proxyclip.dataset.validate import check_plan, plan_head
from proxyclip.images.listing import ImageRef
from proxyclip.storage.store import Storage

SHARDS_PER_PART = 1000
REMOVED_PER_PART = 100_000
MAX_SHARD_BYTES = 128 * 2**20


@dataclass(frozen=True)
class PlanPart:
    """One file of the plan; it holds the shards `first_shard` to `first_shard + num_shards - 1`, sorted by uri.

    num_images: rows that have a shard. num_superseded: rows that make a row of an earlier shard dead.
    """

    part: int
    first_shard: int
    num_shards: int
    num_images: int
    num_superseded: int
    first_uri: str
    last_uri: str

    @property
    def shards(self) -> range:
        """The numbers of its shards."""
        return range(self.first_shard, self.first_shard + self.num_shards)


@dataclass(frozen=True)
class PlanSummary:
    """What planning found. images: in the plan and not removed; new, changed and removed: since planned before."""

    images: int
    shards: int
    new_shards: int
    new: int
    changed: int
    removed: int


@dataclass(frozen=True)
class ShardRange:
    """Shards of one part of the plan: all that a read task has to know."""

    part: int
    shards: tuple[int, ...]

    @property
    def num_shards(self) -> int:
        return len(self.shards)

    def split(self, size: int) -> list[ShardRange]:
        """The same shards in ranges of at most `size`."""
        return [ShardRange(self.part, self.shards[i : i + size]) for i in range(0, len(self.shards), size)]


def waves(ranges: Iterable[ShardRange], size: int) -> Iterator[list[ShardRange]]:
    """Ranges of at most `size` shards together, in order."""
    wave: list[ShardRange] = []
    room = size
    for shards in ranges:
        while shards.num_shards > room:
            yield [*wave, ShardRange(shards.part, shards.shards[:room])] if room else wave
            shards = ShardRange(shards.part, shards.shards[room:])
            wave, room = [], size
        wave.append(shards)
        room -= shards.num_shards
    if wave:
        yield wave


class PlanRow(NamedTuple):
    """A row of the plan. shard: None where the image was removed; replaces: the shard whose row is dead by this."""

    uri: str
    shard: int | None
    size_bytes: int
    etag: str
    replaces: int | None


# uri, image (None: removed), replaces
Change = tuple[str, ImageRef | None, int | None]


class Plan:
    """The files below plan/ of an output."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._heads: dict[int, PlanPart] = {}  # parts never change

    def parts(self) -> list[PlanPart]:
        """The parts in order. Reads the foot of each file, not its rows."""
        names = (re.fullmatch(r"plan/(\d{5,})\.parquet", entry.key) for entry in self.storage.list("plan"))
        # Parts are made in order: below the last one all are there, whatever a listing made meanwhile has missed.
        parts = range(max((int(name[1]) for name in names if name), default=-1) + 1)
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(self._head, parts))

    def images(self, part: int, shards: Sequence[int]) -> dict[int, list[ImageRef]]:
        """The images of some shards of a part, by shard, in order of uri. Raises KeyError for one not in it."""
        table = check_plan(self._table(part), self._head(part).shards, part_key(part))
        rows = table.filter(pc.is_in(table["shard"], value_set=pa.array(shards, pa.int64()))).to_pylist()
        images: dict[int, list[ImageRef]] = {shard: [] for shard in shards}
        for row in rows:
            images[row["shard"]].append(ImageRef(row["uri"], row["size_bytes"], row["etag"]))
        for shard, refs in images.items():
            if not refs:
                raise KeyError(f"plan part {part} has no shard {shard}")
        return images

    def dead(self) -> dict[int, set[str]]:
        """The images, by shard, whose rows in that shard no longer count. Reads only parts that have such rows."""
        dead: dict[int, set[str]] = defaultdict(set)
        for part in self.parts():
            if part.num_superseded:
                table = self._table(part.part, ["uri", "replaces"])
                table = table.filter(table["replaces"].is_valid())
                for uri, shard in zip(table["uri"].to_pylist(), table["replaces"].to_pylist(), strict=True):
                    dead[shard].add(uri)
        return dict(dead)

    def histories(self, parts: Sequence[PlanPart]) -> Iterator[list[PlanRow]]:
        """All rows of each image, oldest first, in order of uri. Holds one part for each time the plan has grown."""
        runs: list[list[PlanPart]] = []
        for part in parts:
            if runs and runs[-1][-1].last_uri < part.first_uri:
                runs[-1].append(part)
            else:
                runs.append([part])
        by_uri = attrgetter("uri")
        for _, rows in groupby(heapq.merge(*map(self._rows, runs), key=by_uri), key=by_uri):
            yield list(rows)

    def extend(self, listing: Sequence[ImageRef], shard_size: int, max_shard_bytes: int) -> PlanSummary:
        """Plan what is new, changed (size or etag) or gone in a listing, behind what is planned.

        A shard has at most `shard_size` images and `max_shard_bytes` bytes (a larger image is alone). Of several
        runs planning the same listing at once each image is planned by one.
        """
        if shard_size < 1 or max_shard_bytes < 1:
            raise ValueError(f"plan: shard_size {shard_size} and max_shard_bytes {max_shard_bytes} found, 1 wanted.")
        ordered = sorted(listing, key=attrgetter("uri"))
        new = changed = removed = new_shards = 0
        lost = True
        while lost:
            lost = False
            parts = self.parts()
            first_shard = parts[-1].shards.stop if parts else 0
            changes = _changes(ordered, (rows[-1] for rows in self.histories(parts)))
            for number, rows in enumerate(_cut(changes, first_shard, shard_size, max_shard_bytes), len(parts)):
                shards = {row.shard for row in rows} - {None}
                if not self._create(number, rows, first_shard, len(shards)):
                    lost = True  # another run was planning too: see what is left
                    break
                first_shard += len(shards)
                new_shards += len(shards)
                removed += sum(row.shard is None for row in rows)
                changed += sum(row.shard is not None and row.replaces is not None for row in rows)
                new += sum(row.shard is not None and row.replaces is None for row in rows)
        return PlanSummary(len(ordered), first_shard, new_shards, new, changed, removed)

    def _create(self, part: int, rows: list[PlanRow], first_shard: int, num_shards: int) -> bool:
        head = {
            "first_shard": str(first_shard),
            "num_shards": str(num_shards),
            "num_images": str(sum(row.shard is not None for row in rows)),
            "num_superseded": str(sum(row.replaces is not None for row in rows)),
            "first_uri": rows[0].uri,
            "last_uri": rows[-1].uri,
        }
        columns = dict(zip(PlanRow._fields, zip(*rows, strict=True), strict=True))
        ordered = {name: columns[name] for name in PLAN.names}
        table = pa.table(ordered, PLAN.with_metadata({**PLAN.metadata, **head}))
        return self.storage.create(part_key(part), parquet_bytes(table))

    def _head(self, part: int) -> PlanPart:
        if part in self._heads:
            return self._heads[part]
        with self.storage.open(part_key(part)) as file:
            head = pq.read_metadata(file).metadata
        numbers = plan_head(head, part_key(part))
        first_uri, last_uri = (head.get(name, b"").decode() for name in (b"first_uri", b"last_uri"))
        self._heads[part] = PlanPart(part, first_uri=first_uri, last_uri=last_uri, **numbers)
        return self._heads[part]

    def _table(self, part: int, columns: list[str] | None = None) -> pa.Table:
        return pq.read_table(pa.BufferReader(self.storage.read(part_key(part))), columns=columns)

    def _rows(self, parts: Sequence[PlanPart]) -> Iterator[PlanRow]:
        for part in parts:
            file = pq.ParquetFile(pa.BufferReader(self.storage.read(part_key(part.part))))
            for batch in file.iter_batches(8192):
                columns = (batch[name].to_pylist() for name in PlanRow._fields)
                yield from map(PlanRow._make, zip(*columns, strict=True))


def part_key(part: int) -> str:
    """The name of a part's file."""
    return f"plan/{part:05d}.parquet"


def _changes(
    listing: Sequence[ImageRef], planned: Iterator[PlanRow]
) -> Iterator[tuple[str, ImageRef | None, int | None]]:
    """What a listing has that the plan has not, and the other way round: uri, image (None: removed), replaces.

    Both are in order of uri; planned has the newest row of each image.
    """
    known = next(planned, None)
    for image in listing:
        while known is not None and known.uri < image.uri:
            if known.shard is not None:
                yield known.uri, None, known.shard
            known = next(planned, None)
        if known is None or known.uri != image.uri:
            yield image.uri, image, None
            continue
        if known.shard is None or (known.size_bytes, known.etag) != (image.size_bytes, image.etag):
            yield image.uri, image, known.shard
        known = next(planned, None)
    while known is not None:
        if known.shard is not None:
            yield known.uri, None, known.shard
        known = next(planned, None)


def _cut(changes: Iterator[Change], shard: int, shard_size: int, max_shard_bytes: int) -> Iterator[list[PlanRow]]:
    """Changes in order, cut into shards from number `shard` on, and those into parts.

    A shard never goes on in another part: a run that was killed between two parts cuts the rest as it would have.
    """
    rows: list[PlanRow] = []
    shards = removed = images = size_bytes = 0
    for uri, image, replaces in changes:
        full = images in (0, shard_size) or (image is not None and size_bytes + image.size_bytes > max_shard_bytes)
        if removed == REMOVED_PER_PART if image is None else full and shards == SHARDS_PER_PART:
            yield rows
            shard += shards
            rows, shards, removed, images, full = [], 0, 0, 0, True
        if image is None:
            rows.append(PlanRow(uri, None, 0, "", replaces))
            removed += 1
            continue
        if full:
            shards, images, size_bytes = shards + 1, 0, 0
        rows.append(PlanRow(uri, shard + shards - 1, image.size_bytes, image.etag, replaces))
        images, size_bytes = images + 1, size_bytes + image.size_bytes
    if rows:
        yield rows
