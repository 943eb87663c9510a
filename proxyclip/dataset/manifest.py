"""The manifest: what a run is (run record), what it has to do (plan), what is done (commits), what is left."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from proxyclip.dataset.commits import Commit, Done, committed, read_commits
from proxyclip.dataset.plan import MAX_SHARD_BYTES, Plan, PlanSummary, ShardRange
from proxyclip.dataset.rows import parquet_bytes
from proxyclip.dataset.segments import SegmentSums, compact, read_sums, sum_classes
from proxyclip.dataset.shards import read_columns, read_table
from proxyclip.dataset.statistics import ClassStat, ClassSums, class_stats_table, shard_stats
from proxyclip.dataset.validate import run_fields
from proxyclip.images.listing import ImageRef
from proxyclip.storage.store import Storage, public_uri

SCHEMA_VERSION = 1
CLASS_STATS_KEY = "class_stats.parquet"

T = TypeVar("T")
R = TypeVar("R")


class RecipeMismatch(ValueError):  # noqa: N818
    """The output was made with another recipe or input. `differences` has a line for each field."""

    def __init__(self, message: str, differences: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.differences = tuple(differences)


@dataclass(frozen=True)
class Totals:
    """How far a run has come: images planned (and not removed), labelled and failed; shards planned and committed."""

    planned: int
    labelled: int
    failed: int
    shards: int
    committed: int


class Manifest:
    """The files below an output that say what a run is and how far it has come."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.plan = Plan(storage)

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
        record = run_fields(self.storage.read("run.json"), SCHEMA_VERSION)
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
        """Plan what is new, changed or gone in a listing, in new shards behind the existing ones: `Plan.extend`."""
        return self.plan.extend(listing, shard_size, max_shard_bytes)

    def read_range(self, shards: ShardRange) -> Iterator[tuple[int, list[str]]]:
        """The shards of a range, each with the uris of its images."""
        for shard, images in self.plan.images(shards.part, shards.shards).items():
            yield shard, [image.uri for image in images]

    def committed(self) -> Done:
        """The shards that are done."""
        return committed(self.storage)

    def pending(self, besides: Collection[int] = ()) -> list[ShardRange]:
        """The shards that are planned and not done (and not in `besides`), a range for each part that has some.

        Reads no rows of the plan and no commits: the names of commits, and the feet of the plan's parts.
        """
        done = self.committed()
        ranges = []
        for part in self.plan.parts():
            left = tuple(shard for shard in part.shards if shard not in done and shard not in besides)
            if left:
                ranges.append(ShardRange(part.part, left))
        return ranges

    def compact(self) -> None:
        """Put the commits of full blocks together in segments."""
        compact(self.storage)

    def totals(self) -> Totals:
        """Images and shards, planned and done; dead rows do not count. Reads segments' feet and loose commits."""
        parts, done = self.plan.parts(), self.committed()
        sums: list[SegmentSums | Commit] = [*self._segments(done), *read_commits(self.storage, done, done.loose)]
        labelled, failed = sum(each.labelled for each in sums), sum(each.failed for each in sums)
        for commit, uris in self._dead_commits(done):
            gone = 0
            if commit.failed:
                without_mask = read_columns(self.storage, commit, "failures", ["uri"])["uri"].to_pylist()
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
        """The statistics of all committed shards, added up; dead rows do not count."""
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
        """Write the statistics of the run to class_stats.parquet, a row for each class that occurs.

        Counts are exact and confidence is weighted by pixels; the same commits give the same bytes.
        """
        stats = self.class_sums().stats()
        self.storage.write(CLASS_STATS_KEY, parquet_bytes(class_stats_table(stats, self._basis())))
        return stats

    def has_class_stats(self) -> bool:
        """Whether class_stats.parquet was made from all that is planned now."""
        try:
            with self.storage.open(CLASS_STATS_KEY) as file:
                found = pq.read_metadata(file).metadata
        except FileNotFoundError:
            return False
        return all(found.get(name.encode()) == value.encode() for name, value in self._basis().items())

    def _basis(self) -> dict[str, str]:
        parts = self.plan.parts()
        counted = {name: sum(getattr(part, name) for part in parts) for name in ("num_shards", "num_superseded")}
        return {name: str(count) for name, count in counted.items()}

    def _segments(self, done: Done) -> list[SegmentSums]:
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(partial(read_sums, self.storage), sorted(done.segments)))

    def _dead_commits(self, done: Done) -> Iterator[tuple[Commit, set[str]]]:
        """The commits of shards that have dead rows, with the images of these."""
        dead = self.plan.dead()
        for commit in read_commits(self.storage, done, dead):
            yield commit, dead[commit.shard]

    def _stats_of_dead(self, found: tuple[Commit, set[str]]) -> tuple[pa.Table, pa.Table]:
        """The statistics of a shard with dead rows: of all its rows, and of those that live."""
        commit, uris = found
        stats = read_table(self.storage, commit, "stats")
        masks = read_columns(self.storage, commit, "masks", ["uri", "classes", "pixels", "class_confidence"])
        live = masks.filter(pc.invert(pc.is_in(masks["uri"], value_set=pa.array(uris, pa.string()))))
        names = dict(zip(stats["class"].to_pylist(), stats["name"].to_pylist(), strict=True))
        return stats, shard_stats(commit.shard, live, names)


def _in_order(pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`pool.map` that holds a bounded number of items and results."""
    items = iter(items)
    while some := list(islice(items, 1000)):
        yield from pool.map(work, some)


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
