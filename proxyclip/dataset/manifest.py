"""The manifest: what a run is (run record), what it has to do (plan), what is done (commits), what is left."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from proxyclip.dataset.images import ImageRef
from proxyclip.dataset.schemas import CLASS_STATS, PLAN, parquet_bytes
from proxyclip.dataset.shards import committed_shards, read_commit, read_table
from proxyclip.dataset.store import Storage, public_uri

SCHEMA_VERSION = 1
SHARDS_PER_PART = 1000
MAX_SHARD_BYTES = 128 * 2**20

T = TypeVar("T")


class RecipeMismatch(ValueError):  # noqa: N818
    """The output was made with another recipe or input. `differences` has a line for each field."""

    def __init__(self, message: str, differences: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.differences = tuple(differences)


@dataclass(frozen=True)
class PlanSummary:
    """What planning found: images and shards of the whole plan, those new in it, and images that changed since."""

    images: int
    shards: int
    new_images: int
    new_shards: int
    changed: int


@dataclass(frozen=True)
class PlanPart:
    """One file of the plan; it holds the shards `first_shard` to `first_shard + num_shards - 1`."""

    part: int
    first_shard: int
    num_shards: int
    num_images: int


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


@dataclass(frozen=True)
class Totals:
    """How far a run has come: images planned, labelled and failed, shards planned and committed."""

    planned: int
    labelled: int
    failed: int
    shards: int
    committed: int


@dataclass(frozen=True)
class ClassStat:
    """A class over the whole run. share: of all labelled pixels; mean_confidence: over its pixels."""

    index: int
    name: str
    images: int
    pixels: int
    share: float
    mean_confidence: float


class Manifest:
    """The files below an output that say what a run is and how far it has come."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def begin(
        self, input_uri: str, recipe: dict[str, Any], fingerprint: str, packages: Mapping[str, str] | None = None
    ) -> None:
        """Record the run, or make sure that the run recorded here is the same one.

        recipe: nested plain values; fingerprint: its hash; packages: versions, recorded but not compared.
        Raises RecipeMismatch naming each field that differs, and ValueError for an output of a newer version.
        """
        record = {
            "schema_version": SCHEMA_VERSION,
            "input": public_uri(Storage(input_uri).uri),
            "recipe": recipe,
            "fingerprint": fingerprint,
            "packages": dict(packages or {}),
        }
        data = (json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
        if self.storage.create("run.json", data):
            return
        _compare(json.loads(data), self.run_record(), self.storage)

    def recipe(self) -> dict[str, Any] | None:
        """The recipe of the run recorded here; None where none was begun."""
        try:
            recipe: dict[str, Any] = self.run_record()["recipe"]
        except FileNotFoundError:
            return None
        return recipe

    def run_record(self) -> dict[str, Any]:
        """run.json. Raises FileNotFoundError where no run was begun, ValueError for a newer version."""
        record: dict[str, Any] = json.loads(self.storage.read("run.json"))
        version = record.get("schema_version")
        if version != SCHEMA_VERSION:
            raise ValueError(
                f"{self.storage}: schema_version {version} found in run.json, {SCHEMA_VERSION} wanted; "
                "the output was made by another version of proxyclip: use that one, or another --output."
            )
        return record

    def extend_plan(
        self, listing: Sequence[ImageRef], shard_size: int = 256, max_shard_bytes: int = MAX_SHARD_BYTES
    ) -> PlanSummary:
        """Plan the images of a listing that are not planned yet, in new shards behind the existing ones.

        A shard has at most `shard_size` images and `max_shard_bytes` bytes (a larger image is alone). What is
        planned never changes: images that changed since (size or etag) are counted, not planned again, and
        images that are gone stay planned. Of two runs planning at once each image is planned by one.
        """
        if shard_size < 1 or max_shard_bytes < 1:
            raise ValueError(f"plan: shard_size {shard_size} and max_shard_bytes {max_shard_bytes} found, 1 wanted.")
        while True:
            parts = self.plan_parts()
            planned: dict[str, tuple[int, str]] = {}
            for part in parts:
                table = self._part_table(part.part)
                sizes, etags = table["size_bytes"].to_pylist(), table["etag"].to_pylist()
                planned.update(zip(table["uri"].to_pylist(), zip(sizes, etags, strict=True), strict=True))
            ordered = sorted(listing, key=lambda image: image.uri)
            shards = _cut([image for image in ordered if image.uri not in planned], shard_size, max_shard_bytes)
            first_shard = sum(part.num_shards for part in parts)
            if self._write_parts(len(parts), first_shard, shards):
                break  # otherwise another run was planning too: see what is left
        new_images = sum(len(shard) for shard in shards)
        known = (planned.get(image.uri) for image in listing)
        changed = sum(
            seen is not None and seen != (image.size_bytes, image.etag)
            for image, seen in zip(listing, known, strict=True)
        )
        return PlanSummary(len(planned) + new_images, first_shard + len(shards), new_images, len(shards), changed)

    def plan_parts(self) -> list[PlanPart]:
        """The parts of the plan, in order. Reads the foot of each file, not its rows."""
        names = (re.fullmatch(r"plan/(\d{5,})\.parquet", entry.key) for entry in self.storage.list("plan"))
        # Parts are made in order: below the last one all are there, whatever a listing made meanwhile has missed.
        parts = range(max((int(name[1]) for name in names if name), default=-1) + 1)
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(self._part_head, parts))

    def read_plan(self, part: int, shards: Sequence[int]) -> dict[int, list[ImageRef]]:
        """The images of some shards of a part, by shard, in order of uri. Raises KeyError for one not in it."""
        table = self._part_table(part)
        column = table["shard"]
        rows = table.filter(pc.is_in(column, value_set=pa.array(shards, pa.int64()))).to_pylist()
        images: dict[int, list[ImageRef]] = {shard: [] for shard in shards}
        for row in rows:
            images[row["shard"]].append(ImageRef(row["uri"], row["size_bytes"], row["etag"]))
        for shard, refs in images.items():
            if not refs:
                raise KeyError(f"plan part {part} has no shard {shard}")
        return images

    def read_range(self, shards: ShardRange) -> Iterator[tuple[int, list[str]]]:
        """The shards of a range, each with the uris of its images."""
        for shard, images in self.read_plan(shards.part, shards.shards).items():
            yield shard, [image.uri for image in images]

    def committed(self) -> set[int]:
        """The shards that are done."""
        return set(committed_shards(self.storage))

    def pending(self) -> list[ShardRange]:
        """The shards that are planned and not done, a range for each part that has some."""
        done = self.committed()
        ranges = []
        for part in self.plan_parts():
            numbers = range(part.first_shard, part.first_shard + part.num_shards)
            left = tuple(shard for shard in numbers if shard not in done)
            if left:
                ranges.append(ShardRange(part.part, left))
        return ranges

    def totals(self) -> Totals:
        """Images and shards, planned and done. Reads every commit."""
        parts, commits = self.plan_parts(), list(self._each_shard(partial(read_commit, self.storage)))
        return Totals(
            planned=sum(part.num_images for part in parts),
            labelled=sum(commit.labelled for commit in commits),
            failed=sum(commit.failed for commit in commits),
            shards=sum(part.num_shards for part in parts),
            committed=len(commits),
        )

    def write_class_stats(self) -> list[ClassStat]:
        """Add up the statistics of all committed shards, and write them to class_stats.parquet.

        A row for each class that occurs. Counts are exact; confidence is weighted by pixels and added in the
        order of shards, so the same commits give the same bytes.
        """
        sums: dict[int, list[Any]] = {}
        for rows in self._each_shard(self._stats_rows):
            for row in rows:
                entry = sums.setdefault(row["class"], [row["name"], 0, 0, 0.0])
                entry[1] += row["images"]
                entry[2] += row["pixels"]
                entry[3] += row["pixels"] * row["mean_confidence"]
        total = sum(pixels for _, _, pixels, _ in sums.values())
        stats = [
            ClassStat(index, name, images, pixels, pixels / total, confidence / pixels)
            for index, (name, images, pixels, confidence) in sorted(sums.items())
        ]
        table = pa.Table.from_pylist([{"class": stat.index, **vars(stat)} for stat in stats], CLASS_STATS)
        self.storage.write("class_stats.parquet", parquet_bytes(table))
        return stats

    def _stats_rows(self, shard: int) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = read_table(self.storage, read_commit(self.storage, shard), "stats").to_pylist()
        return rows

    def _each_shard(self, read: Callable[[int], T]) -> Iterator[T]:
        """What `read` makes of each committed shard, in order, many at once."""
        shards = committed_shards(self.storage)
        with ThreadPoolExecutor(16) as pool:
            for start in range(0, len(shards), 1000):  # bounds what waits in memory
                yield from pool.map(read, shards[start : start + 1000])

    def _write_parts(self, part: int, first_shard: int, shards: list[list[ImageRef]]) -> bool:
        for start in range(0, len(shards), SHARDS_PER_PART):
            numbered = list(enumerate(shards[start : start + SHARDS_PER_PART], first_shard + start))
            rows = [(shard, image.uri, image.size_bytes, image.etag) for shard, refs in numbered for image in refs]
            head = {"first_shard": str(numbered[0][0]), "num_shards": str(len(numbered))}
            columns = dict(zip(PLAN.names, zip(*rows, strict=True), strict=True))
            table = pa.table(columns, PLAN.with_metadata({**PLAN.metadata, **head}))
            if not self.storage.create(_part_key(part + start // SHARDS_PER_PART), parquet_bytes(table)):
                return False
        return True

    def _part_head(self, part: int) -> PlanPart:
        with self.storage.open(_part_key(part)) as file:
            foot = pq.read_metadata(file)
        return PlanPart(part, int(foot.metadata[b"first_shard"]), int(foot.metadata[b"num_shards"]), foot.num_rows)

    def _part_table(self, part: int) -> pa.Table:
        return pq.read_table(pa.BufferReader(self.storage.read(_part_key(part))))


def _part_key(part: int) -> str:
    return f"plan/{part:05d}.parquet"


def _cut(images: Sequence[ImageRef], shard_size: int, max_shard_bytes: int) -> list[list[ImageRef]]:
    """Images in order, cut into shards."""
    shards: list[list[ImageRef]] = []
    size_bytes = 0
    for image in images:
        if not shards or len(shards[-1]) == shard_size or size_bytes + image.size_bytes > max_shard_bytes:
            shards.append([])
            size_bytes = 0
        shards[-1].append(image)
        size_bytes += image.size_bytes
    return shards


def _compare(new: dict[str, Any], old: dict[str, Any], storage: Storage) -> None:
    names = ("input", "recipe", "fingerprint")
    now, then = ({key: value for name in names for key, value in _flat(name, run[name])} for run in (new, old))
    differences = [
        f"{name.removeprefix('recipe.')}: this run has {now.get(name, 'nothing')!r}, the output was made with "
        f"{then.get(name, 'nothing')!r}"
        for name in sorted(now.keys() | then.keys())
        if now.get(name, ...) != then.get(name, ...)
    ]
    if len(differences) > 1:  # the fingerprint follows from the others
        differences = [line for line in differences if not line.startswith("fingerprint:")]
    if differences:
        raise RecipeMismatch(
            f"{storage}: " + "; ".join(differences) + "; use another --output or the old setting.", differences
        )


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The leaves of a nested dictionary under dotted names."""
    if isinstance(value, dict) and value:
        for key in value:
            yield from _flat(f"{name}.{key}", value[key])
    else:
        yield name, value
