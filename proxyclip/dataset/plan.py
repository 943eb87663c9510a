"""The plan: which images make up which shard. It only grows: a changed image is planned again, in a new shard."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from proxyclip.dataset.layout import PLAN_FOLDER, parse_plan_key, plan_key
from proxyclip.dataset.rows import PLAN, parquet_bytes
from proxyclip.dataset.validate import check_plan, plan_head
from proxyclip.images.inputs.sorting import Listing
from proxyclip.images.ref import ImageRef
from proxyclip.storage.store import Storage

SHARDS_PER_PART = 1000
REMOVED_PER_PART = 100_000
MAX_SHARD_BYTES = 128 * 2**20


@dataclass(frozen=True)
class PlanPart:
    """One file of the plan, its rows in order of uri: the shards `first_shard` to `first_shard + num_shards - 1`.

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
    """What planning found. images, shards: now in the plan. new, changed, removed: images since the last planning."""

    images: int
    shards: int
    new_shards: int
    new: int
    changed: int
    removed: int


@dataclass(frozen=True)
class ShardRange:
    """Some shards of one part of the plan."""

    part: int
    shards: tuple[int, ...]

    @property
    def num_shards(self) -> int:
        return len(self.shards)

    def split(self, size: int) -> list[ShardRange]:
        """The same shards in ranges of at most `size` shards."""
        return [ShardRange(self.part, self.shards[i : i + size]) for i in range(0, len(self.shards), size)]


def waves(ranges: Iterable[ShardRange], size: int) -> Iterator[list[ShardRange]]:
    """The shards of `ranges`, in order, in lists of ranges. A list has at most `size` shards in all."""
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
    """A row of the plan. shard: None if the image was removed; replaces: the shard whose row of it is now dead."""

    uri: str
    shard: int | None
    size_bytes: int
    etag: str
    replaces: int | None


class Change(NamedTuple):
    """A difference between listing and plan.

    image: None if it was removed from the input. replaces: the shard that the plan has the image in, if any.
    """

    uri: str
    image: ImageRef | None
    replaces: int | None


class Plan:
    """The plan of an output, one Parquet file per part."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._heads: dict[int, PlanPart] = {}  # parts never change

    def parts(self) -> list[PlanPart]:
        """The parts in order. Reads the footer of each file, not its rows."""
        listed = (parse_plan_key(entry.key) for entry in self.storage.list(PLAN_FOLDER))
        # A listing can miss a part that is just being written. Parts are written in order: all up to the last exist.
        last = max((part for part in listed if part is not None), default=-1)
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(self._head, range(last + 1)))

    def images(self, part: int, shards: Sequence[int]) -> dict[int, list[ImageRef]]:
        """The images of some shards of a part, by shard. Raises KeyError for a shard that is not in the part."""
        table = check_plan(self._table(part), self._head(part).shards, plan_key(part))
        rows = table.filter(pc.is_in(table["shard"], value_set=pa.array(shards, pa.int64()))).to_pylist()
        images: dict[int, list[ImageRef]] = {shard: [] for shard in shards}
        for row in rows:
            images[row["shard"]].append(ImageRef(row["uri"], row["size_bytes"], row["etag"]))
        if missing := [shard for shard, refs in images.items() if not refs]:
            raise KeyError(f"plan part {part} has no shard {missing[0]}")
        return images

    def dead(self) -> dict[int, set[str]]:
        """The dead rows: for each shard that has some, the uris of the images that no longer count in it."""
        dead: dict[int, set[str]] = defaultdict(set)
        for part in self.parts():
            if part.num_superseded:  # few parts have such rows, the others are not read
                table = self._table(part.part, ["uri", "replaces"])
                table = table.filter(table["replaces"].is_valid())
                for uri, shard in zip(table["uri"].to_pylist(), table["replaces"].to_pylist(), strict=True):
                    dead[shard].add(uri)
        return dict(dead)

    def histories(self, parts: Sequence[PlanPart]) -> Iterator[list[PlanRow]]:
        """All rows of each image, oldest first, in order of uri. Memory: one part per extension of the plan."""
        extensions: list[list[PlanPart]] = []  # the parts of one extension follow each other in order of uri
        for part in parts:
            if extensions and extensions[-1][-1].last_uri < part.first_uri:
                extensions[-1].append(part)
            else:
                extensions.append([part])
        by_uri = attrgetter("uri")
        for _, rows in groupby(heapq.merge(*map(self._rows, extensions), key=by_uri), key=by_uri):
            yield list(rows)

    def extend(self, listing: Listing | Sequence[ImageRef], shard_size: int, max_shard_bytes: int) -> PlanSummary:
        """Plan what a listing has new, changed (size or etag) or removed, in new parts.

        A shard has at most `shard_size` images and `max_shard_bytes` bytes (a larger image has its own shard). If
        several runs plan the same listing at once, each image is planned once.
        """
        if min(shard_size, max_shard_bytes) < 1:
            raise ValueError(f"plan: shard_size {shard_size}, max_shard_bytes {max_shard_bytes}; give both 1 or more.")
        ordered = listing if isinstance(listing, Listing) else sorted(listing, key=attrgetter("uri"))
        new = changed = removed = new_shards = 0
        complete = False
        while not complete:
            parts = self.parts()
            next_shard = parts[-1].shards.stop if parts else 0
            changes = _changes(ordered, (rows[-1] for rows in self.histories(parts)))
            complete = True
            for number, part in enumerate(_cut(changes, next_shard, shard_size, max_shard_bytes), len(parts)):
                if not self.storage.create(plan_key(number), part.to_parquet()):
                    complete = False  # another run has written this part: plan what is left after it
                    break
                next_shard = part.next_shard
                new_shards += part.num_shards
                removed += part.num_removed
                changed += part.num_superseded - part.num_removed
                new += part.num_images + part.num_removed - part.num_superseded
        return PlanSummary(len(ordered), next_shard, new_shards, new, changed, removed)

    def _head(self, part: int) -> PlanPart:
        if part in self._heads:
            return self._heads[part]
        with self.storage.open(plan_key(part)) as file:
            head = pq.read_metadata(file).metadata
        numbers = plan_head(head, plan_key(part))
        first_uri, last_uri = (head.get(name, b"").decode() for name in (b"first_uri", b"last_uri"))
        self._heads[part] = PlanPart(part, first_uri=first_uri, last_uri=last_uri, **numbers)
        return self._heads[part]

    def _table(self, part: int, columns: list[str] | None = None) -> pa.Table:
        return pq.read_table(pa.BufferReader(self.storage.read(plan_key(part))), columns=columns)

    def _rows(self, parts: Sequence[PlanPart]) -> Iterator[PlanRow]:
        for part in parts:
            file = pq.ParquetFile(pa.BufferReader(self.storage.read(plan_key(part.part))))
            for batch in file.iter_batches(8192):
                columns = (batch[name].to_pylist() for name in PlanRow._fields)
                yield from map(PlanRow._make, zip(*columns, strict=True))


@dataclass
class _NewPart:
    """A part of the plan while rows are added to it. Its shards are numbered from `first_shard` on."""

    first_shard: int
    shard_size: int
    max_shard_bytes: int
    rows: list[PlanRow] = field(default_factory=list)
    num_shards: int = 0
    num_images: int = 0
    num_removed: int = 0
    num_superseded: int = 0
    last_shard_images: int = 0
    last_shard_bytes: int = 0

    @property
    def next_shard(self) -> int:
        return self.first_shard + self.num_shards

    def has_room_for(self, change: Change) -> bool:
        if change.image is None:
            return self.num_removed < REMOVED_PER_PART
        return self.num_shards < SHARDS_PER_PART or self._last_shard_has_room_for(change.image)

    def _last_shard_has_room_for(self, image: ImageRef) -> bool:
        fits = self.last_shard_bytes + image.size_bytes <= self.max_shard_bytes
        return fits and 0 < self.last_shard_images < self.shard_size

    def add(self, change: Change) -> None:
        image = change.image
        if image is None:
            self.rows.append(PlanRow(change.uri, None, 0, "", change.replaces))
            self.num_removed += 1
        else:
            if not self._last_shard_has_room_for(image):
                self.num_shards += 1
                self.last_shard_images = self.last_shard_bytes = 0
            self.rows.append(PlanRow(image.uri, self.next_shard - 1, image.size_bytes, image.etag, change.replaces))
            self.num_images += 1
            self.last_shard_images += 1
            self.last_shard_bytes += image.size_bytes
        self.num_superseded += change.replaces is not None

    def to_parquet(self) -> bytes:
        """The bytes of the part's file."""
        counts = ("first_shard", "num_shards", "num_images", "num_superseded")
        head = {name: str(getattr(self, name)) for name in counts}
        head |= {"first_uri": self.rows[0].uri, "last_uri": self.rows[-1].uri}
        columns = dict(zip(PlanRow._fields, zip(*self.rows, strict=True), strict=True))
        ordered = {name: columns[name] for name in PLAN.names}
        return parquet_bytes(pa.table(ordered, PLAN.with_metadata({**PLAN.metadata, **head})))


def _changes(listing: Iterable[ImageRef], planned: Iterator[PlanRow]) -> Iterator[Change]:
    """The differences of a listing to the plan. Both are in order of uri; `planned`: the newest row of each image."""
    known = next(planned, None)
    for image in listing:
        while known is not None and known.uri < image.uri:
            if known.shard is not None:
                yield Change(known.uri, None, known.shard)
            known = next(planned, None)
        if known is None or known.uri != image.uri:
            yield Change(image.uri, image, None)
            continue
        if known.shard is None or (known.size_bytes, known.etag) != (image.size_bytes, image.etag):
            yield Change(image.uri, image, known.shard)
        known = next(planned, None)
    while known is not None:
        if known.shard is not None:
            yield Change(known.uri, None, known.shard)
        known = next(planned, None)


def _cut(changes: Iterator[Change], first_shard: int, shard_size: int, max_shard_bytes: int) -> Iterator[_NewPart]:
    """Changes, in order, as parts with shards.

    A part begins with a new shard. So if a run is killed between two parts, the next one cuts the rest the same way.
    """
    part = _NewPart(first_shard, shard_size, max_shard_bytes)
    for change in changes:
        if not part.has_room_for(change):
            yield part
            part = _NewPart(part.next_shard, shard_size, max_shard_bytes)
        part.add(change)
    if part.rows:
        yield part
