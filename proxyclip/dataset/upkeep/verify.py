"""`verify`: reads all of an output and checks it. `repair`: drops what is broken, for the next run to make again."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from proxyclip.dataset.commits import (
    Commit,
    block_of,
    block_shards,
    committed,
    parse_segment,
    read_commit,
)
from proxyclip.dataset.layout import CLASS_STATS, PLAN_FOLDER, commit_key, plan_key, segment_key
from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.plan import PlanPart
from proxyclip.dataset.run_record import require_run
from proxyclip.dataset.segments import dissolve, read_sums
from proxyclip.dataset.statistics import ClassSums, class_stats_table
from proxyclip.dataset.upkeep.shard_check import UNREADABLE, ShardCheck, check_shard
from proxyclip.storage.store import Storage, StorageError

CHECKS_AT_ONCE = 4


@dataclass(frozen=True)
class Problem:
    """Something broken. place: the file. shard, block: the shard, or the block of the segment, that it belongs to."""

    place: str
    what: str
    shard: int | None = None
    block: int | None = None


@dataclass
class Report:
    """What was read. problems: what is broken. unfinished: what is not done yet, which is no error."""

    shards: int = 0
    images: int = 0
    problems: list[Problem] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)


def verify(storage: Storage) -> Report:
    """Read everything that is committed, and check checksums, rows, masks and statistics.

    Raises FileNotFoundError if no run was begun and OSError if the storage fails.
    """
    return _Verification(storage).run()


def repair(storage: Storage, report: Report) -> list[int]:
    """Drop the commits of broken shards, so that the next run labels them again. Returns these shards.

    Do not call it while a job runs on this output. It cannot repair the plan.
    """
    broken = {problem.shard for problem in report.problems if problem.shard is not None}
    blocks = {problem.block for problem in report.problems if problem.block is not None}
    done = committed(storage)
    for block in sorted(done.segments & (blocks | {block_of(shard) for shard in broken})):
        try:
            found = parse_segment(storage.read(segment_key(block)))
        except StorageError:
            raise
        except UNREADABLE:
            found = {}
        shards = set(block_shards(block))
        broken |= shards - found.keys()
        dissolve(storage, block, [commit for shard, commit in found.items() if shard in shards - broken])
    for shard in broken:
        storage.delete(commit_key(shard))
    if broken or any(problem.place == CLASS_STATS for problem in report.problems):
        storage.delete(CLASS_STATS)
    return sorted(broken)


class _Verification:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._manifest = Manifest(storage)
        self._report = Report()
        self._live = ClassSums()  # over all shards, without dead rows
        self._in_block: dict[int, ClassSums] = defaultdict(ClassSums)  # over each block, with dead rows
        self._segment: tuple[int, dict[int, Commit]] = (-1, {})

    def run(self) -> Report:
        self._stride = int(require_run(self._storage).recipe.get("confidence_stride", 1))
        try:
            parts = self._manifest.plan.parts()
            self._check_plan(parts)
            if self._report.problems:
                return self._report  # without a sound plan, dead rows are unknown
            self._dead = self._manifest.plan.dead()
        except StorageError:
            raise
        except UNREADABLE as error:
            self._problem(PLAN_FOLDER, f"cannot be read: {error}")
            return self._report
        self._done = committed(self._storage)
        planned = parts[-1].shards.stop if parts else 0
        for shard in sorted(shard for shard in self._done.loose if shard >= planned):
            self._problem(commit_key(shard), "is the commit of a shard that is not planned", shard)
        for part in parts:
            self._check_part(part)
        for block in sorted(self._done.segments):
            self._check_segment_sums(block)
        if left := planned - self._report.shards:
            self._report.unfinished.append(f"{left} of {planned} shards are not labelled yet")
        elif not self._report.problems:
            self._check_class_stats()
        return self._report

    def _problem(self, place: str, what: str, shard: int | None = None, block: int | None = None) -> None:
        self._report.problems.append(Problem(place, what, shard, block))

    def _check_plan(self, parts: list[PlanPart]) -> None:
        first_shard = 0
        for part in parts:
            if part.first_shard != first_shard:
                what = f"begins with shard {part.first_shard} instead of {first_shard}"
                self._problem(plan_key(part.part), what)
            first_shard = part.shards.stop
        for rows in self._manifest.plan.histories(parts):
            live_shard = None
            for row in rows:
                if row.replaces != live_shard:
                    what = f"replaces its row in shard {row.replaces}, but its row that counts is in {live_shard}"
                    self._problem(PLAN_FOLDER, f"{row.uri!r} is in shard {row.shard} and {what}")
                live_shard = row.shard

    def _check_part(self, part: PlanPart) -> None:
        commits = {shard: commit for shard in part.shards if (commit := self._commit(shard)) is not None}
        if not commits:
            return
        images = self._manifest.plan.images(part.part, list(commits))

        def check(shard: int) -> ShardCheck:
            uris = [image.uri for image in images[shard]]
            return check_shard(self._storage, shard, commits[shard], uris, self._dead.get(shard, ()), self._stride)

        with ThreadPoolExecutor(CHECKS_AT_ONCE) as pool:
            for shard, found in zip(commits, pool.map(check, commits), strict=True):
                self._report.shards += 1
                self._report.images += len(images[shard])
                for place, what in found.problems:
                    self._problem(place, what, shard)
                if found.stats is not None and found.live_stats is not None:
                    self._live.add_stats(found.live_stats)
                    self._in_block[block_of(shard)].add_stats(found.stats)

    def _commit(self, shard: int) -> Commit | None:
        """The commit of a shard; None if it has none, or a damaged one."""
        block = block_of(shard)
        if block in self._done.segments:
            if self._segment[0] != block:
                self._segment = block, self._read_segment(block)
            return self._segment[1].get(shard)
        if shard not in self._done:
            return None
        try:
            data = self._storage.read(commit_key(shard))
        except FileNotFoundError:
            return read_commit(self._storage, shard)  # a compaction has moved it since the listing
        try:
            return Commit.from_json(data, commit_key(shard))
        except UNREADABLE as error:
            self._problem(commit_key(shard), f"cannot be read: {error}", shard)
            return None

    def _read_segment(self, block: int) -> dict[int, Commit]:
        data = self._storage.read(segment_key(block))
        try:
            commits = parse_segment(data)
        except UNREADABLE as error:
            self._problem(segment_key(block), f"cannot be read: {error}", block=block)
            return {}
        if sorted(commits) != list(block_shards(block)):
            shards = f"{block_shards(block).start} to {block_shards(block).stop - 1}"
            what = f"has commits of {len(commits)} shards; it must have those of shards {shards}"
            self._problem(segment_key(block), what, block=block)
        return commits

    def _check_segment_sums(self, block: int) -> None:
        """Check the sums in a segment's footer, unless something else of the block is already broken."""
        if any(problem.block == block for problem in self._report.problems):
            return
        if any(block_of(problem.shard) == block for problem in self._report.problems if problem.shard is not None):
            return
        commits = self._read_segment(block).values()
        wanted = [sum(getattr(commit, name) for commit in commits) for name in ("images", "labelled", "failed")]
        try:
            sums = read_sums(self._storage, block)
        except StorageError:
            raise
        except UNREADABLE as error:
            self._problem(segment_key(block), f"the sums in its footer cannot be read: {error}", block=block)
            return
        if [sums.images, sums.labelled, sums.failed] != wanted or sums.classes != self._in_block[block]:
            self._problem(segment_key(block), "the sums in its footer are not those of its shards", block=block)

    def _check_class_stats(self) -> None:
        if not self._storage.exists(CLASS_STATS):
            self._report.unfinished.append(f"{CLASS_STATS} is not written yet")
            return
        data = self._storage.read(CLASS_STATS)
        try:
            found = pq.read_table(pa.BufferReader(data))
        except UNREADABLE as error:
            self._problem(CLASS_STATS, f"cannot be read: {error}")
            return
        if not self._manifest.has_class_stats():
            self._report.unfinished.append(f"{CLASS_STATS} does not cover the whole plan yet")
        elif not found.equals(class_stats_table(self._live.stats(), {})):
            self._problem(CLASS_STATS, "the statistics are not the sums of the shards")
