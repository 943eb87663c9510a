"""`status`: how far a run is, read from its output."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice, pairwise

from proxyclip.dataset.commits import Commit, Done, read_commits
from proxyclip.dataset.features.record import features_manifest, features_of
from proxyclip.dataset.layout import COMMITS_FOLDER, FEATURES, parse_commit_key, parse_segment_key
from proxyclip.dataset.manifest import Manifest, Totals
from proxyclip.dataset.run_record import require_run
from proxyclip.dataset.segments import read_sums
from proxyclip.dataset.shards import read_table
from proxyclip.dataset.upkeep.verify import only_features
from proxyclip.storage.store import Storage

# At most this many files of failures are read, the latest shards first.
MAX_FAILURE_FILES = 1000
# The rate is measured over this time before the last commit, and over at most this many commits.
RATE_WINDOW_S = 3600
_RATE_COMMITS = 500


@dataclass(frozen=True)
class FeatureStatus:
    """How far the features of an output with masks are. behind: whether a shard has masks and no features."""

    totals: Totals
    behind: bool

    @property
    def complete(self) -> bool:
        """Whether every planned shard has features."""
        return self.totals.committed == self.totals.shards

    def __str__(self) -> str:
        """One line in words."""
        if self.complete:
            return "Features: complete."
        totals = self.totals
        images = f"{totals.labelled + totals.failed:,} of {totals.planned:,} images"
        shards = f"{totals.committed:,} of {totals.shards:,} shards"
        rest = "; the rest: run the labelling command with --add-features" if self.behind else ""
        return f"Features: {images} ({shards}){rest}."


@dataclass(frozen=True)
class Status:
    """How far a run is.

    images_per_s, left_s: None if too little is committed to tell. last_commit_s: seconds since the last commit, None
    before the first. failures: number of images by (status, reason), over `failures_of` shards with failures.
    only_features: the output has no masks, and all of this is about its features. features: None if it keeps none,
    or nothing else.
    """

    totals: Totals
    finished: bool
    images_per_s: float | None
    left_s: float | None
    last_commit_s: float | None
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures_of: int = 0
    only_features: bool = False
    features: FeatureStatus | None = None


def status(storage: Storage) -> Status:
    """How far a run is, while it runs or later. Raises FileNotFoundError if no run was begun."""
    alone = only_features(require_run(storage))
    manifest = features_manifest(storage) if alone else Manifest(storage)
    done = manifest.committed()
    totals = manifest.totals()
    times = _CommitTimes.of(manifest.commits, done)
    rate = _rate(manifest.commits, done, times)
    left = totals.planned - totals.labelled - totals.failed
    failures, failures_of = _failures(manifest, done)
    return Status(
        totals,
        finished=0 < totals.shards == totals.committed and (alone or manifest.has_class_stats()),
        images_per_s=rate,
        left_s=left / rate if rate else None,
        last_commit_s=max(time.time() - times.last_s, 0) if times.last_s is not None else None,
        failures=failures,
        failures_of=failures_of,
        only_features=alone,
        features=None if alone else _features(storage, done),
    )


def _features(storage: Storage, labelled: Done) -> FeatureStatus | None:
    if not features_of(storage).exists(FEATURES):
        return None
    manifest = features_manifest(storage)
    done = manifest.committed()
    return FeatureStatus(manifest.totals(), behind=any(shard not in done for shard in labelled))


@dataclass(frozen=True)
class _CommitTimes:
    """When commits were written, in seconds, in order: with the shards of loose commits and the blocks of segments."""

    loose: list[tuple[int, int]]
    segments: list[tuple[int, int]]
    last_s: int | None

    @classmethod
    def of(cls, storage: Storage, done: Done) -> _CommitTimes:
        entries = list(storage.list(COMMITS_FOLDER))
        loose = sorted(
            (entry.modified_s, shard) for entry in entries if (shard := parse_commit_key(entry.key)) is not None
        )
        segments = sorted(
            (entry.modified_s, block) for entry in entries if (block := parse_segment_key(entry.key)) is not None
        )
        last_s = max((time_s for time_s, _ in [*loose[-1:], *segments[-1:]]), default=None)
        return cls([(time_s, shard) for time_s, shard in loose if shard in done.loose], segments, last_s)


def _rate(storage: Storage, done: Done, times: _CommitTimes) -> float | None:
    """Images per second of late. If there are too few loose commits, it comes from segments, which are coarser."""
    loose = times.loose[-_RATE_COMMITS:]
    loose = [(time_s, shard) for time_s, shard in loose if time_s >= loose[-1][0] - RATE_WINDOW_S]
    if len(loose) > 1 and loose[-1][0] > loose[0][0]:
        after_first = [shard for time_s, shard in loose if time_s > loose[0][0]]
        images = sum(commit.images for commit in read_commits(storage, done, after_first))
        return images / (loose[-1][0] - loose[0][0])
    for (before_s, _), (after_s, block) in pairwise(times.segments[-2:]):
        if after_s > before_s:
            return read_sums(storage, block).images / (after_s - before_s)
    return None


def _failures(manifest: Manifest, done: Done) -> tuple[Counter[tuple[str, str]], int]:
    counts: Counter[tuple[str, str]] = Counter()
    dead = manifest.plan.dead()
    read = 0
    for commit in islice(_failed(manifest.commits, done), MAX_FAILURE_FILES):
        read += 1
        for row in read_table(manifest.commits, commit, "failures").to_pylist():
            if row["uri"] not in dead.get(commit.shard, ()):
                counts[row["status"], row["reason"]] += 1
    return counts, read


def _failed(storage: Storage, done: Done) -> Iterator[Commit]:
    """The commits with failed images: first the loose ones, then those in segments, the last segment first."""
    yield from (commit for commit in read_commits(storage, done, done.loose) if commit.failed)
    for block in sorted(done.segments, reverse=True):
        if read_sums(storage, block).failed:
            only = Done(frozenset([block]), frozenset(), frozenset())
            yield from (commit for commit in read_commits(storage, only) if commit.failed)
