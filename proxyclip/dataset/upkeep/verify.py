"""`verify`: reads all of an output and checks it. `repair`: drops what is broken, for the next run to make again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.parquet as pq

from proxyclip.dataset.commits import Commit, block_of, block_shards, committed, parse_segment
from proxyclip.dataset.features.record import features_manifest, features_of, read_features_record
from proxyclip.dataset.layout import (
    CLASS_STATS,
    FEATURES,
    FEATURES_FOLDER,
    PLAN_FOLDER,
    commit_key,
    plan_key,
    segment_key,
)
from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.plan import PlanPart
from proxyclip.dataset.run_record import RunRecord, require_run
from proxyclip.dataset.segments import dissolve
from proxyclip.dataset.statistics import ClassSums, class_stats_table
from proxyclip.dataset.upkeep.commits_check import CommitsCheck, Problem, num_shards
from proxyclip.dataset.upkeep.shard_check import UNREADABLE, ShardCheck, check_features, check_shard
from proxyclip.images.listing import ImageRef
from proxyclip.storage.store import Storage, StorageError


@dataclass
class Report:
    """What was read.

    shards, images: with labels. feature_shards: shards whose features were read. problems: what is broken.
    unfinished: what is not done yet, which is no error.
    """

    shards: int = 0
    images: int = 0
    feature_shards: int = 0
    problems: list[Problem] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)


def verify(storage: Storage) -> Report:
    """Read everything that is committed, and check checksums, rows, masks, statistics and features.

    Raises FileNotFoundError if no run was begun and OSError if the storage fails.
    """
    return _Verification(storage).run()


def repair(storage: Storage, report: Report) -> list[int]:
    """Drop the commits of broken shards, of masks and of features. Returns the shards whose masks are dropped.

    The next run labels these again. Dropped features are made again by the labelling command with --add-features.
    Do not call it while a job runs on this output. It cannot repair the plan or features.json.
    """
    broken = _drop(storage, [problem for problem in report.problems if not problem.features])
    if broken or any(problem.place == CLASS_STATS for problem in report.problems):
        storage.delete(CLASS_STATS)
    _drop(features_of(storage), [problem for problem in report.problems if problem.features])
    return broken


def only_features(run: RunRecord) -> bool:
    """Whether an output keeps features and has no masks."""
    return "vocabulary" in run.recipe and run.recipe["vocabulary"] is None


def _drop(storage: Storage, problems: Sequence[Problem]) -> list[int]:
    """Drop the commits in `storage` that have problems. Returns their shards."""
    broken = {problem.shard for problem in problems if problem.shard is not None}
    blocks = {problem.block for problem in problems if problem.block is not None}
    if not broken and not blocks:
        return []
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
    return sorted(broken)


class _Verification:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._manifest = Manifest(storage)
        self._report = Report()
        self._live = ClassSums()  # over all shards, without dead rows

    def run(self) -> Report:
        run = require_run(self._storage)
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
        if not only_features(run):
            self._check_masks(parts, int(run.recipe.get("confidence_stride", 1)))
        self._check_features(parts)
        return self._report

    def _problem(self, place: str, what: str, *, features: bool = False) -> None:
        self._report.problems.append(Problem(place, what, features=features))

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

    def _check_masks(self, parts: list[PlanPart], stride: int) -> None:
        def check(shard: int, commit: Commit, images: Sequence[ImageRef]) -> ShardCheck:
            uris = [image.uri for image in images]
            return check_shard(self._storage, shard, commit, uris, self._dead.get(shard, ()), stride)

        commits = CommitsCheck(self._manifest, check)
        for images, found in commits.shards(parts):
            self._report.shards += 1
            self._report.images += images
            if found.live_stats is not None:
                self._live.add_stats(found.live_stats)
        self._report.problems += commits.problems
        planned = num_shards(parts)
        if left := planned - self._report.shards:
            self._report.unfinished.append(f"{left} of {planned} shards are not labelled yet")
        elif not self._report.problems:
            self._check_class_stats()

    def _check_features(self, parts: list[PlanPart]) -> None:
        manifest = features_manifest(self._storage)
        record_key = f"{FEATURES_FOLDER}/{FEATURES}"
        try:
            record = read_features_record(self._storage)
        except ValueError as error:
            self._problem(record_key, f"cannot be read: {error}", features=True)
            return
        if record is None:
            if len(manifest.committed()):
                what = "is missing; the labelling command with --add-features writes it again"
                self._problem(record_key, what, features=True)
            return
        codec = record.codec

        def check(shard: int, commit: Commit, images: Sequence[ImageRef]) -> ShardCheck:
            return check_features(manifest.commits, shard, commit, images, codec)

        commits = CommitsCheck(manifest, check)
        self._report.feature_shards = sum(1 for _ in commits.shards(parts))
        for problem in commits.problems:
            place = f"{FEATURES_FOLDER}/{problem.place}"
            self._report.problems.append(replace(problem, place=place, features=True))
        planned = num_shards(parts)
        if left := planned - self._report.feature_shards:
            self._report.unfinished.append(f"{left} of {planned} shards have no features yet")

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
